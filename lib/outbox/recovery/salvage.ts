// The file of the SQLite log: taken, checked, opened. A damaged one never blocks the start: it is set aside under
// a name that says when, and what can be read from it goes into a new one, at its old offsets, under a new
// identity, with its keeper's row. Every step can be cut off by a kill and is gone on with at the next start. It never changes a damaged
// file and never gives out a record whose checksum says that it is another one.

import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import sql from "../../../sql/log.sql" with { type: "text" };
import type { Clock } from "../../base/clock.ts";
import { SetupError } from "../../base/errors.ts";
import type { Logger } from "../../base/logger.ts";
import {
  type Database,
  inTransaction,
  isDamage,
  openDatabase,
  openReadOnly,
  type SyncMode,
  sqliteFault,
  takeOwnership,
} from "../../base/sqlite.ts";
import type { FeedEventType } from "../../contracts/feed.ts";
import { encodeEvent } from "../../model/codec.ts";
import { newSession } from "../../model/identity.ts";
import { dayOf } from "../../model/trade.ts";
import { mendWal, PAGE_BYTES, walProblem } from "./wal.ts";

export type LogFileOptions = Readonly<{ path: string; sync: SyncMode; clock: Clock; logger: Logger }>;

/** What is in the file: records that wait, and records put aside (outbox_dead). Bytes are those of the values. */
export type Totals = { recordCount: number; valueBytes: number; deadCount: number; deadValueBytes: number };

/** The open file and what is in it. */
export type LogFile = Disposable & Readonly<{ db: Database; totals: Totals }>;

type Row = [
  offset: number,
  kind: string,
  key: string,
  appendedAt: number,
  value: Uint8Array,
  crc: number | null,
  ...aside: [refusedAt?: number, reason?: string],
];

/** Of one read while checking or salvaging. */
const READ_RECORDS_MAX = 256;
/** Reads that fail take some 10 µs each; a file of which nothing can be read is given up after a second or two. */
const FAILED_READS_MAX = 100_000;
/** Set-aside files kept; the oldest beyond it goes, so that a dying disk is not filled by its own damage. */
const DAMAGED_FILES_MAX = 8;
/** Offsets between the last one seen and the next: what cannot be read may have been the last. */
const OFFSET_MARGIN = 10_000;
/** Beyond it a number in the file is no offset. */
const OFFSET_MAX = 2 ** 48;

/** Whose file it is; what it is for stands in outbox/owner.ts. */
export type OutboxOwner = Readonly<{
  role: "local" | "producer" | null;
  /** The same over restarts and salvages; a copy has it too. */
  holder: string;
  /** This outbox's own claims, oldest first, since it last knew of another's hold. */
  sessions: readonly Readonly<{ session: string; place: string }>[];
  /** The last hold was let go in good order. */
  isReleased: boolean;
  doubtFrom: number | null;
  symbols: readonly string[] | null;
}>;

export const NO_OWNER: Omit<OutboxOwner, "holder"> = {
  role: null,
  sessions: [],
  isReleased: false,
  doubtFrom: null,
  symbols: null,
};

/** Told apart from a bug: the file is not what was written. */
class Damage extends Error {}

/** The checksum that a record is kept with; of the offset too, or a record could turn up in another one's place. */
export function recordCrc(
  offset: number,
  kind: string,
  key: string,
  appendedAt: number,
  value: Uint8Array,
): number {
  return Bun.hash.crc32(value, Bun.hash.crc32(`${offset} ${kind} ${appendedAt} ${key}`));
}

/** That of a record put aside: no record of the other table is ever taken for one. */
export function deadCrc(recordsCrc: number, refusedAt: number, reason: string): number {
  return Bun.hash.crc32(`${refusedAt} ${reason}`, recordsCrc);
}

export function ownerCrc(words: string): number {
  return Bun.hash.crc32(words);
}

/** Null: nobody kept it yet. Throws Damage. */
export function readOwner(db: Database): OutboxOwner | null {
  const [row] = valuesOf(db, "SELECT words, crc FROM keeper");
  if (row === undefined) return null;
  const [words, crc] = row as [string, number];
  if (ownerCrc(words) !== crc) throw new Damage("the row of its keeper is not what was written");
  return JSON.parse(words) as OutboxOwner;
}

