// The store on SQLite: the contract, and what is this adapter's own: retention by receipt, rows by receipt,
// commits beside the rows, another process that reads meanwhile, and what a full or locked file means.

import { Database } from "bun:sqlite";
import { expect, spyOn, test } from "bun:test";
import { join } from "node:path";
import { RowRefusedError, SetupError, StoreUnavailableError } from "../../../lib/base/errors.ts";
import type { DeadLetter } from "../../../lib/model/dead-letter.ts";
import { dayOf, HOUR_MS, type TradeRow } from "../../../lib/model/trade.ts";
import { openSqliteStore, type SqliteStore } from "../../../lib/sqlite/store.ts";
import {
  average,
  candle,
  deadLetter,
  event,
  menderContract,
  newestFirst,
  putTrades,
  rowOf,
  scanAll,
  storeContract,
} from "../../contract/store.ts";
import { versionContract } from "../../contract/versions.ts";
import { NOON_MS, seeded, temporaryDirectory } from "../../support/builders.ts";

const MINUTE_MS = 60_000;
const EVER = { fromMs: Date.UTC(2000), toMs: Date.UTC(2100) };

function openStore(directory: string): SqliteStore {
  return openSqliteStore({ directory, sync: "normal" });
}

/** A look at the file as any other program gets it. */
function peek<T>(directory: string, look: (db: Database) => T): T {
  const db = new Database(join(directory, "market.sqlite"), { readonly: true });
  try {
    return look(db);
  } finally {
    db.close();
  }
}

function countIn(directory: string, table: string): number {
  return peek(directory, (db) => db.query<{ n: number }, []>(`SELECT count(*) AS n FROM ${table}`).get()!.n);
}

function readLetters(directory: string): DeadLetter[] {
  type Row = Omit<DeadLetter, "receivedAtMs"> & { received_at: number };
  const rows = peek(directory, (db) => db.query<Row, []>("SELECT * FROM dead").all());
  return rows.map(({ received_at: receivedAtMs, ...rest }) => ({ ...rest, receivedAtMs }));
}

menderContract("sqlite", {
  scanPageRows: 5_000,
  timeoutMs: 20_000,
  async open() {
    const directory = temporaryDirectory();
    const store = openStore(directory.path);
    return {
      store,
      async [Symbol.asyncDispose]() {
        store[Symbol.dispose]();
        directory[Symbol.dispose]();
      },
    };
  },
});

versionContract("sqlite", {
  timeoutMs: 20_000,
  async open() {
    const directory = temporaryDirectory();
    const store = openStore(directory.path);
    return {
      store,
      async deleteTrade({ uuid }) {
        const db = new Database(join(directory.path, "market.sqlite"));
        try {
          db.run("DELETE FROM trades WHERE uuid = ?", [uuid]);
        } finally {
          db.close();
        }
      },
      async [Symbol.asyncDispose]() {
        store[Symbol.dispose]();
        directory[Symbol.dispose]();
      },
    };
  },
});

storeContract("sqlite", {
  scanPageRows: 5_000,
  refusedTrade: (good) => ({ ...good, price: Number.NaN }),
  timeoutMs: 20_000,
  async open() {
    const directory = temporaryDirectory();
    const store = openStore(directory.path);
    return {
      store,
      deadLetters: async () => readLetters(directory.path),
      async [Symbol.asyncDispose]() {
        store[Symbol.dispose]();
        directory[Symbol.dispose]();
      },
    };
  },
});

// --- Puts ------------------------------------------------------------------------------------------------------

test("what was put is there after closing and opening, and in the tables of the design", async () => {
  using directory = temporaryDirectory();
  const rows = [rowOf(1), rowOf(2, { conditions: ["1", "12"] }), rowOf(3, { conditions: [] })];
  {
    using store = openStore(directory.path);
    await store.putTrades(rows);
    await store.putWindows([average({ trade_count: 3 }), candle({ trade_count: 4 })]);
  }
  using store = openStore(directory.path);
  expect(await store.listTrades({ symbol: "AAPL", range: EVER, limit: 9 })).toEqual(newestFirst(rows));
  const tables = peek(directory.path, (db) => ({
    trades: db.query("SELECT * FROM trades ORDER BY uuid").all(),
    versions: db
      .query("SELECT version FROM running_averages_15_sec UNION ALL SELECT version FROM candles_1_min")
      .values(),
  }));
  expect<unknown[]>(tables.trades).toEqual(rows);
  expect(tables.versions).toEqual([[(NOON_MS + 15_000) * 1_000 + 6], [(NOON_MS + 60_000) * 1_000 + 8]]);
});

