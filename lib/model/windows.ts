// Which windows a pane belongs to, and the row of a window from its panes. A 15-second running average is three
// panes, one every 5 seconds; a 1-minute candle is twelve. All intervals are half-open, [start, end).

import {
  AGGREGATES,
  type AverageRow,
  aggregateOf,
  type CandleRow,
  SHAPES,
  type WindowKind,
  type WindowRow,
} from "./aggregates.ts";
import { quotient, rounded } from "./exact-sum.ts";
import { mergePane, newPane, PANE_MS, type Pane } from "./panes.ts";
import { dayOf, hourOf } from "./trade.ts";

/** One window of one symbol, named by its start. */
export type Window = Readonly<{ kind: WindowKind; symbol: string; startMs: number }>;

/** Every window that a pane is part of, of each aggregate the oldest first. */
export function windowsOfPane(symbol: string, paneStartMs: number): readonly Window[] {
  const windows: Window[] = [];
  for (const { kind, widthMs, stepMs } of AGGREGATES) {
    const lastMs = paneStartMs - (paneStartMs % stepMs);
    for (let startMs = lastMs - widthMs + stepMs; startMs <= lastMs; startMs += stepMs)
      windows.push({ kind, symbol, startMs });
  }
  return windows;
}

/** The starts of a window's panes, oldest first. */
export function panesOfWindow({ kind, startMs }: Window): readonly number[] {
  const starts: number[] = [];
  const endMs = startMs + aggregateOf(kind).widthMs;
  for (let start = startMs; start < endMs; start += PANE_MS) starts.push(start);
  return starts;
}

export function windowEndMs({ kind, startMs }: Window): number {
  return startMs + aggregateOf(kind).widthMs;
}

/** The time that a window's row is stored under. */
export function storedAtMs(window: Window): number {
  return SHAPES[aggregateOf(window.kind).shape].time === "window_end" ? windowEndMs(window) : window.startMs;
}

/** The time that a row is stored under. */
export function timeOfRow({ row }: WindowRow): number {
  return "window_end" in row ? row.window_end : row.window_start;
}

/** The window of a row. */
export function windowOf(stored: WindowRow): Window {
  const { kind, row } = stored;
  const startMs = "window_end" in row ? row.window_end - aggregateOf(kind).widthMs : row.window_start;
  return { kind, symbol: row.symbol, startMs };
}

/** The whole row of a window, or null when nothing was traded in it: an empty window has no row. */
export function windowRow(window: Window, panes: readonly Pane[]): WindowRow | null {
  const all = newPane();
  for (const pane of panes) mergePane(all, pane);
  if (all.count === 0) return null;
  const { symbol, startMs } = window;
  const aggregate = aggregateOf(window.kind);
  return aggregate.shape === "average"
    ? { kind: aggregate.kind, row: averageRow(symbol, startMs + aggregate.widthMs, all) }
    : { kind: aggregate.kind, row: candleRow(symbol, startMs, all) };
}

/** Each average is the exact rational number, rounded once: one price gives that price, and low <= vwap <= high. */
function averageRow(symbol: string, endMs: number, { count, pv, p, v }: Pane): AverageRow {
  const volume = rounded(v);
  return {
    symbol,
    hour: hourOf(endMs),
    window_end: endMs,
    price_volume_multiply: quotient(pv, [count]),
    average_price: quotient(p, [count]),
    vwap: volume === 0 ? null : quotient(pv, v),
    volume,
    trade_count: count,
  };
}

function candleRow(
  symbol: string,
  startMs: number,
  { count, pv, v, open, high, low, close }: Pane,
): CandleRow {
  const volume = rounded(v);
  return {
    symbol,
    day: dayOf(startMs),
    window_start: startMs,
    open,
    high,
    low,
    close,
    volume,
    price_volume_sum: rounded(pv),
    vwap: volume === 0 ? null : quotient(pv, v),
    trade_count: count,
  };
}

/** Above 2 x the trades of any window, and so much that a million generations stay exact in a double. */
const GENERATION_STEP = 2 ** 32;
/**
 * The write timestamp of an aggregate row, microseconds: window end + generation x 2^32 + 2 x trade_count. Within one
 * generation trades are only added, so of two rows the one that counts more is the truer. A forced repair begins the next
 * generation, because rows were deleted or were wrong. Odd numbers are those of forced repairs of older releases.
 */
export function windowVersion(stored: WindowRow, generation = 0): number {
  return versionAt(windowOf(stored), generation, stored.row.trade_count);
}

export function versionAt(window: Window, generation: number, tradeCount: number): number {
  return windowEndMs(window) * 1_000 + generation * GENERATION_STEP + 2 * tradeCount;
}

/** The lowest generation in which every trade more stands above what was written at this version. */
export function generationOf(window: Window, version: number): number {
  const above = version - versionAt(window, 0, 0);
  const generation = Math.max(0, Math.floor(above / GENERATION_STEP));
  return version % 2 === 0 ? generation : generation + 1;
}