export function openLogFile(options: LogFileOptions): LogFile {
  const owner = takeOwnership(options.path);
  try {
    const { db, totals } = openOwned(options);
    return {
      db,
      totals,
      [Symbol.dispose]() {
        db.close();
        owner[Symbol.dispose]();
      },
    };
  } catch (error) {
    owner[Symbol.dispose]();
    throw error;
  }
}

function openOwned(options: LogFileOptions): { db: Database; totals: Totals } {
  const { path } = options;
  const unfinished = readdirSync(dirname(path)).find((name) => setAsideName(path).test(name));
  if (unfinished !== undefined)
    salvage(options, join(dirname(path), unfinished), "an earlier start found it so");
  // Before it is opened: SQLite would take the commits before the flaw for all, and forget the rest.
  const problem = walProblem(`${path}-wal`);
  if (problem === null) {
    try {
      return openChecked(options);
    } catch (error) {
      const cause = error instanceof SetupError ? error.cause : error;
      if (!(cause instanceof Damage || isDamage(cause))) throw error;
      setAside(options, String(cause));
    }
  } else {
    setAside(options, problem);
  }
  return openChecked(options);
}

// ---- The check --------------------------------------------------------------------------------------------------

/**
 * Everything is looked at, at every start: the structure (quick_check: 0.5 s a GiB) and every record's checksum
 * (1.5 s a GiB, of which counting them would take 0.3). That much only waits after an outage of hours, and then all
 * of it is about to be read anyway; a lighter check would find the damage in the middle of the work, again and again.
 */
function openChecked({ path, sync }: LogFileOptions) {
  const db = openDatabase({ path, sync, schema: sql, exclusive: true, check: checkStructure });
  try {
    addChecksums(db);
    readOwner(db);
    const records = checkRecords(db, "records");
    const dead = checkRecords(db, "outbox_dead");
    checkNextOffset(db, Math.max(records.last, dead.last));
    emptyWal(db);
    const totals = { recordCount: records.count, valueBytes: records.bytes };
    return { db, totals: { ...totals, deadCount: dead.count, deadValueBytes: dead.bytes } };
  } catch (error) {
    db.close();
    throw error;
  }
}

function checkStructure(db: Database): void {
  const [verdict] = valuesOf(db, "PRAGMA quick_check(1)");
  if (verdict?.[0] !== "ok") throw new Damage(String(verdict?.[0]));
  const names = valuesOf(db, "SELECT name FROM sqlite_schema WHERE type = 'table'").map(([name]) => name);
  // The table would be made anew, empty, and what it held forgotten.
  if (names.length > 0 && !names.includes("records")) throw new Damage("the table of the records is gone");
  // Page 1 holds the tables as text, which quick_check does not compare with anything.
  for (const [table, columns] of Object.entries(COLUMNS)) {
    if (!names.includes(table)) continue;
    const found = String(valuesOf(db, COLUMNS_OF.replace("?", `'${table}'`))[0]?.[0]);
    if (found !== columns && found !== `${columns}, crc INTEGER`)
      throw new Damage(`the table ${table} has other columns: ${found}`);
  }
}

const COLUMNS = {
  records: "offset INTEGER, kind TEXT, key TEXT, appended_at INTEGER, value BLOB",
  log_identity: "id TEXT",
  keeper: "id INTEGER, words TEXT, crc INTEGER",
  outbox_dead:
    "offset INTEGER, kind TEXT, key TEXT, appended_at INTEGER, value BLOB, crc INTEGER, refused_at INTEGER, reason TEXT",
} as const;

type Table = "records" | "outbox_dead";
const TABLES: readonly Table[] = ["records", "outbox_dead"];
const COLUMNS_OF = "SELECT group_concat(name || ' ' || type, ', ') FROM pragma_table_info(?)";

