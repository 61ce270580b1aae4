// The live view against plain counting over the same rows: what it keeps, what it forgets, and what changed since.

import { expect, test } from "bun:test";
import type { CandleRow } from "../../../lib/model/aggregates.ts";
import { DAY_MS, dayOf, type TradeRow, tradeRow } from "../../../lib/model/trade.ts";
import {
  LINE_SECONDS,
  RATE_SECONDS,
  SPARK_BUCKET_MS,
  SPARK_BUCKETS,
} from "../../../lib/web/live/protocol.ts";
import { createLiveView } from "../../../lib/web/live/view.ts";
import { NOON_MS, seeded, trade } from "../../support/builders.ts";

const MINUTE_MS = 60_000;
const MIDNIGHT_MS = NOON_MS - (NOON_MS % DAY_MS);

function row(number: number, tradedAtMs: number, fields: Parameters<typeof trade>[0] = {}): TradeRow {
  const uuid = `019b8d4e-0000-7000-8000-${number.toString(16).padStart(12, "0")}`;
  return tradeRow(trade({ tradedAtMs, ...fields }), uuid, tradedAtMs);
}

const received = (one: TradeRow, receivedAtMs: number): TradeRow => ({
  ...one,
  ingest_timestamp: receivedAtMs,
});

function candle(windowStartMs: number, open: number, close: number): CandleRow {
  const fields = { symbol: "AAPL", day: dayOf(windowStartMs), window_start: windowStartMs, open, close };
  return { ...fields, high: 9, low: 1, volume: 1, price_volume_sum: 1, vwap: 1, trade_count: 1 };
}

/** Rows of some minutes before noon, shuffled, as one seed says. */
function rowsOf(seed: number): TradeRow[] {
  const random = seeded(seed);
  const rows = Array.from({ length: 400 }, (_, number) => {
    const fields = { price: 1 + random(90), volume: random(5), symbol: random(3) === 0 ? "MSFT" : "AAPL" };
    return row(number, NOON_MS - random(280_000) - 1, fields);
  });
  return rows
    .map((one) => [random(1e6), one] as const)
    .toSorted(([a], [b]) => a - b)
    .map(([, one]) => one);
}

const inOrder = (rows: readonly TradeRow[]) =>
  rows.toSorted((a, b) => a.trade_timestamp - b.trade_timestamp || (a.uuid < b.uuid ? -1 : 1));

test("seconds, sparkline, last, open and rate are those of the rows, in whatever order they came", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const rows = rowsOf(seed);
    const live = createLiveView();
    for (let at = 0; at < rows.length; at += 7) live.note(rows.slice(at, at + 7), NOON_MS);
    const own = inOrder(rows.filter(({ symbol }) => symbol === "AAPL"));
    const bySecond = Map.groupBy(own, (one) => Math.floor(one.trade_timestamp / 1_000));
    expect(live.secondsOf("AAPL", NOON_MS)).toEqual(
      [...bySecond].map(([second, group]) => {
        const prices = group.map(({ price }) => price);
        const volume = group.reduce((sum, one) => sum + one.volume, 0);
        return [second, prices.at(-1)!, Math.max(...prices), Math.min(...prices), volume, group.length];
      }),
    );
    const byBucket = Map.groupBy(own, (one) => Math.floor(one.trade_timestamp / SPARK_BUCKET_MS));
    // Of the same millisecond a sparkline may show either.
    expect(live.sparkOf("AAPL", NOON_MS).map(([bucket]) => bucket)).toEqual([...byBucket.keys()]);
    expect(live.of("AAPL")).toEqual(own.at(-1)!);
    expect(live.openOf("AAPL")).toEqual([own[0]!.price, own[0]!.trade_timestamp]);
    const received = own.filter((one) => one.ingest_timestamp >= NOON_MS - RATE_SECONDS * 1_000);
    expect(live.rateOf("AAPL", NOON_MS)).toBe(received.length / RATE_SECONDS);
  }
});

