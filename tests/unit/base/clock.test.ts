// Time limits and back-off, in virtual time.

import { expect, test } from "bun:test";
import { backoffMs, TIMED_OUT, withTimeout } from "../../../lib/base/clock.ts";
import { virtualClock, World } from "../../simulation/world.ts";
import { NOON_MS } from "../../support/builders.ts";

const LIMIT_MS = 1_000;

/** Work that takes this long and then resolves, or rejects with the error. */
function limited(workMs: number, error?: Error, callersSignal?: AbortSignal) {
  const world = new World(1, NOON_MS);
  const clock = virtualClock(world.machine());
  const seen: { result?: unknown; error?: unknown; signal?: AbortSignal } = {};
  const work = async (signal: AbortSignal) => {
    seen.signal = signal;
    await clock.sleep(workMs);
    if (error !== undefined) throw error;
    return "done";
  };
  withTimeout(clock, LIMIT_MS, work, callersSignal).then(
    (result) => (seen.result = result),
    (fault: unknown) => (seen.error = fault),
  );
  return { world, seen };
}

test("work that ends in time gives its result, and its signal never aborts", () => {
  const { world, seen } = limited(LIMIT_MS - 1);
  world.run(10 * LIMIT_MS);
  expect(seen).toMatchObject({ result: "done" });
  expect(seen.signal?.aborted).toBeFalse();
});

test("work that fails in time rejects with its error", () => {
  const error = new Error("broken");
  const { world, seen } = limited(1, error);
  world.run(LIMIT_MS);
  expect(seen.error).toBe(error);
});

test("at the end of the time its signal aborts and the answer is TIMED_OUT, without waiting for the work", () => {
  const { world, seen } = limited(60 * LIMIT_MS);
  world.run(LIMIT_MS - 1);
  expect(seen).not.toHaveProperty("result");
  world.run(1);
  expect(seen.result).toBe(TIMED_OUT);
  expect(seen.signal?.aborted).toBeTrue();
});

test("a failure after the time bothers nobody", () => {
  const { world, seen } = limited(2 * LIMIT_MS, new Error("late"));
  world.run(3 * LIMIT_MS); // A rejection that nobody handles would fail this test.
  expect(seen.result).toBe(TIMED_OUT);
});

test("the caller's signal ends it early in the same way, also one that aborted before", () => {
  const caller = new AbortController();
  const { world, seen } = limited(60 * LIMIT_MS, undefined, caller.signal);
  world.run(10);
  caller.abort();
  world.run(0);
  expect(seen.result).toBe(TIMED_OUT);
  expect(seen.signal?.aborted).toBeTrue();

  const late = limited(60 * LIMIT_MS, undefined, caller.signal);
  late.world.run(0);
  expect(late.seen.result).toBe(TIMED_OUT);
  expect(late.seen.signal?.aborted).toBeTrue();
});

test("the back-off doubles up to its limit and is drawn between nothing and that", () => {
  const longest = [0, 1, 2, 3, 1_000].map((attempt) => backoffMs(attempt, 100, 500, () => 1));
  expect(longest).toEqual([100, 200, 400, 500, 500]);
  expect(backoffMs(2, 100, 500, () => 0)).toBe(0);
  expect(backoffMs(2, 100, 500, () => 0.25)).toBe(100);
});
