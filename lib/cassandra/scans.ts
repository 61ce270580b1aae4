// Whole scans: every row of a range in pages, some buckets read ahead, in any order; and which hours hold anything at
// all. It writes nothing.

import type { StoredWindow, StoreMender, StoreWriter, SymbolHour, TimeRange } from "../contracts/store.ts";
import { AGGREGATES, aggregateOf, SHAPES } from "../model/aggregates.ts";
import { HOUR_MS } from "../model/trade.ts";
import {
  aggregateBuckets,
  BUCKETS_AT_ONCE_MAX,
  type Buckets,
  bucketsIn,
  edgesOf,
  keysOf,
  pagesOf,
  type SymbolBuckets,
  tradeBuckets,
} from "./buckets.ts";
import type { Cassandra, DriverRow } from "./client.ts";
import { namesOf, numberOf, TRADE_COLUMNS, tradeRowOf, windowRowOf } from "./rows.ts";

/** 50 bytes and more a row: a page is some hundred KB. */
const TRADES_PAGE_ROWS = 5_000;
/** A vwap that is null is a tombstone, and a node warns of 1,000 of them in one read. */
const WINDOWS_PAGE_ROWS = 900;
/** So many first pages are read ahead. */
const BUCKETS_AHEAD = 4;

export function scansOf(
  cassandra: Cassandra,
  keyspace: string,
): Pick<StoreWriter, "isEmpty" | "scanTrades" | "scanWindows"> & Pick<StoreMender, "scanHours"> {
  const anyTradeQuery = `SELECT symbol FROM ${keyspace}.trades LIMIT 1`;
  const tradesQuery =
    `SELECT ${TRADE_COLUMNS} FROM ${keyspace}.trades WHERE symbol = ? AND hour = ? ` +
    "AND trade_timestamp >= ? AND trade_timestamp < ?";
  const tradeHours = tradeBuckets(keyspace);
  const windows = new Map(
    AGGREGATES.map((aggregate) => {
      const { kind, table, shape } = aggregate;
      const { bucket, time } = SHAPES[shape];
      const query =
        `SELECT ${namesOf(shape)}, WRITETIME(trade_count) AS version FROM ${keyspace}.${table} ` +
        `WHERE symbol = ? AND ${bucket} = ? AND ${time} >= ? AND ${time} < ?`;
      return [kind, { query, buckets: aggregateBuckets(keyspace, aggregate) }] as const;
    }),
  );

  return {
    async isEmpty() {
      return (await cassandra.execute(anyTradeQuery, [])).rows.length === 0;
    },

    async *scanTrades(symbol, range) {
      const pages = scan(cassandra, tradeHours, tradesQuery, symbol, range, TRADES_PAGE_ROWS);
      for await (const rows of pages) yield rows.map(tradeRowOf);
    },

    async *scanHours(range, symbol) {
      const [first, last] = edgesOf(range, HOUR_MS);
      const isIn = ({ hour }: SymbolHour) => hour >= first && hour <= last;
      for (const buckets of [tradeHours, ...windows.values().map((one) => one.buckets)]) {
        const pages =
          symbol === undefined
            ? filledOfAll(cassandra, buckets)
            : filledOfSymbol(cassandra, buckets, symbol, range);
        for await (const filled of pages) {
          const hours = filled.flatMap((one) => hoursOf(one, buckets.widthMs)).filter(isIn);
          if (hours.length > 0) yield hours;
        }
      }
    },

    async *scanWindows(kind, symbol, range) {
      const { query, buckets } = windows.get(kind)!;
      const aggregate = aggregateOf(kind);
      for await (const rows of scan(cassandra, buckets, query, symbol, range, WINDOWS_PAGE_ROWS)) {
        yield rows.map(
          (row): StoredWindow => ({
            window: windowRowOf(aggregate, row),
            version: numberOf(row.version),
          }),
        );
      }
    },
  };
}

/** Every row of the range, some buckets read ahead. The query takes the symbol, the bucket, and both ends of the range. */
async function* scan(
  cassandra: Cassandra,
  buckets: Buckets,
  query: string,
  symbol: string,
  range: TimeRange,
  pageRows: number,
): AsyncGenerator<readonly DriverRow[]> {
  const { fromMs, toMs } = range;
  const found = await bucketsIn(cassandra, buckets, symbol, range);
  for (let index = 0; index < found.length; index += BUCKETS_AHEAD) {
    const pages = found
      .slice(index, index + BUCKETS_AHEAD)
      .map((bucket) => pagesOf(cassandra, query, [symbol, buckets.keyOf(bucket), fromMs, toMs], pageRows));
    const firsts = await Promise.all(pages.map((page) => page.next()));
    for (const [which, { value, done }] of firsts.entries()) {
      if (done) continue;
      yield value;
      yield* pages[which]!;
    }
  }
}

/** A bucket that holds anything, of any symbol, named by the hour at which it begins. */
async function* filledOfAll(
  cassandra: Cassandra,
  buckets: SymbolBuckets,
): AsyncGenerator<readonly SymbolHour[]> {
  for await (const keys of keysOf(cassandra, buckets)) {
    yield keys.map((key) => {
      const symbol = key.symbol as string;
      return { symbol, hour: buckets.ofKey(key, symbol) ?? 0 };
    });
  }
}

/** The same of one symbol, in a range. */
async function* filledOfSymbol(
  cassandra: Cassandra,
  buckets: SymbolBuckets,
  symbol: string,
  range: TimeRange,
): AsyncGenerator<readonly SymbolHour[]> {
  const found = await bucketsIn(cassandra, buckets, symbol, range);
  for (let index = 0; index < found.length; index += BUCKETS_AT_ONCE_MAX) {
    const asked = found.slice(index, index + BUCKETS_AT_ONCE_MAX);
    const isFilled = await Promise.all(
      asked.map(async (bucket) => {
        const { rows } = await cassandra.execute(buckets.anyQuery, [symbol, buckets.keyOf(bucket)]);
        return rows.length > 0;
      }),
    );
    yield asked.filter((_, which) => isFilled[which]).map((hour) => ({ symbol, hour }));
  }
}

/** A day stands for each of its hours. */
function hoursOf({ symbol, hour }: SymbolHour, widthMs: number): SymbolHour[] {
  return Array.from({ length: widthMs / HOUR_MS }, (_, index) => ({ symbol, hour: hour + index * HOUR_MS }));
}
