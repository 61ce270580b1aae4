// The unit of aggregation: 5 seconds of one symbol by event time. A pane's sums are exact and its open and
// close follow (trade_timestamp, uuid), so the order in which trades come leaves no trace; panes merge
// into windows. What counts in a window is decided in addTrade alone. Reads no clock, does no I/O, knows nothing of what is stored.

import { AGGREGATES } from "./aggregates.ts";
import { addExactly, addProduct, type ExactSum } from "./exact-sum.ts";
import { HOUR_MS } from "./trade.ts";

/**
 * The longest that every window is made of in whole: 5 s, with the aggregates there are. It divides the hour, as every step
 * does, so a pane lies in exactly one hour and thus in one partition of `trades`. A window that is no longer in memory
 * costs a read of the store for each of its panes: shorter panes make a replay of old trades slower.
 */
export const PANE_MS = AGGREGATES.reduce((common, { stepMs }) => commonDivisor(common, stepMs), HOUR_MS);

function commonDivisor(one: number, other: number): number {
  return other === 0 ? one : commonDivisor(other, one % other);
}

/** What a pane needs of a row of `trades`. */
type PaneTrade = Readonly<{ trade_timestamp: number; uuid: string; price: number; volume: number }>;

export type Pane = {
  count: number;
  pv: ExactSum;
  p: ExactSum;
  v: ExactSum;
  high: number;
  low: number;
  open: number;
  openAtMs: number;
  openUuid: string;
  close: number;
  closeAtMs: number;
  closeUuid: string;
};

export function paneStart(timeMs: number): number {
  return timeMs - (timeMs % PANE_MS);
}

export function newPane(): Pane {
  return {
    count: 0,
    pv: [],
    p: [],
    v: [],
    high: Number.NEGATIVE_INFINITY,
    low: Number.POSITIVE_INFINITY,
    open: Number.NaN,
    openAtMs: Number.POSITIVE_INFINITY,
    openUuid: "",
    close: Number.NaN,
    closeAtMs: Number.NEGATIVE_INFINITY,
    closeUuid: "",
  };
}

/** Adds a trade. The caller must add each trade once. */
export function addTrade(pane: Pane, { trade_timestamp: atMs, uuid, price, volume }: PaneTrade): void {
  pane.count += 1;
  addProduct(pane.pv, price, volume);
  addExactly(pane.p, price);
  addExactly(pane.v, volume);
  if (price > pane.high) pane.high = price;
  if (price < pane.low) pane.low = price;
  if (comesBefore(atMs, uuid, pane.openAtMs, pane.openUuid)) {
    pane.open = price;
    pane.openAtMs = atMs;
    pane.openUuid = uuid;
  }
  if (comesBefore(pane.closeAtMs, pane.closeUuid, atMs, uuid)) {
    pane.close = price;
    pane.closeAtMs = atMs;
    pane.closeUuid = uuid;
  }
}

/** Adds all of `from` to `into`; `from` stays as it was. */
export function mergePane(into: Pane, from: Pane): void {
  if (from.count === 0) return;
  into.count += from.count;
  for (const part of from.pv) addExactly(into.pv, part);
  for (const part of from.p) addExactly(into.p, part);
  for (const part of from.v) addExactly(into.v, part);
  if (from.high > into.high) into.high = from.high;
  if (from.low < into.low) into.low = from.low;
  if (comesBefore(from.openAtMs, from.openUuid, into.openAtMs, into.openUuid)) {
    into.open = from.open;
    into.openAtMs = from.openAtMs;
    into.openUuid = from.openUuid;
  }
  if (comesBefore(into.closeAtMs, into.closeUuid, from.closeAtMs, from.closeUuid)) {
    into.close = from.close;
    into.closeAtMs = from.closeAtMs;
    into.closeUuid = from.closeUuid;
  }
}

/** By time, then by UUID, whose text order is its order. */
function comesBefore(atMs: number, uuid: string, otherAtMs: number, otherUuid: string): boolean {
  return atMs === otherAtMs ? uuid < otherUuid : atMs < otherAtMs;
}
