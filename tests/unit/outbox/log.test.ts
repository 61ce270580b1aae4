// The log on SQLite: the contract, and what only this adapter promises: one owner of the file, a limit in bytes with
// room for events, a full disk, a power cut that takes the end of the file, and deletion in slices.

import { heapStats } from "bun:jsc";
import { Database } from "bun:sqlite";
import { expect, spyOn, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { type Clock, systemClock } from "../../../lib/base/clock.ts";
import { LogFullError, LogUnavailableError, SetupError, StaleEpochError } from "../../../lib/base/errors.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type {
  Delivery,
  LogEntry,
  LogReader,
  LogRecord,
  Position,
  RecordKind,
} from "../../../lib/contracts/log.ts";
import { type CommitStore, openSqliteLog, type SqliteLog } from "../../../lib/outbox/log.ts";
import { logContract } from "../../contract/log.ts";
import { NOON_MS, seeded, temporaryDirectory } from "../../support/builders.ts";

const GIB = 2 ** 30;
/** What outbox/log.ts keeps free for events. */
const EVENT_ROOM_BYTES = 2 ** 20;

type OpenOptions = { bytesMax?: number; clock?: Clock; metrics?: ReturnType<typeof createMetrics> };

function openLog(directory: string, { bytesMax = GIB, clock = systemClock, metrics }: OpenOptions = {}) {
  return openSqliteLog({
    directory,
    topic: "market",
    sync: "normal",
    bytesMax,
    clock,
    metrics: metrics ?? createMetrics(),
  });
}

/** Commits that outlive the log, as market.sqlite does. */
function memoryCommits(): CommitStore & { readonly kept: Map<string, Position> } {
  const kept = new Map<string, Position>();
  return {
    kept,
    load: (logId) => kept.get(logId) ?? null,
    save: (logId, position) => void kept.set(logId, position),
  };
}

/** A clock whose ends of a tick come when the test says so. */
function manualClock(): Clock & { endTick(): number } {
  let waiting: (() => void)[] = [];
  return {
    ...systemClock,
    now: () => NOON_MS,
    atEndOfTick: (callback) => void waiting.push(callback),
    /** Runs what waits for this end, not what that begins to wait for; answers how many waited. */
    endTick() {
      const due = waiting;
      waiting = [];
      for (const callback of due) callback();
      return due.length;
    },
  };
}

function entries(count: number, bytes = 100, kind: RecordKind = "trades"): LogEntry[] {
  return Array.from({ length: count }, () => ({ kind, key: "AAPL", value: new Uint8Array(bytes) }));
}

const PARTITION = "market/0";

/** The reader's iterator, past its `assigned`. */
async function begin(reader: LogReader): Promise<{ epoch: number; iterator: AsyncIterator<Delivery> }> {
  const iterator = reader.deliveries(new AbortController().signal)[Symbol.asyncIterator]();
  const { value } = await iterator.next();
  expect(value).toMatchObject({ type: "assigned", partitions: [PARTITION] });
  return { epoch: (value as Delivery).epoch, iterator };
}

/** Everything from the commit on (from the beginning without one), by a reader of its own. */
async function readFromCommit(log: SqliteLog, commits: CommitStore) {
  const reader = log.openReader(commits);
  const { epoch, iterator } = await begin(reader);
  const range = await reader.position(epoch, PARTITION);
  let next = range.committed?.offset ?? range.beginOffset;
  reader.seek(epoch, PARTITION, next);
  const records: LogRecord[] = [];
  while (next < range.endOffset && range.beginOffset < range.endOffset) {
    const { value } = (await iterator.next()) as { value: Delivery };
    if (value.type !== "batch") throw new Error("a batch was due");
    records.push(...value.records);
    next = value.nextOffset;
  }
  return { reader, epoch, range, records, offsets: records.map(({ offset }) => offset) };
}

async function commitAll(log: SqliteLog, commits: CommitStore): Promise<void> {
  const reader = log.openReader(commits);
  const { epoch } = await begin(reader);
  const { endOffset } = await reader.position(epoch, PARTITION);
  await reader.commit(epoch, PARTITION, { offset: endOffset, metadata: "all" });
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) {
    await new Promise<void>((resolve) => systemClock.atEndOfTick(resolve));
  }
}

