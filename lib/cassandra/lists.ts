// Reading rows back: lists that are newest first, scans in pages. The tables are cut into hours or days of a symbol,
// so a list asks the buckets of its range one by one, newest first and some at a time, until it has enough; where
// there are too many, the keys of the table say which of them hold anything. It writes nothing.

import type { Clock } from "../base/clock.ts";
import type {
  StoredWindow,
  StoreMender,
  StoreReader,
  StoreWriter,
  SymbolHour,
  TimeRange,
} from "../contracts/store.ts";
import { DAY_MS, HOUR_MS } from "../model/trade.ts";
import type { Cassandra, Row } from "./client.ts";
import {
  AVERAGE_COLUMNS,
  averageOf,
  CANDLE_COLUMNS,
  candleOf,
  dayKey,
  dayStartOf,
  EVENT_COLUMNS,
  eventOf,
  numberOf,
  TRADE_COLUMNS,
  timeOf,
  tradeOf,
} from "./rows.ts";

/** 50 bytes and more a row: a page is some hundred KB. */
const SCAN_PAGE_ROWS = 5_000;
/** A vwap that is null is a tombstone, and a node warns of 1,000 of them in one read. */
const WINDOWS_PAGE_ROWS = 900;
const KEYS_PAGE_ROWS = 1_000;
/** A month of hours: asked one by one that is some 100 ms. Beyond it the keys are read, some 10,000 a second. */
const BUCKETS_ASKED_MAX = 744;
const BUCKETS_AT_ONCE_MIN = 4;
const BUCKETS_AT_ONCE_MAX = 32;
/** What a bucket is asked for at first: most are empty, and a full one is worth a second read. */
const PROBE_ROWS = 50;
/** Of a scan: so many pages are read ahead. */
const SCAN_BUCKETS_AT_ONCE = 4;
/** No trade is later than a day after its receipt; a day more for clocks. */
const AHEAD_MS_MAX = 2 * DAY_MS;
/** Smaller than every UUID of a row. */
const SMALLEST_UUID = "00000000-0000-0000-0000-000000000000";

/** A table cut into buckets of time. A bucket is named by the ms at which it begins. */
type Buckets = Readonly<{
  widthMs: number;
  /** Reads the keys of all partitions. */
  keysQuery: string;
  /** The bucket of such a key when it belongs to the symbol; undefined = it does not. */
  ofKey(key: Row, symbol: string): number | undefined;
}>;
/** With symbols; `anyQuery` finds a row of a symbol's bucket, if there is one. */
type SymbolBuckets = Buckets & Readonly<{ anyQuery: string }>;

