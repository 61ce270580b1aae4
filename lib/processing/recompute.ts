// Windows computed from the trades table alone, as if no process had ever remembered anything. A verification compares
// with them, a replay writes them. This file writes nothing.

import { type Clock, createYielder } from "../base/clock.ts";
import type { StoreWriter, TimeRange } from "../contracts/store.ts";
import { WINDOW_WIDTH_MS_MAX, type WindowRow } from "../model/aggregates.ts";
import { addTrade, newPane, type Pane, paneStart } from "../model/panes.ts";
import { HOUR_MS } from "../model/trade.ts";
import { panesOfWindow, type Window, windowEndMs, windowRow, windowsOfPane } from "../model/windows.ts";

export type Trades = Pick<StoreWriter, "scanTrades">;

/** Every pane that holds a trade of the symbol in [fromMs, toMs), by its start. About 600 bytes each. */
export async function readPanes(
  store: Trades,
  clock: Clock,
  symbol: string,
  range: TimeRange,
): Promise<Map<number, Pane>> {
  const panes = new Map<number, Pane>();
  const yieldIfDue = createYielder(clock);
  for await (const rows of store.scanTrades(symbol, range)) {
    for (const row of rows) {
      const startMs = paneStart(row.trade_timestamp);
      let pane = panes.get(startMs);
      if (pane === undefined) {
        pane = newPane();
        panes.set(startMs, pane);
      }
      addTrade(pane, row);
    }
    await yieldIfDue();
  }
  return panes;
}

/** The row of a window from panes that cover all of it; null when the window holds no trade. */
export function rowFromPanes(window: Window, panes: ReadonlyMap<number, Pane>): WindowRow | null {
  return windowRow(
    window,
    panesOfWindow(window).flatMap((startMs) => panes.get(startMs) ?? []),
  );
}

/** The row of one window, read from the table now. */
export async function recomputeWindow(
  store: Trades,
  clock: Clock,
  window: Window,
): Promise<WindowRow | null> {
  const range = { fromMs: window.startMs, toMs: windowEndMs(window) };
  return rowFromPanes(window, await readPanes(store, clock, window.symbol, range));
}

/** Every window that one of these panes of a symbol is part of, in slices of about an hour. */
export async function* recomputeAround(
  store: Trades,
  clock: Clock,
  symbol: string,
  paneStarts: Iterable<number>,
): AsyncGenerator<WindowRow[]> {
  let run: number[] = [];
  for (const startMs of [...paneStarts].sort((a, b) => a - b)) {
    const [first, last] = [run[0] ?? startMs, run.at(-1) ?? startMs];
    // Panes near each other are read together, since their windows share panes.
    if (startMs - last > WINDOW_WIDTH_MS_MAX || startMs - first >= HOUR_MS) {
      yield await recomputeRun(store, clock, symbol, run);
      run = [];
    }
    run.push(startMs);
  }
  if (run.length > 0) yield await recomputeRun(store, clock, symbol, run);
}

async function recomputeRun(
  store: Trades,
  clock: Clock,
  symbol: string,
  run: readonly number[],
): Promise<WindowRow[]> {
  const windows = new Map<string, Window>();
  let [fromMs, toMs] = [Number.POSITIVE_INFINITY, 0];
  for (const startMs of run) {
    for (const window of windowsOfPane(symbol, startMs)) {
      windows.set(`${window.kind} ${window.startMs}`, window);
      fromMs = Math.min(fromMs, window.startMs);
      toMs = Math.max(toMs, windowEndMs(window));
    }
  }
  const panes = await readPanes(store, clock, symbol, { fromMs, toMs });
  return [...windows.values()].flatMap((window) => rowFromPanes(window, panes) ?? []);
}
