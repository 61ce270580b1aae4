// What happens to the outbox when its file is damaged, one kind of damage a test, and a short run of bench/torture.ts.
// TORTURE_KILLS and TORTURE_SEED change its length and its course.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { runTorture } from "../../../bench/torture.ts";
import { systemClock } from "../../../lib/base/clock.ts";
import { PipelineError, SetupError } from "../../../lib/base/errors.ts";
import { type Fields, silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type { LogRecord, Position } from "../../../lib/contracts/log.ts";
import { decodeEvent } from "../../../lib/model/codec.ts";
import { openSqliteLog, type SqliteLog } from "../../../lib/outbox/log.ts";
import { openSqliteStore } from "../../../lib/sqlite/store.ts";
import { NOON_MS, temporaryDirectory } from "../../support/builders.ts";

const KILLS = Number(process.env.TORTURE_KILLS ?? 100);
const SEED = Number(process.env.TORTURE_SEED ?? 1);
/** One kill with its start and the check takes about 250 ms, and several times that on a busy machine. */
const KILL_MS_MAX = 2_000;
/** A hundred thousand reads that fail take two seconds on an idle machine. */
const SALVAGE_MS_MAX = 60_000;
const PAGE_BYTES = 4_096;
const FRAME_BYTES = PAGE_BYTES + 24;
/** SQLite starts the file over after 1,000 frames, of which ten records take two. */
const WAL_RESTART_RECORDS_MAX = 20_000;

test(
  `nothing acknowledged is lost or out of order over ${KILLS} kills, whatever happens to the file (seed ${SEED})`,
  async () => {
    const result = await runTorture({ kills: KILLS, seed: SEED });
    expect(result.problems).toEqual([]);
    expect(result).toMatchObject({ kills: KILLS, lost: 0, outOfOrder: 0 });
    expect(result.acknowledged).toBeGreaterThan(KILLS * 20);
    expect(result.damaged).toBeLessThanOrEqual(result.atRisk);
    // With few kills some kinds may be missing.
    if (KILLS < 100) return;
    expect(result.damagedFiles).toBeGreaterThan(KILLS / 40);
    expect(result.refused).toBeGreaterThan(0);
  },
  { timeout: KILLS * KILL_MS_MAX },
);

// --- One damage a test -----------------------------------------------------------------------------------------

type Reported = { message: string; fields: Fields | undefined }[];

function openLog(directory: string, reported: Reported = [], atMs = NOON_MS): SqliteLog {
  return openSqliteLog({
    directory,
    topic: "market",
    sync: "normal",
    bytesMax: 2 ** 30,
    clock: { ...systemClock, now: () => atMs },
    metrics: createMetrics(),
    logger: { ...silentLogger, error: (message, fields) => reported.push({ message, fields }) },
  });
}

/** Appends records of 100 bytes, ten a transaction; each value names its number. */
async function appendNumbered(log: SqliteLog, count: number, first = 0): Promise<void> {
  for (let from = first; from < first + count; from += 10) {
    const numbers = Array.from({ length: 10 }, (_, index) => from + index);
    await log.append(
      numbers.map((number) => ({ kind: "trades", key: "AAPL", value: Buffer.alloc(100, `<${number}>`) })),
    );
  }
}

async function readAll(log: SqliteLog, commits = new Map<string, Position>()): Promise<LogRecord[]> {
  const abort = new AbortController();
  const reader = log.openReader({
    load: (id) => commits.get(id) ?? null,
    save: (id, position) => void commits.set(id, position),
  });
  const records: LogRecord[] = [];
  let end = 0;
  for await (const delivery of reader.deliveries(abort.signal)) {
    if (delivery.type === "assigned") {
      const { beginOffset, endOffset, committed } = await reader.position(delivery.epoch, "market/0");
      end = endOffset;
      if (beginOffset === endOffset) break;
      reader.seek(delivery.epoch, "market/0", committed?.offset ?? beginOffset);
    } else {
      records.push(...delivery.records);
      if (delivery.nextOffset === end) break;
    }
  }
  return records;
}

const numberOf = ({ value }: LogRecord) => Number(/^<(\d+)>/.exec(Buffer.from(value).toString())?.[1]);
const numbersIn = (records: readonly LogRecord[]) =>
  records.filter(({ kind }) => kind === "trades").map(numberOf);
const upTo = (count: number) => Array.from({ length: count }, (_, number) => number);
const mainOf = (directory: string) => join(directory, "outbox.sqlite");
const asideIn = (directory: string) =>
  readdirSync(directory).filter((name) => /\.(?:damaged|salvaging|building)/.test(name));

/** What a kill leaves: the files as they are now, before their process closes them. */
function killed(directory: string, to = "killed"): string {
  const copy = join(directory, to);
  mkdirSync(copy);
  for (const name of ["outbox.sqlite", "outbox.sqlite-wal"]) {
    if (existsSync(join(directory, name))) copyFileSync(join(directory, name), join(copy, name));
  }
  return copy;
}

function change(path: string, edit: (bytes: Buffer) => void): void {
  const bytes = readFileSync(path);
  edit(bytes);
  writeFileSync(path, bytes);
}

test("a file that is no database is set aside under a name with the time, reported with a hint, and replaced", async () => {
  using directory = temporaryDirectory();
  const garbage = "this is no database".repeat(5_000);
  writeFileSync(mainOf(directory.path), garbage);
  const reported: Reported = [];
  {
    using log = openLog(directory.path, reported);
    await appendNumbered(log, 10);
    const [event, ...records] = await readAll(log);
    expect(numbersIn(records)).toEqual(upTo(10));
    const { type, detail } = decodeEvent(event!.value)!;
    expect(type).toBe("log_damaged");
    const file = "outbox.sqlite.damaged-2026-01-05T120000.000Z";
    expect(JSON.parse(detail)).toMatchObject({ file, salvagedCount: 0, isWhole: false });
    expect(readFileSync(join(directory.path, file), "utf8")).toBe(garbage);
  }
  expect(reported).toHaveLength(1);
  expect(reported[0]?.fields).toMatchObject({ hint: expect.stringContaining("check the disk") });
  // The salvage is complete: the next start finds nothing to do.
  using _log = openLog(directory.path, reported);
  expect(reported).toHaveLength(1);
  expect(asideIn(directory.path)).toHaveLength(1);
});

test("without its first page everything else is salvaged, in order, at its old offsets", async () => {
  using directory = temporaryDirectory();
  const commits = new Map<string, Position>();
  {
    using log = openLog(directory.path);
    await appendNumbered(log, 3_000);
    await readAll(log, commits);
  }
  change(mainOf(directory.path), (bytes) => bytes.fill(0xaa, 0, PAGE_BYTES));
  using log = openLog(directory.path);
  const records = await readAll(log, commits);
  expect(numbersIn(records)).toEqual(upTo(3_000));
  expect(records.slice(0, 3_000).map(({ offset }) => offset)).toEqual(
    upTo(3_000).map((number) => number + 1),
  );
  // Unreadable records may have had the offsets after them, and the first ten took 10,000 more ahead.
  expect(records.at(-1)).toMatchObject({ kind: "event", offset: 10 + 10_000 + 10_000 });
});

test("a changed letter in the text of the tables is damage too, and costs nothing", async () => {
  const words = [
    "TABLE records",
    "appended_at INTEGER",
    "value BLOB",
    "AUTOINCREMENT",
    "log_identity (id TEXT",
  ];
  for (const word of words) {
    using directory = temporaryDirectory();
    {
      using log = openLog(directory.path);
      await appendNumbered(log, 200);
    }
    change(mainOf(directory.path), (bytes) => {
      const place = bytes.indexOf(word) + word.length - 2;
      bytes[place] = bytes[place]! ^ 1;
    });
    using log = openLog(directory.path);
    expect(numbersIn(await readAll(log))).toEqual(upTo(200));
  }
});

test("a commit for the damaged file is not taken for one of the new file", async () => {
  using directory = temporaryDirectory();
  const commits = new Map<string, Position>();
  {
    using log = openLog(directory.path);
    await appendNumbered(log, 100);
    const reader = log.openReader({
      load: () => null,
      save: (id, position) => void commits.set(id, position),
    });
    const { value } = await reader.deliveries(new AbortController().signal)[Symbol.asyncIterator]().next();
    if (value?.type !== "assigned") throw new Error("no epoch");
    await reader.commit(value.epoch, "market/0", { offset: 51, metadata: "" });
  }
  change(mainOf(directory.path), (bytes) => bytes.fill(0, 20, 60));
  using log = openLog(directory.path);
  expect(numbersIn(await readAll(log, commits))).toEqual(upTo(100).slice(50));
  expect(commits.size).toBe(1);
});

test("one flipped bit in a value costs that one record", async () => {
  using directory = temporaryDirectory();
  {
    using log = openLog(directory.path);
    await appendNumbered(log, 1_000);
  }
  change(mainOf(directory.path), (bytes) => {
    const place = bytes.indexOf("<777><777>") + 30;
    bytes[place] = bytes[place]! ^ 1;
  });
  const reported: Reported = [];
  using log = openLog(directory.path, reported);
  expect(numbersIn(await readAll(log))).toEqual(upTo(1_000).filter((number) => number !== 777));
  expect(reported[0]?.fields).toMatchObject({ salvagedCount: 999, unreadableCount: 1, isWhole: true });
});

test(
  "a lost page costs what was on it, also beside the gap of offsets that a salvage leaves",
  async () => {
    using directory = temporaryDirectory();
    for (let round = 0; round < 3; round++) {
      const before = round === 0 ? 0 : numbersOf(directory.path).length;
      {
        using log = openLog(directory.path);
        await appendNumbered(log, 1_000);
      }
      const gone: string[] = [];
      change(mainOf(directory.path), (bytes) => {
        // The page where the newest of the older records and the first of the newer ones meet.
        const place = bytes.lastIndexOf("<3><3>");
        const page = bytes.subarray(place - (place % PAGE_BYTES)).subarray(0, PAGE_BYTES);
        for (const [text] of page.toString("latin1").matchAll(/(?<=<)\d+(?=><)/g)) gone.push(text);
        page.fill(0xff);
      });
      const goneCount = new Set(gone).size;
      expect(goneCount).toBeGreaterThan(5);
      {
        using _log = openLog(directory.path);
      }
      expect(numbersOf(directory.path).length).toBeGreaterThanOrEqual(before + 1_000 - goneCount);
    }
  },
  SALVAGE_MS_MAX,
);

function numbersOf(directory: string): string[] {
  using db = new Database(mainOf(directory), { readonly: true });
  return db
    .query<{ value: Uint8Array }, []>("SELECT value FROM records WHERE kind = 'trades' ORDER BY offset")
    .all()
    .map(({ value }) => Buffer.from(value).toString("latin1", 0, 6));
}

test("a flaw in the -wal file hides nothing of what was committed after it", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  await appendNumbered(log, 500);
  const copy = killed(directory.path);
  let goneCount = 0;
  change(`${mainOf(copy)}-wal`, (bytes) => {
    const frame = bytes.subarray(32 + 40 * FRAME_BYTES, 32 + 41 * FRAME_BYTES);
    goneCount = new Set(frame.toString("latin1").match(/<\d+>/g)).size;
    frame[3_000] = frame[3_000]! ^ 0xff;
  });
  const reported: Reported = [];
  using after = openLog(copy, reported);
  const numbers = numbersIn(await readAll(after));
  expect(reported[0]?.fields?.reason).toBe("frame 41 of the -wal file is damaged");
  expect(numbers.length).toBeGreaterThanOrEqual(500 - goneCount);
  expect(numbers.at(-1)).toBe(499);
  expect(numbers).toEqual(numbers.toSorted((one, other) => one - other));
});

