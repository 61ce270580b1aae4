// Lists, newest first: a list asks the buckets of its range one by one, newest first and some at a time, until it has
// enough rows; beyond a month it asks only the buckets that hold anything. It writes nothing.

import type { Clock } from "../base/clock.ts";
import type { StoreReader, TimeRange, WindowQuery } from "../contracts/store.ts";
import { AGGREGATES, SHAPES, type WindowKind } from "../model/aggregates.ts";
import { DAY_MS } from "../model/trade.ts";
import {
  aggregateBuckets,
  BUCKETS_ASKED_MAX,
  BUCKETS_AT_ONCE_MAX,
  type Buckets,
  edgesOf,
  eventBuckets,
  filledBuckets,
  pagesOf,
  tradeBuckets,
} from "./buckets.ts";
import type { Cassandra, DriverRow } from "./client.ts";
import {
  averageRowOf,
  candleRowOf,
  EVENT_COLUMNS,
  eventRowOf,
  namesOf,
  TRADE_COLUMNS,
  tradeRowOf,
} from "./rows.ts";

const BUCKETS_AT_ONCE_MIN = 4;
/** What a bucket is asked for at first: most are empty, and a full one is worth a second read. */
const PROBE_ROWS = 50;
/** A vwap that is null is a tombstone, and a node warns of 1,000 of them in one read. */
const PAGE_ROWS = 900;
/** No trade is later than a day after its receipt; a day more for clocks. */
const AHEAD_MS_MAX = 2 * DAY_MS;
/** Smaller than every UUID of a row. */
const SMALLEST_UUID = "00000000-0000-0000-0000-000000000000";

export function listsOf(cassandra: Cassandra, keyspace: string, clock: Clock): StoreReader {
  const tradesQuery =
    `SELECT ${TRADE_COLUMNS} FROM ${keyspace}.trades WHERE symbol = ? AND hour = ? ` +
    "AND (trade_timestamp) >= (?) AND (trade_timestamp, uuid) < (?, ?) LIMIT ?";
  const eventsQuery =
    `SELECT ${EVENT_COLUMNS} FROM ${keyspace}.feed_events WHERE day = ? ` +
    "AND event_timestamp >= ? AND event_timestamp < ? LIMIT ?";
  const tradeHours = tradeBuckets(keyspace);
  const eventDays = eventBuckets(keyspace);
  const windows = new Map(
    AGGREGATES.map((aggregate) => {
      const { kind, table, shape } = aggregate;
      const { bucket, time } = SHAPES[shape];
      const query =
        `SELECT ${namesOf(shape)} FROM ${keyspace}.${table} WHERE symbol = ? AND ${bucket} = ? ` +
        `AND ${time} >= ? AND ${time} < ? LIMIT ?`;
      return [kind, { query, buckets: aggregateBuckets(keyspace, aggregate) }] as const;
    }),
  );

  const list = <T>(listed: Omit<Listed<T>, "cassandra" | "nowMs">) =>
    newestFirst({ ...listed, cassandra, nowMs: clock.now() });

  function listWindows<T>(kind: WindowKind, asked: WindowQuery, rowOf: (row: DriverRow) => T) {
    const { symbol, range, limit } = asked;
    const { query, buckets } = windows.get(kind)!;
    return list({
      buckets,
      symbol,
      range,
      limit,
      async read(bucket, rowsMax) {
        const params = [symbol, buckets.keyOf(bucket), range.fromMs, range.toMs];
        return (await readRows(cassandra, query, params, rowsMax)).map(rowOf);
      },
    });
  }

  return {
    listTrades({ symbol, range: { fromMs, toMs }, limit, before }) {
      // Without `before` the page begins just below toMs.
      const [atMs, uuid] =
        before && before.trade_timestamp < toMs
          ? [before.trade_timestamp, before.uuid]
          : [toMs, SMALLEST_UUID];
      return list({
        buckets: tradeHours,
        symbol,
        range: { fromMs, toMs: Math.min(toMs, atMs + 1) },
        limit,
        async read(hour, rowsMax) {
          const params = [symbol, hour, fromMs, atMs, uuid];
          return (await readRows(cassandra, tradesQuery, params, rowsMax)).map(tradeRowOf);
        },
      });
    },

    listAverages: (query, kind = "average") => listWindows(kind, query, averageRowOf),
    candleDaysMax: BUCKETS_ASKED_MAX,
    listCandles: (query, kind = "candle") => listWindows(kind, query, candleRowOf),

    listEvents({ range, limit }) {
      return list({
        buckets: eventDays,
        symbol: "",
        range,
        limit,
        async read(day, rowsMax) {
          const params = [eventDays.keyOf(day), range.fromMs, range.toMs];
          return (await readRows(cassandra, eventsQuery, params, rowsMax)).map(eventRowOf);
        },
      });
    },
  };
}

