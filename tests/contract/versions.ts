// Histories of one window, on every store: what was deleted by hand, forced, replayed or put by a command beside a
// processor, a later trade stands in the window all the same. The windows are written by the loops' own code.

import { afterAll, expect, test } from "bun:test";
import { type Clock, systemClock } from "../../lib/base/clock.ts";
import { silentLogger } from "../../lib/base/logger.ts";
import { createMetrics } from "../../lib/base/metrics.ts";
import { replayWindows } from "../../lib/commands/replay.ts";
import { verifyWindows } from "../../lib/commands/verify.ts";
import type { StoreMender, StoreReader, StoreWriter } from "../../lib/contracts/store.ts";
import { addTrade, newPane } from "../../lib/model/panes.ts";
import { HOUR_MS, type TradeRow } from "../../lib/model/trade.ts";
import { windowRow } from "../../lib/model/windows.ts";
import { PartitionState } from "../../lib/processing/partition-state.ts";
import { writeWindows } from "../../lib/processing/write-windows.ts";
import { NOON_MS } from "../support/builders.ts";
import { putTrades, rowOf } from "./store.ts";

type Store = StoreWriter & StoreReader & StoreMender;

export interface OpenTables extends AsyncDisposable {
  readonly store: Store;
  /** As an operator does it, with the store's own shell. */
  deleteTrade(row: TradeRow): Promise<void>;
}

/** An hour later: no process holds the window in memory, and a repair may be forced. */
const CLOCK: Clock = { ...systemClock, now: () => NOON_MS + HOUR_MS, sleep: async () => {} };
const ALL = { fromMs: NOON_MS - HOUR_MS, toMs: NOON_MS + HOUR_MS };
const deps = { clock: CLOCK, logger: silentLogger, signal: new AbortController().signal, retentionDays: 30 };

/** What query 2 does with these rows; `afterMs`: memory answers for the panes behind it. */
function processorOf(store: Store, afterMs = Number.POSITIVE_INFINITY) {
  const partition = new PartitionState(0, { maxTradeMs: afterMs, receivedSinceMs: null });
  const metrics = createMetrics();
  let offset = 0;
  return async (...rows: TradeRow[]) => {
    await putTrades(store, rows);
    for (const row of rows) {
      const inFlight = partition.tracker.open(++offset, row.ingest_timestamp, 1);
      partition.acknowledgeRow({ row, inFlight, isResend: false }, CLOCK.now());
    }
    const { windows } = partition.drainDirty();
    await writeWindows(
      { ...deps, store, metrics },
      partition,
      windows,
      () => true,
      () => {},
    );
  };
}

