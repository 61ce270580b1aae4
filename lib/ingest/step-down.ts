// How a producer ends when another one has the lease: what only its own outbox has is sent, and what the other may have
// received too is quarantined. It closes no feed: its caller has done so.

import type { Clock } from "../base/clock.ts";
import type { SqliteLog } from "../outbox/log.ts";
import { LeaseLostError } from "./lease.ts";

export type StepDownDeps = Readonly<{
  log: Pick<SqliteLog, "lease" | "health">;
  /** The relay as it runs, and what tells it that nothing is received any more. */
  relaying: Promise<void>;
  relayStop: AbortController;
  clock: Clock;
  /** A stop ends the wait for the relay. */
  signal: AbortSignal;
}>;

/** How long a producer that steps down may go on sending; the rest waits for its next start. */
const STEP_DOWN_MS_MAX = 20_000;
const STEP_DOWN_POLL_MS = 50;

/** Resolves with the error that ends the process; it says how much was quarantined, and how much is left. */
export async function stepDown(
  { log, relaying, relayStop, clock, signal }: StepDownDeps,
  { message, hint }: LeaseLostError,
): Promise<LeaseLostError> {
  const quarantinedCount = await log.lease.quarantineUnconfirmed();
  const untilMs = clock.monotonic() + STEP_DOWN_MS_MAX;
  let isRelaying = true;
  const over = () => {
    isRelaying = false;
  };
  relaying.then(over, over);
  // A relay that has ended sends nothing any more.
  while (log.health().recordCount > 0 && clock.monotonic() < untilMs && !signal.aborted && isRelaying) {
    await clock.sleep(STEP_DOWN_POLL_MS, signal);
  }
  relayStop.abort();
  await relaying;
  const quarantined =
    quarantinedCount === 0
      ? ""
      : `; ${quarantinedCount} messages that it may have received too are quarantined`;
  const { recordCount } = log.health();
  const left = recordCount === 0 ? "" : `; ${recordCount} earlier ones wait for the next start`;
  return new LeaseLostError(`${message}${quarantined}${left}`, hint);
}
