// Which buckets a range has: those that it overlaps, and of very many only those that the table's keys name.

import { expect, test } from "bun:test";
import {
  aggregateBuckets,
  BUCKETS_ASKED_MAX,
  bucketsIn,
  edgesOf,
  tradeBuckets,
} from "../../../lib/cassandra/buckets.ts";
import type { Cassandra, DriverRow } from "../../../lib/cassandra/client.ts";
import { aggregateOf } from "../../../lib/model/aggregates.ts";
import { DAY_MS, HOUR_MS } from "../../../lib/model/trade.ts";
import { NOON_MS } from "../../support/builders.ts";

/** A node that answers every query with these rows, and remembers the queries. */
function cassandraWith(rows: readonly DriverRow[]) {
  const queries: string[] = [];
  const cassandra: Cassandra = {
    async execute(query) {
      queries.push(query);
      return { rows, pageState: undefined };
    },
    batch: async () => {},
    define: async () => {},
    nodeCount: () => 1,
    [Symbol.asyncDispose]: async () => {},
  };
  return { cassandra, queries };
}

test("a range has the buckets that it overlaps, its end not in it, and an empty one has none", () => {
  expect(edgesOf({ fromMs: NOON_MS, toMs: NOON_MS + 1 }, HOUR_MS)).toEqual([NOON_MS, NOON_MS]);
  expect(edgesOf({ fromMs: NOON_MS - 1, toMs: NOON_MS }, HOUR_MS)).toEqual([
    NOON_MS - HOUR_MS,
    NOON_MS - HOUR_MS,
  ]);
  expect(edgesOf({ fromMs: NOON_MS - 1, toMs: NOON_MS + 1 }, HOUR_MS)).toEqual([NOON_MS - HOUR_MS, NOON_MS]);
  for (const toMs of [NOON_MS, NOON_MS - DAY_MS]) {
    const [first, last] = edgesOf({ fromMs: NOON_MS, toMs }, HOUR_MS);
    expect(last).toBeLessThan(first);
  }
  expect(edgesOf({ fromMs: -DAY_MS, toMs: 1 }, HOUR_MS)).toEqual([0, 0]);
});

test("of a month's hours each is asked for, of more only those of the symbol that hold anything", async () => {
  const keys = [
    { symbol: "AAPL", hour: new Date(NOON_MS) },
    { symbol: "MSFT", hour: new Date(NOON_MS + HOUR_MS) },
    { symbol: "AAPL", hour: new Date(NOON_MS - HOUR_MS) },
  ];
  const { cassandra, queries } = cassandraWith(keys);
  const range = { fromMs: NOON_MS, toMs: NOON_MS + BUCKETS_ASKED_MAX * HOUR_MS };
  const buckets = tradeBuckets("market");
  expect(await bucketsIn(cassandra, buckets, "AAPL", range)).toHaveLength(BUCKETS_ASKED_MAX);
  expect(queries).toEqual([]);
  expect(await bucketsIn(cassandra, buckets, "AAPL", { ...range, toMs: range.toMs + 1 })).toEqual([NOON_MS]);
  expect(queries).toEqual(["SELECT DISTINCT symbol, hour FROM market.trades"]);
});

test("averages are cut into hours and candles into days", () => {
  const [average, candle] = [aggregateOf("average"), aggregateOf("candle")];
  expect(aggregateBuckets("market", average)).toMatchObject({
    widthMs: HOUR_MS,
    keysQuery: "SELECT DISTINCT symbol, hour FROM market.running_averages_15_sec",
    anyQuery: "SELECT hour FROM market.running_averages_15_sec WHERE symbol = ? AND hour = ? LIMIT 1",
  });
  const days = aggregateBuckets("market", candle);
  expect(days).toMatchObject({
    widthMs: DAY_MS,
    keysQuery: "SELECT DISTINCT symbol, day FROM market.candles_1_min",
    anyQuery: "SELECT day FROM market.candles_1_min WHERE symbol = ? AND day = ? LIMIT 1",
  });
  expect(String(days.keyOf(NOON_MS))).toBe("2026-01-05");
  expect(days.ofKey({ symbol: "AAPL", day: "2026-01-05" }, "AAPL")).toBe(Date.UTC(2026, 0, 5));
  expect(days.ofKey({ symbol: "MSFT", day: "2026-01-05" }, "AAPL")).toBeUndefined();
});
