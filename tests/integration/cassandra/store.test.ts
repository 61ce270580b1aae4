// The store on Cassandra: the contracts on a real node, and what is this adapter's own: rows live as long as is left of
// their time, nothing is left unset that a version must win, a list asks few hours, and pressure slows down and loses
// nothing, down to a node that stands still.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { backoffMs, type Clock, systemClock } from "../../../lib/base/clock.ts";
import {
  RowRefusedError,
  SetupError,
  StoreOverloadedError,
  StoreUnavailableError,
} from "../../../lib/base/errors.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type { Cassandra, Statement } from "../../../lib/cassandra/client.ts";
import { type CassandraStore, openCassandraStore } from "../../../lib/cassandra/store.ts";
import { AGGREGATES, SHAPES } from "../../../lib/model/aggregates.ts";
import { DAY_MS, HOUR_MS, type TradeRow } from "../../../lib/model/trade.ts";
import { windowVersion } from "../../../lib/model/windows.ts";
import {
  average,
  candle,
  event,
  menderContract,
  newestFirst,
  putTrades,
  rowOf,
  scanAll,
  storeContract,
} from "../../contract/store.ts";
import { versionContract } from "../../contract/versions.ts";
import { NOON_MS } from "../../support/builders.ts";
import {
  connectTo,
  keyspaceWithTables,
  openTestStore,
  RETENTION_DAYS,
  SOON_AFTER_NOON,
} from "../../support/cassandra.ts";
import { counted } from "../../support/feed.ts";
import { startCassandra } from "../../support/services/cassandra.ts";
import type { Address, Server } from "../../support/services/server.ts";
import { services, sharedCassandra } from "../../support/services/shared.ts";

const TIMEOUT_MS = 60_000;
const DAY_S = 86_400;
const EVER = { fromMs: Date.UTC(2000), toMs: Date.UTC(2100) };

function clockAt(nowMs: number): Clock {
  return { ...systemClock, now: () => nowMs };
}

