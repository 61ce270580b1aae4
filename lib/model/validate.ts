// The one place that decides which trade can be true at all, and the limits it decides by. The feed asks it, and the
// processor asks it again, since the topic may hold anything.

import { DAY_MS, type Trade } from "./trade.ts";

/** Why a trade cannot be true. A closed list: it is a metric's label. */
export type BadTrade =
  | "not_a_trade"
  | "bad_symbol"
  | "bad_price"
  | "bad_volume"
  | "bad_time"
  | "impossible_time"
  | "bad_conditions";

/** 10 bits of the UUID hold the index. */
export const TRADES_PER_MESSAGE_MAX = 1024;

/** Beyond this a price or a size is a fault of the feed; p*v stays far inside a double's exact exponent range. */
export const AMOUNT_MAX = 1e15;
/** Finnhub's longest are about 30; the bound keeps a key from becoming a payload. */
export const SYMBOL_LENGTH_MAX = 128;
const CONDITIONS_MAX = 64;
const YEAR_2000_MS = 946_684_800_000;
/** A trade dated this far ahead of its receipt is stored, counted, and /health speaks of the clock. */
export const TRADE_AHEAD_MS = 60_000;

/** Whether no clock error explains this time: more than a day ahead of its receipt, or before 2000. */
export function isImpossibleTime(tradedAtMs: number, receivedAtMs: number): boolean {
  return tradedAtMs > receivedAtMs + DAY_MS || tradedAtMs < YEAR_2000_MS;
}

/** The one check of a trade, used by the feed and again by the processor. Null: it can be true. */
export function badTrade(trade: Trade, receivedAtMs: number): BadTrade | null {
  const { symbol, price, volume, tradedAtMs, conditions } = trade;
  if (symbol.length === 0 || symbol.length > SYMBOL_LENGTH_MAX || !symbol.isWellFormed()) return "bad_symbol";
  if (!(price > 0 && price <= AMOUNT_MAX)) return "bad_price";
  if (!(volume >= 0 && volume <= AMOUNT_MAX)) return "bad_volume";
  if (!Number.isSafeInteger(tradedAtMs)) return "bad_time";
  if (isImpossibleTime(tradedAtMs, receivedAtMs)) return "impossible_time";
  if (conditions !== null && conditions.length > CONDITIONS_MAX) return "bad_conditions";
  return null;
}
