// When the dates of trades say that this machine's clock is wrong, and when they say nothing.

import { expect, test } from "bun:test";
import { MarketClock } from "../../../lib/finnhub/market-clock.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS } from "../../../lib/model/trade.ts";

type Said = readonly [symbol: string, aheadMs: number, atMs?: number];

function differenceAfter(said: readonly Said[], atMs = 0) {
  const clock = new MarketClock();
  for (const [symbol, aheadMs, notedAtMs = 0] of said) clock.note(symbol, aheadMs, notedAtMs);
  return clock.difference(atMs);
}

const times = (count: number, one: Said): Said[] => Array<Said>(count).fill(one);

test("all trades ahead of their receipt are a slow clock, by the least of them", () => {
  const said: Said[] = [
    ["AAPL", 14 * DAY_MS],
    ...times(3, ["MSFT", 14 * DAY_MS - 40]),
    ["AAPL", 14 * DAY_MS + 9],
  ];
  expect(differenceAfter(said)).toEqual({
    clockIs: "behind",
    byMs: 14 * DAY_MS - 40,
    tradeCount: 5,
    symbolCount: 2,
  });
  expect(differenceAfter(times(5, ["AAPL", MINUTE_MS + 1]))?.clockIs).toBe("behind");
  expect(differenceAfter(times(5, ["AAPL", MINUTE_MS]))).toBeNull();
});

test("one print, one bad batch among others, or a symbol of its own time says nothing", () => {
  expect(differenceAfter([["EUR", 4 * HOUR_MS]])).toBeNull();
  expect(differenceAfter([...times(50, ["EUR", 4 * HOUR_MS]), ["AAPL", -50]])).toBeNull();
  expect(differenceAfter([...times(50, ["EUR", 4 * HOUR_MS]), ["EUR", -50]])).toBeNull();
});

test("a clock that is set is right at once, and what was said long ago counts no more", () => {
  const slow: Said[] = ["A", "B", "C"].flatMap((symbol) => times(9, [symbol, 2 * HOUR_MS]));
  expect(differenceAfter([...slow, ["A", -20]])).toBeNull();
  expect(differenceAfter(slow, 10 * MINUTE_MS)?.symbolCount).toBe(3);
  expect(differenceAfter(slow, 10 * MINUTE_MS + 1)).toBeNull();
});

test("all trades hours before their receipt are a fast clock; a delayed feed is none", () => {
  expect(differenceAfter(times(6, ["AAPL", -40 * DAY_MS]))).toMatchObject({
    clockIs: "ahead",
    byMs: 40 * DAY_MS,
  });
  expect(differenceAfter(times(60, ["AAPL", -20 * MINUTE_MS]))).toBeNull();
});
