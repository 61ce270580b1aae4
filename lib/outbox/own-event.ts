// The feed events that the outbox itself writes: that its file was damaged, and that trades were quarantined.

import type { Clock } from "../base/clock.ts";
import type { FeedEventType } from "../contracts/feed.ts";
import { encodeEvent } from "../model/codec.ts";
import { newSession } from "../model/identity.ts";
import { dayOf } from "../model/trade.ts";

/** `atMs` is the time in the event, ms since 1970. Each event is the first of a session that has no other. */
export function encodeOwnEvent(
  clock: Clock,
  type: FeedEventType,
  detail: Readonly<Record<string, unknown>>,
): Readonly<{ key: string; value: Uint8Array; atMs: number }> {
  const atMs = clock.now();
  const session = newSession(clock.random);
  const event = { day: dayOf(atMs), event_timestamp: atMs, session, sequence: 1, type };
  return { key: session, value: encodeEvent({ ...event, detail: JSON.stringify(detail) }), atMs };
}
