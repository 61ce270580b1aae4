// What the operator's verbs do about a store or a log that cannot be reached just now: try again for a while, then
// say so. The loops try for ever; somebody who waits at a terminal is told.

import { backoffMs, type Clock } from "./clock.ts";
import { isTransient } from "./errors.ts";

/** With the back-off below about half a minute in the mean. */
const ATTEMPTS_MAX = 12;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 10_000;

/**
 * Runs the work again while it fails with what repeating may help; it must be such that it can be. Rejects with the
 * last such error after ATTEMPTS_MAX, with any other at once, and with the signal's reason when that aborts.
 */
export async function patiently<T>(clock: Clock, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (!isTransient(error) || attempt + 1 >= ATTEMPTS_MAX) throw error;
      await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), signal);
    }
  }
}
