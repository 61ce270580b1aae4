// The tables are cut into buckets, hours or days of a symbol, and a range is read bucket by bucket. Here is which buckets a
// range has: all of them, or where there are too many those that the keys of the table name. What lists.ts and
// scans.ts read stands on it.

import type { TimeRange } from "../contracts/store.ts";
import { type Aggregate, SHAPES } from "../model/aggregates.ts";
import { DAY_MS, HOUR_MS } from "../model/trade.ts";
import type { Cassandra, DriverRow } from "./client.ts";
import { dayKey, dayStartOf, timeOf } from "./rows.ts";

const KEYS_PAGE_ROWS = 1_000;
/** A month of hours: asked one by one that is some 100 ms. Beyond it the keys are read, some 10,000 a second. */
export const BUCKETS_ASKED_MAX = 744;
export const BUCKETS_AT_ONCE_MAX = 32;

/** How a table is cut. A bucket is named by the ms at which it begins. */
export type Buckets = Readonly<{
  widthMs: number;
  /** Reads the keys of all partitions. */
  keysQuery: string;
  /** The bucket of such a key when it belongs to the symbol; undefined = it does not. */
  ofKey(key: DriverRow, symbol: string): number | undefined;
  /** What names the bucket in a statement. */
  keyOf(bucket: number): unknown;
}>;

/** With symbols: `anyQuery` finds a row of a symbol's bucket, if there is one. */
export type SymbolBuckets = Buckets & Readonly<{ anyQuery: string }>;

export function tradeBuckets(keyspace: string): SymbolBuckets {
  return symbolBuckets(keyspace, "trades", "hour");
}

export function aggregateBuckets(keyspace: string, { table, shape }: Aggregate): SymbolBuckets {
  return symbolBuckets(keyspace, table, SHAPES[shape].bucket);
}

export function eventBuckets(keyspace: string): Buckets {
  return {
    widthMs: DAY_MS,
    keysQuery: `SELECT DISTINCT day FROM ${keyspace}.feed_events`,
    ofKey: (key) => dayStartOf(key.day),
    keyOf: dayKey,
  };
}

function symbolBuckets(keyspace: string, table: string, name: "hour" | "day"): SymbolBuckets {
  const isHour = name === "hour";
  const startOf = isHour ? timeOf : dayStartOf;
  return {
    widthMs: isHour ? HOUR_MS : DAY_MS,
    keysQuery: `SELECT DISTINCT symbol, ${name} FROM ${keyspace}.${table}`,
    anyQuery: `SELECT ${name} FROM ${keyspace}.${table} WHERE symbol = ? AND ${name} = ? LIMIT 1`,
    ofKey: (key, symbol) => (key.symbol === symbol ? startOf(key[name]) : undefined),
    keyOf: isHour ? (bucket) => bucket : dayKey,
  };
}

export async function* pagesOf(
  cassandra: Cassandra,
  query: string,
  params: readonly unknown[],
  pageRows: number,
): AsyncGenerator<readonly DriverRow[]> {
  let pageState: string | undefined;
  do {
    const page = await cassandra.execute(query, params, { pageRows, pageState });
    if (page.rows.length > 0) yield page.rows;
    pageState = page.pageState;
  } while (pageState !== undefined);
}

/** The keys of all partitions, in pages. */
export function keysOf(cassandra: Cassandra, { keysQuery }: Buckets): AsyncGenerator<readonly DriverRow[]> {
  return pagesOf(cassandra, keysQuery, [], KEYS_PAGE_ROWS);
}

/** The buckets that hold anything between two buckets, both included, in any order. */
export async function filledBuckets(
  cassandra: Cassandra,
  buckets: Buckets,
  symbol: string,
  first: number,
  last: number,
): Promise<number[]> {
  const filled: number[] = [];
  for await (const keys of keysOf(cassandra, buckets)) {
    for (const key of keys) {
      const bucket = buckets.ofKey(key, symbol);
      if (bucket !== undefined && bucket >= first && bucket <= last) filled.push(bucket);
    }
  }
  return filled;
}

/** Every bucket of the range, or of very many those that hold anything; in any order. */
export async function bucketsIn(
  cassandra: Cassandra,
  buckets: Buckets,
  symbol: string,
  range: TimeRange,
): Promise<number[]> {
  const [first, last] = edgesOf(range, buckets.widthMs);
  const count = (last - first) / buckets.widthMs + 1;
  if (count > BUCKETS_ASKED_MAX) return filledBuckets(cassandra, buckets, symbol, first, last);
  return Array.from({ length: Math.max(0, count) }, (_, index) => first + index * buckets.widthMs);
}

/** The first and the last bucket that overlap the range; the last lies before the first where it is empty. */
export function edgesOf({ fromMs, toMs }: TimeRange, widthMs: number): [number, number] {
  const first = Math.max(0, Math.floor(fromMs / widthMs) * widthMs);
  return [first, Math.max(first - widthMs, Math.ceil(toMs / widthMs) * widthMs - widthMs)];
}