test("who takes what changed since his version, again and again, holds the whole view", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = seeded(seed);
    const live = createLiveView();
    const held = new Map<number, unknown>();
    let version = -1;
    const catchUp = () => {
      for (const second of live.secondsOf("AAPL", NOON_MS, version)) held.set(second[0], second);
      version = live.version();
    };
    for (const one of rowsOf(seed)) {
      live.note([one], NOON_MS);
      if (random(5) === 0) catchUp();
    }
    catchUp();
    expect([...held.values()].length).toBe(live.secondsOf("AAPL", NOON_MS).length);
    for (const second of live.secondsOf("AAPL", NOON_MS)) expect(held.get(second[0])).toEqual(second);
    expect(live.secondsOf("AAPL", NOON_MS, version)).toEqual([]);
    expect(live.isLastNewer("AAPL", version)).toBe(false);
    expect(live.openOf("AAPL", version)).toBeNull();
  }
});

test("what is older than the line is forgotten, and what is dated ahead waits for its time", () => {
  const live = createLiveView();
  live.note([row(1, NOON_MS - (LINE_SECONDS + 61) * 1_000)], NOON_MS);
  live.note([received(row(2, NOON_MS + 60_001), NOON_MS - 9_000), row(3, NOON_MS, { price: 7 })], NOON_MS);
  expect(live.secondsOf("AAPL", NOON_MS).map(([second]) => second)).toEqual([NOON_MS / 1_000]);
  expect(live.sparkOf("AAPL", NOON_MS)).toEqual([
    [NOON_MS / SPARK_BUCKET_MS - 2, 100],
    [NOON_MS / SPARK_BUCKET_MS, 7],
  ]);
  expect(live.sparkOf("AAPL", NOON_MS + SPARK_BUCKETS * SPARK_BUCKET_MS)).toEqual([]);
});

for (const aheadMs of [2_000, 30_000, 4 * 3_600_000, DAY_MS]) {
  test(`the last trade and the sparkline go on after a print that is dated ${aheadMs} ms ahead`, () => {
    const live = createLiveView();
    const prints = [
      received(row(1, NOON_MS - 1_000, { price: 1 }), NOON_MS - 950),
      received(row(2, NOON_MS + aheadMs, { price: 9 }), NOON_MS),
      received(row(3, NOON_MS + 950, { price: 2 }), NOON_MS + 1_000),
      // A late print with an old time does not become the last.
      received(row(4, NOON_MS - 3_600_000, { price: 8 }), NOON_MS + 1_500),
      received(row(5, NOON_MS + 5_950, { price: 3 }), NOON_MS + 6_000),
    ];
    expect(
      prints.map((print) => {
        live.note([print], print.ingest_timestamp);
        return live.of("AAPL")?.price;
      }),
    ).toEqual([1, 9, 2, 2, 3]);
    expect(live.sparkOf("AAPL", NOON_MS + 6_000).map(([, price]) => price)).toEqual([1, 2, 3]);
    expect(live.rateOf("AAPL", NOON_MS + 7_000)).toBe(prints.length / RATE_SECONDS);
    // In whatever order they come.
    const again = createLiveView();
    again.note(prints.toReversed(), NOON_MS + 6_000);
    expect(again.of("AAPL")).toEqual(live.of("AAPL"));
  });
}

test("where the exchange's clock is a little ahead, the last trade is the one that was received last", () => {
  const live = createLiveView();
  live.note(
    [30, 10, 20].map((price, at) => received(row(at, NOON_MS + 60 - at, { price }), NOON_MS + at)),
    NOON_MS + 9,
  );
  expect(live.of("AAPL")?.price).toBe(20);
});

test("a trade that is dated into tomorrow begins no day before its time", () => {
  const live = createLiveView();
  live.note([row(1, NOON_MS, { price: 5 }), row(2, NOON_MS + DAY_MS - 1, { price: 6 })], NOON_MS);
  expect(live.openOf("AAPL")).toEqual([5, NOON_MS]);
});

