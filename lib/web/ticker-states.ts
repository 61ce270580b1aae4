// What is known of the symbols on the watchlist, and from it the state that the web shows of each. It is derived here
// alone, so that no two answers say different things of one symbol. Pure.

import type { UnreceivedSymbol } from "../contracts/feed.ts";
import type { SymbolOutcome } from "../ingest/watchlist-sync.ts";

/** The wanted symbols in their order, and what the feed says of them (a FeedHealth has the other two). */
export type TickerSets = Readonly<{
  wanted: readonly string[];
  subscribed: readonly string[];
  unsubscribed: readonly string[];
  /** Absent where nobody tells. */
  unreceived?: readonly Pick<UnreceivedSymbol, "symbol" | "sinceMs" | "reason">[];
  /** Since when no symbol is received, and why; null or absent = the feed is connected. */
  disconnected?: Readonly<{ sinceMs: number; reason: string }> | null;
  /** What is known of whether it exists; absent where nobody checks. */
  outcome?: (symbol: string) => SymbolOutcome;
}>;

/** What the feed does with a symbol. */
export type FeedState = "subscribed" | "unsubscribed" | "wanted";

/** Each symbol once, the wanted ones first. */
export function symbolsOf({ wanted, subscribed, unsubscribed }: TickerSets): string[] {
  return [...new Set([...wanted, ...subscribed, ...unsubscribed])];
}

export function feedStateOf(symbol: string, { subscribed, unsubscribed }: TickerSets): FeedState {
  if (subscribed.includes(symbol)) return "subscribed";
  return unsubscribed.includes(symbol) ? "unsubscribed" : "wanted";
}

/** As the feed's, but `rejected` for a symbol that is proven not to exist and is not streamed. */
export function tickerStateOf(symbol: string, sets: TickerSets): FeedState | "rejected" {
  const state = feedStateOf(symbol, sets);
  return state !== "subscribed" && sets.outcome?.(symbol).kind === "not_found" ? "rejected" : state;
}

/** Since when a symbol is not received, and why; null = it is, or nothing is known against it. */
export function unreceivedOf(
  symbol: string,
  { unreceived = [], disconnected = null }: TickerSets,
): Readonly<{ sinceMs: number; reason: string }> | null {
  const own = unreceived.find((one) => one.symbol === symbol);
  return own === undefined ? disconnected : { sinceMs: own.sinceMs, reason: own.reason };
}
