// How many requests may run at once: what cuts it, what raises it again, and that no work is lost on the way.

import { expect, test } from "bun:test";
import { createConcurrencyLimiter, type Pressure } from "../../../lib/cassandra/concurrency-limiter.ts";

class Failure extends Error {
  readonly pressure: Pressure;
  constructor(pressure: Pressure) {
    super(String(pressure));
    this.pressure = pressure;
  }
}

/** A limiter whose work ends when the test says so. */
function openGate(limitMax = 16) {
  const limits: number[] = [];
  const limiter = createConcurrencyLimiter({
    limitMax,
    pressureOf: (error) => (error instanceof Failure ? error.pressure : null),
    onLimit: (limit) => limits.push(limit),
  });
  const begun: { name: number; end: (failure?: Pressure) => void }[] = [];
  const outcomes = new Map<number, string>();
  const start = (name: number) =>
    limiter
      .run(
        () =>
          new Promise<void>((resolve, reject) => {
            begun.push({
              name,
              end: (pressure) => (pressure === undefined ? resolve() : reject(new Failure(pressure))),
            });
          }),
      )
      .then(
        () => outcomes.set(name, "done"),
        (error: unknown) => outcomes.set(name, String((error as Failure).pressure)),
      );
  /** One after the other: so many answers, or failures. */
  const ask = async (count: number, pressure?: Pressure) => {
    for (let n = 0; n < count; n++) {
      const work = limiter.run(() =>
        pressure === undefined ? Promise.resolve() : Promise.reject(new Failure(pressure)),
      );
      await work.catch(() => {});
    }
  };
  return { limiter, limits, begun, outcomes, start, ask };
}

const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

test("so many run at once and no more; the others wait in the order of their calls, and all are run", async () => {
  const { begun, outcomes, start } = openGate(3);
  const all = Array.from({ length: 10 }, (_, name) => start(name));
  await settled();
  expect(begun.map(({ name }) => name)).toEqual([0, 1, 2]);
  begun[1]!.end();
  await settled();
  expect(begun.map(({ name }) => name)).toEqual([0, 1, 2, 3]);
  for (let index = 0; index < 10; index++) {
    begun[index]!.end();
    await settled();
  }
  await Promise.all(all);
  expect(begun.map(({ name }) => name)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect([...outcomes.values()].every((outcome) => outcome === "done")).toBe(true);
});

test("too much halves the limit, down makes it one, and a failure of the request's own changes nothing", async () => {
  const { limiter, limits, ask } = openGate();
  await ask(1, null);
  expect(limiter.limit).toBe(16);
  await ask(1, "overloaded");
  expect(limiter.limit).toBe(8);
  await ask(1, "down");
  expect(limiter.limit).toBe(1);
  await ask(5, "overloaded");
  expect(limiter.limit).toBe(1);
  expect(limits).toEqual([16, 8, 1]);
});

test("the failures of what ran together cut once, not once each", async () => {
  const { limiter, begun, start } = openGate();
  const all = Array.from({ length: 16 }, (_, name) => start(name));
  await settled();
  for (const { end } of begun) end("overloaded");
  await Promise.all(all);
  expect(limiter.limit).toBe(8);
});

test("after a cut nothing new begins until what runs has come below the limit", async () => {
  const { begun, start } = openGate(4);
  const all = Array.from({ length: 8 }, (_, name) => start(name));
  await settled();
  expect(begun.length).toBe(4);
  begun[0]!.end("down");
  await settled();
  begun[1]!.end();
  begun[2]!.end();
  await settled();
  expect(begun.length).toBe(4);
  begun[3]!.end();
  await settled();
  expect(begun.length).toBe(5);
  for (let index = 4; index < 8; index++) {
    begun[index]!.end();
    await settled();
  }
  await Promise.all(all);
  expect(begun.length).toBe(8);
});

test("answers raise the limit again one by one, slower the higher it stands, and never beyond its maximum", async () => {
  const { limiter, ask } = openGate(4);
  await ask(1, "down");
  const raisedAfter: number[] = [];
  for (let answers = 1; answers <= 200; answers++) {
    const before = limiter.limit;
    await ask(1);
    if (limiter.limit > before) raisedAfter.push(answers);
  }
  expect(raisedAfter).toEqual([10, 30, 60]);
  expect(limiter.limit).toBe(4);
});
