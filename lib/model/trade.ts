// The nouns of this system: a trade, a message of trades, and the rows of `trades` and `feed_events`. Every stage speaks
// in these; the field names of rows are the column names of the tables, so that a row, a JSON answer and a test all show
// the same words. Which trade can be true is decided in validate.ts.

/** One trade, as the exchange reported it. It carries no id: identity.ts gives it one. */
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

/** A row of `feed_events`: what the feed could not know, and why. `detail` is JSON text. */
export type FeedEventRow = Readonly<{
  day: string;
  event_timestamp: number;
  session: string;
  sequence: number;
  type: string;
  detail: string;
}>;

export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;
export const DAY_MS = 86_400_000;

/** A trade whose date is over TRADE_AHEAD_MS ahead of its receipt. */
export type AheadTrade = Readonly<{ symbol: string; aheadMs: number; receivedAtMs: number }>;

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

/**
 * From when on the retention of a trade counts, ms since 1970: from its receipt, unless only a clock that was slow explains
 * a receipt so long before the trade.
 */
export function keptFromMs(tradedAtMs: number, receivedAtMs: number): number {
  return tradedAtMs > receivedAtMs + DAY_MS ? tradedAtMs : receivedAtMs;
}

/** The inverse of tradeRow. */
export function tradeOfRow(row: TradeRow): Trade {
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
