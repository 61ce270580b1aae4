// Chance from a seed: every simulation stands on its being the same everywhere.

import { expect, test } from "bun:test";
import { seededRandom } from "../../../lib/base/random.ts";

const take = (seed: number, count: number) => {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => random());
};

test("a seed always gives the same numbers: these, on every machine", () => {
  expect(take(1, 3).map((one) => one * 2 ** 32)).toEqual([2693262067, 11749833, 2265367787]);
  expect(take(42, 1_000)).toEqual(take(42, 1_000));
});

test("neighbouring seeds give other numbers", () => {
  expect(new Set([0, 1, 2, 3, 4].flatMap((seed) => take(seed, 100))).size).toBe(500);
});

test("all numbers lie in [0, 1), evenly", () => {
  const numbers = take(7, 10_000);
  const tenths = new Array<number>(10).fill(0);
  for (const one of numbers) {
    expect(one >= 0 && one < 1).toBeTrue();
    tenths[Math.floor(one * 10)]! += 1;
  }
  for (const count of tenths) expect(Math.abs(count - 1_000)).toBeLessThan(150);
});
