// What the supervisor restarts a process for, and above all what it does not.

import { expect, test } from "bun:test";
import { type HealthDocument, healthDocument, type PartHealth } from "../../../lib/health/health.ts";
import { makesProgress, STUCK_MS_MAX } from "../../../lib/health/progress.ts";
import { NOON_MS } from "../../support/builders.ts";

const well: PartHealth = { ok: true, reason: null, lastProgressAt: null, ageMs: null };
const processor = (fields: Readonly<Record<string, unknown>>): HealthDocument =>
  healthDocument(false, { processor: { ...well, problem: null, lastTriggerAt: null, ...fields } });
const late = NOON_MS + STUCK_MS_MAX + 1;

test("a processor whose own clock has stopped makes no progress", () => {
  expect(makesProgress(processor({ lastTriggerAt: NOON_MS }), 0, late)).toBe(false);
  expect(makesProgress(processor({ lastTriggerAt: NOON_MS }), 0, late - 1)).toBe(true);
});

test("one that was never triggered has as much time, from its start", () => {
  expect(makesProgress(processor({}), NOON_MS, late - 1)).toBe(true);
  expect(makesProgress(processor({}), NOON_MS, late)).toBe(false);
});

test("who waits for a node makes progress, however long", () => {
  const problem = { message: "the store is away", sinceMs: NOON_MS };
  expect(makesProgress(processor({ lastTriggerAt: NOON_MS, problem }), 0, 10 * late)).toBe(true);
});

test("a failing feed, outbox or start is no reason to kill a process", () => {
  const failing = { ...well, ok: false, reason: "not connected" };
  for (const parts of [{ feed: failing }, { outbox: failing, relay: failing }, { start: failing }])
    expect(makesProgress(healthDocument(false, parts), 0, late)).toBe(true);
});

test("a clock that was set back is no lack of progress", () => {
  expect(makesProgress(processor({ lastTriggerAt: late }), NOON_MS, NOON_MS)).toBe(true);
});
