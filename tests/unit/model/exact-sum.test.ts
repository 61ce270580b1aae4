// Averages rounded once, held against exact whole numbers.

import { expect, test } from "bun:test";
import { addExactly, addProduct, type ExactSum, quotient, rounded } from "../../../lib/model/exact-sum.ts";
import { addTrade, newPane, paneStart } from "../../../lib/model/panes.ts";
import { windowRow, windowsOfPane } from "../../../lib/model/windows.ts";
import { NOON_MS, seeded } from "../../support/builders.ts";
import { dyadicOf, nearest, nearestQuotient, plus, times, ZERO } from "../../support/dyadic.ts";

/** Prices and volumes as markets have them: cents, pips, satoshis, whole lots, dust, and a price below zero. */
function numbersFrom(seed: number) {
  const below = seeded(seed);
  const fraction = () => below(1_000_000_007) / 1_000_000_007;
  const price = [
    () => below(1_000_000) / 100,
    () => 1.08 + below(10_000) / 100_000,
    () => 3.7e-10 * (1 + fraction()),
    () => 60_000 + fraction(),
    () => -37.63 + below(100) / 100,
  ][below(5)]!;
  const volume = [() => 1 + below(5_000), () => fraction(), () => 1e9 * fraction(), () => below(3)][
    below(4)
  ]!;
  return { below, price, volume };
}

test("each average of a window is the nearest double to the exact fraction of its trades", () => {
  for (let seed = 1; seed <= 400; seed++) {
    const { below, price, volume } = numbersFrom(seed);
    const pane = newPane();
    let [pv, p, v, count] = [ZERO, ZERO, ZERO, 0];
    for (let left = 1 + below(12); left > 0; left--) {
      const trade = { trade_timestamp: NOON_MS, uuid: String(left), price: price(), volume: volume() };
      addTrade(pane, trade);
      const [exactPrice, exactVolume] = [dyadicOf(trade.price), dyadicOf(trade.volume)];
      pv = plus(pv, times(exactPrice, exactVolume));
      p = plus(p, exactPrice);
      v = plus(v, exactVolume);
      count += 1;
    }
    for (const window of windowsOfPane("S", paneStart(NOON_MS))) {
      const { row } = windowRow(window, [pane])!;
      expect(row.volume).toBe(nearest(v));
      if (nearest(v) === 0) expect(row.vwap).toBeNull();
      else {
        expect(row.vwap!).toBe(nearestQuotient(pv, v));
        expect(row.vwap!).toBeGreaterThanOrEqual(pane.low);
        expect(row.vwap!).toBeLessThanOrEqual(pane.high);
      }
      if ("average_price" in row) {
        expect(row.average_price).toBe(nearestQuotient(p, dyadicOf(count)));
        expect(row.price_volume_multiply).toBe(nearestQuotient(pv, dyadicOf(count)));
      } else {
        expect(row.price_volume_sum).toBe(nearest(pv));
      }
    }
  }
});

test("trades of one price have that price for every average, whatever their volumes", () => {
  for (const [price, volumes] of [
    [0.1, [3, 0.1, 7, 0.00008, 13]],
    [0.00000843, [13, 1_000_000, 3, 8060.2, 101]],
    [231.45, [1, 1, 1]],
    [-37.63, [0.1, 0.2, 0.3]],
  ] as const) {
    const pane = newPane();
    for (const [index, volume] of volumes.entries())
      addTrade(pane, { trade_timestamp: NOON_MS, uuid: String(index), price, volume });
    for (const window of windowsOfPane("FLAT", paneStart(NOON_MS))) {
      const { row } = windowRow(window, [pane])!;
      expect(row.vwap).toBe(price);
      if ("average_price" in row) expect(row.average_price).toBe(price);
    }
  }
});

test("what the quick way cannot decide, whole numbers do: a tie goes to the even double", () => {
  const one = 1 + 2 ** -52;
  // Halfway between two doubles, and just beside it.
  expect(quotient([2 ** -53, 1], [1])).toBe(1);
  expect(quotient([2 ** -53, one], [1])).toBe(1 + 2 ** -51);
  expect(quotient([2 ** -160, 2 ** -53, 1], [1])).toBe(one);
  expect(quotient([-(2 ** -160), 2 ** -53, 1], [1])).toBe(1);
});

test("quotients at the ends of the range are those of the middle, scaled", () => {
  const below = seeded(7);
  for (let turn = 0; turn < 500; turn++) {
    const numerator = [(below(1_000) - 500) * 2 ** -60, below(2 ** 31) - 2 ** 30];
    const denominator = [1 + below(2 ** 31)];
    const middle = quotient(numerator, denominator);
    const scaled = numerator.map((part) => part * 2 ** -600);
    expect(quotient(scaled, denominator) * 2 ** 600).toBe(middle);
  }
  expect(quotient([5e-324], [2])).toBe(0);
  expect(quotient([1.5e-323], [2])).toBe(1e-323);
  expect(quotient([1e308], [1e-5])).toBe(Number.POSITIVE_INFINITY);
  expect(quotient([0], [3])).toBe(0);
});

test("a sum below zero is rounded as one above is, and what is left below a tie decides it", () => {
  expect(rounded([-1.4210854715202004e-14, -372.37])).toBe(-372.37);
  expect(rounded([1.4210854715202004e-14, 372.37])).toBe(372.37);
  expect(rounded([2 ** -53, 1])).toBe(1);
  expect(rounded([2 ** -160, 2 ** -53, 1])).toBe(1 + 2 ** -52);
  expect(rounded([-(2 ** -160), -(2 ** -53), -1])).toBe(-1 - 2 ** -52);
  expect(rounded([2 ** -160, -(2 ** -53), -1])).toBe(-1);
});

test("a sum of products holds what their rounding lost", () => {
  const sum: ExactSum = [];
  addProduct(sum, 0.1, 3);
  addExactly(sum, -(0.1 * 3));
  // 0.1 as a double, three times, is not the double 0.1 * 3.
  expect(rounded(sum)).not.toBe(0);
  addProduct(sum, -0.1, 3);
  addExactly(sum, 0.1 * 3);
  expect(rounded(sum)).toBe(0);
});
