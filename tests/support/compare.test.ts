// That the comparison which every proof on real engines ends with can fail, and says what is wrong.

import { expect, test } from "bun:test";
import { averagesOf, candlesOf } from "../reference.ts";
import { aggregateProblems, ofTape, plainOf, tradeProblems } from "./compare.ts";
import type { TapeTrade } from "./tapes.ts";

const at = (t: number, p: number): TapeTrade => ({ s: "AAPL", p, v: 2, t, c: ["1"] });
const trades = [at(1_000, 10), at(1_000, 11), at(61_000, 12)];
const prints = trades.map(ofTape);
const plain = trades.map(plainOf);
const tables = { averages: averagesOf(plain), candles: candlesOf(plain) };

test("the same trades in another order are no problem, and neither are their own windows", () => {
  expect(tradeProblems(prints, prints.toReversed())).toEqual([]);
  expect(tradeProblems([prints[0]!, prints[0]!], [prints[0]!, prints[0]!])).toEqual([]);
  expect(aggregateProblems(tables, plain)).toEqual([]);
});

test("a trade that is lost, doubled or changed is named, with how many of how many", () => {
  expect(tradeProblems(prints, prints.slice(1))).toEqual([
    '1 trades lost (of 3 expected and 2 found): ["AAPL",10,2,1000,"[\\"1\\"]"]',
  ]);
  expect(tradeProblems(prints, [...prints, prints[2]!])).toEqual([
    expect.stringMatching(/^1 trades doubled or made up \(of 3 expected and 4 found\): .*61000/),
  ]);
  // An equal print that is not there twice is lost, however many others there are.
  expect(tradeProblems([prints[0]!, prints[0]!], [prints[0]!])).toHaveLength(1);
  for (const changed of [{ s: "MSFT" }, { p: 9 }, { v: 9 }, { t: 9 }, { c: null }])
    expect(tradeProblems(prints.slice(0, 1), [ofTape({ ...trades[0]!, ...changed })])).toHaveLength(2);
});

test("of many problems the first ones are told, and how many there are", () => {
  const many = Array.from({ length: 1_000 }, (_, index) => ofTape(at(index, 1)));
  const [sentence] = tradeProblems(many, []);
  expect(sentence).toStartWith("1000 trades lost (of 1000 expected and 0 found): ");
  expect(sentence).toEndWith(" ...");
  expect(sentence!.length).toBeLessThan(1_000);
});

test("a window that is missing, wrong in any column, nobody's or there twice is named", () => {
  const { averages, candles } = tables;
  expect(aggregateProblems({ averages: averages.slice(1), candles }, plain)).toEqual([
    "1 averages missing (of 6 expected and 5 found): AAPL 5000",
  ]);
  expect(aggregateProblems(tables, plain.slice(0, 2))).toEqual([
    "3 averages of windows without a trade (of 3 expected and 6 found): AAPL 65000; AAPL 70000; AAPL 75000",
    "1 candles of windows without a trade (of 1 expected and 2 found): AAPL 60000",
  ]);
  expect(aggregateProblems({ averages, candles: [...candles, candles[0]!] }, plain)).toEqual([
    "1 candles more than once (of 2 expected and 3 found): AAPL 0",
  ]);
  for (const column of Object.keys(candles[0]!).filter(
    (name) => !["symbol", "window_start"].includes(name),
  )) {
    const changed = candles.map((row, index) => (index === 0 ? { ...row, [column]: -1 } : row));
    expect([column, aggregateProblems({ averages, candles: changed }, plain)]).toEqual([
      column,
      [expect.stringMatching(/^1 candles wrong .* and not /)],
    ]);
  }
  // Who came first among equal times opens.
  const swapped = [plain[1]!, plain[0]!, plain[2]!];
  expect(aggregateProblems(tables, swapped)).toEqual([expect.stringContaining("1 candles wrong")]);
});