test("of a put with a row that is refused nothing is stored, wherever the row stands", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const good = [rowOf(1), rowOf(2)];
  const bad: TradeRow[] = [
    { ...rowOf(3), price: Number.NaN },
    { ...rowOf(3), volume: Number.NaN },
    { ...rowOf(3), trade_timestamp: NOON_MS + 0.5 },
    { ...rowOf(3), ingest_timestamp: Number.NaN },
  ];
  for (const row of bad) {
    for (const put of [
      [row, ...good],
      [good[0]!, row, good[1]!],
      [...good, row],
    ]) {
      await expect(store.putTrades(put)).rejects.toBeInstanceOf(RowRefusedError);
      expect(await store.isEmpty()).toBe(true);
    }
  }
  const badWindow = average({ window_end: NOON_MS + 30_000, average_price: Number.NaN });
  await expect(store.putWindows([average(), candle(), badWindow])).rejects.toBeInstanceOf(RowRefusedError);
  expect(await store.listAverages({ symbol: "AAPL", range: EVER, limit: 9 })).toEqual([]);
  await expect(store.putEvents([event(1), event(Number.NaN)])).rejects.toBeInstanceOf(RowRefusedError);
  expect(await store.listEvents({ range: EVER, limit: 9 })).toEqual([]);
  await expect(store.putDead([deadLetter(1), deadLetter(Number.NaN)])).rejects.toBeInstanceOf(
    RowRefusedError,
  );
  expect(countIn(directory.path, "dead")).toBe(0);
});

test("a refused put leaves no trace in what retention knows: its hour is dropped like any other", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  await expect(store.putTrades([rowOf(1), { ...rowOf(2), price: Number.NaN }])).rejects.toThrow(
    RowRefusedError,
  );
  await store.putTrades([rowOf(1)]);
  dropAll(store, NOON_MS + 2 * HOUR_MS);
  expect(await store.isEmpty()).toBe(true);
});

test("a fuller row put by another opener of the file is not replaced by a poorer one", async () => {
  using directory = temporaryDirectory();
  using awake = openStore(directory.path);
  using stale = openStore(directory.path);
  const full = [average({ trade_count: 5, vwap: null }), candle({ trade_count: 5 })];
  await awake.putWindows(full);
  await stale.putWindows([average({ trade_count: 4 }), candle({ trade_count: 4 })]);
  const query = { symbol: "AAPL", range: EVER, limit: 9 };
  expect(await stale.listAverages(query)).toEqual([full[0]!.row as never]);
  expect(await awake.listCandles(query)).toEqual([full[1]!.row as never]);
});

test("a file that another process keeps locked is unavailable, and nothing is half-written", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  await store.putTrades([rowOf(1)]);
  using other = new Database(join(directory.path, "market.sqlite"));
  other.run("BEGIN IMMEDIATE");
  const begunAt = performance.now();
  await expect(store.putTrades([rowOf(2), rowOf(3)])).rejects.toBeInstanceOf(StoreUnavailableError);
  // It waits a while, and not for ever.
  expect(performance.now() - begunAt).toBeLessThan(10_000);
  // Reading goes on meanwhile.
  expect((await scanAll(store, "AAPL", EVER)).length).toBe(1);
  other.run("ROLLBACK");
  await store.putTrades([rowOf(2), rowOf(3)]);
  expect((await scanAll(store, "AAPL", EVER)).length).toBe(3);
}, 20_000);

