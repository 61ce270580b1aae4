// Fields of other recorders: times in every unit and writing, numbers as texts, midnights of other zones.

import { expect, test } from "bun:test";
import { midnightOf, numberOf, timeOf } from "../../../lib/imports/values.ts";

const NOON = Date.parse("2024-01-02T12:00:00.123Z");

test("a time is read in seconds, ms, µs and ns, as number, bigint, text or date, and cut to the ms", () => {
  for (const value of [
    NOON,
    String(NOON),
    `${NOON / 1_000}`,
    NOON / 1_000,
    `${NOON}999`,
    `${NOON}999999`,
    BigInt(NOON) * 1_000_000n + 999_999n,
    new Date(NOON),
    "2024-01-02T12:00:00.123Z",
    "2024-01-02 12:00:00.123",
    "2024-01-02 12:00:00.123999999",
    "2024-01-02T07:00:00.123-05:00",
    "20240102 12:00:00,123 UTC",
  ]) {
    expect([String(value), timeOf(value)]).toEqual([String(value), NOON]);
  }
  expect(timeOf("2024-01-02")).toBe(Date.parse("2024-01-02"));
  expect(timeOf("20240102")).toBe(Date.parse("2024-01-02"));
  expect(timeOf("1381154400")).toBe(1_381_154_400_000);
});

test("what is no time is null", () => {
  for (const value of [
    "",
    "yesterday",
    "12",
    "2024-02-31",
    "2024-13-01",
    "12:00:00",
    null,
    undefined,
    Number.NaN,
    "1e12",
    {},
  ]) {
    expect([String(value), timeOf(value)]).toEqual([String(value), null]);
  }
});

test("a number is read exactly, and a text that is none is null", () => {
  for (const [value, number] of [
    ["10.5", 10.5],
    [" -7 ", -7],
    [".5", 0.5],
    ["1e-8", 1e-8],
    [3n, 3],
    ["", null],
    ["abc", null],
    ["1,000", null],
    ["0x10", null],
    ["Infinity", null],
    [null, null],
    [Number.POSITIVE_INFINITY, null],
  ] as const) {
    expect([String(value), numberOf(value)]).toEqual([String(value), number]);
  }
});

test("midnight of a day in New York is four or five hours after UTC's, on the days of a change too", () => {
  for (const [day, iso] of [
    ["20240102", "2024-01-02T05:00:00.000Z"],
    ["20240702", "2024-07-02T04:00:00.000Z"],
    ["20240310", "2024-03-10T05:00:00.000Z"],
    ["20241103", "2024-11-03T04:00:00.000Z"],
  ] as const) {
    expect(new Date(midnightOf(day, "America/New_York")!).toISOString()).toBe(iso);
  }
  expect(midnightOf("20240102", "UTC")).toBe(Date.parse("2024-01-02"));
  expect(midnightOf("2024", "UTC")).toBeNull();
});