function checkRecords(db: Database, table: Table): { count: number; bytes: number; last: number } {
  const select = db.prepare(SELECT_FROM[table]);
  let count = 0;
  let bytes = 0;
  try {
    for (let from = 0; ; ) {
      const rows = select.values(from, OFFSET_MAX, READ_RECORDS_MAX) as Row[];
      for (const row of rows) {
        if (!isWhole(row, table)) throw new Damage(`the record at ${row[0]} is not what was written`);
        count += 1;
        bytes += row[4].length;
      }
      if (rows.length < READ_RECORDS_MAX) return { count, bytes, last: rows.at(-1)?.[0] ?? from - 1 };
      from = rows.at(-1)![0] + 1;
    }
  } finally {
    select.finalize();
  }
}

/** A wild one would be given to new records, and be the end of the numbers. */
function checkNextOffset(db: Database, last: number): void {
  const seq = Number(valuesOf(db, LAST_OFFSET)[0]?.[0] ?? 0);
  if (!(seq >= last && seq < OFFSET_MAX / 2))
    throw new Damage(`the last offset is ${last}, and said to be ${seq}`);
}

/** So that what a process leaves in the -wal is its own, and a torn end cannot be taken for a flaw before it. */
function emptyWal(db: Database): void {
  try {
    db.run("PRAGMA wal_checkpoint(TRUNCATE)");
  } catch (error) {
    // A full disk: the log is read all the same, and writing says it.
    if (sqliteFault(error) === undefined) throw error;
  }
}

/** A file of before there were checksums. */
function addChecksums(db: Database): void {
  if (!hasChecksums(db)) db.run("ALTER TABLE records ADD COLUMN crc INTEGER");
}

function hasChecksums(db: Database): boolean {
  return valuesOf(db, "SELECT 1 FROM pragma_table_info('records') WHERE name = 'crc'").length > 0;
}

const LAST_OFFSET = "SELECT seq FROM sqlite_sequence WHERE name = 'records'";
const SELECT_FROM: Readonly<Record<Table, string>> = {
  records: `SELECT offset, kind, key, appended_at, value, crc FROM records
  WHERE offset BETWEEN ? AND ? ORDER BY offset LIMIT ?`,
  outbox_dead: `SELECT offset, kind, key, appended_at, value, crc, refused_at, reason FROM outbox_dead
  WHERE offset BETWEEN ? AND ? ORDER BY offset LIMIT ?`,
};

function isWhole(row: Row, table: Table): boolean {
  const [offset, kind, key, appendedAt, value, crc, refusedAt, reason] = row;
  if (!(Number.isSafeInteger(offset) && offset > 0 && offset < OFFSET_MAX)) return false;
  if (!(value instanceof Uint8Array && typeof appendedAt === "number")) return false;
  if (table === "outbox_dead") {
    if (typeof refusedAt !== "number" || typeof reason !== "string") return false;
    return crc === deadCrc(recordCrc(offset, kind, key, appendedAt, value), refusedAt, reason);
  }
  if (crc === null) return kind === "trades" || kind === "event" || kind === "dead";
  return crc === recordCrc(offset, kind, key, appendedAt, value);
}

/** A statement that is left open would keep the file open beyond its connection. */
function valuesOf(db: Database, query: string): unknown[][] {
  const statement = db.prepare(query);
  try {
    return statement.values();
  } finally {
    statement.finalize();
  }
}

// ---- Setting aside ----------------------------------------------------------------------------------------------

/** `outbox.sqlite.salvaging-<time>`, and `.damaged-` in its place when all that can be read has been. */
function setAsideName(path: string): RegExp {
  return new RegExp(`^${RegExp.escape(basename(path))}\\.salvaging-[^.]+\\.?\\d*Z$`);
}

function setAside(options: LogFileOptions, reason: string): void {
  const { path, clock } = options;
  let atMs = clock.now();
  const name = () => new Date(atMs).toISOString().replaceAll(":", "");
  while (existsSync(`${path}.damaged-${name()}`)) atMs += 1;
  const aside = `${path}.salvaging-${name()}`;
  // From here on there is no way back: the next start goes on with the salvage.
  renameSync(path, aside);
  salvage(options, aside, reason);
}