test("a value that continues in a lost page costs that one record, and no start", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  await appendNumbered(log, 10);
  await log.append([{ kind: "trades", key: "AAPL", value: Buffer.alloc(3 * PAGE_BYTES, "<10>") }]);
  const copy = killed(directory.path);
  // A commit's frames are in the order of their pages: the last one is the end of the value.
  change(`${mainOf(copy)}-wal`, (bytes) => bytes.writeUInt32BE(0xffff_ff00, bytes.length - FRAME_BYTES));
  using after = openLog(copy);
  expect(numbersIn(await readAll(after))).toEqual(upTo(10));
});

test("a -wal file without its header is still read", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  await appendNumbered(log, 500);
  const copy = killed(directory.path);
  change(`${mainOf(copy)}-wal`, (bytes) => bytes.fill(0x55, 0, 32));
  using after = openLog(copy);
  expect(numbersIn(await readAll(after))).toEqual(upTo(500));
});

test("the torn end that a kill leaves is no damage", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  await appendNumbered(log, 500);
  const copy = killed(directory.path);
  const size = readFileSync(`${mainOf(copy)}-wal`).length;
  truncateSync(`${mainOf(copy)}-wal`, size - 100);
  const reported: Reported = [];
  using after = openLog(copy, reported);
  expect(numbersIn(await readAll(after))).toEqual(upTo(490));
  expect(reported).toEqual([]);
});

