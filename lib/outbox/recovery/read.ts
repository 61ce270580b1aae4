// Reads what can be read of a damaged outbox file, around what cannot, and copies it into the new one. It opens the
// file read-only and takes no row on trust: each must match its checksum.

import { type Database, inTransaction, isDamage, openReadOnly } from "../../base/sqlite.ts";
import { DamageError } from "../errors.ts";
import { prepareOwnerWrite, readOwner } from "../owner.ts";
import {
  hasChecksums,
  isWhole,
  lastOffsetNoted,
  OFFSET_MAX,
  RECORD_TABLES,
  type RecordRow,
  type RecordTable,
  recordsQuery,
  valuesOf,
} from "../tables.ts";

/** What all readings of one damaged file have collected. */
export type Collected = {
  /** The new file. */
  readonly db: Database;
  /** Offsets at which no record can be read, though one may have been there; about FAILED_READS_MAX at most. */
  readonly unreadable: Set<number>;
  /** In the table that is being read. */
  failedReads: number;
  /** False: there were more failures than FAILED_READS_MAX, or the table was not found. */
  isWhole: boolean;
  lastOffset: number;
};

/** The rows of one read. */
const READ_RECORDS_MAX = 256;
/** A read that fails takes some 10 µs; a file of which nothing can be read is given up after a second or two. */
const FAILED_READS_MAX = 100_000;

type Select = ReturnType<Database["prepare"]>;
type Range = Readonly<{ from: number; to: number; table: RecordTable }>;

/** Copies from the file, with the -wal file beside it. False: the table of the records was not found. */
export function copyReadable(path: string, collected: Collected): boolean {
  let source: Database | undefined;
  const selects: Select[] = [];
  try {
    source = openReadOnly(path);
    const hasCrc = hasChecksums(source);
    collected.lastOffset = Math.max(collected.lastOffset, plausibleLastOffset(source));
    for (const table of RECORD_TABLES) {
      // A file made before there were dead letters.
      if (table === "outbox_dead" && !hasTable(source, table)) continue;
      const upwards = source.prepare(recordsQuery(table, "ASC", hasCrc));
      selects.push(upwards);
      const downwards = source.prepare(recordsQuery(table, "DESC", hasCrc));
      selects.push(downwards);
      collected.failedReads = 0;
      inTransaction(collected.db, () => copyRanges(upwards, downwards, table, collected));
    }
    if (hasTable(source, "keeper")) copyOwner(source, collected);
    return true;
  } catch (error) {
    // Damage in the records is met where they are read; this is damage in what says where they are.
    if (!isUnreadable(error)) throw error;
    return false;
  } finally {
    for (const select of selects) select.finalize();
    source?.close();
  }
}

function hasTable(source: Database, table: RecordTable | "keeper"): boolean {
  return valuesOf(source, `SELECT 1 FROM sqlite_schema WHERE name = '${table}'`).length > 0;
}

/**
 * Without the owner row this outbox does not know its own claims: it waits like any other producer, and unconfirmed
 * records count as confirmed. With it, no new record may get an offset below the first unconfirmed one: it would be
 * sent.
 */
function copyOwner(source: Database, collected: Collected): void {
  try {
    const owner = readOwner(source);
    if (owner === null) return;
    collected.lastOffset = Math.max(collected.lastOffset, owner.unconfirmedFrom ?? 0);
    prepareOwnerWrite(collected.db)(owner);
  } catch (error) {
    if (!(error instanceof DamageError || isUnreadable(error))) throw error;
  }
}

/** The offset of the last record there ever was, if the file's note of it can be read and may be true; otherwise 0. */
function plausibleLastOffset(source: Database): number {
  try {
    const last = lastOffsetNoted(source);
    return last > 0 && last < OFFSET_MAX / 2 ? last : 0;
  } catch (error) {
    if (!isUnreadable(error)) throw error;
    return 0;
  }
}

/**
 * Reads from both ends of a range to what cannot be read, and halves what lies between until it is one offset. The
 * widest ranges come first, so what can be read is read before the attempts are used up on what cannot.
 */
function copyRanges(upwards: Select, downwards: Select, table: RecordTable, collected: Collected): void {
  const ranges = [{ from: 1, to: OFFSET_MAX }];
  for (const { from, to } of ranges) {
    const low = copyRun(upwards, 1, { from, to, table }, collected);
    const high = low === null ? null : copyRun(downwards, -1, { from: low, to, table }, collected);
    if (low === null || high === null) continue;
    if (collected.failedReads > FAILED_READS_MAX) {
      collected.isWhole = false;
      return;
    }
    const middle = Math.floor((low + high) / 2);
    if (low >= high) collected.unreadable.add(low);
    else ranges.push({ from: low, to: middle }, { from: middle + 1, to: high });
  }
}

/** Reads on from one end; answers with the first offset that cannot be read, or null when all could. */
function copyRun(select: Select, step: 1 | -1, range: Range, collected: Collected): number | null {
  let { from: low, to: high } = range;
  for (let limit = READ_RECORDS_MAX; low <= high; ) {
    let rows: RecordRow[];
    // No more than can be there: the step to the row after the last one may be the step that fails.
    const rowCount = Math.min(limit, high - low + 1);
    try {
      rows = select.values(low, high, rowCount) as RecordRow[];
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      collected.failedReads += 1;
      if (rowCount === 1) return step === 1 ? low : high;
      limit = Math.floor(rowCount / 2);
      continue;
    }
    const whole = rows.filter((row) => isWhole(row, range.table));
    for (const row of whole) copyRow(row, range.table, collected);
    for (const row of rows) if (!whole.includes(row)) collected.unreadable.add(row[0]);
    if (rows.length < rowCount) return null;
    // Where no row is whole there may be wild offsets; the middle one says how far this read went.
    const offsets = rows.map(([offset]) => offset).sort((one, other) => one - other);
    const reached = whole.at(-1)?.[0] ?? offsets[offsets.length >> 1] ?? low;
    if (step === 1) low = Math.max(low, reached) + 1;
    else high = Math.min(high, reached) - 1;
  }
  return null;
}

function copyRow(row: RecordRow, table: RecordTable, collected: Collected): void {
  collected.lastOffset = Math.max(collected.lastOffset, row[0]);
  const places = row.map(() => "?").join(", ");
  const values = row as readonly (string | number | Uint8Array | null)[];
  collected.db.query(`INSERT OR IGNORE INTO ${table} VALUES (${places})`).run(...values);
}

/** Whatever a damaged file makes SQLite say, and nothing that writing the new file may make it say. */
function isUnreadable(error: unknown): boolean {
  if (isDamage(error)) return true;
  return (
    error instanceof Error && /no such (table|column)|malformed|unsupported file format/.test(error.message)
  );
}