test("a full disk is unavailable, nothing is half-written, and with room it works again", async () => {
  using directory = temporaryDirectory();
  const { store, connection } = openWithConnection(directory.path);
  await store.putTrades([rowOf(1)]);
  const { page_count } = connection.query<{ page_count: number }, []>("PRAGMA page_count").get()!;
  connection.run(`PRAGMA max_page_count = ${page_count + 5}`);
  const rows = Array.from({ length: 1_000 }, (_, index) => rowOf(index + 2, { tradedAtMs: NOON_MS + index }));
  for (let attempt = 0; attempt < 2; attempt++) {
    const putting = store.putTrades(rows);
    await expect(putting).rejects.toBeInstanceOf(StoreUnavailableError);
    await expect(putting).rejects.toMatchObject({ hint: "make room in DATA_DIR" });
    expect((await scanAll(store, "AAPL", EVER)).length).toBe(1);
  }
  connection.run("PRAGMA max_page_count = 1000000");
  await store.putTrades(rows);
  expect((await scanAll(store, "AAPL", EVER)).length).toBe(1_001);
  store[Symbol.dispose]();
});

/** The store, and the connection it holds: the one place where SQLite's own bounds can be set. */
function openWithConnection(directory: string): { store: SqliteStore; connection: Database } {
  let connection: Database | undefined;
  const original = Database.prototype.run;
  const spy = spyOn(Database.prototype, "run").mockImplementation(function (this: Database, ...parts) {
    connection = this;
    return original.apply(this, parts);
  });
  const store = openStore(directory);
  spy.mockRestore();
  if (connection === undefined) throw new Error("the store opened no database");
  return { store, connection };
}

test("a file that is no database is refused with a sentence", async () => {
  using directory = temporaryDirectory();
  await Bun.write(join(directory.path, "market.sqlite"), "no database at all".repeat(400));
  expect(() => openStore(directory.path)).toThrow(SetupError);
});

// --- Another process -------------------------------------------------------------------------------------------

/** Looks again and again, says ok when it has seen all rows, and how many looks found part of them. */
const READER = `
  import { Database } from "bun:sqlite";
  const [path, perPut, total] = process.argv.slice(1);
  const db = new Database(path, { readonly: true });
  const count = db.query("SELECT count(*) AS n, count(DISTINCT ingest_timestamp) AS puts FROM trades");
  const endMs = performance.now() + 15_000;
  let partly = 0;
  process.stdout.write("ready\\n");
  while (performance.now() < endMs) {
    const { n, puts } = count.get();
    if (n % perPut !== 0 || n !== puts * perPut) throw new Error("half a put: " + n + " rows of " + puts);
    if (n > 0 && n < total) partly += 1;
    if (n >= total) { process.stdout.write("ok " + partly + "\\n"); break; }
  }
`;

test("another process reads while this one writes, and sees whole puts only", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const perPut = 500;
  const puts = 60;
  const path = join(directory.path, "market.sqlite");
  const child = Bun.spawn([process.execPath, "-e", READER, path, String(perPut), String(perPut * puts)], {
    stdout: "pipe",
    stderr: "pipe",
    timeout: 20_000,
  });
  const output = child.stdout.getReader();
  expect(new TextDecoder().decode((await output.read()).value)).toBe("ready\n");
  for (let put = 1; put <= puts; put++) {
    const rows = Array.from({ length: perPut }, (_, index) =>
      rowOf(put * 1_000 + index, { tradedAtMs: NOON_MS + index }, NOON_MS + put),
    );
    await store.putTrades(rows);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
  const said = new TextDecoder().decode((await output.read()).value);
  await child.exited;
  expect(await child.stderr.text()).toBe("");
  // It did look in between.
  expect(Number(/^ok (\d+)\n$/.exec(said)?.[1])).toBeGreaterThan(0);
}, 30_000);

// --- Commits ---------------------------------------------------------------------------------------------------