/** Appends ten at a time until SQLite starts the -wal file over; its bytes and the count before that transaction. */
async function appendUntilWalRestarts(
  log: SqliteLog,
  path: string,
): Promise<[before: Buffer, count: number]> {
  for (let count = 0; count < WAL_RESTART_RECORDS_MAX; count += 10) {
    const before = readFileSync(path);
    await appendNumbered(log, 10, count);
    if (statSync(path).size < before.length) return [before, count];
  }
  throw new Error("the -wal file never started over");
}

test("a frame that a kill left half written over an older one is no damage: it was never acknowledged", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  const wal = `${mainOf(directory.path)}-wal`;
  const [older, count] = await appendUntilWalRestarts(log, wal);
  const copy = killed(directory.path);
  // The first transaction of the new generation, but in place of its last page the older one.
  const restarted = readFileSync(wal);
  expect((restarted.length - 32) % FRAME_BYTES).toBe(0);
  const torn = Buffer.concat([
    restarted.subarray(0, restarted.length - PAGE_BYTES),
    older.subarray(restarted.length - PAGE_BYTES),
  ]);
  writeFileSync(`${mainOf(copy)}-wal`, torn);
  const reported: Reported = [];
  {
    using after = openLog(copy, reported);
    expect(numbersIn(await readAll(after))).toEqual(upTo(count));
  }
  expect(reported).toEqual([]);
  expect(asideIn(copy)).toEqual([]);
});