logContract("sqlite", {
  stepMsMax: 1_000,
  historySteps: 80,
  async open() {
    const directory = temporaryDirectory();
    const commits = memoryCommits();
    let log = openLog(directory.path);
    return {
      get writer() {
        return log;
      },
      openReader: async () => log.openReader(commits),
      reassign: async () => log.openReader(commits),
      async reopen() {
        log[Symbol.dispose]();
        log = openLog(directory.path);
      },
      async [Symbol.asyncDispose]() {
        log[Symbol.dispose]();
        directory[Symbol.dispose]();
      },
    };
  },
});

// --- One owner -------------------------------------------------------------------------------------------------

test("a second owner in this process is refused with a sentence, and accepted when the first has closed", async () => {
  using directory = temporaryDirectory();
  const first = openLog(directory.path);
  await first.append(entries(1));
  expect(() => openLog(directory.path)).toThrow(SetupError);
  first[Symbol.dispose]();
  using second = openLog(directory.path);
  expect(second.health().recordCount).toBe(1);
});

test("an owner is refused while another process has the file, and accepted as soon as that one is killed", async () => {
  using directory = temporaryDirectory();
  const child = Bun.spawn(
    [
      process.execPath,
      join(import.meta.dir, "../../support/fixtures/outbox-child.ts"),
      directory.path,
      "write",
      "1",
      "1",
    ],
    { stdout: "pipe", stderr: "inherit", timeout: 20_000 },
  );
  try {
    const reader = child.stdout.getReader();
    expect((await reader.read()).done).toBe(false);
    let refusal: unknown;
    try {
      openLog(directory.path)[Symbol.dispose]();
    } catch (error) {
      refusal = error;
    }
    expect(refusal).toBeInstanceOf(SetupError);
    const { message, hint } = refusal as SetupError;
    expect(message).toBe(`${join(directory.path, "outbox.sqlite")} is in use by another process`);
    expect(hint).toContain("stop that process first");
  } finally {
    process.kill(child.pid, "SIGKILL");
    await child.exited;
  }
  using log = openLog(directory.path);
  expect(log.health().recordCount).toBeGreaterThan(0);
}, 30_000);

test("a file that is no database is never overwritten: its bytes stay in the directory", async () => {
  using directory = temporaryDirectory();
  const garbage = "this is no database".repeat(500);
  writeFileSync(join(directory.path, "outbox.sqlite"), garbage);
  try {
    using log = openLog(directory.path);
    await log.append(entries(10));
  } catch (error) {
    expect(error).toBeInstanceOf(SetupError);
  }
  const contents = readdirSync(directory.path).map((name) =>
    readFileSync(join(directory.path, name), "latin1"),
  );
  expect(contents).toContain(garbage);
});

test("a missing directory is created", () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, "a", "b");
  using log = openLog(path);
  expect(log.health().recordCount).toBe(0);
  expect(existsSync(join(path, "outbox.sqlite"))).toBe(true);
});

// --- The limit in bytes ----------------------------------------------------------------------------------------

test("at its limit the log refuses trades and dead letters whole, and still takes events", async () => {
  using directory = temporaryDirectory();
  const bytesMax = 100_000;
  using log = openLog(directory.path, { bytesMax });
  let taken = 0;
  for (;;) {
    try {
      await log.append(entries(3, 1_000));
      taken += 3;
    } catch (error) {
      expect(error).toBeInstanceOf(LogFullError);
      break;
    }
  }
  expect(taken).toBeGreaterThan(80);
  expect(log.health()).toMatchObject({ recordCount: taken, bytesMax });
  expect(log.health().bytes).toBeLessThanOrEqual(bytesMax);
  await expect(log.append(entries(3, 1_000, "dead"))).rejects.toBeInstanceOf(LogFullError);
  await expect(log.append([...entries(1, 10, "event"), ...entries(3, 1_000)])).rejects.toBeInstanceOf(
    LogFullError,
  );
  expect(log.health().recordCount).toBe(taken);

  // The room for events is limited too, and it is as large as promised.
  let eventBytes = 0;
  for (;;) {
    try {
      await log.append(entries(1, 10_000, "event"));
      eventBytes += 10_000;
    } catch (error) {
      expect(error).toBeInstanceOf(LogFullError);
      break;
    }
  }
  expect(eventBytes).toBeGreaterThan(0.95 * EVENT_ROOM_BYTES);
  expect(log.health().bytes).toBeLessThanOrEqual(bytesMax + EVENT_ROOM_BYTES);
  const { records } = await readFromCommit(log, memoryCommits());
  expect(records.filter(({ kind }) => kind === "trades").length).toBe(taken);
  expect(records.filter(({ kind }) => kind === "dead")).toEqual([]);
});