test("there is one commit a log, the last one, and it is there after closing and opening", () => {
  using directory = temporaryDirectory();
  {
    using store = openStore(directory.path);
    expect(store.commits.load("a")).toBeNull();
    store.commits.save("a", { offset: 1, metadata: "first" });
    store.commits.save("a", { offset: 2 ** 40, metadata: '{"é":"😀"}' });
    store.commits.save("b", { offset: 7, metadata: "" });
    // A commit may go back, too.
    store.commits.save("b", { offset: 3, metadata: "back" });
  }
  using store = openStore(directory.path);
  expect(store.commits.load("a")).toEqual({ offset: 2 ** 40, metadata: '{"é":"😀"}' });
  expect(store.commits.load("b")).toEqual({ offset: 3, metadata: "back" });
  expect(store.commits.load("c")).toBeNull();
});

test("a commit is synced to disk, and what is put around it is not made slower for that", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const original = Database.prototype.run;
  /** Each change of the sync mode, and which commit the file held at that moment. */
  const seen: (readonly [string, number | null])[] = [];
  const spy = spyOn(Database.prototype, "run").mockImplementation(function (this: Database, ...parts) {
    const mode = /PRAGMA synchronous = (\w+)/.exec(parts[0])?.[1];
    if (mode !== undefined) seen.push([mode, committedOffset(directory.path)]);
    return original.apply(this, parts);
  });
  try {
    await store.putTrades([rowOf(1)]);
    store.commits.save("a", { offset: 1, metadata: "" });
    await store.putTrades([rowOf(2)]);
    store.commits.save("a", { offset: 2, metadata: "" });
  } finally {
    spy.mockRestore();
  }
  expect(seen).toEqual([
    ["FULL", null],
    ["NORMAL", 1],
    ["FULL", 1],
    ["NORMAL", 2],
  ]);
});

function committedOffset(directory: string): number | null {
  const query = "SELECT offset FROM commits WHERE log_id = 'a'";
  return peek(directory, (db) => db.query<{ offset: number }, []>(query).get()?.offset ?? null);
}

test("a commit that fails leaves the one before it, and says whether to try again", () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  store.commits.save("a", { offset: 5, metadata: "kept" });
  expect(() => store.commits.save("a", { offset: Number.NaN, metadata: "" })).toThrow(RowRefusedError);
  expect(store.commits.load("a")).toEqual({ offset: 5, metadata: "kept" });
});

// --- Rows by receipt -------------------------------------------------------------------------------------------

async function scanReceived(store: SqliteStore, sinceMs: number | null): Promise<TradeRow[]> {
  const rows: TradeRow[] = [];
  for await (const page of store.scanReceived!(sinceMs)) rows.push(...page);
  return newestFirst(rows);
}

test("rows by receipt: every symbol, however old the trade, at or after the time and not before", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const random = seeded(4);
  const rows = Array.from({ length: 400 }, (_, index) =>
    rowOf(
      index + 1,
      { symbol: ["AAPL", "MSFT", "é"][index % 3]!, tradedAtMs: NOON_MS - random(72 * HOUR_MS) },
      NOON_MS + random(300 * MINUTE_MS),
    ),
  );
  await putTrades(store, rows);
  const receipts = rows.map(({ ingest_timestamp }) => ingest_timestamp);
  const times = [NOON_MS, NOON_MS + HOUR_MS, NOON_MS + HOUR_MS - 1, receipts[7]!, receipts[7]! + 1];
  for (const sinceMs of [...times, 0, NOON_MS + 300 * MINUTE_MS]) {
    const due = rows.filter(({ ingest_timestamp }) => ingest_timestamp >= sinceMs);
    expect(await scanReceived(store, sinceMs)).toEqual(newestFirst(due));
  }
  // Unknown: at least the last whole hour before the newest receipt, and nothing older than two.
  const newest = Math.max(...receipts);
  const met = new Set((await scanReceived(store, null)).map(({ uuid }) => uuid));
  for (const { uuid, ingest_timestamp } of rows) {
    if (ingest_timestamp >= newest - HOUR_MS) expect(met.has(uuid)).toBe(true);
    if (ingest_timestamp < newest - 2 * HOUR_MS) expect(met.has(uuid)).toBe(false);
  }
});

test("rows by receipt of an empty store are none", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  expect(await scanReceived(store, null)).toEqual([]);
  expect(await scanReceived(store, 0)).toEqual([]);
});