export function versionContract(
  name: string,
  { open, timeoutMs }: Readonly<{ open: () => Promise<OpenTables>; timeoutMs: number }>,
): void {
  let opened: Promise<OpenTables> | null = null;
  afterAll(async () => (await opened)?.[Symbol.asyncDispose](), timeoutMs);

  const history = (title: string, run: (past: History) => Promise<void>) =>
    test(
      `${name}: ${title}`,
      async () => {
        opened ??= open();
        const past = new History(await opened);
        await run(past);
        expect((await past.verify("nothing")).differences).toBe(0);
      },
      timeoutMs,
    );

  for (const isRemembered of [true, false]) {
    const by = isRemembered ? "the process that remembers it" : "another process";
    history(`a late trade counts after a bad one was deleted by force, written by ${by}`, async (past) => {
      const first = processorOf(past.store, NOON_MS - HOUR_MS);
      await first(past.ten, past.bad, past.eleven);
      expect(await past.candle()).toEqual({ h: 999, c: 11, count: 3 });
      await past.delete(past.bad);
      expect((await past.verify("force")).repaired).toBeGreaterThan(0);
      expect(await past.candle()).toEqual({ h: 11, c: 11, count: 2 });
      await (isRemembered ? first : processorOf(past.store))(past.late);
      expect(await past.candle()).toEqual({ h: 12.5, c: 12.5, count: 3 });
    });
  }

  history("a window that was removed by force comes back with the next trade", async (past) => {
    await processorOf(past.store)(past.ten, past.bad);
    for (const row of [past.ten, past.bad]) await past.delete(row);
    await past.verify("force");
    expect(await past.candle()).toBeNull();
    await processorOf(past.store)(past.late);
    expect(await past.candle()).toEqual({ h: 12.5, c: 12.5, count: 1 });
  });

  history("forced again and again, each late trade counts", async (past) => {
    await processorOf(past.store)(past.ten, past.eleven);
    for (let turn = 0; turn < 3; turn++) {
      await processorOf(past.store)(past.bad);
      await past.delete(past.bad);
      await past.verify("force");
      expect(await past.candle()).toEqual({ h: 11, c: 11, count: 2 });
    }
    await processorOf(past.store)(past.late);
    expect(await past.candle()).toEqual({ h: 12.5, c: 12.5, count: 3 });
  });

  history("as many trades as before, but others: the row is whole, and that of the table", async (past) => {
    await processorOf(past.store)(past.ten, past.bad, past.eleven);
    await past.delete(past.bad);
    await processorOf(past.store)(past.late);
    expect(await past.candle()).toEqual({ h: 12.5, c: 12.5, count: 3 });
    await past.verify("force"); // The windows that the late trade is not in.
  });

  history("what a paused process wrote before the repair changes nothing when it arrives", async (past) => {
    await processorOf(past.store)(past.ten, past.bad, past.eleven);
    await past.delete(past.bad);
    await past.verify("force");
    const pane = newPane();
    for (const row of [past.ten, past.bad, past.eleven]) addTrade(pane, row);
    const window = { kind: "candle", symbol: past.symbol, startMs: NOON_MS } as const;
    await past.store.putWindows([windowRow(window, [pane])!]);
    expect(await past.candle()).toEqual({ h: 11, c: 11, count: 2 });
  });

  history("a trade that a command stored is counted by a processor that began before it", async (past) => {
    // Its commit knows no trade after noon, so its memory answers for the window.
    const processor = processorOf(past.store, NOON_MS - 1);
    await putTrades(past.store, [past.ten]);
    const range = { fromMs: 0, toMs: CLOCK.now() };
    await replayWindows({ ...deps, store: past.store }, pageOf(past.ten), range);
    expect(await past.candle()).toEqual({ h: 10, c: 10, count: 1 });
    await processor(past.eleven);
    expect(await past.candle()).toEqual({ h: 11, c: 11, count: 2 });
    await processor(past.late);
    expect(await past.candle()).toEqual({ h: 12.5, c: 12.5, count: 3 });
  });
}

let symbolCount = 0;

/** Four trades of a symbol of its own, and what is done to them. */
class History {
  readonly symbol = `HISTORY${symbolCount++}`;
  readonly ten = this.#at(10, 1);
  readonly bad = this.#at(999, 2);
  readonly eleven = this.#at(11, 3);
  readonly late = this.#at(12.5, 4);
  readonly #tables: OpenTables;

  constructor(tables: OpenTables) {
    this.#tables = tables;
  }

  get store(): Store {
    return this.#tables.store;
  }

  #at(price: number, second: number): TradeRow {
    return rowOf(second, { symbol: this.symbol, price, volume: 1, tradedAtMs: NOON_MS + second * 1_000 });
  }

  delete(row: TradeRow): Promise<void> {
    return this.#tables.deleteTrade(row);
  }

  verify(repair: "nothing" | "force") {
    const report = { expires: "rows" as const, onDifference() {}, onSkipped() {} };
    const { store, symbol } = this;
    return verifyWindows({ ...deps, ...report, store, symbol, range: ALL, repair, isLive: true });
  }

  /** The candle of noon: high, close, count. */
  async candle(): Promise<unknown> {
    const [row] = await this.store.listCandles({ symbol: this.symbol, range: ALL, limit: 1 });
    return row === undefined ? null : { h: row.high, c: row.close, count: row.trade_count };
  }
}

async function* pageOf(row: TradeRow) {
  yield [row];
}
