// Rows to statements and back: the columns of each table, in one order, and what the driver's dates, longs and UUIDs
// are in our rows. Aggregates are bound whole, nulls too: a column that one version leaves out would keep what an
// older one wrote. It sends nothing.

import { types } from "cassandra-driver";
import { RowRefusedError } from "../base/errors.ts";
import type { AverageRow, CandleRow, WindowRow } from "../model/aggregates.ts";
import { dayOf, type FeedEventRow, hourOf, type TradeRow } from "../model/trade.ts";
import { WINDOW_MS, type Window } from "../model/windows.ts";
import type { Row, Statement } from "./client.ts";

export const TRADE_COLUMNS =
  "symbol, hour, trade_timestamp, uuid, price, volume, trade_conditions, ingest_timestamp";
export const AVERAGE_COLUMNS =
  "symbol, hour, window_end, price_volume_multiply, average_price, vwap, volume, trade_count";
export const CANDLE_COLUMNS =
  "symbol, day, window_start, open, high, low, close, volume, price_volume_sum, vwap, trade_count";
export const EVENT_COLUMNS = "day, event_timestamp, session, sequence, type, detail";

/** Cassandra's limit of a key; 128 characters are ours. */
const KEY_BYTES_MAX = 65_535;

/** Statements of one keyspace. A TTL that is undefined is that of the table. */
export type Statements = Readonly<{
  trade(row: TradeRow, ttlS: number | undefined): Statement;
  window(window: WindowRow, version: number): Statement;
  event(row: FeedEventRow, ttlS: number | undefined): Statement;
  removal(window: Window, version: number): Statement;
}>;

export function statementsFor(keyspace: string): Statements {
  const insert = (table: string, columns: string, using: string) => {
    const marks = columns.replace(/\w+/g, "?");
    return `INSERT INTO ${keyspace}.${table} (${columns}) VALUES (${marks}) USING ${using} ?`;
  };
  const trade = insert("trades", TRADE_COLUMNS, "TTL");
  const average = insert("running_averages_15_sec", AVERAGE_COLUMNS, "TIMESTAMP");
  const candle = insert("candles_1_min", CANDLE_COLUMNS, "TIMESTAMP");
  const event = insert("feed_events", EVENT_COLUMNS, "TTL");
  const noAverage = `DELETE FROM ${keyspace}.running_averages_15_sec USING TIMESTAMP ? WHERE symbol = ? AND hour = ? AND window_end = ?`;
  const noCandle = `DELETE FROM ${keyspace}.candles_1_min USING TIMESTAMP ? WHERE symbol = ? AND day = ? AND window_start = ?`;

  const textBytes = lastBytes((text: string) => Buffer.from(text));
  const conditionsBytes = lastBytes((text: string) => Buffer.from(text));
  const hourBytes = lastBytes(bytesOfTime);
  const receiptBytes = lastBytes(bytesOfTime);

  return {
    // Bytes, which the driver passes on as they are: its own way to each of them was half of what a row costs it.
    trade(row, ttlS) {
      const { symbol, hour, trade_timestamp, uuid, price, volume, trade_conditions, ingest_timestamp } = row;
      refuseUnstorable(row);
      return {
        query: trade,
        params: [
          textBytes(symbol),
          hourBytes(hour),
          bytesOfTime(trade_timestamp),
          bytesOfUuid(uuid),
          price,
          volume,
          // Unset, not null: a row is written by nobody with other conditions, and a null would be a tombstone.
          trade_conditions === null ? undefined : conditionsBytes(trade_conditions),
          receiptBytes(ingest_timestamp),
          ttlS,
        ],
      };
    },

    window(window, version) {
      const at = types.Long.fromNumber(version);
      if (window.kind === "average") {
        const { symbol, hour, window_end, price_volume_multiply, average_price, vwap, volume, trade_count } =
          window.row;
        return {
          query: average,
          params: [
            symbol,
            hour,
            window_end,
            price_volume_multiply,
            average_price,
            vwap,
            volume,
            trade_count,
            at,
          ],
        };
      }
      const { symbol, day, window_start, open, high, low, close, volume, price_volume_sum, vwap } =
        window.row;
      return {
        query: candle,
        params: [
          symbol,
          types.LocalDate.fromString(day),
          window_start,
          open,
          high,
          low,
          close,
          volume,
          price_volume_sum,
          vwap,
          window.row.trade_count,
          at,
        ],
      };
    },

    event({ day, event_timestamp, session, sequence, type, detail }, ttlS) {
      const params = [
        types.LocalDate.fromString(day),
        event_timestamp,
        session,
        types.Long.fromNumber(sequence),
        type,
        detail,
        ttlS,
      ];
      return { query: event, params };
    },

    removal({ kind, symbol, startMs }, version) {
      const at = types.Long.fromNumber(version);
      if (kind === "candle") {
        return { query: noCandle, params: [at, symbol, dayKey(startMs), startMs] };
      }
      const endMs = startMs + WINDOW_MS.average;
      return { query: noAverage, params: [at, symbol, hourOf(endMs), endMs] };
    },
  };
}