/** From a file that is set aside to a new one in its old place. Begins anew as often as it is cut off. */
function salvage(options: LogFileOptions, aside: string, reason: string): void {
  const { path, logger } = options;
  const found = `${aside}.wal-as-found`;
  const building = `${path}.building`;
  const damaged = aside.replace(".salvaging-", ".damaged-");
  if (!existsSync(path)) {
    if (existsSync(`${path}-wal`)) renameSync(`${path}-wal`, found);
    const outcome = buildWithRoom(options, { aside, found, building, damaged });
    logger.error("the outbox was damaged: it is set aside, and what can be read from it is sent", {
      reason,
      file: damaged,
      ...outcome,
      hint: `look at the disk of ${dirname(path)}; the damaged file is only kept for an inspection`,
    });
    syncDirectory(path);
    renameSync(building, path);
    syncDirectory(path);
  }
  removeFiles([`${aside}-wal`, `${aside}-shm`]);
  if (existsSync(found)) renameSync(found, `${damaged}-wal`);
  renameSync(aside, damaged);
  while (dropOldest(options, DAMAGED_FILES_MAX));
}

type Places = Readonly<{ aside: string; found: string; building: string; damaged: string }>;
type Outcome = Readonly<{ salvagedCount: number; unreadableCount: number; isWhole: boolean }>;

/** Older damaged files give way: all that could be read from them was sent. */
function buildWithRoom(options: LogFileOptions, places: Places): Outcome {
  for (;;) {
    removeFiles([places.building, `${places.building}-wal`]);
    try {
      return build(options, places);
    } catch (error) {
      const cause = error instanceof SetupError ? error.cause : error;
      if (sqliteFault(cause) !== "full" && !isOutOfRoom(cause)) throw error;
      if (dropOldest(options, 0)) continue;
      throw new SetupError(
        `${options.path} was damaged, and there is no room for what can be read from it`,
        `make room for ${statSync(places.aside).size} bytes in ${dirname(options.path)} and start again`,
        error,
      );
    }
  }
}

function build({ clock }: LogFileOptions, { aside, found, building, damaged }: Places): Outcome {
  const open = () => openDatabase({ path: building, sync: "full", schema: sql, exclusive: true });
  open().close();
  const firstPage = Buffer.alloc(PAGE_BYTES);
  const fd = openSync(building, "r");
  readSync(fd, firstPage, 0, PAGE_BYTES, 0);
  closeSync(fd);

  const db = open();
  try {
    const pageCount = Math.ceil(statSync(aside).size / PAGE_BYTES);
    const state: SalvageState = { db, unreadable: new Set(), failedReads: 0, isWhole: true, lastOffset: 0 };
    const read = (isForgiving: boolean, page: Uint8Array | null) => {
      removeFiles([`${aside}-wal`, `${aside}-shm`]);
      mendWal({ from: found, to: `${aside}-wal`, isForgiving, firstPage: page, pageCount });
      return readOut(aside, state);
    };
    // As SQLite sees it: consistent, but without what comes after a flaw of the -wal. Then with that; a record
    // that both show is the same, as its checksum says.
    read(false, null);
    if (walProblem(found) !== null) read(true, null);
    // The first page says where the tables are and how to read every other one. It is the same in each of our files,
    // but for what only a writer needs.
    state.isWhole = read(true, firstPage) && state.isWhole;
    const salvagedCount = countOf(db);
    for (const offset of state.unreadable)
      if (TABLES.some((table) => hasOffset(db, table, offset))) state.unreadable.delete(offset);
    const outcome = { salvagedCount, unreadableCount: state.unreadable.size, isWhole: state.isWhole };
    // It raises the next offset to its own.
    appendEvent(db, clock, state.lastOffset + OFFSET_MARGIN, { file: basename(damaged), ...outcome });
    // Its -wal goes into the file, synced; where there is no room for that, closing would say nothing.
    db.run("PRAGMA wal_checkpoint(TRUNCATE)");
    return outcome;
  } finally {
    db.close();
  }
}

