// Rows to statements and back: the columns of each table, in one order, and what the driver's dates, longs and UUIDs
// are in our rows. Aggregates are bound whole, nulls too: a column that one version leaves out would keep what an
// older one wrote. It sends nothing.

import { types } from "cassandra-driver";
import { RowRefusedError } from "../base/errors.ts";
import {
  AGGREGATES,
  type Aggregate,
  type AverageRow,
  aggregateOf,
  type CandleRow,
  SHAPES,
  type Shape,
  valuesOf,
  type WindowRow,
} from "../model/aggregates.ts";
import { dayOf, type FeedEventRow, hourOf, type TradeRow } from "../model/trade.ts";
import { storedAtMs, type Window } from "../model/windows.ts";
import type { DriverRow, Statement } from "./client.ts";

export const TRADE_COLUMNS =
  "symbol, hour, trade_timestamp, uuid, price, volume, trade_conditions, ingest_timestamp";
export const EVENT_COLUMNS = "day, event_timestamp, session, sequence, type, detail";

/** Cassandra's limit of a key. Ours is 128 characters. */
const KEY_BYTES_MAX = 65_535;

/** Statements of one keyspace. A TTL that is undefined is that of the table. */
type Statements = Readonly<{
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
  const event = insert("feed_events", EVENT_COLUMNS, "TTL");
  const windows = new Map(
    AGGREGATES.map(({ kind, table, shape }) => {
      const { bucket, time } = SHAPES[shape];
      const removal = `DELETE FROM ${keyspace}.${table} USING TIMESTAMP ? WHERE symbol = ? AND ${bucket} = ? AND ${time} = ?`;
      return [kind, { put: insert(table, namesOf(shape), "TIMESTAMP"), removal }] as const;
    }),
  );

  const textBytes = lastBytes((text: string) => Buffer.from(text));
  const conditionsBytes = lastBytes((text: string) => Buffer.from(text));
  const hourBytes = lastBytes(bytesOfTime);
  const receiptBytes = lastBytes(bytesOfTime);

  return {
    // Bytes, which the driver passes on as they are: its own conversions were half of what a row cost it.
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
          // Unset, not null: a null would be a tombstone, and no other writer gives this row conditions.
          trade_conditions === null ? undefined : conditionsBytes(trade_conditions),
          receiptBytes(ingest_timestamp),
          ttlS,
        ],
      };
    },

    window(window, version) {
      const { columns } = SHAPES[aggregateOf(window.kind).shape];
      const params: unknown[] = valuesOf(window).map((value, index) =>
        columns[index]?.type === "day" ? types.LocalDate.fromString(String(value)) : value,
      );
      params.push(types.Long.fromNumber(version));
      return { query: windows.get(window.kind)!.put, params };
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

    removal(window, version) {
      const { kind, symbol } = window;
      const atMs = storedAtMs(window);
      const params = [types.Long.fromNumber(version), symbol, bucketKey(aggregateOf(kind).shape, atMs), atMs];
      return { query: windows.get(kind)!.removal, params };
    },
  };
}

/** The columns of a shape, as they stand in a statement. */
export function namesOf(shape: Shape): string {
  return SHAPES[shape].columns.map(({ name }) => name).join(", ");
}

/** The driver stores NaN as the year 1970, cuts fractions off, and breaks on a long key: such a row is refused. */
function refuseUnstorable({
  symbol,
  hour,
  trade_timestamp,
  price,
  volume,
  ingest_timestamp,
}: TradeRow): void {
  for (const timeMs of [hour, trade_timestamp, ingest_timestamp]) {
    if (!Number.isSafeInteger(timeMs)) throw new RowRefusedError(`a time is not a whole number: ${timeMs}`);
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

/** Rows of one put share symbol and hour, rows of a message their receipt: the bytes of the last value are kept. */
function lastBytes<T>(make: (value: T) => Buffer): (value: T) => Buffer {
  let last: { value: T; bytes: Buffer } | null = null;
  return (value) => {
    if (last === null || last.value !== value) last = { value, bytes: make(value) };
    return last.bytes;
  };
}

/** The key of the bucket in which a row of this shape is kept that is stored under this time. */
function bucketKey(shape: Shape, timeMs: number): number | types.LocalDate {
  return SHAPES[shape].bucket === "day" ? dayKey(timeMs) : hourOf(timeMs);
}

/** The day of a time as a key. */
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

export function tradeRowOf(row: DriverRow): TradeRow {
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

export function averageRowOf(row: DriverRow): AverageRow {
  return fieldsOf("average", row) as AverageRow;
}

export function candleRowOf(row: DriverRow): CandleRow {
  return fieldsOf("candle", row) as CandleRow;
}

export function windowRowOf(aggregate: Aggregate, row: DriverRow): WindowRow {
  return aggregate.shape === "average"
    ? { kind: aggregate.kind, row: averageRowOf(row) }
    : { kind: aggregate.kind, row: candleRowOf(row) };
}

/** The columns of a shape, by name, as our rows have them. */
function fieldsOf(shape: Shape, row: DriverRow): Readonly<Record<string, unknown>> {
  const fields: Record<string, unknown> = {};
  for (const { name, type } of SHAPES[shape].columns) {
    const value = row[name];
    fields[name] = type === "time" ? timeOf(value) : type === "day" ? String(value) : value;
  }
  return fields;
}

export function eventRowOf(row: DriverRow): FeedEventRow {
  return {
    day: String(row.day),
    event_timestamp: timeOf(row.event_timestamp),
    session: row.session as string,
    sequence: numberOf(row.sequence),
    type: row.type as string,
    detail: row.detail as string,
  };
}
