// What a commit says about the rows around it, as text and back.

import { expect, test } from "bun:test";
import { decodeBound, encodeBound } from "../../../lib/processing/bound.ts";

test("a bound comes back as it was written, the one of an empty table too", () => {
  for (const bound of [
    { maxTradeMs: 1_767_614_400_000, receivedSinceMs: 1_767_614_300_000 },
    { maxTradeMs: 0, receivedSinceMs: null },
    { maxTradeMs: Number.NEGATIVE_INFINITY, receivedSinceMs: null },
  ]) {
    expect(decodeBound(encodeBound(bound))).toEqual(bound);
  }
});

test("metadata that another program wrote proves nothing", () => {
  for (const metadata of [
    "",
    "{}",
    "null",
    "[]",
    "7",
    "offset 7",
    '{"maxTradeMs":"1"}',
    '{"receivedSinceMs":1}',
  ]) {
    expect(decodeBound(metadata)).toBeNull();
  }
});

test("a receipt time that is no number counts as unknown", () => {
  expect(decodeBound('{"maxTradeMs":1,"receivedSinceMs":"2"}')).toEqual({
    maxTradeMs: 1,
    receivedSinceMs: null,
  });
});