function appendEvent(
  db: Database,
  clock: Clock,
  offset: number,
  detail: Readonly<Record<string, unknown>>,
): void {
  const { key, value, atMs } = encodeOwnEvent(clock, "log_damaged", detail);
  db.query("INSERT INTO records VALUES (?, 'event', ?, ?, ?, ?)").run(
    offset,
    key,
    atMs,
    value,
    recordCrc(offset, "event", key, atMs, value),
  );
}

/** An event of the log itself: of a session that has no other. */
export function encodeOwnEvent(
  clock: Clock,
  type: FeedEventType,
  detail: Readonly<Record<string, unknown>>,
): Readonly<{ key: string; value: Uint8Array; atMs: number }> {
  const atMs = clock.now();
  const session = newSession(clock.random);
  const event = { day: dayOf(atMs), event_timestamp: atMs, session, sequence: 1, type };
  return { key: session, value: encodeEvent({ ...event, detail: JSON.stringify(detail) }), atMs };
}

function countOf(db: Database): number {
  const counts = TABLES.map((table) => Number(valuesOf(db, `SELECT count(*) FROM ${table}`)[0]?.[0]));
  return counts.reduce((sum, count) => sum + count);
}

function hasOffset(db: Database, table: Table, offset: number): boolean {
  return valuesOf(db, `SELECT 1 FROM ${table} WHERE offset = ${offset}`).length > 0;
}

// ---- Reading what can be read -----------------------------------------------------------------------------------

type SalvageState = {
  readonly db: Database;
  /** Offsets at which no record can be read, though one may have been there; about FAILED_READS_MAX at most. */
  readonly unreadable: Set<number>;
  failedReads: number;
  /** False: there were more failures than FAILED_READS_MAX, or the table was not found. */
  isWhole: boolean;
  lastOffset: number;
};

/** Reads the file, with the -wal beside it, into the new one. False: the table was not found. */
function readOut(aside: string, state: SalvageState): boolean {
  let source: Database | undefined;
  const reads: Select[] = [];
  try {
    source = openReadOnly(aside);
    const hasCrc = hasChecksums(source);
    state.lastOffset = Math.max(state.lastOffset, lastOffsetOf(source));
    for (const table of TABLES) {
      // A file of before it was made.
      if (table === "outbox_dead" && !hasTable(source, table)) continue;
      const text = hasCrc ? SELECT_FROM[table] : SELECT_FROM[table].replace("value, crc", "value, NULL");
      const both = [source.prepare(text), source.prepare(text.replace("BY offset", "BY offset DESC"))];
      reads.push(...both);
      state.failedReads = 0;
      inTransaction(state.db, () => readRanges(both, table, state));
    }
    if (hasTable(source, "keeper")) keepOwner(source, state);
    return true;
  } catch (error) {
    // Of the reads of records none comes here: they meet damage where they are made.
    if (!isUnreadable(error)) throw error;
    return false;
  } finally {
    for (const read of reads) read.finalize();
    source?.close();
  }
}

/**
 * Where it cannot be read this outbox is a stranger to its own hold: it waits, and what was in doubt is no more. Where
 * it can, nothing new may get an offset below the first in doubt: that would be sent.
 */
function keepOwner(source: Database, state: SalvageState): void {
  try {
    const owner = readOwner(source);
    if (owner === null) return;
    state.lastOffset = Math.max(state.lastOffset, owner.doubtFrom ?? 0);
    const words = JSON.stringify(owner);
    state.db
      .query("INSERT OR REPLACE INTO keeper (id, words, crc) VALUES (1, ?, ?)")
      .run(words, ownerCrc(words));
  } catch (error) {
    if (!(error instanceof Damage || isUnreadable(error))) throw error;
  }
}

function hasTable(source: Database, table: Table | "keeper"): boolean {
  return valuesOf(source, `SELECT 1 FROM sqlite_schema WHERE name = '${table}'`).length > 0;
}

/** Of the last record there ever was, if that can be read and is true: it bounds no reading. */
function lastOffsetOf(source: Database): number {
  try {
    const last = Number(valuesOf(source, LAST_OFFSET)[0]?.[0]);
    return last > 0 && last < OFFSET_MAX / 2 ? last : 0;
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return 0;
  }
}

