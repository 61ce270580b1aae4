// How a producer ends when another holds the feed: what only its own outbox has is sent, what the other may have
// received too is set aside. It closes no feed: its caller has.

import type { Clock } from "../base/clock.ts";
import type { SqliteLog } from "../outbox/log.ts";
import { LeaseLostError } from "./lease.ts";

export type StepDownDeps = Readonly<{
  log: Pick<SqliteLog, "lease" | "health">;
  /** The forwarder as it runs, and what tells it that nothing is received any more. */
  relaying: Promise<void>;
  received: AbortController;
  clock: Clock;
  signal: AbortSignal;
}>;

/** Whoever gives way sends what only he has for so long; the rest waits for his next start. */
const STEP_DOWN_MS_MAX = 20_000;
const STEP_DOWN_POLL_MS = 50;

/** Resolves with the error that ends the process: with how much was set aside, and how much is left. */
export async function stepDown(
  { log, relaying, received, clock, signal }: StepDownDeps,
  { message, hint }: LeaseLostError,
): Promise<LeaseLostError> {
  const count = await log.lease.quarantineUnconfirmed();
  const untilMs = clock.monotonic() + STEP_DOWN_MS_MAX;
  while (log.health().recordCount > 0 && clock.monotonic() < untilMs && !signal.aborted) {
    await Promise.race([clock.sleep(STEP_DOWN_POLL_MS, signal), relaying]);
  }
  received.abort();
  await relaying;
  const aside = count === 0 ? "" : `; ${count} messages that it may have received too are set aside`;
  const { recordCount } = log.health();
  const left = recordCount === 0 ? "" : `; ${recordCount} of before wait for the next start`;
  return new LeaseLostError(`${message}${aside}${left}`, hint);
}
