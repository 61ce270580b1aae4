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

/** The log cannot be reached just now: retry the same entries. They may have been written. */
export class LogUnavailableError extends PipelineError {}

/** Only a restart helps, not waiting: the process ends with exit code 70. */
export class RestartError extends PipelineError {}

/** The log is at its size limit (or its disk is full): these entries were not written and will not be. */
export class LogFullError extends PipelineError {}

/** The partitions have been reassigned since: drop what was being done for the older epoch. */
export class StaleEpochError extends PipelineError {}

/** The store is down, slow or overloaded: retry the same rows. They may have been written. */
export class StoreUnavailableError extends PipelineError {}

/** The store answers too late, or reports that it is overloaded: retry too, with fewer requests at once. */
export class StoreOverloadedError extends StoreUnavailableError {}

/** The store proves that these rows are invalid; tried alone, each tells whether it is the one. */
export class RowRefusedError extends PipelineError {}

/**
 * Whether an outside party that worked before may take the same again. While a process runs, its refusal is an answer of
 * the moment too: a password, a grant, a certificate or a topic comes back without a restart.
 */
export function mayPass(error: unknown): error is PipelineError {
  // Not its subclasses: a lost lease is no answer of Kafka.
  return isTransient(error) || (error instanceof SetupError && error.constructor === SetupError);
}

/** Whether a retry may help; the failed attempt may have been written. */
export function isTransient(error: unknown): error is LogUnavailableError | StoreUnavailableError {
  return error instanceof LogUnavailableError || error instanceof StoreUnavailableError;
}
