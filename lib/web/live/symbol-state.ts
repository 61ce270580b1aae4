// What the live view keeps of one symbol: its last trade, the first of that day, and its last minutes. Each function
// changes one of them by one row, and notes the version of the view with which it changed.

import type { CandleRow } from "../../model/aggregates.ts";
import { isLater } from "../../model/last-trade.ts";
import { DAY_MS, type TradeRow } from "../../model/trade.ts";
import { type Line, newLine } from "./line.ts";

/** The first trade of a UTC day; of a candle only its minute and its open are known. */
type First = Readonly<{ dayMs: number; atMs: number; uuid: string; price: number }>;

export type SymbolState = {
  last: TradeRow | null;
  lastVersion: number;
  first: First | null;
  firstVersion: number;
  /** Null: there are so many symbols that this one has none. */
  readonly line: Line | null;
};

export function newSymbolState(hasLine: boolean): SymbolState {
  const line = hasLine ? newLine() : null;
  return { last: null, lastVersion: 0, first: null, firstVersion: 0, line };
}

export function noteLast(state: SymbolState, row: TradeRow, version: number): void {
  if (state.last !== null && !isLater(row, state.last)) return;
  state.last = row;
  state.lastVersion = version;
}

export function noteFirst(state: SymbolState, row: TradeRow, version: number): void {
  const { trade_timestamp: atMs, uuid, price } = row;
  const { first } = state;
  if (first !== null) {
    if (atMs > first.atMs && atMs - first.dayMs < DAY_MS) return; // Nearly always.
    if (atMs < first.dayMs || (atMs === first.atMs && uuid >= first.uuid)) return;
  }
  state.first = { dayMs: atMs - (atMs % DAY_MS), atMs, uuid, price };
  state.firstVersion = version;
}

/** The open of the day's first candle, unless an earlier trade of the day, or a later day, is known. */
export function restoreFirst(state: SymbolState, candle: CandleRow, dayMs: number, version: number): void {
  const { window_start: atMs, open: price } = candle;
  const { first } = state;
  if (first !== null && (first.dayMs > dayMs || (first.dayMs === dayMs && first.atMs < atMs))) return;
  if (first?.atMs === atMs && first.price === price) return;
  state.first = { dayMs, atMs, uuid: "", price };
  state.firstVersion = version;
}
