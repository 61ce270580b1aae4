// The file of the outbox: owned by one process, checked and opened. A damaged file never blocks the start: it is
// quarantined under a name that says when, and recovery/salvage.ts copies what can be read into a new file in its
// place. This module never changes a damaged file.

import { existsSync, readdirSync, renameSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import sql from "../../sql/log.sql" with { type: "text" };
import type { Clock } from "../base/clock.ts";
import { SetupError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import {
  type Database,
  isDamage,
  openDatabase,
  type SyncMode,
  sqliteFault,
  takeOwnership,
} from "../base/sqlite.ts";
import { checksumError, DamageError } from "./errors.ts";
import { readOwner } from "./owner.ts";
import { salvage } from "./recovery/salvage.ts";
import { walProblem } from "./recovery/wal.ts";
import {
  COLUMNS,
  columnsOf,
  hasChecksums,
  isWhole,
  lastOffsetNoted,
  OFFSET_MAX,
  type RecordRow,
  type RecordTable,
  recordsQuery,
  type Totals,
  tableNames,
  valuesOf,
} from "./tables.ts";

type OutboxFileOptions = Readonly<{ path: string; sync: SyncMode; clock: Clock; logger: Logger }>;

/** The open file and what it holds. */
export type OutboxFile = Disposable & Readonly<{ db: Database; totals: Totals }>;

/** The rows of one read while checking. */
const READ_RECORDS_MAX = 256;

/**
 * Opens or creates the file, salvages it when it is damaged, and owns it until it is disposed of or the process dies.
 * Throws SetupError when another process owns it, or when there is no room for what can be salvaged.
 */
export function openOutboxFile(options: OutboxFileOptions): OutboxFile {
  const ownership = takeOwnership(options.path);
  try {
    const { db, totals } = openOwned(options);
    return {
      db,
      totals,
      [Symbol.dispose]() {
        db.close();
        ownership[Symbol.dispose]();
      },
    };
  } catch (error) {
    ownership[Symbol.dispose]();
    throw error;
  }
}

type Checked = Readonly<{ db: Database; totals: Totals }>;

function openOwned(options: OutboxFileOptions): Checked {
  const { path } = options;
  const unfinished = readdirSync(dirname(path)).find((name) => quarantineName(path).test(name));
  if (unfinished !== undefined)
    salvage(options, join(dirname(path), unfinished), "an earlier start found it damaged");
  // Before SQLite opens the file: it would take the commits before the flaw for all there are, and forget the rest.
  const problem = walProblem(`${path}-wal`);
  if (problem === null) {
    try {
      return openChecked(options);
    } catch (error) {
      const cause = error instanceof SetupError ? error.cause : error;
      if (!(cause instanceof DamageError || isDamage(cause))) throw error;
      quarantine(options, String(cause));
    }
  } else {
    quarantine(options, problem);
  }
  return openChecked(options);
}

/** `outbox.sqlite.salvaging-<time>`; it is renamed to `.damaged-<time>` when the salvage is complete. */
function quarantineName(path: string): RegExp {
  return new RegExp(`^${RegExp.escape(basename(path))}\\.salvaging-[^.]+\\.?\\d*Z$`);
}

function quarantine(options: OutboxFileOptions, reason: string): void {
  const { path, clock } = options;
  let atMs = clock.now();
  const time = () => new Date(atMs).toISOString().replaceAll(":", "");
  while (existsSync(`${path}.damaged-${time()}`)) atMs += 1;
  const quarantined = `${path}.salvaging-${time()}`;
  // There is no way back from here: if this start is cut off, the next one resumes the salvage.
  renameSync(path, quarantined);
  salvage(options, quarantined, reason);
}

// ---- The check --------------------------------------------------------------------------------------------------

/**
 * Every start looks at everything: the structure (quick_check takes 0.5 s a GiB) and every record's checksum (1.5 s a
 * GiB, of which counting the records alone would take 0.3). Only an outage of hours leaves that much, and then all of
 * it is about to be read anyway. A lighter check would find the damage in the middle of the work, again and again.
 */
function openChecked({ path, sync }: OutboxFileOptions): Checked {
  const db = openDatabase({ path, sync, schema: sql, exclusive: true, check: checkStructure });
  try {
    if (!hasChecksums(db)) db.run("ALTER TABLE records ADD COLUMN crc INTEGER");
    readOwner(db);
    const records = checkRecords(db, "records");
    const dead = checkRecords(db, "outbox_dead");
    checkLastOffset(db, Math.max(records.last, dead.last));
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
  if (verdict?.[0] !== "ok") throw new DamageError(String(verdict?.[0]));
  const names = tableNames(db);
  // The schema would create the table again, empty, and its records would be forgotten.
  if (names.length > 0 && !names.includes("records")) throw new DamageError("the table `records` is missing");
  // Page 1 holds the tables as text, which quick_check compares with nothing.
  for (const [table, columns] of Object.entries(COLUMNS)) {
    if (!names.includes(table)) continue;
    const found = columnsOf(db, table);
    if (found !== columns && found !== `${columns}, crc INTEGER`)
      throw new DamageError(`the table \`${table}\` has other columns: ${found}`);
  }
}

function checkRecords(db: Database, table: RecordTable): { count: number; bytes: number; last: number } {
  const select = db.prepare(recordsQuery(table));
  let count = 0;
  let bytes = 0;
  try {
    for (let from = 0; ; ) {
      const rows = select.values(from, OFFSET_MAX, READ_RECORDS_MAX) as RecordRow[];
      for (const row of rows) {
        if (!isWhole(row, table)) throw checksumError(row[0]);
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

/** New records would follow a wild number, and soon there would be no numbers left. */
function checkLastOffset(db: Database, last: number): void {
  const noted = lastOffsetNoted(db);
  if (!(noted >= last && noted < OFFSET_MAX / 2))
    throw new DamageError(`the last record is at offset ${last}, and the file notes ${noted}`);
}

/** So that the -wal file holds this process's frames only, and a torn end cannot be taken for a flaw before it. */
function emptyWal(db: Database): void {
  try {
    db.run("PRAGMA wal_checkpoint(TRUNCATE)");
  } catch (error) {
    // A full disk: the log can be read all the same, and the first write reports it.
    if (sqliteFault(error) === undefined) throw error;
  }
}
