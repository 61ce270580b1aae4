// What a failure of SQLite, or a wrong checksum, means to the outbox, in the classes of base/errors.ts. It handles no
// error: the loops that own a retry do, and damage ends the process.

import { LogFullError, LogUnavailableError, PipelineError } from "../base/errors.ts";
import { isDamage, sqliteFault } from "../base/sqlite.ts";

/** Thrown while a file is checked or salvaged, where damage is expected. It never leaves outbox/. */
export class DamageError extends Error {}

/**
 * The PipelineError for damage met while running; any other error unchanged. Nobody handles it: the process ends, and
 * the next start finds the damage, quarantines the file and salvages it.
 */
export function damageError(path: string, error: unknown): unknown {
  return isDamage(error) ? damaged(path, error) : error;
}

/** The PipelineError for a record whose bytes do not match its checksum. */
export function recordDamage(path: string, offset: number): PipelineError {
  return damaged(path, checksumError(offset));
}

export function checksumError(offset: number): DamageError {
  return new DamageError(`the record at offset ${offset} does not match its checksum`);
}

/** The error of a transaction that was rolled back, as the contract of the log names it. */
export function writeError(path: string, error: unknown): unknown {
  switch (sqliteFault(error)) {
    case "full":
      return new LogFullError("the disk of the outbox is full", "make room in DATA_DIR", error);
    case "transient":
      return new LogUnavailableError(
        `the outbox could not be written: ${String(error)}`,
        "check the disk of DATA_DIR",
        error,
      );
    default:
      return damageError(path, error);
  }
}

function damaged(path: string, cause: unknown): PipelineError {
  return new PipelineError(
    `${path} is damaged: ${String(cause)}`,
    "start again: the file is set aside, and what can be read from it is sent",
    cause,
  );
}
