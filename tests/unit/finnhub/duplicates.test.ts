import { describe, expect, test } from "bun:test";
import { createDuplicateHint, DUPLICATE_WITHIN_MS } from "../../../lib/finnhub/duplicates.ts";
import { NOON_MS, trade } from "../../support/builders.ts";

describe("the hint of a copy", () => {
  test("is given for an equal trade within 200 ms, in the same frame or a later one", () => {
    const isCopy = createDuplicateHint();
    expect(isCopy(trade({ conditions: ["1"] }), 1_000)).toBe(false);
    expect(isCopy(trade({ conditions: ["1"] }), 1_000)).toBe(true);
    expect(isCopy(trade({ conditions: ["1"] }), 1_000 + DUPLICATE_WITHIN_MS)).toBe(true);
  });

  test("is not given later", () => {
    const isCopy = createDuplicateHint();
    isCopy(trade(), 1_000);
    expect(isCopy(trade(), 1_000 + DUPLICATE_WITHIN_MS + 1)).toBe(false);
  });

  test.each([
    ["symbol", { symbol: "MSFT" }],
    ["price", { price: 101 }],
    ["volume", { volume: 2 }],
    ["time", { tradedAtMs: NOON_MS + 1 }],
    ["list of conditions", { conditions: [] }],
    ["condition", { conditions: ["1", "8"] }],
  ])("is not given for another %s", (_, fields) => {
    const isCopy = createDuplicateHint();
    isCopy(trade({ conditions: ["1", "12"] }), 0);
    expect(isCopy(trade({ conditions: ["1", "12"], ...fields }), 0)).toBe(false);
  });

  test("is given for nearly every trade of a burst that comes twice, and for none that came once", () => {
    const isCopy = createDuplicateHint();
    const burst = Array.from({ length: 300 }, (_, index) =>
      trade({ price: 100 + (index % 7) / 100, volume: 1 + (index % 11), tradedAtMs: NOON_MS + index }),
    );
    expect(burst.filter((each) => isCopy(each, 0))).toEqual([]);
    expect(burst.filter((each) => isCopy(each, 100)).length).toBeGreaterThan(270);
  });
});
