// What the outbox file and the embedded store share on SQLite: opening a file, owning it, one transaction, and which
// error means what. It knows no table and retries nothing.

import { Database, SQLiteError } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { RowRefusedError, SetupError, StoreUnavailableError } from "./errors.ts";

export type { Database };

/** `full`: every transaction is synced to disk. `normal`: a power cut may take the last moments. */
export type SyncMode = "normal" | "full";

/** What to do about another program that holds a lock of a shared file. */
export const LOCK_HINT = "end its transaction (COMMIT or ROLLBACK), or that program";

type OpenOptions = Readonly<{
  path: string;
  sync: SyncMode;
  schema: string;
  exclusive: boolean;
  /** Looks at the file before anything is written to it; may throw. */
  check?: (db: Database) => void;
}>;

/**
 * SQLite waits for a lock by sleeping, and with it everything else in this process: the socket, /health. So a shared file
 * never waits in here, and its writers try again by themselves (sqlite/write-lock.ts).
 */
const BUSY_TIMEOUT_MS = 0;
/** A killed process may need a moment to die, for its last sync for example, and keeps its locks until then. */
const OWNER_WAIT_MS = 1_000;

/**
 * Opens or creates a database in WAL mode. `exclusive`: no other process can open it until this one closes it or
 * dies. Throws SetupError when the file cannot be opened, or is damaged. When another program holds a lock that is
 * needed, an exclusive file throws SetupError after OWNER_WAIT_MS, and a shared one StoreUnavailableError at once.
 */
export function openDatabase({ path, sync, schema, exclusive, check }: OpenOptions): Database {
  let db: Database | undefined;
  try {
    mkdirSync(dirname(path), { recursive: true });
    db = new Database(path, { create: true, readwrite: true });
    db.run(`PRAGMA busy_timeout = ${exclusive ? OWNER_WAIT_MS : BUSY_TIMEOUT_MS}`);
    if (exclusive) db.run("PRAGMA locking_mode = EXCLUSIVE");
    // Lets freed pages be given back to the disk. It takes effect only in a file without tables, and it would write to
    // any other file, which on a full disk would prevent the start.
    if (isNew(db)) db.run("PRAGMA auto_vacuum = INCREMENTAL");
    db.run("PRAGMA journal_mode = WAL");
    // When SQLite starts the -wal file over, the first complete transaction cuts the older frames off, and each later
    // one makes the file longer. So a frame of full length with wrong content is either damage or part of a transaction
    // that was never acknowledged, and outbox/recovery/wal.ts can tell which.
    if (exclusive) db.run("PRAGMA journal_size_limit = 0");
    setSync(db, sync);
    check?.(db);
    db.run(schema);
    // In exclusive mode the first write takes the lock and keeps it. A shared file whose tables are there needs none.
    if (exclusive) db.run("BEGIN IMMEDIATE; COMMIT");
    return db;
  } catch (error) {
    db?.close();
    if (!exclusive && isBusy(error)) {
      throw new StoreUnavailableError(`another program keeps ${path} locked`, LOCK_HINT, error);
    }
    throw openError(path, error);
  }
}

function isNew(db: Database): boolean {
  const pages = db.prepare<{ page_count: number }, []>("PRAGMA page_count");
  try {
    return pages.get()?.page_count === 0;
  } finally {
    // An open statement would keep the file open beyond its connection.
    pages.finalize();
  }
}

/**
 * Makes this process the only owner of a file, which may be damaged or missing and may be replaced meanwhile. The lock
 * is on an empty file beside it and falls with the process. Throws SetupError when another process is the owner.
 */
export function takeOwnership(path: string): Disposable {
  let lock: Database | undefined;
  try {
    mkdirSync(dirname(path), { recursive: true });
    lock = new Database(`${path}-owner`, { create: true, readwrite: true });
    lock.run(`PRAGMA busy_timeout = ${OWNER_WAIT_MS}`);
    // Nothing is ever written to it, so neither a full disk nor a kill can harm it.
    lock.run("PRAGMA journal_mode = MEMORY");
    lock.run("BEGIN EXCLUSIVE");
  } catch (error) {
    lock?.close();
    throw openError(path, error);
  }
  return { [Symbol.dispose]: () => lock.close() };
}

