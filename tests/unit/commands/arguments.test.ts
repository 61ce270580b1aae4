// What the flags of the operator's commands mean.

import { expect, test } from "bun:test";
import { SetupError } from "../../../lib/base/errors.ts";
import { readRange, readRepair, readReplayRange } from "../../../lib/commands/arguments.ts";
import { isExpired } from "../../../lib/commands/retention.ts";
import { DAY_MS } from "../../../lib/model/trade.ts";
import { NOON_MS } from "../../support/builders.ts";

const DAY_OF_NOON_MS = NOON_MS - DAY_MS / 2;

test("a time is a day, a moment in UTC unless it names a zone, or ms since 1970", () => {
  const cases: [string, number][] = [
    ["2026-01-05", DAY_OF_NOON_MS],
    ["2026-01-05T11:30", NOON_MS - 1_800_000],
    ["2026-01-05T11:30:00.5Z", NOON_MS - 1_799_500],
    ["2026-01-05T11:30+01:00", NOON_MS - 5_400_000],
    [String(DAY_OF_NOON_MS), DAY_OF_NOON_MS],
  ];
  for (const [from, fromMs] of cases)
    expect(readRange({ from }, NOON_MS, null)).toEqual({ fromMs, toMs: NOON_MS });
});

test("without --from the fallback counts, where there is one", () => {
  expect(readRange({}, NOON_MS, 7)).toEqual({ fromMs: 7, toMs: NOON_MS });
  expect(() => readRange({}, NOON_MS, null)).toThrow("--from is missing");
});

test("what is no time, and a range that holds nothing, is refused with what to do", () => {
  for (const from of ["yesterday", "2026-02-31", "2026-1-5", "1767614400", "-1", "1969-12-31"]) {
    expect(() => readRange({ from }, NOON_MS, null)).toThrow(SetupError);
  }
  expect(() => readRange({ from: "2026-01-06" }, NOON_MS, null)).toThrow("is not before");
});

test("flags that contradict each other are refused", () => {
  expect(readRepair({})).toBe("nothing");
  expect(readRepair({ repair: true })).toBe("fuller");
  expect(readRepair({ repair: true, force: true })).toBe("force");
  expect(() => readRepair({ force: true })).toThrow("--force without --repair");
  expect(readReplayRange({ dead: true }, NOON_MS)).toBeNull();
  expect(() => readReplayRange({ dead: true, from: "2026-01-05" }, NOON_MS)).toThrow("--dead takes every");
});

test("what is as old as the retention has expired", () => {
  expect(isExpired(NOON_MS, 30, NOON_MS + 30 * DAY_MS - 1)).toBeFalse();
  expect(isExpired(NOON_MS, 30, NOON_MS + 30 * DAY_MS)).toBeTrue();
});
