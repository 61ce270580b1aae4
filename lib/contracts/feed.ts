// Contract: where trades come from.
//
// A feed is an async iterable of what it received. Whoever iterates is the back pressure: while nobody asks
// for the next batch the feed reads no more than its queue holds. It never throws for what the other side
// sends or does not send: a bad frame is a dead item, a lost connection is an event item. It ends when its
// signal aborts, after it has handed over what it had received.

import type { DeadReason } from "../model/dead-letter.ts";
import type { Trade } from "../model/trade.ts";

/** `connected`: a socket is open and subscribed. `waiting`: between two attempts. */
export type FeedState = "connecting" | "connected" | "waiting" | "closed";

export type FeedItem =
  /** The good trades of one frame, in the order of the frame; several symbols may be among them. */
  | { kind: "trades"; receivedAtMs: number; trades: readonly Trade[] }
  /** A refused frame, or ONE refused element of a trade frame; the payload is the text that was refused. */
  | { kind: "dead"; receivedAtMs: number; reason: DeadReason; payload: string }
  | { kind: "event"; receivedAtMs: number; type: FeedEventType; detail: Readonly<Record<string, unknown>> };

export type FeedEventType =
  | "session_started" // A producer run began (the publish loop says it, not a feed).
  | "session_ended"
  | "connected" // { attempt, symbolCount, fromMs, outMs }: nothing was known of what was traded since fromMs.
  | "disconnected" // { reason, fromMs, detail }: nothing is known of what was traded until `connected`.
  | "tickers_over_cap" // { symbols }: the upstream takes no more subscriptions; these are not streamed.
  | "ticker_rejected" // { symbol, message }
  | "upstream_error" // { message, unsaidCount }: and so many more since the last one that was said.
  | "trades_refused" // { fromMs, toMs, messageCount, tradeCount }: the log was full.
  | "log_damaged" // { file, salvagedCount, unreadableCount, isWhole }: the log's file was set aside (the log says it).
  | "trades_in_doubt" // { messageCount, droppedCount, fromMs, toMs }: received while another held the feed; set aside.
  | "log_gap"; // { partition, fromOffset, toOffset }: the log dropped what was not yet read.

export type FeedHealth = Readonly<{
  state: FeedState;
  /** When the state began, and the last frame (pings too) and the last trade came; ms since 1970, null = never. */
  stateSinceMs: number;
  /** Since when no socket is open, whatever the attempts in between; null = one is. */
  disconnectedSinceMs: number | null;
  lastFrameAtMs: number | null;
  lastTradeAtMs: number | null;
  /** Why the last connection ended or could not be made; null = it never failed. Holds no secret. */
  lastProblem: string | null;
  subscribed: readonly string[];
  /** Wanted, but over the upstream's cap or rejected by it. */
  unsubscribed: readonly string[];
}>;

export interface Feed {
  /** Everything received in one tick of the event loop, in order. Iterated once. */
  batches(): AsyncIterable<readonly FeedItem[]>;
  /** Replaces the wanted set while it runs. The order is the priority where the upstream has a cap. */
  want(symbols: readonly string[]): void;
  health(): FeedHealth;
}
