// What the operator's commands do about a store or a log that cannot be reached just now: try again for a while, then
// say so. The loops try for ever; somebody who waits at a terminal is told.

import type { Clock } from "../base/clock.ts";
import { retry } from "../base/retry.ts";

/** With the back-off below about half a minute in the mean. */
const ATTEMPTS_MAX = 12;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 10_000;

/** Rejects with the last error after ATTEMPTS_MAX, and with the signal's reason when that aborts. */
export function retryForOperator<T>(clock: Clock, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const limits = { firstMs: RETRY_FIRST_MS, maxMs: RETRY_MAX_MS, attemptsMax: ATTEMPTS_MAX };
  return retry({ clock, signal, ...limits }, work);
}