test("a full log takes trades again when commits let it delete", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path, { bytesMax: 100_000 });
  const commits = memoryCommits();
  for (let round = 0; round < 5; round++) {
    await log.append(entries(80, 1_000));
    await expect(log.append(entries(20, 1_000))).rejects.toBeInstanceOf(LogFullError);
    await commitAll(log, commits);
    await turns(3);
    expect(log.health()).toMatchObject({ recordCount: 0, bytes: 0, oldestAtMs: null });
  }
  await log.append(entries(1));
  expect((await readFromCommit(log, commits)).offsets).toEqual([401]);
});

test("the content is measured again on opening, so that a restart does not lift the limit", async () => {
  using directory = temporaryDirectory();
  const first = openLog(directory.path, { bytesMax: 50_000 });
  await first.append(entries(40, 1_000));
  const { recordCount, bytes } = first.health();
  first[Symbol.dispose]();
  using second = openLog(directory.path, { bytesMax: 50_000 });
  expect(second.health()).toMatchObject({ recordCount, bytes });
  await expect(second.append(entries(40, 1_000))).rejects.toBeInstanceOf(LogFullError);
});

test("a restart of a full log whose records are all committed makes room without a further commit", async () => {
  using directory = temporaryDirectory();
  const commits = memoryCommits();
  const bytesMax = 1_000_000;
  // The end of the tick never comes: killed after the first slice.
  const first = openLog(directory.path, { bytesMax, clock: manualClock() });
  await first.append(entries(5_000));
  await commitAll(first, commits);
  expect(first.health().recordCount).toBe(3_000);
  await first.append(entries(2_000));
  first[Symbol.dispose]();
  const [id] = commits.kept.keys();
  commits.save(id!, { offset: 7_001, metadata: "all" });

  using second = openLog(directory.path, { bytesMax });
  second.openReader(commits);
  await turns(5);
  expect(second.health().recordCount).toBe(0);
});

test("health says how many records the reader has not been handed", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  expect(log.health().unreadCount).toBe(0);
  await log.append(entries(300));
  const reader = log.openReader(memoryCommits());
  const { epoch, iterator } = await begin(reader);
  expect(log.health().unreadCount).toBe(300);
  reader.seek(epoch, PARTITION, 101);
  expect(log.health().unreadCount).toBe(200);
  await iterator.next();
  expect(log.health().unreadCount).toBe(0);
});

test("gauges and health say how much waits and since when", async () => {
  using directory = temporaryDirectory();
  const metrics = createMetrics();
  const clock = manualClock();
  using log = openLog(directory.path, { metrics, clock });
  await log.append(entries(2, 500));
  expect(log.health()).toEqual({
    recordCount: 2,
    unreadCount: 2,
    bytes: 1_180,
    bytesMax: GIB,
    oldestAtMs: NOON_MS,
  });
  expect((await metrics.logBytes.get()).values[0]?.value).toBe(1_180);
  expect((await metrics.logMessages.get()).values[0]?.value).toBe(2);
  expect((await metrics.messagesAppendedTotal.get()).values[0]?.value).toBe(2);
});

// --- Deletion --------------------------------------------------------------------------------------------------

