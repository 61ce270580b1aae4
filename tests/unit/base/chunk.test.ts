// Lists cut into groups of one key.

import { expect, test } from "bun:test";
import { chunkBy } from "../../../lib/base/chunk.ts";

const first = (item: string) => item[0] ?? "";

test("items of one key stay together and in order, and groups come in the order of their first item", () => {
  expect(chunkBy(["b1", "a1", "b2", "a2", "c1"], first, 10)).toEqual([["b1", "b2"], ["a1", "a2"], ["c1"]]);
});

test("a group that is full is followed by another one of its key", () => {
  expect(chunkBy(["a1", "a2", "a3", "b1", "a4", "a5"], first, 2)).toEqual([
    ["a1", "a2"],
    ["a3", "a4"],
    ["b1"],
    ["a5"],
  ]);
});

test("no items make no groups, and any iterable is taken", () => {
  expect(chunkBy([], first, 3)).toEqual([]);
  expect(chunkBy(new Set(["a1", "b1"]), first, 3)).toEqual([["a1"], ["b1"]]);
});