type Select = ReturnType<Database["prepare"]>;

/**
 * From both ends of a range to what cannot be read; what lies between is halved, until it is one offset. The
 * widest ranges first: so what can be read is read before the attempts are used up on what cannot.
 */
function readRanges([upwards, downwards]: readonly Select[], table: Table, state: SalvageState): void {
  const ranges = [{ from: 1, to: OFFSET_MAX }];
  for (const { from, to } of ranges) {
    const low = readRun(upwards!, 1, { from, to, table }, state);
    const high = low === null ? null : readRun(downwards!, -1, { from: low, to, table }, state);
    if (low === null || high === null) continue;
    if (state.failedReads > FAILED_READS_MAX) {
      state.isWhole = false;
      return;
    }
    const middle = Math.floor((low + high) / 2);
    if (low >= high) state.unreadable.add(low);
    else ranges.push({ from: low, to: middle }, { from: middle + 1, to: high });
  }
}

type Range = Readonly<{ from: number; to: number; table: Table }>;

/** Reads on from one end; answers with the first offset that cannot be read, or null when all could. */
function readRun(select: Select, step: 1 | -1, range: Range, state: SalvageState): number | null {
  let { from: low, to: high } = range;
  for (let limit = READ_RECORDS_MAX; low <= high; ) {
    let rows: Row[];
    // No more than can be there: the step to the one after the last may be the one that fails.
    const rowCount = Math.min(limit, high - low + 1);
    try {
      rows = select.values(low, high, rowCount) as Row[];
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      state.failedReads += 1;
      if (rowCount === 1) return step === 1 ? low : high;
      limit = Math.floor(rowCount / 2);
      continue;
    }
    const whole = rows.filter((row) => isWhole(row, range.table));
    for (const row of whole) keep(row, range.table, state);
    for (const row of rows) if (!whole.includes(row)) state.unreadable.add(row[0]);
    if (rows.length < rowCount) return null;
    // Where not one is what was written there may be wild offsets, and the middle one says how far this was.
    const offsets = rows.map(([offset]) => offset).sort((one, other) => one - other);
    const reached = whole.at(-1)?.[0] ?? offsets[offsets.length >> 1] ?? low;
    if (step === 1) low = Math.max(low, reached) + 1;
    else high = Math.min(high, reached) - 1;
  }
  return null;
}

function keep(row: Row, table: Table, state: SalvageState): void {
  state.lastOffset = Math.max(state.lastOffset, row[0]);
  const places = row.map(() => "?").join(", ");
  const values = row as readonly (string | number | Uint8Array | null)[];
  state.db.query(`INSERT OR IGNORE INTO ${table} VALUES (${places})`).run(...values);
}

/** Anything that a damaged file makes SQLite say, and nothing that the new file may say. */
function isUnreadable(error: unknown): boolean {
  if (isDamage(error)) return true;
  return (
    error instanceof Error && /no such (table|column)|malformed|unsupported file format/.test(error.message)
  );
}

// ---- Files ------------------------------------------------------------------------------------------------------

/** Where more damaged files are kept than that, the oldest one goes. */
function dropOldest({ path, logger }: LogFileOptions, keptCount: number): boolean {
  const prefix = `${basename(path)}.damaged-`;
  const names = readdirSync(dirname(path)).filter((name) => name.startsWith(prefix) && name.endsWith("Z"));
  if (names.length <= keptCount) return false;
  const oldest = join(dirname(path), names.sort()[0] ?? "");
  logger.warn("the oldest damaged outbox is deleted: its place is needed", { file: oldest });
  removeFiles([oldest, `${oldest}-wal`]);
  return true;
}

function removeFiles(paths: readonly string[]): void {
  for (const path of paths) rmSync(path, { force: true });
}

/** A rename lasts when its directory is synced. */
function syncDirectory(path: string): void {
  const fd = openSync(dirname(path), "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function isOutOfRoom(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ENOSPC" || code === "EDQUOT" || code === "EFBIG";
}