test("deletion goes in bounded slices, one a tick, and appends fit in between", async () => {
  using directory = temporaryDirectory();
  const clock = manualClock();
  using log = openLog(directory.path, { clock });
  await log.append(entries(10_000, 10));
  const reader = log.openReader(memoryCommits());
  const { epoch } = await begin(reader);
  await reader.commit(epoch, PARTITION, { offset: 9_001, metadata: "" });
  let before = 10_000;
  let ticks = 0;
  do {
    const { recordCount } = log.health();
    expect(before - recordCount).toBeLessThanOrEqual(2_000);
    await log.append(entries(1, 10));
    before = recordCount + 1;
    ticks += 1;
  } while (clock.endTick() > 0);
  expect(ticks).toBeGreaterThan(3);
  expect(ticks).toBeLessThan(10);
  expect(log.health().recordCount).toBe(1_000 + ticks);
  expect((await reader.position(epoch, PARTITION)).beginOffset).toBe(9_001);
});

test("commits while a deletion runs do not start a second one beside it", async () => {
  using directory = temporaryDirectory();
  const clock = manualClock();
  using log = openLog(directory.path, { clock });
  await log.append(entries(9_000, 10));
  const reader = log.openReader(memoryCommits());
  const { epoch } = await begin(reader);
  for (let offset = 3_000; offset <= 8_000; offset += 1_000) {
    await reader.commit(epoch, PARTITION, { offset, metadata: "" });
  }
  expect(log.health().recordCount).toBe(7_000);
  expect(clock.endTick()).toBe(1);
  while (clock.endTick() > 0);
  expect((await reader.position(epoch, PARTITION)).beginOffset).toBe(8_000);
});

test("closing in the middle of a deletion is quiet, and loses nothing at or above the commit", async () => {
  using directory = temporaryDirectory();
  const clock = manualClock();
  const commits = memoryCommits();
  const first = openLog(directory.path, { clock });
  await first.append(entries(5_000, 10));
  const reader = first.openReader(commits);
  const { epoch } = await begin(reader);
  await reader.commit(epoch, PARTITION, { offset: 4_001, metadata: "" });
  first[Symbol.dispose]();
  expect(clock.endTick()).toBe(1);
  expect(clock.endTick()).toBe(0);
  using second = openLog(directory.path);
  const { offsets } = await readFromCommit(second, commits);
  expect(offsets).toEqual(Array.from({ length: 1_000 }, (_, index) => 4_001 + index));
});

test("the file does not grow over cycles of filling, committing and deleting", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  const commits = memoryCommits();
  const sizes: number[] = [];
  for (let round = 0; round < 12; round++) {
    await log.append(entries(500, 2_000));
    await commitAll(log, commits);
    await turns(3);
    expect(log.health().recordCount).toBe(0);
    sizes.push(bytesOnDisk(directory.path));
  }
  expect(sizes.at(-1)!).toBeLessThanOrEqual(1.5 * Math.max(...sizes.slice(0, 6)));
});

function bytesOnDisk(directory: string): number {
  return readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
}

// --- Offsets are never given twice -----------------------------------------------------------------------------

test("offsets are not given again after the log was emptied, closed and opened", async () => {
  using directory = temporaryDirectory();
  const commits = memoryCommits();
  const seen: number[] = [];
  for (let round = 0; round < 4; round++) {
    using log = openLog(directory.path);
    await log.append(entries(3));
    const { offsets } = await readFromCommit(log, commits);
    expect(offsets.length).toBe(3);
    seen.push(...offsets);
    await commitAll(log, commits);
    await turns(3);
    expect(log.health().recordCount).toBe(0);
  }
  expect(seen).toEqual([...seen].sort((a, b) => a - b));
  expect(new Set(seen).size).toBe(12);
});

/** The files as a power cut leaves them: whatever came after the copy is gone. */
function copyLog(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from)) {
    if (name.startsWith("outbox.sqlite")) copyFileSync(join(from, name), join(to, name));
  }
}

test("when a power cut took the end of the log, new offsets do not fall below the commit", async () => {
  using directory = temporaryDirectory();
  const cut = join(directory.path, "cut");
  const commits = memoryCommits();
  const log = openLog(directory.path);
  await log.append(entries(10));
  copyLog(directory.path, cut);
  await log.append(entries(90));
  await commitAll(log, commits);
  log[Symbol.dispose]();

  for (let restart = 0; restart < 2; restart++) {
    using after = openLog(cut);
    const { reader, epoch, range } = await readFromCommit(after, commits);
    expect(range.committed).toEqual({ offset: 101, metadata: "all" });
    expect(range.endOffset).toBe(101);
    expect(range.beginOffset).toBeLessThanOrEqual(101);
    await reader.commit(epoch, PARTITION, { offset: 101, metadata: "all" });
  }
  using after = openLog(cut);
  const before = await readFromCommit(after, commits);
  expect(before.offsets).toEqual([]);
  await after.append(entries(2));
  expect((await readFromCommit(after, commits)).offsets).toEqual([101, 102]);
});

