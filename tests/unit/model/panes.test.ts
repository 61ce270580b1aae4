// Panes and windows against a computation from scratch: any trades, any order, any split into panes.

import { expect, test } from "bun:test";
import { AGGREGATES, type WindowKind } from "../../../lib/model/aggregates.ts";
import { rounded } from "../../../lib/model/exact-sum.ts";
import { tradeUuids } from "../../../lib/model/identity.ts";
import { addTrade, newPane, type Pane, paneStart } from "../../../lib/model/panes.ts";
import type { TradeRow } from "../../../lib/model/trade.ts";
import { tradeRow } from "../../../lib/model/trade.ts";
import {
  panesOfWindow,
  type Window,
  windowRow,
  windowsOfPane,
  windowVersion,
} from "../../../lib/model/windows.ts";
import {
  averagesOf,
  candlesOf,
  type PlainTrade,
  type PlainWindow,
  windowsOf as plainWindowsOf,
  timeOf,
} from "../../reference.ts";
import { NOON_MS, seeded, trade } from "../../support/builders.ts";
import { dyadicOf, nearest, plus } from "../../support/dyadic.ts";

/** Awkward on purpose: no two sums of these agree when they are rounded on the way. */
function awkwardRows(seed: number, count: number, symbol: string, aroundMs: number): TradeRow[] {
  const random = seeded(seed);
  return Array.from({ length: count }, (_, index) => {
    const price = [0.1, 1e-8, 30_000.07, 1e15, 3.3][random(5)]! * (1 + random(1000) / 997);
    const volume = [0, 0.00008, 1, 1e12][random(4)]! * (1 + random(9) / 7);
    // A few milliseconds only, so that many trades share one.
    const tradedAtMs = aroundMs + random(120) * 1_000 - random(3);
    return tradeRow(
      trade({ symbol, price, volume, tradedAtMs }),
      tradeUuids("0badcafe", index + 1, NOON_MS)(0),
      NOON_MS,
    );
  });
}

function plain(rows: readonly TradeRow[]): PlainTrade[] {
  return rows.map(({ symbol, price, volume, trade_timestamp: atMs, uuid }) => ({
    symbol,
    price,
    volume,
    atMs,
    uuid,
  }));
}

function shuffled<T>(items: readonly T[], seed: number): T[] {
  const random = seeded(seed);
  const copy = [...items];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = random(i + 1);
    [copy[i], copy[j]] = [copy[j]!, copy[i]!];
  }
  return copy;
}

const indexOf = (kind: WindowKind) => AGGREGATES.findIndex((aggregate) => aggregate.kind === kind);

function windowsOf(rows: readonly TradeRow[]) {
  const panes = new Map<number, Pane>();
  const windows = new Map<string, Window>();
  for (const row of rows) {
    const start = paneStart(row.trade_timestamp);
    const pane = panes.get(start) ?? newPane();
    panes.set(start, pane);
    addTrade(pane, row);
    for (const window of windowsOfPane(row.symbol, start))
      windows.set(`${window.kind}${window.startMs}`, window);
  }
  const all = [...windows.values()].map((window) =>
    windowRow(
      window,
      panesOfWindow(window).flatMap((start) => panes.get(start) ?? []),
    ),
  );
  return {
    all: all
      .flatMap((window) => window ?? [])
      .sort((a, b) => indexOf(a.kind) - indexOf(b.kind) || timeOf(a.row) - timeOf(b.row)),
    averages: all
      .flatMap((w) => (w?.kind === "average" ? [w.row] : []))
      .sort((a, b) => a.window_end - b.window_end),
    candles: all
      .flatMap((w) => (w?.kind === "candle" ? [w.row] : []))
      .sort((a, b) => a.window_start - b.window_start),
  };
}

const places = [
  ["at noon", NOON_MS],
  ["across an hour", NOON_MS - 60_000],
  ["across a day", Date.UTC(2026, 0, 6) - 60_000],
] as const;

for (const [place, aroundMs] of places) {
  test.each([1, 2, 3, 4, 5])(
    `every window ${place} equals the one computed from scratch (seed %d)`,
    (seed) => {
      const rows = awkwardRows(seed, 400, "AAPL", aroundMs);
      const { all, averages, candles } = windowsOf(shuffled(rows, seed + 100));
      expect<PlainWindow[]>(all).toEqual(plainWindowsOf(plain(rows), AGGREGATES));
      expect(averages).toEqual(averagesOf(plain(rows)));
      expect(candles).toEqual(candlesOf(plain(rows)));
    },
  );
}

test("the order in which trades come leaves no trace, not in the last bit", () => {
  const rows = awkwardRows(9, 500, "AAPL", NOON_MS);
  expect(windowsOf(shuffled(rows, 1))).toEqual(windowsOf(shuffled(rows, 2)));
});

test("a sum is exact where adding in turn is not", () => {
  const pane = newPane();
  const prices = [1e15, 0.1, 0.1, 0.1, 1e-8, 1e15];
  for (const [index, price] of prices.entries()) {
    addTrade(pane, tradeRow(trade({ price }), tradeUuids("0badcafe", index + 1, NOON_MS)(0), NOON_MS));
  }
  expect(rounded(pane.p)).toBe(nearest(prices.map(dyadicOf).reduce(plus)));
  expect(rounded(pane.p)).not.toBe(prices.reduce((a, b) => a + b));
});

test("a trade on the boundary belongs to the later window", () => {
  const at = (tradedAtMs: number) =>
    tradeRow(trade({ tradedAtMs }), tradeUuids("0badcafe", 1, NOON_MS)(0), NOON_MS);
  const ends = (row: TradeRow) => windowsOf([row]).averages.map(({ window_end }) => window_end - NOON_MS);
  expect(ends(at(NOON_MS))).toEqual([5_000, 10_000, 15_000]);
  expect(ends(at(NOON_MS - 1))).toEqual([0, 5_000, 10_000]);
  expect(windowsOf([at(NOON_MS)]).candles[0]?.window_start).toBe(NOON_MS);
});

test("the hour of an average is that of its end", () => {
  const row = tradeRow(trade({ tradedAtMs: NOON_MS - 1 }), tradeUuids("0badcafe", 1, NOON_MS)(0), NOON_MS);
  expect(windowsOf([row]).averages[0]).toMatchObject({ window_end: NOON_MS, hour: NOON_MS });
});

test("a window without volume has no vwap, and a window without trades no row", () => {
  const row = tradeRow(trade({ volume: 0 }), tradeUuids("0badcafe", 1, NOON_MS)(0), NOON_MS);
  expect(windowsOf([row]).averages[0]).toMatchObject({ vwap: null, volume: 0, price_volume_multiply: 0 });
  expect(windowRow({ kind: "candle", symbol: "AAPL", startMs: NOON_MS }, [newPane()])).toBeNull();
});

test("the version of a window is its end in microseconds and twice its count", () => {
  const row = tradeRow(trade(), tradeUuids("0badcafe", 1, NOON_MS)(0), NOON_MS);
  const [average] = windowsOf([row]).averages;
  const [candle] = windowsOf([row]).candles;
  expect(windowVersion({ kind: "average", row: average! })).toBe((NOON_MS + 5_000) * 1_000 + 2);
  expect(windowVersion({ kind: "candle", row: candle! })).toBe((NOON_MS + 60_000) * 1_000 + 2);
});