test("a row is found by receipt although its hour was known before, in this process or an earlier one", async () => {
  using directory = temporaryDirectory();
  for (const [turn, receivedAtMs] of [0, 5, 10].map((hour) => NOON_MS + hour * HOUR_MS).entries()) {
    using store = openStore(directory.path);
    const early = rowOf(10 * turn + 1, {}, receivedAtMs);
    const late = rowOf(10 * turn + 2, {}, receivedAtMs + 90 * MINUTE_MS);
    await store.putTrades([early]);
    await store.putTrades([late]);
    expect(await scanReceived(store, receivedAtMs + 1)).toEqual([late]);
  }
});

// --- Retention -------------------------------------------------------------------------------------------------

/** As local does, without the pauses: until nothing is left to drop. */
function dropAll(store: SqliteStore, cutoffMs: number): number {
  for (let slices = 1; slices < 10_000; slices++) if (!store.dropReceivedBefore(cutoffMs)) return slices;
  throw new Error("retention does not end");
}

test("an hour of a symbol goes when its last receipt is old enough, with its aggregates", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const hours = [0, 1, 2, 3].map((hour) => NOON_MS + hour * HOUR_MS);
  for (const [index, hour] of hours.entries()) {
    for (const symbol of ["AAPL", "MSFT"]) {
      await store.putTrades([rowOf(index + 1, { symbol, tradedAtMs: hour + 600_000 }, hour + 600_100)]);
      const window_end = hour + 615_000;
      await store.putWindows([
        average({ symbol, window_end }),
        candle({ symbol, window_start: hour + 600_000 }),
        candle({ symbol, window_start: hour }),
        candle({ symbol, window_start: hour + HOUR_MS - MINUTE_MS }),
      ]);
    }
  }
  const left = async (symbol: string) => {
    const query = { symbol, range: EVER, limit: 99 };
    const hour = (ms: number) => Math.floor((ms - NOON_MS) / HOUR_MS);
    return {
      trades: (await store.listTrades(query)).map((row) => hour(row.trade_timestamp)),
      averages: (await store.listAverages(query)).map((row) => hour(row.window_end)),
      candles: (await store.listCandles(query)).map((row) => hour(row.window_start)),
    };
  };
  const from = (hour: number) => {
    const kept = [3, 2, 1, 0].filter((one) => one >= hour);
    return { trades: kept, averages: kept, candles: kept.flatMap((one) => [one, one, one]) };
  };
  // Whole hours of receipt: nothing goes early.
  expect(store.dropReceivedBefore(hours[1]! - 1)).toBe(false);
  expect(await left("AAPL")).toEqual(from(0));
  dropAll(store, hours[1]!);
  expect(await left("AAPL")).toEqual(from(1));
  dropAll(store, hours[3]! + HOUR_MS - 1);
  expect(await left("AAPL")).toEqual(from(3));
  expect(await left("MSFT")).toEqual(from(3));
  dropAll(store, hours[3]! + HOUR_MS);
  expect(await left("AAPL")).toEqual(from(4));
  expect(await store.isEmpty()).toBe(true);
  for (const table of ["running_averages_15_sec", "candles_1_min", "trade_hours"]) {
    expect(countIn(directory.path, table)).toBe(0);
  }
});

test("one symbol's old hour goes, the same hour of another symbol stays", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const old = rowOf(1, { symbol: "AAPL" });
  const fresh = rowOf(2, { symbol: "MSFT" }, NOON_MS + 9 * HOUR_MS);
  await store.putTrades([old, fresh]);
  await store.putWindows([candle({ symbol: "AAPL" }), candle({ symbol: "MSFT" })]);
  dropAll(store, NOON_MS + 2 * HOUR_MS);
  expect(await scanAll(store, "AAPL", EVER)).toEqual([]);
  expect(await scanAll(store, "MSFT", EVER)).toEqual([fresh]);
  expect((await store.listCandles({ symbol: "MSFT", range: EVER, limit: 9 })).length).toBe(1);
});

