// How many REST calls are allowed, in virtual time.

import { expect, test } from "bun:test";
import { CALLS_PER_MINUTE_MAX, CALLS_PER_SECOND_MAX, CallLimit } from "../../../lib/finnhub/call-limit.ts";
import { virtualClock, World } from "../../simulation/world.ts";
import { NOON_MS } from "../../support/builders.ts";

/** `acquire`: the wait in ms that it answers with, or how long it took to get a call. */
function limited() {
  const world = new World(1, NOON_MS);
  const limit = new CallLimit(virtualClock(world.machine()));
  const acquire = () => {
    const fromMs = world.elapsedMs;
    const results: (Readonly<{ refusedMs: number }> | Readonly<{ tookMs: number }>)[] = [];
    limit.acquire().then((waitMs) => {
      const tookMs = Math.round(world.elapsedMs - fromMs);
      results.push(waitMs > 0 ? { refusedMs: waitMs } : { tookMs });
    });
    world.runUntil(() => results.length > 0, 2_000);
    return results[0];
  };
  const observe = (status: number, headers: Record<string, string>) =>
    limit.observe(status, new Headers(headers));
  return { world, acquire, observe };
}

test("as many calls as a second allows are free, the next one waits for the second to end", () => {
  const { acquire } = limited();
  const taken = Array.from({ length: CALLS_PER_SECOND_MAX }, acquire);
  expect(taken).toEqual(taken.map(() => ({ tookMs: 0 })));
  expect(acquire()).toEqual({ tookMs: 1_000 });
});

test("a call that would have to wait for the minute is refused at once, with the wait", () => {
  const { world, acquire } = limited();
  for (let count = 0; count < CALLS_PER_MINUTE_MAX; count++) {
    acquire();
    world.run(100);
  }
  expect(acquire()).toEqual({ refusedMs: 60_000 - CALLS_PER_MINUTE_MAX * 100 });
});

test("a spent limit blocks every call for its retry-after, its reset, or a minute, and never for longer than that", () => {
  const cases: [status: number, headers: Record<string, string>, blockedMs: number][] = [
    [429, { "retry-after": "7" }, 7_000],
    [503, { "retry-after": "7" }, 7_000],
    [429, { "retry-after": "86400" }, 900_000],
    [429, { "x-ratelimit-reset": String(NOON_MS / 1_000 + 30) }, 30_000],
    [429, { "x-ratelimit-reset": String(NOON_MS / 1_000 + 3_600) }, 60_000],
    [429, {}, 60_000],
    [200, { "x-ratelimit-remaining": "0", "x-ratelimit-reset": String(NOON_MS / 1_000 + 9) }, 9_000],
  ];
  for (const [status, headers, blockedMs] of cases) {
    const { acquire, observe } = limited();
    observe(status, headers);
    expect(acquire()).toEqual({ refusedMs: blockedMs });
  }
});

test("an ordinary answer blocks nothing", () => {
  const { acquire, observe } = limited();
  observe(200, { "x-ratelimit-remaining": "12", "x-ratelimit-reset": String(NOON_MS / 1_000 + 9) });
  observe(503, {});
  observe(200, { "retry-after": "7" });
  expect(acquire()).toEqual({ tookMs: 0 });
});