test("an append before the first reader, where a power cut took the end, is an error and not a loss", async () => {
  using directory = temporaryDirectory();
  const cut = join(directory.path, "cut");
  const commits = memoryCommits();
  const log = openLog(directory.path);
  await log.append(entries(10));
  copyLog(directory.path, cut);
  // More than are taken ahead.
  for (let append = 0; append < 20; append++) await log.append(entries(1_000, 1));
  await commitAll(log, commits);
  log[Symbol.dispose]();
  // It would get an offset below 20,011, and the commit says that all there is stored.
  using after = openLog(cut);
  await after.append(entries(1));
  expect(() => after.openReader(commits)).toThrow("the first reader is opened before the first append");
});

test("after a kill the reader's offsets go on without a gap, whatever was taken ahead", async () => {
  using directory = temporaryDirectory();
  const [full, empty] = [join(directory.path, "full"), join(directory.path, "empty")];
  const commits = memoryCommits();
  using log = openLog(directory.path);
  await log.append(entries(3));
  copyLog(directory.path, full);
  await commitAll(log, commits);
  await turns(3);
  copyLog(directory.path, empty);

  using unread = openLog(full);
  const { range, offsets } = await readFromCommit(unread, memoryCommits());
  expect([range.beginOffset, range.endOffset]).toEqual([1, 4]);
  expect(offsets).toEqual([1, 2, 3]);
  expect(unread.health().unreadCount).toBe(0);

  using drained = openLog(empty);
  const before = await readFromCommit(drained, commits);
  expect([before.range.beginOffset, before.range.endOffset]).toEqual([4, 4]);
  expect(drained.health()).toMatchObject({ recordCount: 0, unreadCount: 0 });
  await drained.append(entries(2));
  expect((await readFromCommit(drained, commits)).offsets).toEqual([4, 5]);
});

test("a store that is older than what was deleted from an empty file reads behind a gap", async () => {
  using directory = temporaryDirectory();
  const copy = join(directory.path, "copy");
  const commits = memoryCommits();
  using log = openLog(directory.path);
  await log.append(entries(10));
  await commitAll(log, commits);
  const [[id, older]] = [...commits.kept] as [[string, Position]];
  await log.append(entries(5));
  await commitAll(log, commits);
  await turns(3);
  copyLog(directory.path, copy);

  using after = openLog(copy);
  commits.kept.set(id, older);
  const { range } = await readFromCommit(after, commits);
  expect([range.committed?.offset, range.beginOffset, range.endOffset]).toEqual([11, 16, 16]);
});

test("a power cut far behind the commit, and a kill while that is tidied up, leave no gap", async () => {
  using directory = temporaryDirectory();
  const [cut, killed] = [join(directory.path, "cut"), join(directory.path, "killed")];
  const commits = memoryCommits();
  using log = openLog(directory.path);
  await log.append(entries(10));
  copyLog(directory.path, cut);
  await log.append(entries(5_000));
  await commitAll(log, commits);

  // The first slice deletes all ten, and the end of the deletion does not come.
  using short = openLog(cut, { clock: manualClock() });
  const before = await readFromCommit(short, commits);
  expect([before.range.beginOffset, before.range.endOffset]).toEqual([5_011, 5_011]);
  copyLog(cut, killed);
  using after = openLog(killed);
  const { range } = await readFromCommit(after, commits);
  expect([range.beginOffset, range.endOffset]).toEqual([5_011, 5_011]);
});