test("a late row keeps its whole hour, and an old row put again does not make the hour older", async () => {
  using directory = temporaryDirectory();
  const early = [rowOf(1), rowOf(2, { tradedAtMs: NOON_MS + 1 })];
  const late = rowOf(3, { tradedAtMs: NOON_MS + 2 }, NOON_MS + 30 * HOUR_MS);
  {
    using store = openStore(directory.path);
    await store.putTrades(early);
    await store.putTrades([late]);
    await store.putTrades([early[0]!]);
  }
  // A replay in a process that knows nothing of the late row.
  using store = openStore(directory.path);
  await store.putTrades([early[1]!]);
  dropAll(store, NOON_MS + 30 * HOUR_MS);
  expect(await scanAll(store, "AAPL", EVER)).toEqual([...early, late]);
  dropAll(store, NOON_MS + 31 * HOUR_MS);
  expect(await store.isEmpty()).toBe(true);
});

test("trades of long ago that were received just now stay", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const replayed = rowOf(1, { tradedAtMs: Date.UTC(2001, 5, 1) }, NOON_MS + 1);
  await store.putTrades([replayed]);
  dropAll(store, NOON_MS);
  expect(await scanAll(store, "AAPL", EVER)).toEqual([replayed]);
});

test("an hour that was dropped and is put again is dropped again in its time", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  for (let turn = 0; turn < 3; turn++) {
    await store.putTrades([rowOf(1)]);
    expect(await store.isEmpty()).toBe(false);
    dropAll(store, NOON_MS + HOUR_MS);
    expect(await store.isEmpty()).toBe(true);
  }
});

test("averages that end in the hour after their trades go with the trades, unless that hour is kept", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const ends = [0, 5_000, 10_000].map((ms) => NOON_MS + HOUR_MS + ms);
  for (const symbol of ["AAPL", "MSFT"]) {
    await store.putTrades([rowOf(1, { symbol, tradedAtMs: NOON_MS + HOUR_MS - 1 })]);
    await store.putWindows(ends.map((window_end) => average({ symbol, window_end })));
  }
  // MSFT trades in the next hour too, received later.
  await store.putTrades([rowOf(2, { symbol: "MSFT", tradedAtMs: NOON_MS + HOUR_MS }, NOON_MS + 2 * HOUR_MS)]);
  dropAll(store, NOON_MS + HOUR_MS);
  const listed = async (symbol: string) =>
    (await store.listAverages({ symbol, range: EVER, limit: 9 })).length;
  expect(await listed("AAPL")).toBe(0);
  expect(await listed("MSFT")).toBe(3);
  dropAll(store, NOON_MS + 3 * HOUR_MS);
  expect(countIn(directory.path, "running_averages_15_sec")).toBe(0);
});

test("averages of trades that are kept stay when the hour they end in is dropped first", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const ends = [5_000, 10_000, 15_000].map((ms) => NOON_MS + HOUR_MS + ms);
  await store.putWindows(ends.map((window_end) => average({ window_end })));
  await store.putTrades([rowOf(1, { tradedAtMs: NOON_MS + HOUR_MS })]);
  // The last trade of the hour before came late, and is kept for longer.
  await store.putTrades([rowOf(2, { tradedAtMs: NOON_MS + HOUR_MS - 1 }, NOON_MS + 5 * HOUR_MS)]);
  dropAll(store, NOON_MS + 2 * HOUR_MS);
  const kept = await store.listAverages({ symbol: "AAPL", range: EVER, limit: 9 });
  expect(kept.map(({ window_end }) => window_end)).toEqual([ends[1]!, ends[0]!]);
  dropAll(store, NOON_MS + 6 * HOUR_MS);
  expect(countIn(directory.path, "running_averages_15_sec")).toBe(0);
});

test("old events and dead letters go, young ones stay", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const day = 24 * HOUR_MS;
  await store.putEvents(
    [-day, 0, day].map((ms, index) => event(index + 1, { event_timestamp: NOON_MS + ms })),
  );
  await store.putDead([-1, 0, 1].map((ms, index) => deadLetter(index + 1, { receivedAtMs: NOON_MS + ms })));
  dropAll(store, NOON_MS);
  const events = await store.listEvents({ range: EVER, limit: 9 });
  expect(events.map((row) => row.day)).toEqual([dayOf(NOON_MS + day), dayOf(NOON_MS)]);
  expect(readLetters(directory.path).map(({ sequence }) => sequence)).toEqual([2, 3]);
});

