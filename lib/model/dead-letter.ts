// Dead letters: what could not be accepted, kept whole with its reason, and the placeholder that keeps the index of the
// trades behind one when a message is sent again.

import type { Trade } from "./trade.ts";
import { BAD_TRADES } from "./validate.ts";

/** What could not be accepted, whole, with the reason. (session, sequence, item) is its identity. */
export type DeadLetter = Readonly<{
  session: string;
  sequence: number;
  /** The index of the trade in its message; WHOLE_MESSAGE: all of the message is here. */
  item: number;
  receivedAtMs: number;
  reason: DeadReason;
  /** Who refused it. */
  source: "feed" | "processor";
  payload: Uint8Array;
}>;

export const WHOLE_MESSAGE = -1;

/** Why the feed refuses a frame or a trade. */
export const FEED_REASONS = [
  ...BAD_TRADES,
  "garbage_frame", // Not JSON, or not an object with a type.
  "bad_frame", // A trade frame whose data is not a list.
  "unknown_frame", // A frame of another type that holds what looks like trades.
  "frame_too_long", // Longer than finnhub/frame.ts accepts; only its beginning is kept.
] as const;

/** All reasons: the feed's travel through the log to the processor, which has some of its own. */
export const DEAD_REASONS = [
  ...FEED_REASONS,
  "undecodable", // Bytes on the topic that are not a message.
  "no_session", // The origin's producer wrote it.
  "several_symbols", // One message carries one symbol; this one does not.
  "bad_identity", // A session or sequence that identity.ts cannot hold.
  "refused_by_store", // The store proved this row alone invalid.
] as const;

export type DeadReason = (typeof DEAD_REASONS)[number];

/**
 * A placeholder stands in a replayed message where a trade is not sent again, so that the trades behind it keep their index
 * and with it their UUID. It cannot be mistaken for a trade, readers leave it out, and it makes no dead letter. A trade may have the price 0 and the volume 0, but never a time before 2000.
 */
export function placeholderFor(symbol: string): Trade {
  return { symbol, price: 0, volume: 0, tradedAtMs: 0, conditions: null };
}

export function isPlaceholder({ price, volume, tradedAtMs, conditions }: Trade): boolean {
  return price === 0 && volume === 0 && tradedAtMs === 0 && conditions === null;
}
