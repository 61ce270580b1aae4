// Contract: where trades come from.
//
// A feed is an async iterable of what it received. Whoever iterates is the back pressure: while nobody asks for the next
// batch, the feed reads no more than its queue holds. It never throws for what the other side sends or does not send: a
// bad frame is a dead item, a lost connection is an event item. It ends when its signal aborts, after it has handed over
// what it had received.

import type { DeadReason } from "../model/dead-letter.ts";
import type { IntakeSnapshot } from "../model/intake.ts";
import type { Trade } from "../model/trade.ts";

/**
 * A connection without any frame for so long is lost: 2.5 of Finnhub's pings, which come each minute, also while trades
 * flow. The feed's watchdog acts at this age, and /health fails.
 */
export const FEED_SILENT_MS_MAX = 150_000;

/** `connected`: a socket is open and subscribed. `waiting`: between two attempts. */
export type FeedState = "connecting" | "connected" | "waiting" | "closed";

export type FeedItem =
  /** The good trades of one frame, in the order of the frame; several symbols may be among them. */
  | { kind: "trades"; receivedAtMs: number; trades: readonly Trade[] }
  /** A refused frame, or ONE refused element of a trade frame; the payload is the text that was refused. */
  | { kind: "dead"; receivedAtMs: number; reason: DeadReason; payload: string }
  | { kind: "event"; receivedAtMs: number; type: FeedEventType; detail: Readonly<Record<string, unknown>> };

export type FeedEventType =
  | "session_started" // A producer run began (emitted by ingest, not by a feed).
  | "session_ended"
  | "connected" // { attempt, symbolCount, fromMs, outMs }: trades since fromMs may be missing.
  | "disconnected" // { reason, fromMs, detail }: trades are missing until `connected`.
  | "tickers_over_cap" // { symbols, symbolCount }: the upstream takes no more subscriptions; these are not streamed.
  | "ticker_rejected" // { symbol, message }: it is asked for again and again.
  | "ticker_accepted" // { symbol, fromMs }: after such a refusal it streams; trades of it since fromMs may be missing.
  | "upstream_error" // { message, unsaidCount }: and so many more since the last such event.
  | "trades_refused" // { fromMs, toMs, messageCount, tradeCount }: the log was full.
  | "log_damaged" // { file, salvagedCount, unreadableCount, isWhole }: the log's file was quarantined (emitted by the log).
  | "trades_in_doubt" // { messageCount, droppedCount, fromMs, toMs }: received without a confirmed lease; quarantined.
  | "log_gap"; // { partition, committedOffset, beginOffset, endOffset }: the log dropped what was not yet read.

/**
 * A symbol on the watchlist that is not received, since when (ms since 1970), and why, as a part of a sentence. `refused`:
 * by the upstream. `over_cap`: others stand before it. `not_listed`: in none of the upstream's lists, so it is not asked
 * for.
 */
export type UnreceivedSymbol = Readonly<{
  symbol: string;
  kind: "refused" | "over_cap" | "not_listed";
  sinceMs: number;
  reason: string;
}>;

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
  /** On the watchlist, but over the upstream's cap or rejected by it. */
  unsubscribed: readonly string[];
  /** The same with since when and why; also one that is being asked for again and was not yet answered. */
  unreceived: readonly UnreceivedSymbol[];
  /** What the dates of all trades lately say of this machine's clock; null or absent = nothing against it. */
  clockDifference?: ClockDifference | null;
  /** How much of what came lately was refused. */
  intake: IntakeSnapshot;
}>;

/** `byMs`: at least. The trades and symbols are those that say so. */
export type ClockDifference = Readonly<{
  clockIs: "behind" | "ahead";
  byMs: number;
  tradeCount: number;
  symbolCount: number;
}>;

export interface Feed {
  /** Everything received in one tick of the event loop, in order. Iterated once. */
  batches(): AsyncIterable<readonly FeedItem[]>;
  /** Replaces the watchlist while it runs. The order is the priority where the upstream has a cap. */
  subscribe(symbols: readonly string[]): void;
  health(): FeedHealth;
}
