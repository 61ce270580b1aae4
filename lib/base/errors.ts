// One class per thing a caller can act on. The message says what is wrong, the hint what to do about it.
// What is not listed here is a bug: nobody catches it, and the process ends.

export class PipelineError extends Error {
  readonly hint: string | undefined;
  constructor(message: string, hint?: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.hint = hint;
  }
}

/** The operator must change something; the process ends with exit code 1. */
export class SetupError extends PipelineError {}

/** The log cannot be reached just now: try the same entries again. They may have been written. */
export class LogUnavailableError extends PipelineError {}

/** Waiting is no help, and a new start is: the process ends with exit code 70. */
export class RestartError extends PipelineError {}

/** The log is at its size limit (or its disk is full): these entries were not written and will not be. */
export class LogFullError extends PipelineError {}

/** The partitions were dealt out anew since: drop what was being done for the older epoch. */
export class StaleEpochError extends PipelineError {}

/** The store is down, slow or overloaded: try the same rows again. They may have been written. */
export class StoreUnavailableError extends PipelineError {}

/** It answers too late, or says that it is asked too much: try again too, and ask less at once. */
export class StoreOverloadedError extends StoreUnavailableError {}

/** The store proves that these rows are invalid; tried alone, each tells whether it is the one. */
export class RowRefusedError extends PipelineError {}

/** Whether trying the same again may help; what was tried may have been written. */
export function isTransient(error: unknown): error is LogUnavailableError | StoreUnavailableError {
  return error instanceof LogUnavailableError || error instanceof StoreUnavailableError;
}
