// Identities of trades that somebody else recorded: the same at every reading, and never one for two.

import { expect, test } from "bun:test";
import { identifier } from "../../../lib/imports/identity.ts";
import type { Trade } from "../../../lib/model/trade.ts";

const trade = (fields: Partial<Trade> = {}): Trade => ({
  symbol: "AAPL",
  price: 100,
  volume: 1,
  tradedAtMs: 1_704_196_800_000,
  conditions: null,
  ...fields,
});
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test("a source's id is the identity, of its symbol and its source", () => {
  const uuidOf = identifier("binance-trades", "a.csv");
  const first = uuidOf(trade(), "7", 1);
  expect(first).toMatch(UUID_V7);
  expect(uuidOf(trade({ price: 101 }), "7", 9)).toBe(first);
  expect(identifier("binance-trades", "b.csv")(trade(), "7", 3)).toBe(first);
  expect(uuidOf(trade(), "8", 1)).not.toBe(first);
  expect(uuidOf(trade({ symbol: "MSFT" }), "7", 1)).not.toBe(first);
  expect(identifier("binance-aggtrades", "a.csv")(trade(), "7", 1)).not.toBe(first);
});

test("a uuid of this pipeline is kept", () => {
  const uuid = "018cc251-f400-7bc7-9cc5-1d60a5eac48e";
  expect(identifier("pipeline", "a.csv")(trade(), uuid, 1)).toBe(uuid);
});

test("without ids equal prints are told apart by which they are, whatever the file is called", () => {
  const read = (name: string) => {
    const uuidOf = identifier("columns", name);
    return [trade(), trade({ volume: 2 }), trade(), trade()].map((one, index) =>
      uuidOf(one, null, index + 1),
    );
  };
  const uuids = read("a.csv");
  expect(new Set(uuids).size).toBe(4);
  expect(read("b.csv")).toEqual(uuids);
});

test("what comes far out of order is told apart by its place: never merged, and the same at the next reading", () => {
  const read = () => {
    const uuidOf = identifier("columns", "a.csv");
    const uuids = [uuidOf(trade(), null, 1)];
    for (let n = 1; n <= 100_001; n++) uuidOf(trade({ tradedAtMs: trade().tradedAtMs + n }), null, n + 1);
    return [...uuids, uuidOf(trade(), null, 100_003), uuidOf(trade(), null, 100_004)];
  };
  const uuids = read();
  expect(new Set(uuids).size).toBe(3);
  expect(read()).toEqual(uuids);
});