describe.skipIf(!services.available)("on a real node", () => {
  let node: Address;
  beforeAll(async () => {
    node = await sharedCassandra();
  }, 120_000);

  storeContract("cassandra", {
    scanPageRows: 5_000,
    refusedTrade: (good) => ({ ...good, price: Number.NaN }),
    timeoutMs: TIMEOUT_MS,
    open: () => openTestStore(node),
  });
  menderContract("cassandra", {
    scanPageRows: 900,
    timeoutMs: TIMEOUT_MS,
    open: () => openTestStore(node),
  });
  versionContract("cassandra", {
    timeoutMs: TIMEOUT_MS,
    async open() {
      const open = await openTestStore(node, clockAt(NOON_MS));
      const { cassandra, name } = open.keyspace;
      return {
        store: open.store,
        async deleteTrade({ symbol, hour, trade_timestamp, uuid }) {
          const where = "symbol = ? AND hour = ? AND trade_timestamp = ? AND uuid = ?";
          const key = [symbol, hour, trade_timestamp, uuid];
          await cassandra.execute(`DELETE FROM ${name}.trades WHERE ${where}`, key);
        },
        [Symbol.asyncDispose]: () => open[Symbol.asyncDispose](),
      };
    },
  });

  // --- How long rows live ----------------------------------------------------------------------------------------

  test(
    "a row lives from its receipt on: fresh ones as the table says, a replayed one as long as is left",
    async () => {
      await using open = await openTestStore(node, clockAt(NOON_MS));
      const { store, keyspace, metrics } = open;
      const lived = (ms: number) => rowOf(ms + 1, { tradedAtMs: NOON_MS - ms - 1 }, NOON_MS - ms);
      const ages = [0, HOUR_MS, HOUR_MS + 1, 10 * DAY_MS, 30 * DAY_MS - 5_500, 30 * DAY_MS - 60_000];
      const rows = ages.map(lived);
      await putTrades(store, rows);
      const query = `SELECT uuid, TTL(price) AS ttl FROM ${keyspace.name}.trades WHERE symbol = ? AND hour = ?`;
      const ttls = new Map<string, number>();
      for (const hour of new Set(rows.map((row) => row.hour))) {
        const found = await keyspace.cassandra.execute(query, ["AAPL", hour]);
        for (const row of found.rows) ttls.set(String(row.uuid), Number(row.ttl));
      }
      const due = [30 * DAY_S, 30 * DAY_S, 30 * DAY_S - 3_600, 20 * DAY_S, 6, 60];
      for (const [index, { uuid }] of rows.entries()) {
        const left = ttls.get(uuid) ?? Number.NaN;
        // The node counts down while the test looks.
        expect(left).toBeLessThanOrEqual(due[index]!);
        expect(left).toBeGreaterThan(due[index]! - 6);
      }
      expect(await counted(metrics.storeRowsExpiredTotal)).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "our clock may be weeks ahead: the node's time decides how long a row has to live, and its own where it was slow",
    async () => {
      const nowMs = Date.now();
      await using open = await openTestStore(node, clockAt(nowMs + 40 * DAY_MS));
      const { store, keyspace, metrics } = open;
      const receivedAtMs = nowMs - 2 * HOUR_MS;
      const rows = [
        rowOf(1, { tradedAtMs: receivedAtMs }, receivedAtMs),
        // Its receipt is of a clock that was slow by more than a row lives.
        rowOf(2, { tradedAtMs: receivedAtMs }, receivedAtMs - 40 * DAY_MS),
      ];
      await putTrades(store, rows);
      const query = `SELECT TTL(price) AS ttl FROM ${keyspace.name}.trades WHERE symbol = ? AND hour = ?`;
      const found = await keyspace.cassandra.execute(query, ["AAPL", rows[0]!.hour]);
      expect(found.rows.length).toBe(2);
      for (const { ttl } of found.rows)
        expect(Math.abs(Number(ttl) - (30 * DAY_S - 7_200))).toBeLessThan(120);
      expect(await counted(metrics.storeRowsExpiredTotal)).toBe(0);
    },
    TIMEOUT_MS,
  );

  test(
    "a replayed row whose time is over is not written, which is counted; its put succeeds",
    async () => {
      await using open = await openTestStore(node, clockAt(NOON_MS));
      const { store, metrics } = open;
      const old = [30 * DAY_MS, 30 * DAY_MS + 1, 400 * DAY_MS].map((ms, n) =>
        rowOf(n + 2, { tradedAtMs: NOON_MS - ms }, NOON_MS - ms),
      );
      const young = rowOf(1, {}, NOON_MS - 29 * DAY_MS);
      await putTrades(store, [...old, young]);
      await putTrades(store, old);
      expect(await scanAll(store, "AAPL", EVER)).toEqual([young]);
      await store.putEvents([event(1, { event_timestamp: NOON_MS - 31 * DAY_MS })]);
      expect(await store.listEvents({ range: EVER, limit: 9 })).toEqual([]);
      const { values } = await metrics.storeRowsExpiredTotal.get();
      expect(values.map(({ labels, value }) => [labels.table, value])).toEqual([
        ["trades", 6],
        ["feed_events", 1],
      ]);
    },
    TIMEOUT_MS,
  );

  test(
    "aggregates and what is left of their trades: the aggregates live longer",
    async () => {
      await using open = await openTestStore(node, clockAt(NOON_MS));
      const { store, keyspace } = open;
      await putTrades(store, [rowOf(1, {}, NOON_MS)]);
      await store.putWindows([average(), candle()]);
      const ttlOf = async (table: string) => {
        const { rows } = await keyspace.cassandra.execute(
          `SELECT TTL(volume) AS ttl FROM ${keyspace.name}.${table}`,
          [],
        );
        return Number(rows[0]?.ttl);
      };
      const trade = await ttlOf("trades");
      for (const table of ["running_averages_15_sec", "candles_1_min"]) {
        expect(await ttlOf(table)).toBeGreaterThan(trade + HOUR_MS / 1_000);
      }
    },
    TIMEOUT_MS,
  );

  test(
    "a table that keeps rows for ever keeps replayed ones too",
    async () => {
      await using open = await openTestStore(node, clockAt(NOON_MS));
      const { keyspace } = open;
      await keyspace.cassandra.define(`ALTER TABLE ${keyspace.name}.trades WITH default_time_to_live = 0`);
      await using store = await storeOn(keyspace.name, await connectTo(node));
      const old = rowOf(1, {}, NOON_MS - 400 * DAY_MS);
      await store.putTrades([old]);
      expect(await scanAll(store, "AAPL", EVER)).toEqual([old]);
    },
    TIMEOUT_MS,
  );

  function storeOn(keyspace: string, cassandra: Cassandra, clock = SOON_AFTER_NOON): Promise<CassandraStore> {
    return openCassandraStore({
      cassandra,
      keyspace,
      retentionDays: RETENTION_DAYS,
      clock,
      logger: silentLogger,
      metrics: createMetrics(),
      putDead: async () => {},
    });
  }

  // --- What is written -------------------------------------------------------------------------------------------

  test(
    "every column of an aggregate is written at its version, a vwap that is null too",
    async () => {
      await using open = await openTestStore(node);
      const { store, keyspace } = open;
      const values = {
        running_averages_15_sec: ["price_volume_multiply", "average_price", "vwap", "volume", "trade_count"],
        candles_1_min: ["open", "high", "low", "close", "volume", "price_volume_sum", "vwap", "trade_count"],
      };
      const windows = [average({ trade_count: 7 }), candle({ trade_count: 7 })];
      await store.putWindows(windows);
      for (const [index, [table, columns]] of Object.entries(values).entries()) {
        const asked = columns.map((column) => `WRITETIME(${column}) AS ${column}`).join(", ");
        const { rows } = await keyspace.cassandra.execute(
          `SELECT ${asked} FROM ${keyspace.name}.${table}`,
          [],
        );
        for (const column of columns) {
          expect(Number(rows[0]?.[column])).toBe(windowVersion(windows[index]!));
        }
      }
      // A poorer row that comes later, with a vwap: the null of the fuller one keeps it out.
      const full = [average({ trade_count: 9, vwap: null }), candle({ trade_count: 9, vwap: null })];
      await store.putWindows(full);
      await store.putWindows([average({ trade_count: 8, vwap: 5 }), candle({ trade_count: 8, vwap: 5 })]);
      const query = { symbol: "AAPL", range: EVER, limit: 9 };
      expect(await store.listAverages(query)).toEqual([full[0]!.row as never]);
      expect(await store.listCandles(query)).toEqual([full[1]!.row as never]);
    },
    TIMEOUT_MS,
  );

  test(
    "conditions that are null are left unset: no tombstone is written for them",
    async () => {
      await using open = await openTestStore(node);
      const { store } = open;
      const row = rowOf(1, { conditions: ["1"] });
      await store.putTrades([row]);
      // A null would delete what stands there; nobody writes this, it only shows the difference.
      await store.putTrades([{ ...row, trade_conditions: null }]);
      expect(await scanAll(store, "AAPL", EVER)).toEqual([row]);
    },
    TIMEOUT_MS,
  );

  test(
    "rows that are too large together are refused together, and each alone tells whether it is the one",
    async () => {
      await using open = await openTestStore(node);
      const { store } = open;
      const sized = (sequence: number, bytes: number): TradeRow => ({
        ...rowOf(sequence),
        trade_conditions: JSON.stringify(["x".repeat(bytes)]),
      });
      const large = [sized(1, 3_000_000), sized(2, 3_000_000), sized(3, 3_000_000)];
      const tooLarge = [sized(4, 9_000_000), sized(5, 17_000_000)];
      await expect(store.putTrades(large)).rejects.toBeInstanceOf(RowRefusedError);
      for (const row of large) await store.putTrades([row]);
      for (const row of tooLarge)
        await expect(store.putTrades([row])).rejects.toBeInstanceOf(RowRefusedError);
      expect(newestFirst(await scanAll(store, "AAPL", EVER))).toEqual(newestFirst(large));
    },
    TIMEOUT_MS,
  );

  test(
    "what the driver would store as something else, or break on, is refused",
    async () => {
      await using open = await openTestStore(node);
      const { store } = open;
      const bad: Partial<TradeRow>[] = [
        { price: Number.NaN },
        { volume: Number.POSITIVE_INFINITY },
        { trade_timestamp: Number.NaN },
        { trade_timestamp: NOON_MS + 0.5 },
        { ingest_timestamp: Number.NaN },
        { uuid: "not a uuid" },
        { symbol: "é".repeat(40_000) },
      ];
      for (const fields of bad) {
        const put = store.putTrades([{ ...rowOf(1), ...fields }]);
        await expect(put).rejects.toBeInstanceOf(RowRefusedError);
      }
      expect(await store.isEmpty()).toBe(true);
    },
    TIMEOUT_MS,
  );

  test(
    "a store is not opened on tables that are not there, and says when they keep rows for another time",
    async () => {
      await using keyspace = await keyspaceWithTables(node, 7);
      const warnings: string[] = [];
      await using cassandra = await connectTo(node);
      const options = {
        cassandra,
        keyspace: keyspace.name,
        retentionDays: 30,
        clock: systemClock,
        logger: { ...silentLogger, warn: (message: string) => void warnings.push(message) },
        metrics: createMetrics(),
        putDead: async () => {},
      };
      const store = await openCassandraStore(options);
      await store.probe();
      expect(warnings.length).toBe(1);
      expect(warnings[0]).toContain("run `admin init`");
      const none = openCassandraStore({ ...options, keyspace: "test_no_such_keyspace" });
      await expect(none).rejects.toBeInstanceOf(SetupError);
    },
    TIMEOUT_MS,
  );

  // --- What a list costs -----------------------------------------------------------------------------------------

  /** Counts what is asked, and how many of it at once. */
  function counting(cassandra: Cassandra) {
    const counts = { asked: 0, now: 0, atOnceMax: 0 };
    const execute: Cassandra["execute"] = async (query, params, options) => {
      counts.asked += 1;
      counts.now += 1;
      counts.atOnceMax = Math.max(counts.atOnceMax, counts.now);
      try {
        return await cassandra.execute(query, params, options);
      } finally {
        counts.now -= 1;
      }
    };
    return { counts, cassandra: { ...cassandra, execute } };
  }

  test(
    "lists over two days, a month or a century find what there is with a bounded number of questions",
    async () => {
      await using keyspace = await keyspaceWithTables(node);
      const { counts, cassandra } = counting(await connectTo(node));
      const clock = clockAt(NOON_MS);
      await using store = await storeOn(keyspace.name, cassandra, clock);
      const received = (tradedAtMs: number, sequence: number) => rowOf(sequence, { tradedAtMs }, NOON_MS);
      const young = Array.from({ length: 300 }, (_, n) => received(NOON_MS - n * 60_000, n + 1));
      const old = [40, 400, 4_000].map((days, n) => received(NOON_MS - days * DAY_MS, 1_000 + n));
      await putTrades(store, [...young, ...old]);
      await store.putWindows(
        old.map(({ trade_timestamp }) => candle({ window_start: trade_timestamp, trade_count: 1 })),
      );
      const list = async (days: number, limit: number, symbol = "AAPL") => {
        Object.assign(counts, { asked: 0, atOnceMax: 0 });
        const range = { fromMs: NOON_MS - days * DAY_MS, toMs: NOON_MS + DAY_MS };
        const rows = await store.listTrades({ symbol, range, limit });
        expect(counts.atOnceMax).toBeLessThanOrEqual(32);
        return { rows, asked: counts.asked };
      };
      // What a page asks for: a day back, and a day ahead of now in which nothing can be.
      const page = await list(1, 101);
      expect(page.rows).toEqual(young.slice(0, 101));
      expect(page.asked).toBeLessThan(60);
      expect((await list(1, 1)).asked).toBeLessThan(60);
      expect((await list(1, 100, "QUIET")).asked).toBe(48);
      const month = await list(30, 1_000);
      expect(month.rows).toEqual(young);
      expect(month.asked).toBeLessThan(760);
      // No trade can be there: it is not asked for.
      Object.assign(counts, { asked: 0 });
      const endless = { fromMs: NOON_MS - DAY_MS, toMs: EVER.toMs };
      expect(await store.listTrades({ symbol: "AAPL", range: endless, limit: 1 })).toEqual([young[0]!]);
      expect(counts.asked).toBeLessThan(100);
      const century = { fromMs: EVER.fromMs, toMs: EVER.toMs };
      Object.assign(counts, { asked: 0, atOnceMax: 0 });
      expect(await store.listTrades({ symbol: "AAPL", range: century, limit: 1_000 })).toEqual([
        ...young,
        ...old,
      ]);
      expect(counts.asked).toBeLessThan(760);
      expect(
        (await store.listCandles({ symbol: "AAPL", range: century, limit: 1_000 })).map(
          (row) => row.window_start,
        ),
      ).toEqual(old.map((row) => row.trade_timestamp));
      expect(newestFirst(await scanAll(store, "AAPL", century))).toEqual([...young, ...old]);
    },
    TIMEOUT_MS,
  );

  // --- Pressure --------------------------------------------------------------------------------------------------

  describe("of our own, under load", () => {
    let own: Server;
    beforeAll(async () => {
      own = await startCassandra({ isOptimized: true }); // It is loaded as a node of a user is.
    }, 120_000);
    afterAll(async () => {
      await own?.[Symbol.asyncDispose]();
    }, 60_000);

    /**
     * Puts many rows as the pipeline does, each put again until it is taken; the mishap begins in the middle. Resolves
     * with how often a put failed, when all rows are in the table: each once, and as it was put.
     */
    async function loadDuring(mishap: () => Promise<void>): Promise<number> {
      await using keyspace = await keyspaceWithTables(own);
      await using store = await storeOn(keyspace.name, await connectTo(own));
      const symbols = Array.from({ length: 7 }, (_, n) => `S${n}`);
      const putCount = 600;
      const puts = Array.from({ length: putCount }, (_, put) =>
        Array.from({ length: store.rowsPerPutMax }, (_, n) => {
          const sequence = put * store.rowsPerPutMax + n + 1;
          const symbol = symbols[put % symbols.length]!;
          return rowOf(sequence, { symbol, tradedAtMs: NOON_MS + sequence }, NOON_MS + 30_000);
        }),
      );
      const todo = [...puts];
      let failures = 0;
      let met: Promise<void> | null = null;
      const insist = async (rows: readonly TradeRow[]) => {
        for (let attempt = 0; ; attempt++) {
          try {
            return await store.putTrades(rows);
          } catch (error) {
            if (!(error instanceof StoreUnavailableError)) throw error;
            failures += 1;
            await systemClock.sleep(backoffMs(attempt, 50, 5_000, Math.random));
          }
        }
      };
      const queue = async () => {
        for (let rows = todo.pop(); rows !== undefined; rows = todo.pop()) {
          if (todo.length < putCount / 2) met ??= mishap();
          await insist(rows);
        }
      };
      await Promise.all(Array.from({ length: 16 }, queue));
      await met;
      for (const symbol of symbols) {
        const due = puts.flat().filter((row) => row.symbol === symbol);
        expect(newestFirst(await scanAll(store, symbol, EVER))).toEqual(newestFirst(due));
      }
      return failures;
    }

    test("it stands still for longer than we wait: all rows are there in the end, and nobody ran riot", async () => {
      const failures = await loadDuring(async () => {
        await own.kill("SIGSTOP");
        await systemClock.sleep(STANDSTILL_MS);
        await own.kill("SIGCONT");
      });
      expect(failures).toBeGreaterThan(0);
      expect(failures).toBeLessThan(500);
    }, 120_000);

    test("it is stopped and started again: all rows are there in the end, and nobody ran riot", async () => {
      // Not killed: alone, and as it comes, a node acknowledges some 100 ms before it could survive that.
      const failures = await loadDuring(() => own.restart());
      expect(failures).toBeGreaterThan(0);
      expect(failures).toBeLessThan(1_000);
    }, 180_000);
  });
});

/** Longer than the driver's time-out of 12 s. */
const STANDSTILL_MS = 14_000;

// --- Pressure, played --------------------------------------------------------------------------------------------

/** A node of the imagination: answers what the schema asks, and lets the test say how writes end. */
function playedNode(onWrite: (statements: readonly Statement[]) => Promise<void>): Cassandra {
  const keys: Readonly<Record<string, readonly [string, string]>> = {
    schema_versions: ["file", ""],
    trades: ["symbol, hour", "trade_timestamp, uuid"],
    ...Object.fromEntries(
      AGGREGATES.map(({ table, shape }) => [table, [`symbol, ${SHAPES[shape].bucket}`, SHAPES[shape].time]]),
    ),
    feed_events: ["day", "event_timestamp, session, sequence"],
  };
  const files = ["001-keyspace.cql", "002-trades.cql", "003-aggregates.cql", "004-feed-events.cql"];
  const rowsOf = (query: string) => {
    if (query.includes("system_schema.tables")) {
      return Object.keys(keys).map((table_name) => ({
        table_name,
        default_time_to_live: RETENTION_DAYS * DAY_S,
        compaction: { class: "TimeWindowCompactionStrategy" },
      }));
    }
    if (query.includes("system_schema.columns")) {
      return Object.entries(keys).flatMap(([table_name, [partition, clustering]]) => [
        ...partition
          .split(", ")
          .map((column_name, position) => ({ table_name, column_name, position, kind: "partition_key" })),
        ...clustering
          .split(", ")
          .filter(Boolean)
          .map((column_name, position) => ({ table_name, column_name, position, kind: "clustering" })),
      ]);
    }
    return files.map((file) => ({ file }));
  };
  return {
    async execute(query, params) {
      if (!query.startsWith("INSERT")) return { rows: rowsOf(query), pageState: undefined };
      await onWrite([{ query, params }]);
      return { rows: [], pageState: undefined };
    },
    batch: onWrite,
    define: async () => {},
    nodeCount: () => 1,
    [Symbol.asyncDispose]: async () => {},
  };
}

async function playedStore(onWrite: (statements: readonly Statement[]) => Promise<void>) {
  const metrics = createMetrics();
  const store = await openCassandraStore({
    cassandra: playedNode(onWrite),
    keyspace: "market",
    retentionDays: RETENTION_DAYS,
    clock: SOON_AFTER_NOON,
    logger: silentLogger,
    metrics,
    putDead: async () => {},
  });
  return { store, metrics };
}

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));

