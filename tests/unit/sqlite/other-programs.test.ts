// market.sqlite beside another program, in one process: no call waits inside SQLite, a write-ahead log that a reader
// holds becomes small after it, and a disk that such a log would fill is left to the outbox.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../../../lib/base/clock.ts";
import { SetupError, StoreUnavailableError } from "../../../lib/base/errors.ts";
import { openDatabase } from "../../../lib/base/sqlite.ts";
import { openCheckpointer } from "../../../lib/sqlite/checkpointer.ts";
import { openSqliteStore } from "../../../lib/sqlite/store.ts";
import { createWalKeeper } from "../../../lib/sqlite/wal.ts";
import { createWriteLock } from "../../../lib/sqlite/write-lock.ts";
import { average, rowOf } from "../../contract/store.ts";
import { eventually, temporaryDirectory } from "../../support/builders.ts";
import { recordingLogger } from "../../support/feed.ts";

/** No call may keep the event loop for longer, on a machine that does other things too. */
const CALL_MS_MAX = 200;
const STEP_MS_MAX = 10_000;

function openOther(directory: string): Database {
  const other = new Database(join(directory, "market.sqlite"));
  other.run("PRAGMA busy_timeout = 0");
  return other;
}

test("with the write lock taken every call returns at once, reads answer, and each write is made afterwards", async () => {
  using directory = temporaryDirectory();
  using store = openSqliteStore({ directory: directory.path, sync: "normal" });
  await store.putTrades([rowOf(1)]);
  using other = openOther(directory.path);
  other.run("BEGIN IMMEDIATE");
  const calls: Readonly<Record<string, () => Promise<unknown>>> = {
    putTrades: () => store.putTrades([rowOf(2)]),
    putWindows: () => store.putWindows([average({ trade_count: 1 })]),
    putEvents: () => store.putEvents([]),
    putDead: () => store.putDead([]),
    commit: () => store.commits.save("log", { offset: 7, metadata: "" }),
    watchlist: () => store.watchlist.put({ symbol: "AAPL", wanted: true, changedAtMs: 1, by: "operator" }),
    retention: async () => store.dropReceivedBefore(0),
    isEmpty: () => store.isEmpty(),
    listTrades: () => store.listTrades({ symbol: "AAPL", range: { fromMs: 0, toMs: 9e14 }, limit: 1 }),
  };
  const made = Object.entries(calls).map(([name, call]) => {
    const begunAt = performance.now();
    const result = call().then(
      () => null,
      (error: unknown) => error,
    );
    expect([name, performance.now() - begunAt < CALL_MS_MAX]).toEqual([name, true]);
    return result;
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(store.health().lockedSinceMs).not.toBeNull();
  other.run("COMMIT");
  const errors = await Promise.all(made);
  // A slice of retention is one of many: its job tries again.
  const failed = Object.keys(calls).filter((_, index) => errors[index] !== null);
  expect(failed).toEqual(["retention"]);
  expect(errors[6]).toBeInstanceOf(StoreUnavailableError);
  expect(store.health().lockedSinceMs).toBeNull();
  expect(store.commits.load("log")).toEqual({ offset: 7, metadata: "" });
});

test("a commit that waits for the lock asks before each attempt whether it is still wanted", async () => {
  using directory = temporaryDirectory();
  using store = openSqliteStore({ directory: directory.path, sync: "normal" });
  using other = openOther(directory.path);
  other.run("BEGIN IMMEDIATE");
  let isWanted = true;
  const saving = store.commits.save("log", { offset: 7, metadata: "" }, () => {
    if (!isWanted) throw new Error("no longer wanted");
  });
  isWanted = false;
  other.run("COMMIT");
  await expect(saving).rejects.toThrow("no longer wanted");
  expect(store.commits.load("log")).toBeNull();
});

test("a file whose tables are there opens while another program holds the write lock; a new one says so at once", () => {
  using directory = temporaryDirectory();
  openSqliteStore({ directory: directory.path, sync: "normal" })[Symbol.dispose]();
  {
    using other = openOther(directory.path);
    other.run("BEGIN IMMEDIATE");
    openSqliteStore({ directory: directory.path, sync: "normal" })[Symbol.dispose]();
  }
  using empty = temporaryDirectory();
  using other = openOther(empty.path);
  other.run("CREATE TABLE theirs (a); BEGIN EXCLUSIVE");
  const begunAt = performance.now();
  const open = () => openSqliteStore({ directory: empty.path, sync: "normal" });
  expect(open).toThrow(StoreUnavailableError);
  expect(open).not.toThrow(SetupError);
  expect(performance.now() - begunAt).toBeLessThan(2 * CALL_MS_MAX);
});

test("a file that was moved away takes no write and no commit, and health says what to do", async () => {
  using directory = temporaryDirectory();
  using store = openSqliteStore({ directory: directory.path, sync: "normal" });
  await store.putTrades([rowOf(1)]);
  const path = join(directory.path, "market.sqlite");
  renameSync(path, `${path}.away`);
  const sentence = "market.sqlite was deleted or replaced while this process has it open";
  await expect(store.putTrades([rowOf(2)])).rejects.toThrow(sentence);
  await expect(store.commits.save("log", { offset: 7, metadata: "" })).rejects.toThrow(sentence);
  expect(store.health().refusal).toStartWith(sentence);
  renameSync(`${path}.away`, path);
  await store.putTrades([rowOf(2)]);
  expect(store.health().refusal).toBeNull();
});

/** A table that grows by a page with each write, and a keeper whose disk is as full as the test says. */
function openKept(directory: string) {
  const path = join(directory, "market.sqlite");
  const db = openDatabase({
    path,
    sync: "normal",
    schema: "CREATE TABLE IF NOT EXISTS t (a)",
    exclusive: false,
  });
  const lock = createWriteLock({ db, path, clock: systemClock });
  const { logger, lines } = recordingLogger();
  const disk = { freeBytes: 2 ** 40 };
  const keeper = createWalKeeper({
    db,
    path,
    lock,
    clock: systemClock,
    logger,
    openCheckpointer,
    freeBytes: async () => disk.freeBytes,
    largeBytes: 9 * 1_024 ** 2,
  });
  const write = (count: number) => {
    for (let row = 0; row < count; row++) db.run("INSERT INTO t VALUES (zeroblob(4000))");
  };
  return {
    ...{ lock, lines: lines.all, disk, keeper, write },
    sizeOfWal: () => statSync(`${path}-wal`).size,
    autoCheckpoint: () =>
      db.query<{ wal_autocheckpoint: number }, []>("PRAGMA wal_autocheckpoint").get()?.wal_autocheckpoint,
    [Symbol.dispose]() {
      keeper[Symbol.dispose]();
      db.close();
    },
  };
}

test("a reader is told of once; the file shrinks after it; commits checkpoint again", async () => {
  using directory = temporaryDirectory();
  using kept = openKept(directory.path);
  kept.write(1);
  using reader = openOther(directory.path);
  reader.run("BEGIN");
  reader.query("SELECT count(*) FROM t").all();
  kept.write(3_000);
  for (let look = 0; look < 3; look++) await kept.keeper.look();
  expect(kept.keeper.health()).toMatchObject({
    walHeldSinceMs: expect.any(Number),
    walBytes: kept.sizeOfWal(),
  });
  expect(kept.lines.map(({ level }) => level)).toEqual(["warn"]);
  expect(kept.lines[0]?.message).toMatch(
    /^another program keeps a read transaction open since .* has grown to \d+ MiB$/,
  );
  expect(kept.autoCheckpoint()).toBe(0);
  reader.run("COMMIT");
  await eventually(STEP_MS_MAX, "a small file", async () => {
    await kept.keeper.look();
    return kept.sizeOfWal() === 0;
  });
  expect(kept.keeper.health()).toMatchObject({ walHeldSinceMs: null, walBytes: 0 });
  expect(kept.autoCheckpoint()).toBe(1_000);
  expect(kept.lines.map(({ level }) => level)).toEqual(["warn", "info"]);
});

test("when the held file has taken half of the room, nothing more is written until the reader ends", async () => {
  using directory = temporaryDirectory();
  using kept = openKept(directory.path);
  kept.write(1);
  using reader = openOther(directory.path);
  reader.run("BEGIN");
  reader.query("SELECT count(*) FROM t").all();
  kept.write(3_000);
  kept.disk.freeBytes = 5 * 1_024 ** 2;
  await kept.keeper.look();
  const writing = kept.lock.write(() => kept.write(1));
  await expect(writing).rejects.toBeInstanceOf(StoreUnavailableError);
  await expect(writing).rejects.toThrow("the disk has only 5 MiB left: what is received waits in the outbox");
  expect(kept.lines.map(({ level }) => level)).toEqual(["warn", "error"]);
  reader.run("COMMIT");
  await eventually(STEP_MS_MAX, "a small file", async () => {
    await kept.keeper.look();
    return kept.sizeOfWal() === 0;
  });
  await kept.lock.write(() => kept.write(1));
});

test("a page in the middle of a busy hour seeks to its first row: the event loop does not walk through the hour", async () => {
  using directory = temporaryDirectory();
  using store = openSqliteStore({ directory: directory.path, sync: "normal" });
  using other = openOther(directory.path);
  other.run(
    `WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 400000)
     INSERT INTO trades SELECT 'AAPL', 0, i * 8, printf('%08d', i), 1, 1, NULL, 0 FROM n`,
  );
  const early = { symbol: "AAPL", range: { fromMs: 0, toMs: 8_000 }, limit: 3 };
  const late = { symbol: "AAPL", range: { fromMs: 3_199_992, toMs: 3_600_000 }, limit: 3 };
  for (const [query, first] of [
    [early, 7_992],
    [late, 3_200_000],
  ] as const) {
    const timesMs: number[] = [];
    for (let attempt = 0; attempt < 5; attempt++) {
      const begunAt = performance.now();
      const rows = await store.listTrades(query);
      timesMs.push(performance.now() - begunAt);
      expect(rows[0]?.trade_timestamp).toBe(first);
    }
    // The whole hour would take ten times that, each time.
    expect(Math.min(...timesMs)).toBeLessThan(15);
  }
});
