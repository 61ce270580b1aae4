// The one retry loop: capped exponential back-off with full jitter, for as long as the error says that a retry may help. It
// logs nothing: callers report what they want with onFailure.

import { backoffMs, type Clock } from "./clock.ts";
import { isTransient } from "./errors.ts";
import type { OutageLoop } from "./outages.ts";

export type RetryOptions = Readonly<{
  clock: Clock;
  /** The wait after the first failure, at most; it doubles with each further one. */
  firstMs: number;
  /** The longest wait. */
  maxMs: number;
  /** Which errors are retried; the others reject at once. By default those of isTransient. */
  isRetryable?: (error: unknown) => boolean;
  /** Called with each failure that is retried, before the wait. `attempt` is 0 for the first. */
  onFailure?: (error: unknown, attempt: number) => void;
  /** Tells the operator. */
  outage?: OutageLoop;
  /** Attempts in all, after which the last error rejects. By default there is no end. */
  attemptsMax?: number;
  /** When it aborts, the wait ends, no attempt begins, and its reason rejects. */
  signal?: AbortSignal;
}>;

/** Runs the work until it succeeds. It must be possible to repeat the work after any of its failures. */
export async function retry<T>(options: RetryOptions, work: () => Promise<T>): Promise<T> {
  const { signal, outage } = options;
  try {
    for (let attempt = 0; ; attempt++) {
      signal?.throwIfAborted();
      try {
        const result = await work();
        outage?.worked();
        return result;
      } catch (error) {
        await waitAfter(options, error, attempt);
      }
    }
  } finally {
    outage?.over();
  }
}

/**
 * The same, for as long as the result is wanted; undefined when it no longer is. A signal that aborts ends a wait early
 * and nothing else: `isWanted` has to say that the result is not wanted any more.
 */
export async function retryWhile<T>(
  isWanted: () => boolean,
  options: RetryOptions,
  work: () => Promise<T>,
): Promise<T | undefined> {
  try {
    for (let attempt = 0; isWanted(); attempt++) {
      try {
        const result = await work();
        options.outage?.worked();
        return result;
      } catch (error) {
        await waitAfter(options, error, attempt);
      }
    }
    return undefined;
  } finally {
    options.outage?.over();
  }
}

/** Rejects with the error when it must not be retried. */
async function waitAfter(
  {
    clock,
    firstMs,
    maxMs,
    isRetryable = isTransient,
    onFailure,
    outage,
    attemptsMax = Number.POSITIVE_INFINITY,
    signal,
  }: RetryOptions,
  error: unknown,
  attempt: number,
): Promise<void> {
  if (!isRetryable(error) || attempt + 1 >= attemptsMax) throw error;
  onFailure?.(error, attempt);
  outage?.failed(error);
  await clock.sleep(backoffMs(attempt, firstMs, maxMs, clock.random), signal);
}
