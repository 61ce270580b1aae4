// How a producer ends when another holds the feed: what only its own outbox has is sent, what the other may have
// received too is set aside. It closes no feed: its caller has.

import type { Clock } from "../base/clock.ts";
import type { SqliteLog } from "../outbox/log.ts";
import { HeldElsewhereError } from "./lease.ts";

export type GiveWayParts = Readonly<{
  log: Pick<SqliteLog, "hold" | "health">;
  /** The forwarder as it runs, and what tells it that nothing is received any more. */
  forwarding: Promise<void>;
  received: AbortController;
  clock: Clock;
  signal: AbortSignal;
}>;

/** Whoever gives way sends what only he has for so long; the rest waits for his next start. */
const GIVE_WAY_MS_MAX = 20_000;
const GIVE_WAY_POLL_MS = 50;

/** Resolves with the error that ends the process: with how much was set aside, and how much is left. */
export async function giveWay(
  { log, forwarding, received, clock, signal }: GiveWayParts,
  { message, hint }: HeldElsewhereError,
): Promise<HeldElsewhereError> {
  const count = await log.hold.disown();
  const untilMs = clock.monotonic() + GIVE_WAY_MS_MAX;
  while (log.health().recordCount > 0 && clock.monotonic() < untilMs && !signal.aborted) {
    await Promise.race([clock.sleep(GIVE_WAY_POLL_MS, signal), forwarding]);
  }
  received.abort();
  await forwarding;
  const aside = count === 0 ? "" : `; ${count} messages that it may have received too are set aside`;
  const { recordCount } = log.health();
  const left = recordCount === 0 ? "" : `; ${recordCount} of before wait for the next start`;
  return new HeldElsewhereError(`${message}${aside}${left}`, hint);
}
