// What admin remembers of the others: the last answer of the store, and whether the records of a growing topic arrive.

import { expect, test } from "bun:test";
import { AdminHealth } from "../../../lib/app/admin-health.ts";
import { systemClock } from "../../../lib/base/clock.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import { PROBE_AGE_MS_MAX } from "../../../lib/health/pipeline.ts";
import { NOON_MS } from "../../support/builders.ts";

/** An admin whose topic and store are as a test sets them. */
function openHealth() {
  const others = { nowMs: NOON_MS, end: 0, storeFault: null as Error | null };
  const clock = { ...systemClock, now: () => others.nowMs };
  let known = { askedAtMs: null as number | null, end: 0 };
  const lagOf = (partition: string, end: number) => ({
    partition,
    committed: end,
    end,
    lag: 0,
    movedAtMs: others.nowMs,
  });
  const health = new AdminHealth({
    remotes: { poll: async () => {}, snapshots: () => [] },
    lags: {
      async poll() {
        known = { askedAtMs: others.nowMs, end: others.end };
      },
      snapshot: () => ({
        askedAtMs: known.askedAtMs,
        problem: null,
        lags: [lagOf("market/0", known.end), lagOf("other/0", others.nowMs)],
      }),
    },
    async probeStore() {
      if (others.storeFault !== null) throw others.storeFault;
    },
    topic: "market",
    clock,
    metrics: createMetrics(),
    simulated: true,
  });
  return {
    health,
    others,
    async pollAfter(durationMs: number) {
      others.nowMs += durationMs;
      await health.poll();
    },
  };
}

test("a topic that grows and of which no record arrives fails after a while; one record ends that", async () => {
  const { health, others, pollAfter } = openHealth();
  await health.poll();
  for (let poll = 0; poll * 2_000 <= PROBE_AGE_MS_MAX; poll++) {
    others.end += 1;
    await pollAfter(2_000);
  }
  others.nowMs += 1;
  expect(health.document().parts.live).toMatchObject({ ok: false, recordAgeMs: null });
  health.noteRecords(others.nowMs);
  others.end += 1;
  await pollAfter(2_000);
  expect(health.document()).toMatchObject({ status: "ok", simulated: true, parts: { live: { ok: true } } });
});

test("a topic that does not grow is quiet, whatever the others do", async () => {
  const { health, pollAfter } = openHealth();
  await health.poll();
  for (let poll = 0; poll < 10; poll++) await pollAfter(2_000);
  expect(health.document().parts.live).toMatchObject({ ok: true });
});

test("a store that does not answer fails with its last fault, and is well again with the next answer", async () => {
  const { health, others, pollAfter } = openHealth();
  await health.poll();
  others.storeFault = new Error("no host is up");
  await pollAfter(PROBE_AGE_MS_MAX + 1);
  expect(health.document().parts.cassandra).toMatchObject({
    ok: false,
    reason: "no read has been answered for 10 s (no host is up)",
  });
  others.storeFault = null;
  await pollAfter(1);
  expect(health.document().parts.cassandra).toMatchObject({ ok: true, reason: null });
});
