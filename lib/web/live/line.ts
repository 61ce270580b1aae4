// The last minutes of one symbol: its price line by the second of event time, its sparkline, and how many trades were
// received in each second. All of it lies in slots that are used again, so noting a trade allocates nothing.

import { countsAtMs } from "../../model/last-trade.ts";
import type { TradeRow } from "../../model/trade.ts";
import { TRADE_AHEAD_MS } from "../../model/validate.ts";
import { LINE_SECONDS, RATE_SECONDS, type SecondTuple, SPARK_BUCKET_MS, SPARK_BUCKETS } from "./protocol.ts";

/** Beyond the line's own seconds there is room for those that are dated a little ahead. */
const SECOND_SLOTS = LINE_SECONDS + TRADE_AHEAD_MS / 1_000;
/** More than are counted, so that a second is not overwritten while it still counts. */
const RATE_SLOTS = 16;

export type Line = Readonly<{
  second: Float64Array;
  version: Float64Array;
  lastRow: (TradeRow | null)[];
  high: Float64Array;
  low: Float64Array;
  volume: Float64Array;
  count: Float64Array;
  sparkBucket: Float64Array;
  sparkAtMs: Float64Array;
  sparkPrice: Float64Array;
  rateSecond: Float64Array;
  rateCount: Float64Array;
}>;

/** About 20 KB. */
export function newLine(): Line {
  const numbers = (length: number) => new Float64Array(length);
  return {
    second: numbers(SECOND_SLOTS),
    version: numbers(SECOND_SLOTS),
    lastRow: Array.from({ length: SECOND_SLOTS }, () => null),
    high: numbers(SECOND_SLOTS),
    low: numbers(SECOND_SLOTS),
    volume: numbers(SECOND_SLOTS),
    count: numbers(SECOND_SLOTS),
    sparkBucket: numbers(SPARK_BUCKETS),
    sparkAtMs: numbers(SPARK_BUCKETS),
    sparkPrice: numbers(SPARK_BUCKETS),
    rateSecond: numbers(RATE_SLOTS),
    rateCount: numbers(RATE_SLOTS),
  };
}

/** In the order of (trade_timestamp, uuid). */
function isAfter(row: TradeRow, known: TradeRow): boolean {
  return row.trade_timestamp === known.trade_timestamp
    ? row.uuid > known.uuid
    : row.trade_timestamp > known.trade_timestamp;
}

/** A row as the rate and the sparkline show it, whatever its date: both go by what has happened. */
export function noteReceipt(line: Line, row: TradeRow): void {
  noteRate(line, Math.floor(row.ingest_timestamp / 1_000));
  noteSpark(line, countsAtMs(row), row.price);
}

/** A row in the second of its date. `version`: what the view's version is with this row. */
export function noteTrade(line: Line, row: TradeRow, version: number): void {
  const { trade_timestamp: atMs, price, volume } = row;
  const second = Math.floor(atMs / 1_000);
  const slot = second % SECOND_SLOTS;
  const known = line.second[slot]!;
  if (second < known) return; // Too late for the line; the tables have it.
  if (second > known) {
    line.second[slot] = second;
    line.lastRow[slot] = row;
    line.high[slot] = price;
    line.low[slot] = price;
    line.volume[slot] = volume;
    line.count[slot] = 1;
  } else {
    if (isAfter(row, line.lastRow[slot]!)) line.lastRow[slot] = row;
    if (price > line.high[slot]!) line.high[slot] = price;
    if (price < line.low[slot]!) line.low[slot] = price;
    line.volume[slot]! += volume;
    line.count[slot]! += 1;
  }
  line.version[slot] = version;
}

/** A price of the sparkline alone. Of one bucket the latest stays. */
export function noteSpark(line: Line, atMs: number, price: number): void {
  const bucket = Math.floor(atMs / SPARK_BUCKET_MS);
  const slot = bucket % SPARK_BUCKETS;
  const known = line.sparkBucket[slot]!;
  if (bucket < known || (bucket === known && atMs < line.sparkAtMs[slot]!)) return;
  line.sparkBucket[slot] = bucket;
  line.sparkAtMs[slot] = atMs;
  line.sparkPrice[slot] = price;
}

function noteRate(line: Line, second: number): void {
  const slot = second % RATE_SLOTS;
  const known = line.rateSecond[slot]!;
  if (second < known) return;
  line.rateCount[slot] = second === known ? line.rateCount[slot]! + 1 : 1;
  line.rateSecond[slot] = second;
}

/** Trades/s over the RATE_SECONDS whole seconds before endMs. */
export function rateBefore(line: Line, endMs: number): number {
  const endSecond = Math.floor(endMs / 1_000);
  let count = 0;
  for (let slot = 0; slot < RATE_SLOTS; slot++) {
    const second = line.rateSecond[slot]!;
    if (second >= endSecond - RATE_SECONDS && second < endSecond) count += line.rateCount[slot]!;
  }
  return count / RATE_SECONDS;
}

/** The seconds of the line at nowMs that changed after version `since`, oldest first. */
export function secondsIn(line: Line, nowMs: number, since: number): SecondTuple[] {
  const fromSecond = Math.floor(nowMs / 1_000) - LINE_SECONDS;
  const seconds: SecondTuple[] = [];
  for (let slot = 0; slot < SECOND_SLOTS; slot++) {
    const row = line.lastRow[slot];
    const second = line.second[slot]!;
    if (!row || second <= fromSecond || line.version[slot]! <= since) continue;
    seconds.push([
      second,
      row.price,
      line.high[slot]!,
      line.low[slot]!,
      line.volume[slot]!,
      line.count[slot]!,
    ]);
  }
  return seconds.sort(([a], [b]) => a - b);
}

/** The sparkline at nowMs, oldest first. */
export function sparkIn(line: Line, nowMs: number): [bucket: number, price: number][] {
  const from = Math.floor(nowMs / SPARK_BUCKET_MS) - SPARK_BUCKETS;
  return Array.from(line.sparkBucket, (bucket, slot) => [bucket, line.sparkPrice[slot]!] as [number, number])
    .filter(([bucket]) => bucket > from)
    .sort(([a], [b]) => a - b);
}
