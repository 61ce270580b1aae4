// The state of a symbol, derived from what the watchlist, the feed and the check say of it.

import { expect, test } from "bun:test";
import { feedStateOf, symbolsOf, type TickerSets, tickerStateOf } from "../../../lib/web/ticker-states.ts";

const missing = { kind: "not_found", suggestions: [], checkedAtMs: 1 } as const;
const sets: TickerSets = {
  wanted: ["NEW", "AAPL", "NEW-MISSING"],
  subscribed: ["AAPL", "MISSING-BUT-STREAMED"],
  unsubscribed: ["OVER", "MISSING"],
  outcome: (symbol) => (symbol.includes("MISSING") ? missing : { kind: "unchecked" }),
};

test("each symbol is listed once, the wanted ones first", () => {
  expect(symbolsOf(sets)).toEqual(["NEW", "AAPL", "NEW-MISSING", "MISSING-BUT-STREAMED", "OVER", "MISSING"]);
});

test("the feed's state knows no check; the ticker's is `rejected` where the symbol is not streamed and missing", () => {
  const states = symbolsOf(sets).map((symbol) => [
    symbol,
    feedStateOf(symbol, sets),
    tickerStateOf(symbol, sets),
  ]);
  expect(states).toEqual([
    ["NEW", "wanted", "wanted"],
    ["AAPL", "subscribed", "subscribed"],
    ["NEW-MISSING", "wanted", "rejected"],
    ["MISSING-BUT-STREAMED", "subscribed", "subscribed"],
    ["OVER", "unsubscribed", "unsubscribed"],
    ["MISSING", "unsubscribed", "rejected"],
  ]);
});

test("where nobody checks, nothing is rejected", () => {
  const { outcome: _, ...unchecked } = sets;
  expect(tickerStateOf("MISSING", unchecked)).toBe("unsubscribed");
});