test("a reader may empty a producer's file, and dead letters from its end do not make it a damaged one", async () => {
  using directory = temporaryDirectory();
  {
    using log = openLog(directory.path);
    const outbox = log.openOutbox();
    await log.append(entries(3));
    outbox.deadLetter(outbox.read(3, 1)[0]!, "refused");
    outbox.remove([2]);
    outbox.flush();
  }
  {
    // As in a file from before there were roles, or one salvaged without its owner row.
    using file = new Database(join(directory.path, "outbox.sqlite"));
    file.run("DELETE FROM keeper");
  }
  const commits = memoryCommits();
  const ids: string[] = [];
  for (let start = 0; start < 2; start++) {
    using log = openLog(directory.path);
    ids.push(log.id);
    await commitAll(log, commits);
    await turns(3);
    expect(log.health().recordCount).toBe(0);
  }
  expect(ids[1]).toBe(ids[0]!);
});

test("after a kill a producer's file gives no offset twice, whatever was deleted from its end", async () => {
  using directory = temporaryDirectory();
  const copy = join(directory.path, "copy");
  using log = openLog(directory.path);
  const outbox = log.openOutbox();
  await log.append(entries(3));
  outbox.remove([2, 3]);
  outbox.flush();
  copyLog(directory.path, copy);

  using after = openLog(copy);
  const left = after.openOutbox();
  await after.append(entries(1));
  const [first, second] = left.read(0, 10).map(({ offset }) => offset);
  expect(first).toBe(1);
  expect(second).toBeGreaterThan(3);
});

test("a commit that the log still reaches raises nothing", async () => {
  using directory = temporaryDirectory();
  const commits = memoryCommits();
  using log = openLog(directory.path);
  await log.append(entries(5));
  await commitAll(log, commits);
  log.openReader(commits);
  await log.append(entries(1));
  expect((await readFromCommit(log, commits)).offsets).toEqual([6]);
});

test("another file does not take over the commit of the one before it", async () => {
  using directory = temporaryDirectory();
  const commits = memoryCommits();
  {
    using first = openLog(join(directory.path, "first"));
    await first.append(entries(50));
    await commitAll(first, commits);
  }
  {
    using second = openLog(join(directory.path, "second"));
    await second.append(entries(3));
    const { range, offsets } = await readFromCommit(second, commits);
    expect(range.committed).toBeNull();
    expect(offsets).toEqual([1, 2, 3]);
    await commitAll(second, commits);
  }
  using first = openLog(join(directory.path, "first"));
  expect((await readFromCommit(first, commits)).range.committed?.offset).toBe(51);
  expect(commits.kept.size).toBe(2);
});

// --- A full disk -----------------------------------------------------------------------------------------------

/** The log, and the connection it holds: the one place where SQLite's own bounds can be set. */
function openWithConnection(directory: string): { log: SqliteLog; connection: Database } {
  let connection: Database | undefined;
  const original = Database.prototype.run;
  const spy = spyOn(Database.prototype, "run").mockImplementation(function (this: Database, ...parts) {
    connection = this;
    return original.apply(this, parts);
  });
  const log = openLog(directory);
  spy.mockRestore();
  if (connection === undefined) throw new Error("the log opened no database");
  return { log, connection };
}

test("a full disk refuses with LogFullError, writes nothing by halves, and works again with room", async () => {
  using directory = temporaryDirectory();
  const { log, connection } = openWithConnection(directory.path);
  await log.append(entries(20, 1_000));
  const { page_count } = connection.query<{ page_count: number }, []>("PRAGMA page_count").get()!;
  connection.run(`PRAGMA max_page_count = ${page_count + 10}`);
  const before = log.health();
  for (let attempt = 0; attempt < 3; attempt++) {
    // The first of these entries fit, the rest do not.
    const appending = log.append(entries(50, 3_000));
    await expect(appending).rejects.toBeInstanceOf(LogFullError);
    await expect(appending).rejects.toMatchObject({ hint: "make room in DATA_DIR" });
    expect(log.health()).toEqual(before);
  }
  // Less still fits.
  await log.append(entries(1, 1_000));
  expect((await readFromCommit(log, memoryCommits())).offsets.length).toBe(21);

  connection.run("PRAGMA max_page_count = 1000000");
  await log.append(entries(50, 3_000));
  log[Symbol.dispose]();
  using later = openLog(directory.path);
  const { records } = await readFromCommit(later, memoryCommits());
  expect(records.map(({ value }) => value.length)).toEqual([
    ...Array.from({ length: 21 }, () => 1_000),
    ...Array.from({ length: 50 }, () => 3_000),
  ]);
});

