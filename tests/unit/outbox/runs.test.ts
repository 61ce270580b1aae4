// Offsets as runs: what goes in comes out, in its order and once, in pieces of any size.

import { expect, test } from "bun:test";
import { OffsetRuns } from "../../../lib/outbox/runs.ts";
import { seeded } from "../../support/builders.ts";

function offsetsOf(runs: OffsetRuns, countMax: number): number[] {
  const front = runs.front(countMax);
  runs.drop(front);
  return front.flatMap(({ from, to }) => Array.from({ length: to - from + 1 }, (_, index) => from + index));
}

test("adjacent offsets are one run, also over two additions", () => {
  const runs = new OffsetRuns();
  expect(runs.isEmpty).toBe(true);
  runs.add([3, 4, 5, 9]);
  runs.add([10, 12]);
  expect(runs.front(99)).toEqual([
    { from: 3, to: 5 },
    { from: 9, to: 10 },
    { from: 12, to: 12 },
  ]);
});

test("the front is cut within a run, and stays until it is dropped", () => {
  const runs = new OffsetRuns();
  runs.add([1, 2, 3, 4, 8]);
  expect(runs.front(3)).toEqual([{ from: 1, to: 3 }]);
  expect(runs.front(3)).toEqual([{ from: 1, to: 3 }]);
  expect(offsetsOf(runs, 3)).toEqual([1, 2, 3]);
  expect(offsetsOf(runs, 1)).toEqual([4]);
  expect(offsetsOf(runs, 5)).toEqual([8]);
  expect(runs.isEmpty).toBe(true);
  expect(runs.front(5)).toEqual([]);
  runs.drop([]);
});

test("whatever is added comes out once, in the order of the additions (seed 1)", () => {
  const random = seeded(1);
  const runs = new OffsetRuns();
  const added: number[] = [];
  const dropped: number[] = [];
  let next = 1;
  for (let step = 0; step < 2_000; step++) {
    if (random(2) === 0) {
      const offsets = Array.from({ length: random(20) }, () => (next += random(4) === 0 ? 2 : 1));
      runs.add(offsets);
      added.push(...offsets);
    } else {
      const countMax = 1 + random(25);
      const some = offsetsOf(runs, countMax);
      expect(some.length).toBe(Math.min(countMax, added.length - dropped.length));
      dropped.push(...some);
    }
  }
  dropped.push(...offsetsOf(runs, Number.MAX_SAFE_INTEGER));
  expect(dropped).toEqual(added);
});
