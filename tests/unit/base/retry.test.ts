// The one retry loop, in virtual time: what it repeats, how long it waits, and what ends it.

import { expect, test } from "bun:test";
import { LogUnavailableError, SetupError, StoreUnavailableError } from "../../../lib/base/errors.ts";
import { type RetryOptions, retry, retryWhile } from "../../../lib/base/retry.ts";
import { virtualClock, World } from "../../simulation/world.ts";
import { NOON_MS } from "../../support/builders.ts";

/** Work that fails with each of these errors in turn and then succeeds, on a clock that always draws the longest wait. */
function attempts(failures: readonly Error[], options: Partial<RetryOptions> = {}) {
  const world = new World(1, NOON_MS);
  const startedAtMs: number[] = [];
  const clock = { ...virtualClock(world.machine()), random: () => 1 };
  const work = async () => {
    startedAtMs.push(world.elapsedMs);
    const failure = failures[startedAtMs.length - 1];
    if (failure !== undefined) throw failure;
    return "done";
  };
  const result: { value?: string | undefined; error?: unknown } = {};
  const keep = (running: Promise<string | undefined>) => {
    running.then(
      (value) => (result.value = value),
      (error: unknown) => (result.error = error),
    );
    return { world, startedAtMs, result };
  };
  const all = { clock, firstMs: 100, maxMs: 400, ...options };
  return { all, work, keep };
}

const away = () => new StoreUnavailableError("away");

test("it repeats what fails for a while, waits twice as long each time up to the limit, and resolves with the result", () => {
  const { all, work, keep } = attempts([away(), new LogUnavailableError("away"), away(), away()]);
  const { world, startedAtMs, result } = keep(retry(all, work));
  world.run(10_000);
  expect(startedAtMs).toEqual([0, 100, 300, 700, 1_100]);
  expect(result).toEqual({ value: "done" });
});

test("an error that repeating cannot mend rejects at once; which ones those are is the caller's choice", () => {
  const setup = new SetupError("wrong");
  const first = attempts([setup]);
  const refused = first.keep(retry(first.all, first.work));
  refused.world.run(1_000);
  expect(refused.startedAtMs).toEqual([0]);
  expect(refused.result.error).toBe(setup);

  const second = attempts([setup], { isRetryable: (error) => error === setup });
  const repeated = second.keep(retry(second.all, second.work));
  repeated.world.run(1_000);
  expect(repeated.result).toEqual({ value: "done" });
});

test("after the last attempt its error rejects, without a further wait", () => {
  const failures = [away(), away(), away()];
  const { all, work, keep } = attempts(failures, { attemptsMax: 3 });
  const { world, startedAtMs, result } = keep(retry(all, work));
  world.run(300);
  expect(startedAtMs).toEqual([0, 100, 300]);
  expect(result.error).toBe(failures[2]);
});

test("each failure that is repeated is reported before its wait, with its number from 0; the last one is not", () => {
  const seen: [unknown, number][] = [];
  const failures = [away(), away()];
  const onFailure = (error: unknown, attempt: number) => void seen.push([error, attempt]);
  const { all, work, keep } = attempts(failures, { onFailure, attemptsMax: 2 });
  const { world } = keep(retry(all, work));
  world.run(0);
  expect(seen).toEqual([[failures[0], 0]]);
  world.run(1_000);
  expect(seen).toHaveLength(1);
});

test("an abort ends the wait, begins no attempt and rejects with its reason", () => {
  const controller = new AbortController();
  const { all, work, keep } = attempts([away()], { signal: controller.signal });
  const { world, startedAtMs, result } = keep(retry(all, work));
  world.run(50);
  controller.abort("a stop");
  world.run(0);
  expect(startedAtMs).toEqual([0]);
  expect(result.error).toBe("a stop");

  const late = attempts([], { signal: controller.signal });
  const { world: other, ...rest } = late.keep(retry(late.all, late.work));
  other.run(0);
  expect(rest.startedAtMs).toEqual([]);
  expect(rest.result.error).toBe("a stop");
});

test("retryWhile repeats for as long as the result is wanted, and resolves with undefined when it no longer is", () => {
  let isWanted = true;
  const { all, work, keep } = attempts([away(), away()]);
  const { world, startedAtMs, result } = keep(retryWhile(() => isWanted, all, work));
  world.run(150);
  isWanted = false;
  world.run(10_000);
  expect(startedAtMs).toEqual([0, 100]);
  expect(result).toEqual({ value: undefined });

  const wanted = attempts([away()]);
  const done = wanted.keep(retryWhile(() => true, wanted.all, wanted.work));
  done.world.run(1_000);
  expect(done.result).toEqual({ value: "done" });
});