test("a file that cannot be locked for a moment is unavailable, not full, and nothing is half-written", async () => {
  using directory = temporaryDirectory();
  const { log, connection } = openWithConnection(directory.path);
  await log.append(entries(1));
  // The same error code that a lock of another process gives.
  const spy = spyOn(connection, "run").mockImplementationOnce(() => {
    throw Object.assign(new Error("database is locked"), { code: "SQLITE_BUSY" });
  });
  await expect(log.append(entries(2))).rejects.toBeInstanceOf(LogUnavailableError);
  spy.mockRestore();
  expect(log.health().recordCount).toBe(1);
  await log.append(entries(2));
  expect((await readFromCommit(log, memoryCommits())).offsets).toEqual([1, 2, 3]);
  log[Symbol.dispose]();
});

// --- Readers ---------------------------------------------------------------------------------------------------

test("of many readers only the newest is served, and the older ones end", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  const commits = memoryCommits();
  await log.append(entries(5));
  const older: { reader: LogReader; epoch: number; ended: Promise<IteratorResult<Delivery>> }[] = [];
  for (let number = 0; number < 10; number++) {
    const reader = log.openReader(commits);
    const { epoch, iterator } = await begin(reader);
    // Half of them wait for a seek, half for a record.
    if (number % 2 === 0) reader.seek(epoch, PARTITION, 6);
    older.push({ reader, epoch, ended: iterator.next() });
  }
  const { offsets } = await readFromCommit(log, commits);
  expect(offsets).toEqual([1, 2, 3, 4, 5]);
  for (const { reader, epoch, ended } of older) {
    expect((await ended).done).toBe(true);
    await expect(reader.commit(epoch, PARTITION, { offset: 3, metadata: "" })).rejects.toThrow(
      StaleEpochError,
    );
  }
  expect(commits.kept.size).toBe(0);
});

test("closing the log ends the iteration, and a commit afterwards is stale", async () => {
  using directory = temporaryDirectory();
  const log = openLog(directory.path);
  const commits = memoryCommits();
  const reader = log.openReader(commits);
  const { epoch, iterator } = await begin(reader);
  const waiting = iterator.next();
  log[Symbol.dispose]();
  expect((await waiting).done).toBe(true);
  await expect(reader.commit(epoch, PARTITION, { offset: 1, metadata: "" })).rejects.toThrow(StaleEpochError);
});

test("a backlog leaves the event loop its turns", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  await log.append(entries(5_000, 10));
  let turnCount = 0;
  let isReading = true;
  const turn = () => {
    turnCount += 1;
    if (isReading) systemClock.atEndOfTick(turn);
  };
  systemClock.atEndOfTick(turn);
  await readFromCommit(log, memoryCommits());
  isReading = false;
  expect(turnCount).toBeGreaterThan(10);
});

test("a reader that is woken for days keeps nothing of its waits", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  const reader = log.openReader(memoryCommits());
  const { epoch, iterator } = await begin(reader);
  reader.seek(epoch, PARTITION, 1);
  const promises = () => {
    Bun.gc(true);
    return heapStats().objectTypeCounts.Promise ?? 0;
  };
  const before = promises();
  for (let wake = 0; wake < 3_000; wake++) {
    const asked = iterator.next();
    await turns(1);
    await log.append(entries(1, 1));
    await asked;
  }
  expect(promises() - before).toBeLessThan(500);
});

test("order and content survive any sizes of appends and batches", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  const random = seeded(11);
  const sent: string[] = [];
  while (sent.length < 4_000) {
    const batch = Array.from({ length: 1 + random(300) }, () => Buffer.alloc(random(40), `${random(1e9)}`));
    await log.append(batch.map((value) => ({ kind: "trades", key: "AAPL", value })));
    sent.push(...batch.map(String));
  }
  const { records, offsets } = await readFromCommit(log, memoryCommits());
  expect(records.map(({ value }) => Buffer.from(value).toString())).toEqual(sent);
  expect(offsets).toEqual(sent.map((_, index) => index + 1));
});
