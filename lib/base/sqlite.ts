// What the two SQLite files of the embedded mode share: opening, one transaction, and which errors mean what.

import { Database, SQLiteError } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { RowRefusedError, SetupError, StoreUnavailableError } from "./errors.ts";

export type { Database };

/** `full` = every transaction is synced to disk; `normal` = a power cut may lose the last moments. */
export type SyncMode = "normal" | "full";

type OpenOptions = Readonly<{
  path: string;
  sync: SyncMode;
  schema: string;
  exclusive: boolean;
  /** Looks at what is there before anything is written to it; may throw. */
  check?: (db: Database) => void;
}>;

/** Another process that writes gets this long before the statement fails with SQLITE_BUSY. */
const BUSY_TIMEOUT_MS = 2_000;
/** A process that was killed may need a moment for dying, its last sync for example, and holds its locks until then. */
const OWNER_WAIT_MS = 1_000;

/**
 * Opens or creates a database in WAL mode. `exclusive`: this process alone may have it open, from now until it
 * closes it or dies. Throws SetupError when the file cannot be had or is no database.
 */
export function openDatabase({ path, sync, schema, exclusive, check }: OpenOptions): Database {
  let db: Database | undefined;
  try {
    mkdirSync(dirname(path), { recursive: true });
    db = new Database(path, { create: true, readwrite: true });
    db.run(`PRAGMA busy_timeout = ${exclusive ? OWNER_WAIT_MS : BUSY_TIMEOUT_MS}`);
    if (exclusive) db.run("PRAGMA locking_mode = EXCLUSIVE");
    // Freed pages can be given back to the disk. Only a file without tables can be told, and any other would be
    // written to, which on a full disk would refuse the start.
    if (isNew(db)) db.run("PRAGMA auto_vacuum = INCREMENTAL");
    db.run("PRAGMA journal_mode = WAL");
    // The first transaction that begins the -wal file anew cuts off what is left of its older frames when it is
    // complete, and each later one makes it longer: so a frame that is whole in length and wrong in content is damage
    // or of a transaction that nobody was told of, and outbox/recovery/wal.ts can tell which.
    if (exclusive) db.run("PRAGMA journal_size_limit = 0");
    setSync(db, sync);
    check?.(db);
    db.run(schema);
    // In exclusive mode the lock is taken by the first write and kept.
    db.run("BEGIN IMMEDIATE; COMMIT");
    return db;
  } catch (error) {
    db?.close();
    throw openError(path, error);
  }
}

function isNew(db: Database): boolean {
  const pages = db.prepare<{ page_count: number }, []>("PRAGMA page_count");
  try {
    return pages.get()?.page_count === 0;
  } finally {
    // Left open it would keep the file open beyond its connection.
    pages.finalize();
  }
}

/**
 * Makes this process the only owner of a file that may be damaged, missing or replaced meanwhile: by a lock on an
 * empty file beside it, which falls with the process. Throws SetupError when another process is the owner.
 */
export function takeOwnership(path: string): Disposable {
  let lock: Database | undefined;
  try {
    mkdirSync(dirname(path), { recursive: true });
    lock = new Database(`${path}-owner`, { create: true, readwrite: true });
    lock.run(`PRAGMA busy_timeout = ${OWNER_WAIT_MS}`);
    // Nothing is ever written, so that neither a full disk nor a kill can do anything to it.
    lock.run("PRAGMA journal_mode = MEMORY");
    lock.run("BEGIN EXCLUSIVE");
  } catch (error) {
    lock?.close();
    throw openError(path, error);
  }
  return { [Symbol.dispose]: () => lock.close() };
}

/** For a look at a damaged file: nothing is written to it. */
export function openReadOnly(path: string): Database {
  return new Database(path, { readonly: true });
}

export function setSync(db: Database, sync: SyncMode): void {
  db.run(`PRAGMA synchronous = ${sync.toUpperCase()}`);
}

/** Runs the work in one transaction; whatever it throws, nothing of it stays. */
export function inTransaction<T>(db: Database, work: () => T): T {
  db.run("BEGIN IMMEDIATE");
  try {
    const result = work();
    db.run("COMMIT");
    return result;
  } catch (error) {
    // SQLite has rolled back by itself after some errors (disk full, I/O).
    if (db.inTransaction) db.run("ROLLBACK");
    throw error;
  }
}

/** `full`: no room. `invalid`: these very rows. `transient`: the same may succeed later. Undefined: a bug. */
export function sqliteFault(error: unknown): "full" | "invalid" | "transient" | undefined {
  const code = codeOf(error);
  if (code === undefined) return undefined;
  // The second one is what a full disk does to the index of the write-ahead log.
  if (code === "SQLITE_FULL" || code === "SQLITE_IOERR_SHMSIZE") return "full";
  if (/^SQLITE_(CONSTRAINT|MISMATCH|TOOBIG)/.test(code)) return "invalid";
  // Not SQLITE_IOERR: after a failed sync the next one may "succeed" without the pages. Such a process ends.
  if (/^SQLITE_(BUSY|LOCKED)/.test(code)) return "transient";
  return undefined;
}

/** Runs a piece of the store's work and says its errors in the words of contracts/store.ts. */
export function storing<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    switch (sqliteFault(error)) {
      case "invalid":
        throw new RowRefusedError(String(error), undefined, error);
      case "full":
        throw new StoreUnavailableError("the disk of the store is full", "make room in DATA_DIR", error);
      case "transient":
        throw new StoreUnavailableError(String(error), "see the disk of DATA_DIR", error);
      default:
        throw error;
    }
  }
}

/**
 * What is in the file is not what was written to it. The last one: a value goes on in a page that is not there, which
 * SQLite reads past its own checks.
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
      "it is left as it is, because it may be the only copy: restore a backup, or move it (with its -wal file) " +
        'away, save what "sqlite3 <file> .recover" still reads, and start again with an empty one',
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
