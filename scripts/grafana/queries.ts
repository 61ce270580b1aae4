// What the panels ask Cassandra, as text of CQL. Each query names its partitions by the server's own time (the hours
// or days that its span can touch), has an end by rows in each of them, and is constant for a symbol: Cassandra
// prepares it once, and it has neither the viewer's clock nor timezone in it.
//
// What the plugin asks for (hadesarchitect-cassandra-datasource 3.3.0): the text begins with "SELECT " on the same
// line; the first column names the series, so it is the symbol; no ORDER BY beside IN, since it always pages; no
// column of a type it cannot show. A null is shown as 0, so a column that may be null is asked for where it is not.

import { aggregateOf } from "../../lib/model/aggregates.ts";

const AVERAGES = aggregateOf("average");
const CANDLES = aggregateOf("candle");
/** What every panel of a symbol shows. Panels state it as their own time range, so that picture and query agree. */
export const SPAN = "15m";
/** Two windows of 15 seconds: what a rate of now is read from. */
export const RATE_SPAN = "30s";
/** Candles are a minute each. */
export const CANDLES_SPAN = "3h";
/** Twice a second for each viewer: what a panel gets has an end, however much is traded. */
export const TRADES_MAX = 500;
/** A window each 5 s. */
export const WINDOWS_MAX = 200;
export const CANDLES_MAX = 200;
export const LAST_TRADES_MAX = 20;
export const EVENTS_MAX = 100;
/** What has not traded for a week is not offered; a weekend and a holiday are shorter. */
export const SYMBOLS_SPAN = "7d";
export const SYMBOLS_MAX = 5_000;

/** Grafana puts the chosen symbol here, in quotes, with a quote within it doubled. */
const SYMBOL = `\${symbol:sqlstring}`;

const hours = (span: string) => `floor(current_timestamp(), 1h), floor(current_timestamp() - ${span}, 1h)`;
const days = (span: string) => `to_date(current_timestamp()), to_date(current_timestamp() - ${span})`;

/**
 * Newest first in each of the two hours, up to now: a trade that is dated ahead waits for its time. CQL has no order by
 * receipt (docs/DATA.md, the last trade).
 */
function trades(columns: string, span: string, rowsMax: number): string {
  return (
    `SELECT symbol, ${columns}, trade_timestamp FROM trades WHERE symbol = ${SYMBOL} AND hour IN (${hours(span)}) ` +
    `AND trade_timestamp > current_timestamp() - ${span} AND trade_timestamp <= current_timestamp() ` +
    `PER PARTITION LIMIT ${rowsMax}`
  );
}

/** A window that is still open is not the average of 15 seconds yet: only closed ones are asked for. */
function windows(columns: string, filter = "", span = SPAN): string {
  return (
    `SELECT symbol, ${columns}, window_end FROM ${AVERAGES.table} WHERE symbol = ${SYMBOL} ` +
    `AND hour IN (${hours(span)}) AND window_end > current_timestamp() - ${span} ` +
    `AND window_end <= current_timestamp()${filter && ` AND ${filter}`} PER PARTITION LIMIT ${WINDOWS_MAX}` +
    `${filter && " ALLOW FILTERING"}`
  );
}

export const QUERIES = {
  price: trades("price", SPAN, TRADES_MAX),
  averagePrice: windows("average_price"),
  // It is null where no volume was traded. Filtered are only the rows that the slice of these partitions holds anyway.
  vwap: windows("vwap", "volume > 0"),
  volume: trades("volume", SPAN, TRADES_MAX),
  windowVolume: windows("volume"),
  averagePriceVolume: windows("price_volume_multiply"),
  // Of now, or nothing: a rate that was true a quarter of an hour ago is none.
  tradesPerSecond: windows(
    `CAST(trade_count AS double) / ${AVERAGES.widthMs / 1_000} AS trades_per_second`,
    "",
    RATE_SPAN,
  ),
  lastPrice: trades("price", "1h", 1),
  latency: trades(
    "to_unix_timestamp(ingest_timestamp) - to_unix_timestamp(trade_timestamp) AS latency_ms",
    SPAN,
    TRADES_MAX,
  ),
  lastTrades: trades("price, volume, trade_conditions, ingest_timestamp", SPAN, LAST_TRADES_MAX),
  candles:
    `SELECT symbol, open, high, low, close, volume, window_start FROM ${CANDLES.table} WHERE symbol = ${SYMBOL} ` +
    `AND day IN (${days(CANDLES_SPAN)}) AND window_start > current_timestamp() - ${CANDLES_SPAN} ` +
    `AND window_start <= current_timestamp() PER PARTITION LIMIT ${CANDLES_MAX}`,
  gaps:
    `SELECT session, event_timestamp, type, detail FROM feed_events WHERE day IN (${days(CANDLES_SPAN)}) ` +
    `AND event_timestamp > current_timestamp() - ${CANDLES_SPAN} ` +
    "AND type IN ('disconnected', 'connected', 'trades_refused', 'log_gap', 'log_damaged') " +
    `PER PARTITION LIMIT ${EVENTS_MAX} ALLOW FILTERING`,
  // Asked once, when the dashboard is opened: a row of each day of each symbol, some hundreds.
  symbols:
    `SELECT symbol FROM ${CANDLES.table} WHERE day >= to_date(current_timestamp() - ${SYMBOLS_SPAN}) ` +
    `PER PARTITION LIMIT 1 LIMIT ${SYMBOLS_MAX} ALLOW FILTERING`,
} as const;

export type QueryName = keyof typeof QUERIES;