test("wrong content in the last frame of an acknowledged commit is damage", async () => {
  using directory = temporaryDirectory();
  using log = openLog(directory.path);
  const [, count] = await appendUntilWalRestarts(log, `${mainOf(directory.path)}-wal`);
  for (const more of [0, 10]) {
    await appendNumbered(log, more, count + 10);
    const copy = killed(directory.path, `killed-${more}`);
    change(`${mainOf(copy)}-wal`, (bytes) => {
      const place = bytes.length - PAGE_BYTES + 200;
      bytes[place] = bytes[place]! ^ 1;
    });
    const reported: Reported = [];
    using after = openLog(copy, reported);
    expect(reported[0]?.fields?.reason).toMatch(/^frame \d+ of the -wal file is damaged$/);
    // The byte may have been in a record, and then that one is lost.
    const numbers = numbersIn(await readAll(after));
    expect(numbers.length).toBeGreaterThanOrEqual(count + 10 + more - 1);
    expect(numbers).toEqual(numbers.toSorted((one, other) => one - other));
  }
});

test("a salvage that was cut off at any of its steps is resumed, and ends the same", async () => {
  using directory = temporaryDirectory();
  {
    using log = openLog(directory.path);
    await appendNumbered(log, 300);
  }
  change(mainOf(directory.path), (bytes) => bytes.fill(0, 0, 100));
  const aside = `${mainOf(directory.path)}.salvaging-2026-01-05T120000.000Z`;
  const damaged = readFileSync(mainOf(directory.path));
  const steps: (() => void)[] = [
    () => renameSync(mainOf(directory.path), aside),
    () => writeFileSync(`${aside}.wal-as-found`, ""),
    () => writeFileSync(`${mainOf(directory.path)}.building`, damaged.subarray(0, 10_000)),
    () => writeFileSync(`${aside}-wal`, "half"),
  ];
  for (let done = 1; done <= steps.length; done++) {
    for (const step of steps.slice(0, done)) step();
    {
      using log = openLog(directory.path);
      expect(numbersIn(await readAll(log))).toEqual(upTo(300));
    }
    expect(asideIn(directory.path).filter((name) => !name.includes(".damaged-"))).toEqual([]);
    writeFileSync(mainOf(directory.path), damaged);
  }
});