test("the open of the day is that of its first candle, until an earlier trade or another day comes", () => {
  const live = createLiveView();
  live.note([row(9, NOON_MS, { price: 50 })], NOON_MS);
  const candles = [candle(NOON_MS - MINUTE_MS, 41, 42), candle(MIDNIGHT_MS + MINUTE_MS, 31, 32)];
  const yesterday = candle(MIDNIGHT_MS - MINUTE_MS, 21, 22);
  live.restoreCandles("AAPL", [...candles, yesterday], NOON_MS);
  expect(live.openOf("AAPL")).toEqual([31, MIDNIGHT_MS + MINUTE_MS]);
  live.note([row(1, MIDNIGHT_MS + 3, { price: 30 })], NOON_MS);
  expect(live.openOf("AAPL")).toEqual([30, MIDNIGHT_MS + 3]);
  const tomorrowMs = MIDNIGHT_MS + DAY_MS;
  live.note([row(2, tomorrowMs, { price: 60 })], tomorrowMs);
  live.note([row(3, tomorrowMs - 1, { price: 59 })], tomorrowMs);
  expect(live.openOf("AAPL")).toEqual([60, tomorrowMs]);
  live.restoreCandles("AAPL", candles, NOON_MS);
  expect(live.openOf("AAPL")).toEqual([60, tomorrowMs]);
});

test("the last minutes of an earlier run stand in the sparkline, and what came since wins", () => {
  const live = createLiveView();
  const lastBucketOf = (startMs: number) => (startMs + MINUTE_MS) / SPARK_BUCKET_MS - 1;
  live.note([row(1, NOON_MS - 1, { price: 8 })], NOON_MS);
  live.restoreCandles(
    "AAPL",
    [candle(NOON_MS - MINUTE_MS, 1, 2), candle(NOON_MS - 2 * MINUTE_MS, 3, 4)],
    NOON_MS,
  );
  expect(live.sparkOf("AAPL", NOON_MS)).toEqual([
    [lastBucketOf(NOON_MS - 2 * MINUTE_MS), 4],
    [lastBucketOf(NOON_MS - MINUTE_MS), 8],
  ]);
});

test("what an earlier run stored was not stored now: it is in no rate and no latency", () => {
  const live = createLiveView();
  live.restore([row(1, NOON_MS - 1_500)]);
  expect([live.rateOf("AAPL", NOON_MS), live.latency(NOON_MS)]).toEqual([0, null]);
  expect(live.of("AAPL")).not.toBeNull();
});

test("p50 and p99 are exact below 128 ms and within 9 % above, over ten seconds", () => {
  const live = createLiveView();
  const noteAfter = (latencyMs: number, count: number, nowMs: number) => {
    const one = { ...row(1, nowMs), ingest_timestamp: nowMs - latencyMs };
    live.note(
      Array.from({ length: count }, () => one),
      nowMs,
    );
  };
  expect(live.latency(NOON_MS)).toBeNull();
  noteAfter(3, 98, NOON_MS);
  noteAfter(120, 2, NOON_MS + 1_000);
  expect(live.latency(NOON_MS + 1_000)).toEqual({ p50Ms: 3, p99Ms: 120, tradeCount: 100 });
  noteAfter(-5, 1, NOON_MS + 2_000); // The clock stepped back.
  expect(live.latency(NOON_MS + 10_000)).toEqual({ p50Ms: 120, p99Ms: 120, tradeCount: 3 });
  expect(live.latency(NOON_MS + 12_000)).toBeNull();
  for (const latencyMs of [129, 500, 7_000, 300_000]) {
    const nowMs = NOON_MS + latencyMs * 1_000;
    noteAfter(latencyMs, 1, nowMs);
    expect(Math.abs(live.latency(nowMs)!.p99Ms / latencyMs - 1)).toBeLessThan(0.09);
  }
});

test("symbols are bounded: beyond the bound a new one has no place, and a known one stays", () => {
  const live = createLiveView(2);
  live.note(
    ["A", "B", "C", "A"].map((symbol, number) => row(number, NOON_MS, { symbol })),
    NOON_MS,
  );
  expect(["A", "B", "C"].map((symbol) => live.of(symbol) !== null)).toEqual([true, true, false]);
  expect(live.secondsOf("C", NOON_MS)).toEqual([]);
  live.restoreCandles("C", [candle(MIDNIGHT_MS, 1, 2)], NOON_MS);
  expect(live.openOf("C")).toBeNull();
});