/** The driver stores NaN as the year 1970, cuts fractions off, and breaks on a long key: none of it is a row. */
function refuseUnstorable({
  symbol,
  hour,
  trade_timestamp,
  price,
  volume,
  ingest_timestamp,
}: TradeRow): void {
  for (const timeMs of [hour, trade_timestamp, ingest_timestamp]) {
    if (!Number.isSafeInteger(timeMs)) throw new RowRefusedError(`a time is no whole number: ${timeMs}`);
  }
  if (!Number.isFinite(price) || !Number.isFinite(volume)) {
    throw new RowRefusedError(`price and volume must be numbers: ${price}, ${volume}`);
  }
  if (symbol.length * 3 > KEY_BYTES_MAX && Buffer.byteLength(symbol) > KEY_BYTES_MAX) {
    throw new RowRefusedError("the symbol is longer than a key may be");
  }
}

const UUID_BYTES = 16;
const UUID_LENGTH = 36;
const DASH = "-".charCodeAt(0);
/** By character code: the digit's value, below 0 = no digit. */
const HEX_DIGITS = new Int8Array(128).fill(-1);
for (const digits of ["0123456789abcdef", "0123456789ABCDEF"])
  for (const [value, digit] of [...digits].entries()) HEX_DIGITS[digit.charCodeAt(0)] = value;

/** The driver's own reading of a UUID took a tenth of the processor's time; this takes a tenth of that. */
function bytesOfUuid(text: string): Buffer {
  const bytes = Buffer.allocUnsafe(UUID_BYTES);
  let isUuid = text.length === UUID_LENGTH;
  for (let at = 0, byte = 0; isUuid && byte < UUID_BYTES; at += 2, byte++) {
    // A dash stands before a whole byte, never inside one.
    if (at === 8 || at === 13 || at === 18 || at === 23) isUuid = text.charCodeAt(at++) === DASH;
    // Beyond the table is no digit either.
    const high = HEX_DIGITS[text.charCodeAt(at)] ?? -1;
    const low = HEX_DIGITS[text.charCodeAt(at + 1)] ?? -1;
    isUuid &&= high >= 0 && low >= 0;
    bytes[byte] = (high << 4) | low;
  }
  if (!isUuid) throw new RowRefusedError(`not a UUID: ${text}`);
  return bytes;
}

/** Cassandra's timestamp: 64 bits, the highest first. */
function bytesOfTime(timeMs: number): Buffer {
  const bytes = Buffer.allocUnsafe(8);
  const high = Math.floor(timeMs / 2 ** 32);
  bytes.writeInt32BE(high, 0);
  bytes.writeUInt32BE(timeMs - high * 2 ** 32, 4);
  return bytes;
}

/** Rows of one put share symbol and hour, those of a message their receipt: the bytes of the last one are kept. */
function lastBytes<T>(make: (value: T) => Buffer): (value: T) => Buffer {
  let last: { value: T; bytes: Buffer } | null = null;
  return (value) => {
    if (last === null || last.value !== value) last = { value, bytes: make(value) };
    return last.bytes;
  };
}

/** The day of a time as a key of candles_1_min and feed_events. */
export function dayKey(timeMs: number): types.LocalDate {
  return types.LocalDate.fromString(dayOf(timeMs));
}

// --- And back --------------------------------------------------------------------------------------------------

export function timeOf(value: unknown): number {
  return (value as Date).getTime();
}

/** A day key as the ms at which the day begins. */
export function dayStartOf(value: unknown): number {
  return Date.parse(String(value));
}

export function numberOf(value: unknown): number {
  return (value as types.Long).toNumber();
}

export function tradeOf(row: Row): TradeRow {
  return {
    symbol: row.symbol as string,
    hour: timeOf(row.hour),
    trade_timestamp: timeOf(row.trade_timestamp),
    uuid: String(row.uuid),
    price: row.price as number,
    volume: row.volume as number,
    trade_conditions: row.trade_conditions as string | null,
    ingest_timestamp: timeOf(row.ingest_timestamp),
  };
}

export function averageOf(row: Row): AverageRow {
  return {
    symbol: row.symbol as string,
    hour: timeOf(row.hour),
    window_end: timeOf(row.window_end),
    price_volume_multiply: row.price_volume_multiply as number,
    average_price: row.average_price as number,
    vwap: row.vwap as number | null,
    volume: row.volume as number,
    trade_count: row.trade_count as number,
  };
}

export function candleOf(row: Row): CandleRow {
  return {
    symbol: row.symbol as string,
    day: String(row.day),
    window_start: timeOf(row.window_start),
    open: row.open as number,
    high: row.high as number,
    low: row.low as number,
    close: row.close as number,
    volume: row.volume as number,
    price_volume_sum: row.price_volume_sum as number,
    vwap: row.vwap as number | null,
    trade_count: row.trade_count as number,
  };
}

export function eventOf(row: Row): FeedEventRow {
  return {
    day: String(row.day),
    event_timestamp: timeOf(row.event_timestamp),
    session: row.session as string,
    sequence: numberOf(row.sequence),
    type: row.type as string,
    detail: row.detail as string,
  };
}