test("damage met while running is reported as such, and the next start sets the file aside", async () => {
  using directory = temporaryDirectory();
  {
    using log = openLog(directory.path);
    await appendNumbered(log, 20_000);
  }
  {
    using log = openLog(directory.path);
    change(mainOf(directory.path), (bytes) =>
      bytes.fill(0xee, bytes.length >> 1, (bytes.length >> 1) + 20_000),
    );
    const reading = readAll(log);
    await expect(reading).rejects.toBeInstanceOf(PipelineError);
    await expect(reading).rejects.toThrow(/outbox\.sqlite is damaged/);
  }
  const reported: Reported = [];
  using log = openLog(directory.path, reported);
  expect(reported).toHaveLength(1);
  const numbers = numbersIn(await readAll(log));
  expect(numbers.length).toBeGreaterThan(19_700);
  expect(numbers).toEqual(numbers.toSorted((one, other) => one - other));
});

test("an outbox from before there were checksums is opened and read", async () => {
  using directory = temporaryDirectory();
  {
    using db = new Database(mainOf(directory.path), { create: true });
    db.run(`CREATE TABLE records (offset INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, key TEXT NOT NULL,
      appended_at INTEGER NOT NULL, value BLOB NOT NULL) STRICT`);
    db.run("INSERT INTO records (kind, key, appended_at, value) VALUES ('trades', 'AAPL', 1, ?)", [
      Buffer.from("<0>"),
    ]);
  }
  const reported: Reported = [];
  using log = openLog(directory.path, reported);
  await appendNumbered(log, 10);
  expect(numbersIn(await readAll(log))).toEqual([0, ...upTo(10)]);
  expect(reported).toEqual([]);
});

test("of damaged files the newest eight are kept", () => {
  using directory = temporaryDirectory();
  for (let damage = 0; damage < 11; damage++) {
    writeFileSync(mainOf(directory.path), `no database ${damage}`.repeat(500));
    openLog(directory.path, [], NOON_MS + damage)[Symbol.dispose]();
  }
  const kept = asideIn(directory.path).sort();
  expect(kept).toHaveLength(8);
  expect(readFileSync(join(directory.path, kept.at(-1)!), "utf8")).toStartWith("no database 10");
});

test("a damaged market.sqlite is the user's: it is refused with a hint and left unchanged", () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, "market.sqlite");
  openSqliteStore({ directory: directory.path, sync: "normal" })[Symbol.dispose]();
  change(path, (bytes) => bytes.fill(0x11, 0, PAGE_BYTES));
  const damaged = readFileSync(path);
  let refusal: unknown;
  try {
    openSqliteStore({ directory: directory.path, sync: "normal" });
  } catch (error) {
    refusal = error;
  }
  expect(refusal).toBeInstanceOf(SetupError);
  expect((refusal as SetupError).message).toContain("market.sqlite is damaged");
  expect((refusal as SetupError).hint).toContain("restore a backup");
  expect(readFileSync(path)).toEqual(damaged);
  expect(readdirSync(directory.path).filter((name) => name.includes("damaged"))).toEqual([]);
});