export function readsOf(
  cassandra: Cassandra,
  keyspace: string,
  clock: Clock,
): StoreReader &
  Pick<StoreWriter, "isEmpty" | "scanTrades"> &
  Pick<StoreMender, "scanHours" | "scanWindows"> {
  const hoursOf = (table: string): SymbolBuckets => ({
    widthMs: HOUR_MS,
    keysQuery: `SELECT DISTINCT symbol, hour FROM ${keyspace}.${table}`,
    anyQuery: `SELECT hour FROM ${keyspace}.${table} WHERE symbol = ? AND hour = ? LIMIT 1`,
    ofKey: (key, symbol) => (key.symbol === symbol ? timeOf(key.hour) : undefined),
  });
  const tradeHours = hoursOf("trades");
  const averageHours = hoursOf("running_averages_15_sec");
  const candleDays: SymbolBuckets = {
    widthMs: DAY_MS,
    keysQuery: `SELECT DISTINCT symbol, day FROM ${keyspace}.candles_1_min`,
    anyQuery: `SELECT day FROM ${keyspace}.candles_1_min WHERE symbol = ? AND day = ? LIMIT 1`,
    ofKey: (key, symbol) => (key.symbol === symbol ? dayStartOf(key.day) : undefined),
  };
  const eventDays: Buckets = {
    widthMs: DAY_MS,
    keysQuery: `SELECT DISTINCT day FROM ${keyspace}.feed_events`,
    ofKey: (key) => dayStartOf(key.day),
  };

  const tradesOf = `SELECT ${TRADE_COLUMNS} FROM ${keyspace}.trades WHERE symbol = ? AND hour = ?`;
  const tradesFrom = `${tradesOf} AND trade_timestamp >= ? AND trade_timestamp < ?`;
  const tradesBefore = `${tradesOf} AND (trade_timestamp) >= (?) AND (trade_timestamp, uuid) < (?, ?) LIMIT ?`;
  const averagesFrom = (columns: string) =>
    `SELECT ${columns} FROM ${keyspace}.running_averages_15_sec WHERE symbol = ? AND hour = ? AND window_end >= ? AND window_end < ?`;
  const candlesFrom = (columns: string) =>
    `SELECT ${columns} FROM ${keyspace}.candles_1_min WHERE symbol = ? AND day = ? AND window_start >= ? AND window_start < ?`;
  const averagesWithVersion = averagesFrom(`${AVERAGE_COLUMNS}, WRITETIME(trade_count) AS version`);
  const candlesWithVersion = candlesFrom(`${CANDLE_COLUMNS}, WRITETIME(trade_count) AS version`);
  const listAverages = `${averagesFrom(AVERAGE_COLUMNS)} LIMIT ?`;
  const listCandles = `${candlesFrom(CANDLE_COLUMNS)} LIMIT ?`;
  const listEvents = `SELECT ${EVENT_COLUMNS} FROM ${keyspace}.feed_events WHERE day = ? AND event_timestamp >= ? AND event_timestamp < ? LIMIT ?`;
  const anyTrade = `SELECT symbol FROM ${keyspace}.trades LIMIT 1`;

  // ---- Buckets ----------------------------------------------------------------------------------------------

  async function* keysOf(query: string): AsyncGenerator<readonly Row[]> {
    yield* pagesOf(query, [], KEYS_PAGE_ROWS);
  }

  async function* pagesOf(
    query: string,
    params: readonly unknown[],
    pageRows: number,
  ): AsyncGenerator<readonly Row[]> {
    let pageState: string | undefined;
    do {
      const page = await cassandra.execute(query, params, { pageRows, pageState });
      if (page.rows.length > 0) yield page.rows;
      pageState = page.pageState;
    } while (pageState !== undefined);
  }

  /** Those that the table holds between two buckets, both included, in any order. */
  async function bucketsHeld(
    { keysQuery, ofKey }: Buckets,
    symbol: string,
    first: number,
    last: number,
  ): Promise<number[]> {
    const held: number[] = [];
    for await (const keys of keysOf(keysQuery)) {
      for (const key of keys) {
        const bucket = ofKey(key, symbol);
        if (bucket !== undefined && bucket >= first && bucket <= last) held.push(bucket);
      }
    }
    return held;
  }

  /** Every bucket of the range, or of very many those that hold anything; in any order. */
  async function bucketsOf(buckets: Buckets, symbol: string, range: TimeRange): Promise<number[]> {
    const [first, last] = edgesOf(range, buckets.widthMs);
    const count = (last - first) / buckets.widthMs + 1;
    if (count > BUCKETS_ASKED_MAX) return bucketsHeld(buckets, symbol, first, last);
    return Array.from({ length: Math.max(0, count) }, (_, index) => first + index * buckets.widthMs);
  }

  /** Those that hold anything, whoever's, named by the hour at which they begin. */
  async function* everyBucket({ keysQuery, ofKey }: Buckets): AsyncGenerator<readonly SymbolHour[]> {
    for await (const keys of keysOf(keysQuery)) {
      yield keys.map((key) => {
        const symbol = key.symbol as string;
        return { symbol, hour: ofKey(key, symbol) ?? 0 };
      });
    }
  }

  /** Those of one symbol that hold anything. */
  async function* bucketsOfSymbol(
    buckets: SymbolBuckets,
    symbol: string,
    range: TimeRange,
  ): AsyncGenerator<readonly SymbolHour[]> {
    const found = await bucketsOf(buckets, symbol, range);
    for (let index = 0; index < found.length; index += BUCKETS_AT_ONCE_MAX) {
      const asked = found.slice(index, index + BUCKETS_AT_ONCE_MAX);
      const isHeld = await Promise.all(
        asked.map(async (bucket) => {
          const key = buckets.widthMs === DAY_MS ? dayKey(bucket) : bucket;
          return (await cassandra.execute(buckets.anyQuery, [symbol, key])).rows.length > 0;
        }),
      );
      yield asked.filter((_, which) => isHeld[which]).map((hour) => ({ symbol, hour }));
    }
  }

  // ---- Lists ------------------------------------------------------------------------------------------------

  /** Newest first, from the newest bucket back until there are enough. */
  async function list<T>(
    buckets: Buckets,
    symbol: string,
    range: TimeRange,
    limit: number,
    read: (bucket: number, limit: number) => Promise<T[]>,
  ): Promise<readonly T[]> {
    const { widthMs } = buckets;
    const toMs = Math.min(range.toMs, clock.now() + AHEAD_MS_MAX);
    if (!(range.fromMs < toMs) || limit < 1) return [];
    const [first, last] = edgesOf({ fromMs: range.fromMs, toMs }, widthMs);
    const rows: T[] = [];
    /** Newest first; true when the rows are enough. */
    const readAll = async (next: () => number | undefined): Promise<boolean> => {
      let atOnce = BUCKETS_AT_ONCE_MIN;
      for (;;) {
        const asked = takeUpTo(atOnce, next);
        if (asked.length === 0) return false;
        const probeRows = Math.min(PROBE_ROWS, limit - rows.length);
        const probes = await Promise.all(asked.map((bucket) => read(bucket, probeRows)));
        for (const [index, probe] of probes.entries()) {
          const wanted = limit - rows.length;
          const isAll = probe.length < probeRows || probe.length >= wanted;
          rows.push(...(isAll ? probe.slice(0, wanted) : await read(asked[index]!, wanted)));
          if (rows.length >= limit) return true;
        }
        atOnce = Math.min(BUCKETS_AT_ONCE_MAX, 2 * atOnce);
      }
    };
    const oldestAsked = Math.max(first, last - (BUCKETS_ASKED_MAX - 1) * widthMs);
    let bucket = last + widthMs;
    const isEnough = await readAll(() => {
      bucket -= widthMs;
      return bucket >= oldestAsked ? bucket : undefined;
    });
    if (isEnough || oldestAsked === first) return rows;
    const held = await bucketsHeld(buckets, symbol, first, oldestAsked - widthMs);
    held.sort((a, b) => a - b);
    await readAll(() => held.pop());
    return rows;
  }

  async function readRows(query: string, params: readonly unknown[], limit: number): Promise<Row[]> {
    const rows: Row[] = [];
    const pageRows = Math.min(limit, WINDOWS_PAGE_ROWS);
    for await (const page of pagesOf(query, [...params, limit], pageRows)) rows.push(...page);
    return rows;
  }

  // ---- Scans ------------------------------------------------------------------------------------------------

  /** Every row of the buckets, some buckets read ahead. */
  async function* scan(
    query: string,
    buckets: readonly number[],
    paramsOf: (bucket: number) => readonly unknown[],
    pageRows: number,
  ): AsyncGenerator<readonly Row[]> {
    for (let index = 0; index < buckets.length; index += SCAN_BUCKETS_AT_ONCE) {
      const pages = buckets
        .slice(index, index + SCAN_BUCKETS_AT_ONCE)
        .map((bucket) => pagesOf(query, paramsOf(bucket), pageRows));
      const firsts = await Promise.all(pages.map((page) => page.next()));
      for (const [which, { value, done }] of firsts.entries()) {
        if (done) continue;
        yield value;
        yield* pages[which]!;
      }
    }
  }

  return {
    async isEmpty() {
      return (await cassandra.execute(anyTrade, [])).rows.length === 0;
    },

    async *scanTrades(symbol, range) {
      const { fromMs, toMs } = range;
      const hours = await bucketsOf(tradeHours, symbol, range);
      const pages = scan(tradesFrom, hours, (hour) => [symbol, hour, fromMs, toMs], SCAN_PAGE_ROWS);
      for await (const rows of pages) yield rows.map(tradeOf);
    },

    listTrades({ symbol, range, limit, before }) {
      const { fromMs, toMs } = range;
      // Without `before` the page begins just below toMs.
      const [atMs, uuid] =
        before && before.trade_timestamp < toMs
          ? [before.trade_timestamp, before.uuid]
          : [toMs, SMALLEST_UUID];
      const within = { fromMs, toMs: Math.min(toMs, atMs + 1) };
      return list(tradeHours, symbol, within, limit, async (hour, rowsMax) =>
        (await readRows(tradesBefore, [symbol, hour, fromMs, atMs, uuid], rowsMax)).map(tradeOf),
      );
    },

    listAverages({ symbol, range, limit }) {
      return list(averageHours, symbol, range, limit, async (hour, rowsMax) =>
        (await readRows(listAverages, [symbol, hour, range.fromMs, range.toMs], rowsMax)).map(averageOf),
      );
    },

    listCandles({ symbol, range, limit }) {
      return list(candleDays, symbol, range, limit, async (day, rowsMax) =>
        (await readRows(listCandles, [symbol, dayKey(day), range.fromMs, range.toMs], rowsMax)).map(candleOf),
      );
    },

    listEvents({ range, limit }) {
      return list(eventDays, "", range, limit, async (day, rowsMax) =>
        (await readRows(listEvents, [dayKey(day), range.fromMs, range.toMs], rowsMax)).map(eventOf),
      );
    },

    async *scanHours(range, symbol) {
      const [first, last] = edgesOf(range, HOUR_MS);
      const isWanted = (held: SymbolHour) => held.hour >= first && held.hour <= last;
      for (const buckets of [tradeHours, averageHours, candleDays]) {
        const pages = symbol === undefined ? everyBucket(buckets) : bucketsOfSymbol(buckets, symbol, range);
        for await (const held of pages) {
          // A day stands for each of its hours.
          const hours = held.flatMap(({ symbol, hour }) =>
            Array.from({ length: buckets.widthMs / HOUR_MS }, (_, n) => ({
              symbol,
              hour: hour + n * HOUR_MS,
            })),
          );
          const wanted = hours.filter(isWanted);
          if (wanted.length > 0) yield wanted;
        }
      }
    },

    async *scanWindows(kind, symbol, range) {
      const { fromMs, toMs } = range;
      const isAverage = kind === "average";
      const buckets = await bucketsOf(isAverage ? averageHours : candleDays, symbol, range);
      const query = isAverage ? averagesWithVersion : candlesWithVersion;
      const paramsOf = (bucket: number) => [symbol, isAverage ? bucket : dayKey(bucket), fromMs, toMs];
      for await (const rows of scan(query, buckets, paramsOf, WINDOWS_PAGE_ROWS)) {
        yield rows.map(
          (row): StoredWindow => ({
            window: isAverage ? { kind, row: averageOf(row) } : { kind, row: candleOf(row) },
            version: numberOf(row.version),
          }),
        );
      }
    },
  };
}

/** The first and the last bucket that overlap the range; the last lies before the first where it is empty. */
function edgesOf({ fromMs, toMs }: TimeRange, widthMs: number): [number, number] {
  const first = Math.max(0, Math.floor(fromMs / widthMs) * widthMs);
  return [first, Math.max(first - widthMs, Math.ceil(toMs / widthMs) * widthMs - widthMs)];
}

function takeUpTo<T>(count: number, next: () => T | undefined): T[] {
  const taken: T[] = [];
  while (taken.length < count) {
    const item = next();
    if (item === undefined) break;
    taken.push(item);
  }
  return taken;
}
