// How the operator's commands retry what a store or a log does not answer just now: for a while, and then they fail. The
// services retry for ever; somebody who waits at a terminal is told.

import type { Clock } from "../base/clock.ts";
import { retry } from "../base/retry.ts";

/** About half a minute on average, with the back-off below. */
const ATTEMPTS_MAX = 12;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 10_000;

/** Rejects with the last error after ATTEMPTS_MAX, and with the signal's reason when that aborts. */
export function retryForOperator<T>(clock: Clock, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  const limits = { firstMs: RETRY_FIRST_MS, maxMs: RETRY_MAX_MS, attemptsMax: ATTEMPTS_MAX };
  return retry({ clock, signal, ...limits }, work);
}
