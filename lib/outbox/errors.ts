// What an error of SQLite means to the log on it, in the words of base/errors.ts. It handles none: the loops do.

import { LogFullError, LogUnavailableError, PipelineError } from "../base/errors.ts";
import { isDamage, sqliteFault } from "../base/sqlite.ts";

/** Nobody handles it: the process ends, and the next one finds the damage, sets the file aside and salvages. */
export function damageError(path: string, error: unknown, isKnown = isDamage(error)): unknown {
  if (!isKnown) return error;
  return new PipelineError(
    `${path} is damaged: ${String(error)}`,
    "start again: the file is set aside, and what can be read from it is sent",
    error,
  );
}

/** A record whose checksum says that it is another one. */
export function recordDamage(path: string, offset: number): unknown {
  return damageError(path, new Error(`the record at ${offset} is not what was written`), true);
}

/** Of a transaction that was rolled back. */
export function writeError(path: string, error: unknown): unknown {
  switch (sqliteFault(error)) {
    case "full":
      return new LogFullError("the disk of the outbox is full", "make room in DATA_DIR", error);
    case "transient":
      return new LogUnavailableError(
        `the outbox could not be written: ${String(error)}`,
        "see the disk of DATA_DIR",
        error,
      );
    default:
      return damageError(path, error);
  }
}