type Listed<T> = Readonly<{
  cassandra: Cassandra;
  buckets: Buckets;
  symbol: string;
  range: TimeRange;
  limit: number;
  nowMs: number;
  /** The newest rows of one bucket. */
  read(bucket: number, rowsMax: number): Promise<T[]>;
}>;

/** From the newest bucket back until there are enough. */
async function newestFirst<T>(listed: Listed<T>): Promise<readonly T[]> {
  const { cassandra, buckets, symbol, range, limit, nowMs } = listed;
  const { widthMs } = buckets;
  const toMs = Math.min(range.toMs, nowMs + AHEAD_MS_MAX);
  if (!(range.fromMs < toMs) || limit < 1) return [];
  const [first, last] = edgesOf({ fromMs: range.fromMs, toMs }, widthMs);
  const rows: T[] = [];
  const oldestAsked = Math.max(first, last - (BUCKETS_ASKED_MAX - 1) * widthMs);
  let bucket = last + widthMs;
  const isEnough = await readUntilEnough(listed, rows, () => {
    bucket -= widthMs;
    return bucket >= oldestAsked ? bucket : undefined;
  });
  if (isEnough || oldestAsked === first) return rows;
  const filled = await filledBuckets(cassandra, buckets, symbol, first, oldestAsked - widthMs);
  filled.sort((a, b) => a - b);
  await readUntilEnough(listed, rows, () => filled.pop());
  return rows;
}

/** Adds the rows of these buckets, which come newest first; true when the rows are enough. */
async function readUntilEnough<T>(
  { read, limit }: Listed<T>,
  rows: T[],
  next: () => number | undefined,
): Promise<boolean> {
  let atOnce = BUCKETS_AT_ONCE_MIN;
  for (;;) {
    const asked = takeUpTo(atOnce, next);
    if (asked.length === 0) return false;
    const probeRows = Math.min(PROBE_ROWS, limit - rows.length);
    const probes = await Promise.all(asked.map((bucket) => read(bucket, probeRows)));
    for (const [index, probe] of probes.entries()) {
      const wantedCount = limit - rows.length;
      const isAll = probe.length < probeRows || probe.length >= wantedCount;
      rows.push(...(isAll ? probe.slice(0, wantedCount) : await read(asked[index]!, wantedCount)));
      if (rows.length >= limit) return true;
    }
    atOnce = Math.min(BUCKETS_AT_ONCE_MAX, 2 * atOnce);
  }
}

async function readRows(
  cassandra: Cassandra,
  query: string,
  params: readonly unknown[],
  limit: number,
): Promise<DriverRow[]> {
  const rows: DriverRow[] = [];
  const pageRows = Math.min(limit, PAGE_ROWS);
  for await (const page of pagesOf(cassandra, query, [...params, limit], pageRows)) rows.push(...page);
  return rows;
}

function takeUpTo<T>(count: number, next: () => T | undefined): T[] {
  const items: T[] = [];
  while (items.length < count) {
    const item = next();
    if (item === undefined) break;
    items.push(item);
  }
  return items;
}