/** Opens a file, damaged or not, without writing to it. */
export function openReadOnly(path: string): Database {
  return new Database(path, { readonly: true });
}

export function setSync(db: Database, sync: SyncMode): void {
  db.run(`PRAGMA synchronous = ${sync.toUpperCase()}`);
}

/** Runs the work in one transaction. When it throws, all of it is rolled back and the error is passed on. */
export function inTransaction<T>(db: Database, work: () => T): T {
  db.run("BEGIN IMMEDIATE");
  try {
    const result = work();
    db.run("COMMIT");
    return result;
  } catch (error) {
    // After some errors (disk full, I/O) SQLite has rolled back by itself.
    if (db.inTransaction) db.run("ROLLBACK");
    throw error;
  }
}

/** `full`: no room. `invalid`: these rows cannot be stored. `transient`: it may succeed later. Undefined: a bug. */
export function sqliteFault(error: unknown): "full" | "invalid" | "transient" | undefined {
  const code = codeOf(error);
  if (code === undefined) return undefined;
  // A full disk causes the second one in the index of the write-ahead log.
  if (code === "SQLITE_FULL" || code === "SQLITE_IOERR_SHMSIZE") return "full";
  if (/^SQLITE_(CONSTRAINT|MISMATCH|TOOBIG)/.test(code)) return "invalid";
  // SQLITE_IOERR is left out: after a failed sync the next one may "succeed" without the pages. The process ends.
  if (isBusy(error)) return "transient";
  return undefined;
}

/** Whether another connection holds the lock that is needed just now. Nothing was written. */
export function isBusy(error: unknown): boolean {
  return /^SQLITE_(BUSY|LOCKED|PROTOCOL)/.test(codeOf(error) ?? "");
}

/** Runs work of the store, and turns its errors into those of contracts/store.ts. */
export function storing<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw storeError(error);
  }
}

/** The error of the store's work, as contracts/store.ts names it; any other unchanged. */
export function storeError(error: unknown): unknown {
  switch (sqliteFault(error)) {
    case "invalid":
      return new RowRefusedError(String(error), undefined, error);
    case "full":
      return new StoreUnavailableError("the disk of the store is full", "make room in DATA_DIR", error);
    case "transient":
      return new StoreUnavailableError("another program keeps the store's file locked", LOCK_HINT, error);
    default:
      return error;
  }
}

/**
 * Whether the file does not hold what was written to it. SQLite reports the last of these codes when a value continues
 * in a page that is not there.
 */
export function isDamage(error: unknown): boolean {
  return /^SQLITE_(NOTADB|CORRUPT|IOERR_SHORT_READ)/.test(codeOf(error) ?? "");
}

function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as Error & { code?: unknown }).code : undefined;
  return typeof code === "string" && (error instanceof SQLiteError || code.startsWith("SQLITE_"))
    ? code
    : undefined;
}

function openError(path: string, error: unknown): unknown {
  const code = codeOf(error);
  if (code?.startsWith("SQLITE_BUSY")) {
    return new SetupError(
      `${path} is in use by another process`,
      "stop that process first, or give this one its own DATA_DIR",
      error,
    );
  }
  if (isDamage(error)) {
    return new SetupError(
      `${path} is damaged: ${String(error)}`,
      "it is left unchanged, because it may be the only copy: restore a backup, or move it (with its -wal file) " +
        'away, save what "sqlite3 <file> .recover" can still read, and start again with an empty one',
      error,
    );
  }
  if (code !== undefined || isFileError(error)) {
    return new SetupError(
      `${path} cannot be opened: ${String(error)}`,
      "check DATA_DIR, its owner and free space",
      error,
    );
  }
  return error;
}

function isFileError(error: unknown): boolean {
  return error instanceof Error && "syscall" in error;
}
