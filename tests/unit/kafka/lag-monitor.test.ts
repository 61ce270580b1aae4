// Since when a partition waits: told by commits that move, by nothing else.

import { expect, test } from "bun:test";
import { systemClock } from "../../../lib/base/clock.ts";
import { createLagMonitor } from "../../../lib/kafka/lag-monitor.ts";
import { NOON_MS } from "../../support/builders.ts";

test("a commit that moves, or a partition that is empty, has moved now; one that waits keeps its time", async () => {
  let nowMs = NOON_MS;
  let answer = () => Promise.resolve([{ offset: 5 as number | null, end: 9 }]);
  const topics = {
    lag: async () =>
      (await answer()).map(({ offset, end }) => ({
        partition: "market/0",
        committed: offset === null ? null : { offset, metadata: "" },
        beginOffset: 0,
        endOffset: end,
        lag: end - (offset ?? 0),
      })),
  };
  const watch = createLagMonitor(topics, "processor", { ...systemClock, now: () => nowMs });
  const round = async (offset: number | null, end: number) => {
    nowMs += 1_000;
    answer = () => Promise.resolve([{ offset, end }]);
    await watch.poll();
    return nowMs - watch.snapshot().lags[0]!.movedAtMs;
  };
  expect(await round(5, 9)).toBe(0); // First seen.
  expect(await round(5, 12)).toBe(1_000); // Waits.
  expect(await round(5, 12)).toBe(2_000);
  expect(await round(7, 12)).toBe(0); // Moved.
  expect(await round(12, 12)).toBe(0);
  expect(await round(12, 12)).toBe(0); // Empty.
  expect(await round(12, 13)).toBe(0); // Something came since: it waits for less than a round.
  expect(await round(12, 13)).toBe(1_000);
  answer = () => Promise.reject(new Error("refused"));
  nowMs += 1_000;
  await watch.poll();
  expect(watch.snapshot()).toMatchObject({ problem: "refused", askedAtMs: nowMs - 1_000 });
  expect(await round(12, 13)).toBe(3_000);
  expect(watch.snapshot().problem).toBeNull();
});
