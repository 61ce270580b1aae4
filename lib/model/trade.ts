// The nouns of this system, and the one place that says which trade can be true at all. Every stage speaks
// in these; field names of rows are the column names of the tables, so that a row, a JSON answer and a test
// all show the same words.

/** One trade, as the exchange reported it. It carries no id: model/identity.ts gives it one. */
export type Trade = Readonly<{
  symbol: string;
  price: number;
  /** Zero where the feed reports quotes as trades without a size (forex). */
  volume: number;
  /** Event time, ms since 1970: when the exchange says it happened. Decides panes and windows. */
  tradedAtMs: number;
  /** Condition codes as sent; null where the feed sent null or nothing. */
  conditions: readonly (string | null)[] | null;
}>;

/**
 * What one symbol traded in one tick of the producer's event loop: 1 to TRADES_PER_MESSAGE_MAX trades of ONE
 * symbol. (session, sequence, index of the trade) is a trade's identity, for ever.
 */
export type Message = Readonly<{
  /** 8 hex digits: the producer run that received it. */
  session: string;
  /** 1, 2, 3 ... within the session, below 2^32 (0: an offset). Gaps are normal: events and dead letters count too. */
  sequence: number;
  /** ms since 1970, the producer's clock. */
  receivedAtMs: number;
  trades: readonly Trade[];
}>;

/** A row of `trades`. Times in ms. `hour` is trade_timestamp cut to the hour. */
export type TradeRow = Readonly<{
  symbol: string;
  hour: number;
  trade_timestamp: number;
  uuid: string;
  price: number;
  volume: number;
  /** JSON text (`["1","12"]`, `[]`) or null. */
  trade_conditions: string | null;
  ingest_timestamp: number;
}>;

/** A row of `running_averages_15_sec`: the trades of [window_end - 15 s, window_end). */
export type AverageRow = Readonly<{
  symbol: string;
  hour: number;
  window_end: number;
  /** Average of price*volume over the trades (the origin's figure), not a sum. */
  price_volume_multiply: number;
  average_price: number;
  /** sum(p*v)/sum(v); null when no volume was traded. */
  vwap: number | null;
  volume: number;
  trade_count: number;
}>;

/** A row of `candles_1_min`: the trades of [window_start, window_start + 60 s). `day` is YYYY-MM-DD, UTC. */
export type CandleRow = Readonly<{
  symbol: string;
  day: string;
  window_start: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  price_volume_sum: number;
  vwap: number | null;
  trade_count: number;
}>;

export type WindowRow =
  | Readonly<{ kind: "average"; row: AverageRow }>
  | Readonly<{ kind: "candle"; row: CandleRow }>;

/** A row of `feed_events`: what the feed could not know, and why. `detail` is JSON text. */
export type FeedEventRow = Readonly<{
  day: string;
  event_timestamp: number;
  session: string;
  sequence: number;
  type: string;
  detail: string;
}>;

/** What could not be taken, whole, with the reason. (session, sequence, item) is its identity. */
export type DeadLetter = Readonly<{
  session: string;
  sequence: number;
  /** Index of the trade within its message; WHOLE_MESSAGE when all of it is here. */
  item: number;
  receivedAtMs: number;
  reason: DeadReason;
  /** Where it was found unfit: at the feed, or at the processor. */
  source: "feed" | "processor";
  payload: Uint8Array;
}>;

export const WHOLE_MESSAGE = -1;

export type DeadReason =
  | BadTrade
  | "garbage_frame" // Not JSON, or not an object with a type.
  | "bad_frame" // A trade frame whose data is no list.
  | "unknown_frame" // A frame of another type that holds what looks like trades.
  | "frame_too_long" // Longer than finnhub/frame.ts takes; only its beginning is kept.
  | "undecodable" // Bytes on the topic that are no message.
  | "no_session" // The origin's producer wrote it.
  | "several_symbols" // One message carries one symbol; this one does not.
  | "bad_identity" // A session or sequence that model/identity.ts cannot take.
  | "refused_by_store"; // An error that proves this row alone invalid.

/** Why a trade cannot be true. A closed list: it is a metric's label. */
export type BadTrade =
  | "not_a_trade"
  | "bad_symbol"
  | "bad_price"
  | "bad_volume"
  | "bad_time"
  | "impossible_time"
  | "bad_conditions";

/**
 * A hole stands in a replayed message where a trade is not sent again, so that those behind it keep their index and
 * with it their UUID. It can be no trade, and whoever reads leaves it out; no letter is written about it.
 */
export function placeholderFor(symbol: string): Trade {
  return { symbol, price: 0, volume: 0, tradedAtMs: 0, conditions: null };
}

export function isPlaceholder({ price, volume, tradedAtMs, conditions }: Trade): boolean {
  return price === 0 && volume === 0 && tradedAtMs === 0 && conditions === null;
}

/** 10 bits of the UUID hold the index. */
export const TRADES_PER_MESSAGE_MAX = 1024;

/** Beyond this a price or a size is a fault of the feed; p*v stays far inside a double's exact exponent range. */
export const AMOUNT_MAX = 1e15;
/** Finnhub's longest are about 30; the bound keeps a key from becoming a payload. */
export const SYMBOL_LENGTH_MAX = 128;
const CONDITIONS_MAX = 64;
const YEAR_2000_MS = 946_684_800_000;
export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;
export const DAY_MS = 86_400_000;
/** A trade dated this far ahead of its receipt is stored, counted, and /health speaks of the clock. */
export const TRADE_AHEAD_MS = 60_000;

/** A trade whose date is over TRADE_AHEAD_MS ahead of its receipt. */
export type AheadTrade = Readonly<{ symbol: string; aheadMs: number; receivedAtMs: number }>;

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

/** The row of a trade: what `trades` holds. */
export function tradeRow(trade: Trade, uuid: string, receivedAtMs: number): TradeRow {
  return {
    symbol: trade.symbol,
    hour: hourOf(trade.tradedAtMs),
    trade_timestamp: trade.tradedAtMs,
    uuid,
    price: trade.price,
    volume: trade.volume,
    trade_conditions: trade.conditions === null ? null : JSON.stringify(trade.conditions),
    ingest_timestamp: receivedAtMs,
  };
}

/** The trade of a row that tradeRow made. */
export function tradeOf(row: TradeRow): Trade {
  return {
    symbol: row.symbol,
    price: row.price,
    volume: row.volume,
    tradedAtMs: row.trade_timestamp,
    conditions:
      row.trade_conditions === null ? null : (JSON.parse(row.trade_conditions) as (string | null)[]),
  };
}

export function hourOf(timeMs: number): number {
  return timeMs - (timeMs % HOUR_MS);
}

/** `YYYY-MM-DD`, UTC. */
export function dayOf(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 10);
}
