// Which windows a pane belongs to, and the row of a window from its panes. A 15-second running average is three
// panes, one every 5 seconds; a 1-minute candle is twelve. All intervals are half-open, [start, end).

import type { WindowRow } from "./aggregates.ts";
import { mergePane, newPane, PANE_MS, type Pane, rounded } from "./panes.ts";
import { dayOf, hourOf } from "./trade.ts";

export type WindowKind = "average" | "candle";

/** One window of one symbol, named by its start. */
export type Window = Readonly<{ kind: WindowKind; symbol: string; startMs: number }>;

export const WINDOW_MS: Readonly<Record<WindowKind, number>> = { average: 15_000, candle: 60_000 };

/** Every window that a pane is part of: three averages and one candle. */
export function windowsOfPane(symbol: string, paneStartMs: number): readonly Window[] {
  return [
    { kind: "average", symbol, startMs: paneStartMs - 2 * PANE_MS },
    { kind: "average", symbol, startMs: paneStartMs - PANE_MS },
    { kind: "average", symbol, startMs: paneStartMs },
    { kind: "candle", symbol, startMs: paneStartMs - (paneStartMs % WINDOW_MS.candle) },
  ];
}

/** The starts of a window's panes, oldest first. */
export function panesOfWindow({ kind, startMs }: Window): readonly number[] {
  const starts: number[] = [];
  for (let start = startMs; start < startMs + WINDOW_MS[kind]; start += PANE_MS) starts.push(start);
  return starts;
}

/** The whole row of a window, or null when nothing was traded in it: an empty window has no row. */
export function windowRow(window: Window, panes: readonly Pane[]): WindowRow | null {
  const all = newPane();
  for (const pane of panes) mergePane(all, pane);
  if (all.count === 0) return null;
  const { symbol, startMs } = window;
  const [pv, p, v] = [rounded(all.pv), rounded(all.p), rounded(all.v)];
  const vwap = v === 0 ? null : pv / v;
  if (window.kind === "average") {
    const endMs = startMs + WINDOW_MS.average;
    return {
      kind: "average",
      row: {
        symbol,
        hour: hourOf(endMs),
        window_end: endMs,
        price_volume_multiply: pv / all.count,
        average_price: p / all.count,
        vwap,
        volume: v,
        trade_count: all.count,
      },
    };
  }
  const { open, high, low, close } = all;
  return {
    kind: "candle",
    row: {
      symbol,
      day: dayOf(startMs),
      window_start: startMs,
      open,
      high,
      low,
      close,
      volume: v,
      price_volume_sum: pv,
      vwap,
      trade_count: all.count,
    },
  };
}

/**
 * The write timestamp of an aggregate row, microseconds: window end + 2 x trade_count. Rows are never deleted,
 * so of two versions of a window the one that counts more is the truer; the odd numbers belong to repairs.
 */
export function windowVersion(window: WindowRow): number {
  const endMs =
    window.kind === "average" ? window.row.window_end : window.row.window_start + WINDOW_MS.candle;
  return endMs * 1_000 + 2 * window.row.trade_count;
}
