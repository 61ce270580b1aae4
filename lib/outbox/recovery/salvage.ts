// Builds a new outbox file from a damaged one: what can be read goes into it at its old offsets, with the owner row,
// under a new identity. A kill may cut off any step; the next start resumes. It never changes a damaged file and never
// hands on a record that does not match its checksum. recovery/README.md tells the whole procedure.

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
import { openDatabase, sqliteFault } from "../../base/sqlite.ts";
import { encodeOwnEvent } from "../own-event.ts";
import { prepareRecordInsert, RECORD_TABLES, type RecordTable, valuesOf } from "../tables.ts";
import { type Collected, copyReadable } from "./read.ts";
import { mendWal, PAGE_BYTES, walProblem } from "./wal.ts";

export type SalvageOptions = Readonly<{ path: string; clock: Clock; logger: Logger }>;

/** Damaged files kept; the oldest beyond it is deleted, so that a dying disk is not filled by its own damage. */
const DAMAGED_FILES_MAX = 8;
/** Offsets between the last one seen and the next: what cannot be read may have been the last. */
const OFFSET_MARGIN = 10_000;

/** The detail of the feed event `log_damaged`, but for the name of the file. */
type Outcome = Readonly<{ salvagedCount: number; unreadableCount: number; isWhole: boolean }>;

/** Each path is the file's at one step of the salvage. */
type Places = Readonly<{
  /** The damaged file until the salvage is complete. */
  quarantined: string;
  /** Its -wal file as it was found; the one beside `quarantined` is written anew for each reading. */
  walAsFound: string;
  /** The new file until it is complete. */
  building: string;
  /** The damaged file afterwards. */
  damaged: string;
}>;

/** From the quarantined file to a new one at `path`. Starts over as often as it is cut off. */
export function salvage(options: SalvageOptions, quarantined: string, reason: string): void {
  const { path, logger } = options;
  const places: Places = {
    quarantined,
    walAsFound: `${quarantined}.wal-as-found`,
    building: `${path}.building`,
    damaged: quarantined.replace(".salvaging-", ".damaged-"),
  };
  const { walAsFound, building, damaged } = places;
  if (!existsSync(path)) {
    if (existsSync(`${path}-wal`)) renameSync(`${path}-wal`, walAsFound);
    const outcome = buildWithRoom(options, places);
    logger.error("the outbox was damaged: it is set aside, and what can be read from it is sent", {
      reason,
      file: damaged,
      ...outcome,
      hint: `check the disk of ${dirname(path)}; the damaged file is kept only so that it can be inspected`,
    });
    syncDirectory(path);
    renameSync(building, path);
    syncDirectory(path);
  }
  removeFiles([`${quarantined}-wal`, `${quarantined}-shm`]);
  if (existsSync(walAsFound)) renameSync(walAsFound, `${damaged}-wal`);
  renameSync(quarantined, damaged);
  while (dropOldest(options, DAMAGED_FILES_MAX));
}

/** Older damaged files make room: all that could be read from them was sent. */
function buildWithRoom(options: SalvageOptions, places: Places): Outcome {
  const { building, quarantined } = places;
  for (;;) {
    removeFiles([building, `${building}-wal`]);
    try {
      return build(options, places);
    } catch (error) {
      const cause = error instanceof SetupError ? error.cause : error;
      if (sqliteFault(cause) !== "full" && !isOutOfRoom(cause)) throw error;
      if (dropOldest(options, 0)) continue;
      throw new SetupError(
        `${options.path} was damaged, and there is no room for what can be read from it`,
        `make room for ${statSync(quarantined).size} bytes in ${dirname(options.path)} and start again`,
        error,
      );
    }
  }
}

function build({ clock }: SalvageOptions, places: Places): Outcome {
  const { quarantined, walAsFound, building, damaged } = places;
  const open = () => openDatabase({ path: building, sync: "full", schema: sql, exclusive: true });
  open().close();
  const firstPage = readFirstPage(building);
  const db = open();
  try {
    const pageCount = Math.ceil(statSync(quarantined).size / PAGE_BYTES);
    const collected: Collected = {
      db,
      unreadable: new Set(),
      failedReads: 0,
      isWhole: true,
      lastOffset: 0,
    };
    const readWith = (isForgiving: boolean, page: Uint8Array | null) => {
      removeFiles([`${quarantined}-wal`, `${quarantined}-shm`]);
      mendWal({ from: walAsFound, to: `${quarantined}-wal`, isForgiving, firstPage: page, pageCount });
      return copyReadable(quarantined, collected);
    };
    // First as SQLite sees it: consistent, but without what comes after a flaw of the -wal file. Then with that. A
    // record that both readings show is the same, as its checksum says.
    readWith(false, null);
    if (walProblem(walAsFound) !== null) readWith(true, null);
    // The first page says where the tables are and how to read every other page. Apart from what only a writer needs
    // it is the same in each of our files, so the new file's will do.
    collected.isWhole = readWith(true, firstPage) && collected.isWhole;
    const outcome = outcomeOf(collected);
    const detail = { file: basename(damaged), ...outcome };
    const { key, value, atMs } = encodeOwnEvent(clock, "log_damaged", detail);
    // The event's offset raises that of the next record.
    prepareRecordInsert(db)(collected.lastOffset + OFFSET_MARGIN, "event", key, atMs, value);
    // The -wal file goes into the main file, synced. Closing does that too, but is silent when there is no room.
    db.run("PRAGMA wal_checkpoint(TRUNCATE)");
    return outcome;
  } finally {
    db.close();
  }
}

function readFirstPage(path: string): Uint8Array {
  const page = Buffer.alloc(PAGE_BYTES);
  const fd = openSync(path, "r");
  try {
    readSync(fd, page, 0, PAGE_BYTES, 0);
  } finally {
    closeSync(fd);
  }
  return page;
}

/** What one reading could not read, another one may have. */
function outcomeOf({ db, unreadable, isWhole }: Collected): Outcome {
  const has = (table: RecordTable, offset: number) =>
    valuesOf(db, `SELECT 1 FROM ${table} WHERE offset = ${offset}`).length > 0;
  let salvagedCount = 0;
  for (const table of RECORD_TABLES)
    salvagedCount += Number(valuesOf(db, `SELECT count(*) FROM ${table}`)[0]?.[0]);
  let unreadableCount = 0;
  for (const offset of unreadable)
    if (!RECORD_TABLES.some((table) => has(table, offset))) unreadableCount += 1;
  return { salvagedCount, unreadableCount, isWhole };
}

/** Deletes the oldest damaged file when more than `keptCount` are there. False: none was deleted. */
function dropOldest({ path, logger }: SalvageOptions, keptCount: number): boolean {
  const prefix = `${basename(path)}.damaged-`;
  const names = readdirSync(dirname(path)).filter((name) => name.startsWith(prefix) && name.endsWith("Z"));
  if (names.length <= keptCount) return false;
  const oldest = join(dirname(path), names.sort()[0] ?? "");
  logger.warn("the oldest damaged outbox is deleted because its room is needed", { file: oldest });
  removeFiles([oldest, `${oldest}-wal`]);
  return true;
}

function removeFiles(paths: readonly string[]): void {
  for (const path of paths) rmSync(path, { force: true });
}

/** A rename is durable when its directory is synced. */
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
