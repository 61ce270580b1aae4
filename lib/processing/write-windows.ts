// Computes and writes the rows of dirty windows: from memory where memory may answer, from the trades table where it
// may not. Rows are written at versions that let the fuller row of a generation win. It commits nothing.

import { type Clock, createYielder } from "../base/clock.ts";
import { RowRefusedError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { StoreWriter } from "../contracts/store.ts";
import { AGGREGATES, type WindowRow } from "../model/aggregates.ts";
import { addTrade, newPane, PANE_MS, type Pane } from "../model/panes.ts";
import { panesOfWindow, type Window, windowRow } from "../model/windows.ts";
import { type MadeRow, putOverGenerations } from "./late-windows.ts";
import { type PartitionState, paneKey } from "./partition-state.ts";

type WriteWindowsDeps = Readonly<{
  store: StoreWriter;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}>;

/** Windows per put: about 2 ms of an embedded store. */
const WINDOWS_PER_PUT_MAX = 500;

/**
 * Writes the windows of one flush, slice by slice. `onWritten` is called with how many of them are stored so far.
 * Rejects with the store's error; the windows that are not written must then be marked dirty again. Stops early when
 * `isWanted` answers false.
 */
export async function writeWindows(
  { store, clock, logger, metrics }: WriteWindowsDeps,
  partition: PartitionState,
  windows: readonly Window[],
  isWanted: () => boolean,
  onWritten: (count: number) => void,
): Promise<void> {
  /** What this flush has read. Each pane has every row that was acknowledged before the flush's drain. */
  const readNow = new Map<string, Pane>();
  const yieldIfDue = createYielder(clock);
  for (let index = 0; index < windows.length && isWanted(); index += WINDOWS_PER_PUT_MAX) {
    const slice = windows.slice(index, index + WINDOWS_PER_PUT_MAX);
    const rows: MadeRow[] = [];
    for (const window of slice) {
      const row = await rowOf(window);
      if (row !== null) rows.push({ row, from: sourceOf(window) });
      await yieldIfDue();
    }
    if (!isWanted()) return;
    await putAll(rows);
    onWritten(index + slice.length);
  }

  async function rowOf(window: Window): Promise<WindowRow | null> {
    for (;;) {
      // Classified again after every wait: a pane that was in memory may have been dropped meanwhile.
      const { panes, missing } = partition.panesOf(window, readNow);
      if (missing.length === 0) return windowRow(window, panes);
      for (const startMs of missing) {
        readNow.set(paneKey(window.symbol, startMs), await readPane(window.symbol, startMs));
      }
    }
  }

  /** What an earlier flush has read counts as memory: others may have put trades since. */
  function sourceOf(window: Window): MadeRow["from"] {
    if (readNow.size === 0) return "memory";
    const starts = panesOfWindow(window);
    const readCount = starts.filter((startMs) => readNow.has(paneKey(window.symbol, startMs))).length;
    if (readCount === 0) return "memory";
    return readCount === starts.length ? "table" : "partly";
  }

  async function readPane(symbol: string, startMs: number): Promise<Pane> {
    const read = partition.beginRead(symbol, startMs);
    const pane = newPane();
    for await (const rows of store.scanTrades(symbol, { fromMs: startMs, toMs: startMs + PANE_MS })) {
      for (const row of rows) addTrade(pane, row);
    }
    partition.endRead(symbol, startMs, read, pane);
    metrics.panesReadTotal.inc();
    return pane;
  }

  async function putAll(made: readonly MadeRow[]): Promise<void> {
    // A clock that was set back must not take a late window for a fresh one.
    const nowMs = Math.max(clock.now(), partition.newestReceiptMs);
    try {
      await putOverGenerations({ store, clock }, made, nowMs, (inPlace) => store.putWindows(inPlace));
    } catch (error) {
      if (!(error instanceof RowRefusedError)) throw error;
      if (made.length > 1) {
        for (const one of made) await putAll([one]);
        return;
      }
      // A retry would be refused for ever and block every commit: it is logged, counted and left to `verify`.
      metrics.refusedForGoodTotal.inc({ kind: "window" });
      logger.error("the store refuses an aggregate for good", { error, window: made[0]?.row });
      return;
    }
    for (const { kind } of AGGREGATES) {
      const count = made.filter(({ row }) => row.kind === kind).length;
      metrics.windowsWrittenTotal.inc({ kind }, count);
    }
  }
}
