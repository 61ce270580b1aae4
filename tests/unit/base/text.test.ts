// The edit distance behind "did you mean".

import { expect, test } from "bun:test";
import { editDistance } from "../../../lib/base/text.ts";

test("it counts letters inserted, deleted, replaced and swapped with their neighbour", () => {
  const cases: [string, string, number][] = [
    ["", "", 0],
    ["", "abc", 3],
    ["abc", "", 3],
    ["same", "same", 0],
    ["FINHUB", "FINNHUB", 1],
    ["KAFKAA", "KAFKA", 1],
    ["cat", "car", 1],
    ["PROT", "PORT", 1], // A swap is one slip, not two replacements.
    ["kitten", "sitting", 3],
    ["ca", "abc", 3], // Restricted: a letter that was swapped is not edited again.
  ];
  for (const [one, other, distance] of cases) {
    expect(editDistance(one, other)).toBe(distance);
    expect(editDistance(other, one)).toBe(distance);
  }
});

test("beyond the limit it is Infinity, at the limit it is the distance", () => {
  expect(editDistance("kitten", "sitting", 3)).toBe(3);
  expect(editDistance("kitten", "sitting", 2)).toBe(Number.POSITIVE_INFINITY);
  expect(editDistance("a", "a long word", 2)).toBe(Number.POSITIVE_INFINITY);
  expect(editDistance("abcdef", "uvwxyz", 2)).toBe(Number.POSITIVE_INFINITY);
});