test("a drop is cut into slices, so that a large hour blocks nobody for long", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const rows = Array.from({ length: 9_000 }, (_, index) =>
    rowOf(index + 1, { tradedAtMs: NOON_MS + (index % 50) }),
  );
  await putTrades(store, rows);
  await store.putWindows([candle()]);
  let before = rows.length;
  let slices = 0;
  while (store.dropReceivedBefore(NOON_MS + HOUR_MS)) {
    const count = countIn(directory.path, "trades");
    expect(before - count).toBeLessThanOrEqual(2_000);
    // The aggregates go last, with the end of the hour.
    expect(countIn(directory.path, "candles_1_min")).toBe(count > 0 ? 1 : 0);
    before = count;
    slices += 1;
  }
  expect(before).toBe(0);
  expect(slices).toBe(5);
});

test("what is dropped gives its pages back, and cycles of filling and dropping do not grow the file", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const pages = () =>
    peek(directory.path, (db) => db.query<{ page_count: number }, []>("PRAGMA page_count").get()!.page_count);
  const empty = pages();
  const filled: number[] = [];
  const dropped: number[] = [];
  for (let cycle = 0; cycle < 6; cycle++) {
    const hour = NOON_MS + cycle * HOUR_MS;
    const rows = Array.from({ length: 6_000 }, (_, index) =>
      rowOf(index + 1, { tradedAtMs: hour + index }, hour + 1),
    );
    await putTrades(store, rows);
    filled.push(pages());
    dropAll(store, hour + HOUR_MS);
    // Retention runs every hour; each run gives some back.
    for (let run = 0; run < 3; run++) dropAll(store, hour + HOUR_MS);
    dropped.push(pages());
  }
  expect(Math.max(...filled)).toBeLessThanOrEqual(1.1 * filled[0]!);
  expect(filled[0]!).toBeGreaterThan(empty + 100);
  expect(Math.max(...dropped)).toBeLessThan(empty + 20);
});

test("a clock that is weeks ahead drops nothing: retention counts back from the newest trade", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const FORTY_DAYS_MS = 40 * 24 * HOUR_MS;
  expect(store.retentionNowMs(NOON_MS)).toBe(NOON_MS);
  await store.putTrades([rowOf(1, { tradedAtMs: NOON_MS })]);
  // The trade's own date is right, whatever our clock says.
  expect(store.retentionNowMs(NOON_MS + FORTY_DAYS_MS)).toBe(NOON_MS + HOUR_MS);
  expect(store.retentionNowMs(NOON_MS + 5)).toBe(NOON_MS + 5);
});

test("what was received by a slow clock is kept from the trade's own time, and so is what was put aside", async () => {
  using directory = temporaryDirectory();
  using store = openStore(directory.path);
  const slowMs = NOON_MS - 14 * 24 * HOUR_MS;
  const row: TradeRow = { ...rowOf(1, { tradedAtMs: NOON_MS }), ingest_timestamp: slowMs };
  await store.putTrades([row]);
  const payload = Buffer.from(`{"data":[{"p":1,"s":"A","t":${NOON_MS},"v":1}],"type":"trade"}`);
  const aside = {
    ...deadLetter(1),
    receivedAtMs: slowMs,
    reason: "impossible_time",
    source: "feed",
    payload,
  } as const;
  const broken = { ...aside, sequence: aside.sequence + 1, reason: "garbage_frame" } as const;
  await store.putDead([aside, broken]);
  const dropAll = (cutoffMs: number) => {
    while (store.dropReceivedBefore(cutoffMs));
  };
  dropAll(NOON_MS - HOUR_MS);
  expect([await scanAll(store, "AAPL", EVER), readLetters(directory.path)]).toMatchObject([
    [row],
    [{ reason: "impossible_time" }],
  ]);
  dropAll(NOON_MS + 2 * HOUR_MS);
  expect([countIn(directory.path, "trades"), readLetters(directory.path)]).toEqual([0, []]);
});