test("under overload the window shrinks, what is asked at once keeps to it, and it grows again", async () => {
  let capacity = 3;
  let running = 0;
  const taken = new Set<string>();
  const { store, metrics } = await playedStore(async (statements) => {
    running += 1;
    await nextTurn();
    const isTooMuch = running > capacity;
    await nextTurn();
    running -= 1;
    if (isTooMuch) throw new StoreOverloadedError("too much");
    for (const { params } of statements) taken.add((params[3] as Buffer).toString("hex"));
  });
  expect(store.putsInFlightMax).toBe(16);
  const rows = Array.from({ length: 3_000 }, (_, n) => rowOf(n + 1, { symbol: `S${n}` }));
  const todo = [...rows];
  let failures = 0;
  let limitMin = 16;
  const queue = async () => {
    for (let row = todo.pop(); row !== undefined; row = todo.pop()) {
      for (;;) {
        try {
          await store.putTrades([row]);
          break;
        } catch (error) {
          expect(error).toBeInstanceOf(StoreOverloadedError);
          failures += 1;
          limitMin = Math.min(limitMin, store.putsInFlightMax);
        }
      }
    }
  };
  await Promise.all(Array.from({ length: 16 }, queue));
  expect(taken.size).toBe(rows.length);
  expect(limitMin).toBeLessThanOrEqual(2);
  // It tries for more now and then, and learns: most puts are taken at once.
  expect(failures).toBeGreaterThan(10);
  expect(failures).toBeLessThan(rows.length / 3);
  expect(await counted(metrics.storeFaultsTotal, "overloaded")).toBe(failures);
  expect(await counted(metrics.storeFaultsTotal)).toBe(failures);
  capacity = 100;
  for (let n = 0; n < 1_300; n++) await store.putTrades([rows[n % rows.length]!]);
  expect(store.putsInFlightMax).toBe(16);
});

