// The one place that decides which trade can be true at all, and the limits it decides by. The feed asks it, and the
// processor asks it again, since the topic may hold anything.

import { DAY_MS, type Trade } from "./trade.ts";

/** Why a trade cannot be true. A closed list: it is a metric's label. */
export const BAD_TRADES = [
  "not_a_trade",
  "bad_symbol",
  "bad_price",
  "bad_volume",
  "bad_time",
  "impossible_time",
  "bad_conditions",
] as const;
export type BadTrade = (typeof BAD_TRADES)[number];

/** 10 bits of the UUID hold the index. */
export const TRADES_PER_MESSAGE_MAX = 1024;

/**
 * Beyond this a price or a size is a fault of the feed. A token of 4e-10 trades by the 1e15 in one print, so the bound is
 * far above; p*v, and sums of it, stay inside a double's range.
 */
export const AMOUNT_MAX = 1e30;
/** Finnhub's longest are about 30; the bound keeps a key from becoming a payload. */
export const SYMBOL_LENGTH_MAX = 128;
const CONDITIONS_MAX = 64;
const YEAR_2000_MS = 946_684_800_000;
/** A trade dated this far ahead of its receipt is stored, counted, and /health speaks of the clock. */
export const TRADE_AHEAD_MS = 60_000;

/** Whether a date cannot be true by a known time: more than a day ahead of it, or before 2000. */
export function isImpossibleTime(tradedAtMs: number, knownAtMs: number): boolean {
  return tradedAtMs > knownAtMs + DAY_MS || tradedAtMs < YEAR_2000_MS;
}

/**
 * The time by which a record of a log is judged. The clock that gave the receipt may have been slow; when the record was
 * appended, it was at least so late. Both stand in the record, so whoever reads it judges alike.
 */
export function knownAtMs(receivedAtMs: number, appendedAtMs: number): number {
  return Math.max(receivedAtMs, appendedAtMs);
}

/**
 * The one check of a trade. `knownAtMs`: a time that has certainly come: the receipt for the feed, knownAtMs for whoever
 * reads a log, now for a redrive. Null: it can be true.
 */
export function badTrade(trade: Trade, knownAtMs: number): BadTrade | null {
  const { symbol, price, volume, tradedAtMs, conditions } = trade;
  if (symbol.length === 0 || symbol.length > SYMBOL_LENGTH_MAX || !symbol.isWellFormed()) return "bad_symbol";
  // Zero and below are prices: oil at -37.63, a spread, electricity.
  if (!(Math.abs(price) <= AMOUNT_MAX)) return "bad_price";
  if (!(volume >= 0 && volume <= AMOUNT_MAX)) return "bad_volume";
  if (!Number.isSafeInteger(tradedAtMs)) return "bad_time";
  if (isImpossibleTime(tradedAtMs, knownAtMs)) return "impossible_time";
  if (conditions !== null && conditions.length > CONDITIONS_MAX) return "bad_conditions";
  return null;
}