test("while every node is down one put at a time asks, however many wait", async () => {
  let running = 0;
  let runningMax = 0;
  let isDown = true;
  const { store } = await playedStore(async () => {
    running += 1;
    runningMax = Math.max(runningMax, running);
    await nextTurn();
    running -= 1;
    if (isDown) throw new StoreUnavailableError("down");
  });
  await expect(store.putTrades([rowOf(1)])).rejects.toBeInstanceOf(StoreUnavailableError);
  expect(store.putsInFlightMax).toBe(1);
  runningMax = 0;
  const all = Array.from({ length: 200 }, (_, n) => store.putTrades([rowOf(n + 1)]));
  const ended = await Promise.allSettled(all);
  expect(ended.every(({ status }) => status === "rejected")).toBe(true);
  expect(runningMax).toBe(1);
  isDown = false;
  await store.putTrades([rowOf(1)]);
});

test("windows go in batches of one partition, two at once whoever puts, and after a failure no further one is begun", async () => {
  const batches: string[][] = [];
  let running = 0;
  let runningMax = 0;
  let failAt = Number.POSITIVE_INFINITY;
  const { store } = await playedStore(async (statements) => {
    running += 1;
    runningMax = Math.max(runningMax, running);
    batches.push(statements.map(({ query, params }) => `${query.split(" ")[2]} ${params[0]} ${params[1]}`));
    const isFailing = batches.length === failAt;
    await nextTurn();
    running -= 1;
    if (isFailing) throw new StoreUnavailableError("down");
  });
  const windows = Array.from({ length: 40 }, (_, n) => `S${n}`).flatMap((symbol) => [
    ...Array.from({ length: 60 }, (_, n) => average({ symbol, window_end: NOON_MS + n * 5_000 })),
    candle({ symbol }),
  ]);
  await store.putWindows(windows);
  expect(batches.flat().length).toBe(windows.length);
  for (const batch of batches) {
    expect(new Set(batch).size).toBe(1);
    expect(batch.length).toBeLessThanOrEqual(50);
  }
  expect(batches.length).toBe(120);
  expect(runningMax).toBe(2);
  // Eight partitions at once, as a trigger does it; and a trade's row does not stand in their line.
  batches.length = 0;
  const putting = Promise.all(Array.from({ length: 8 }, () => store.putWindows(windows)));
  await nextTurn();
  const begunBefore = batches.length;
  await store.putTrades([rowOf(1)]);
  expect(batches.length).toBeLessThanOrEqual(begunBefore + 5);
  await putting;
  expect(runningMax).toBe(3);
  batches.length = 0;
  failAt = 20;
  await expect(store.putWindows(windows)).rejects.toBeInstanceOf(StoreUnavailableError);
  expect(running).toBe(0);
  expect(batches.length).toBeLessThan(30);
});
