// Health of the pipeline over processes: each rule at its boundary, each part with its own reason, and what must
// never count as a fault.

import { expect, test } from "bun:test";
import type { HealthDocument, ProcessorSnapshot } from "../../../lib/health/health.ts";
import {
  brokerPart,
  consumerHealth,
  leasePart,
  PROBE_AGE_MS_MAX,
  type RelaySnapshot,
  type RemoteSnapshot,
  relayPart,
  remotePart,
  startingHealth,
  storePart,
  tailPart,
  UNACKNOWLEDGED_MS_MAX,
  UNCOMMITTED_MS_MAX,
  UNJOINED_MS_MAX,
} from "../../../lib/health/pipeline.ts";
import { NOON_MS } from "../../support/builders.ts";

const STARTED_AT_MS = NOON_MS - 3_600_000;

const forward: RelaySnapshot = {
  problem: null,
  lastAckAtMs: NOON_MS,
  unacknowledgedSinceMs: null,
  failing: [],
  deadCount: 0,
};
const processor: ProcessorSnapshot & { epoch: number; partitions: readonly string[] } = {
  epoch: 3,
  partitions: ["market/0"],
  lastBatchAtMs: NOON_MS,
  lastRowStoredAtMs: NOON_MS,
  lastTriggerAtMs: NOON_MS - 1_000,
  lastCommitAtMs: NOON_MS,
  rowsInFlight: 0,
  windowsUnwritten: 0,
  problem: null,
};
const well: HealthDocument = {
  status: "ok",
  reason: null,
  simulated: false,
  parts: { feed: { ok: true, reason: null, lastProgressAt: NOON_MS - 500, ageMs: 500 } },
};
const remote: RemoteSnapshot = {
  name: "producer",
  url: "http://127.0.0.1:8081",
  answeredAtMs: NOON_MS,
  document: well,
  problem: null,
};

test("an empty outbox is no fault, however long ago the last acknowledgement was", () => {
  const old = { ...forward, lastAckAtMs: STARTED_AT_MS };
  expect(relayPart(old, NOON_MS)).toMatchObject({ ok: true, reason: null });
});

test("records that wait while nothing is acknowledged fail, from the bound on, with the cause", () => {
  const at = (ageMs: number) =>
    relayPart({ ...forward, problem: "no broker", unacknowledgedSinceMs: NOON_MS - ageMs }, NOON_MS);
  expect(at(UNACKNOWLEDGED_MS_MAX).ok).toBe(true);
  expect(at(UNACKNOWLEDGED_MS_MAX + 1)).toMatchObject({
    ok: false,
    reason: "records are waiting and none has been acknowledged for 20 s (no broker)",
  });
});

test("one partition that fails is named with its reason, while the others are acknowledged", () => {
  const failing = [
    { partition: "market/3", sinceMs: NOON_MS - UNACKNOWLEDGED_MS_MAX - 1, reason: "no leader" },
    { partition: "market/4", sinceMs: NOON_MS - UNACKNOWLEDGED_MS_MAX, reason: "no leader" },
  ];
  expect(relayPart({ ...forward, failing }, NOON_MS)).toMatchObject({
    ok: false,
    reason: "no record of market/3 has been acknowledged for 20 s (no leader)",
  });
});

test("a processor without partitions is idle and does not fail; one that never got any does", () => {
  const snapshot = (fields: Partial<typeof processor>, startedAtMs = STARTED_AT_MS) =>
    consumerHealth({ simulated: false, startedAtMs, processor: { ...processor, ...fields } }, NOON_MS);
  expect(snapshot({ partitions: [] }).status).toBe("ok");
  expect(snapshot({ epoch: -1, partitions: [] }, NOON_MS - UNJOINED_MS_MAX).status).toBe("ok");
  expect(snapshot({ epoch: -1, partitions: [] }, NOON_MS - UNJOINED_MS_MAX - 1).reason).toContain("group:");
});

test("rows in flight that are never stored fail; a backlog that moves does not", () => {
  const stalled = (ageMs: number) =>
    consumerHealth(
      {
        simulated: false,
        startedAtMs: STARTED_AT_MS,
        processor: { ...processor, rowsInFlight: 40, lastRowStoredAtMs: NOON_MS - ageMs },
      },
      NOON_MS,
    );
  expect(stalled(UNACKNOWLEDGED_MS_MAX).status).toBe("ok");
  expect(stalled(UNACKNOWLEDGED_MS_MAX + 1).reason).toContain(
    "40 rows are in flight and none has been stored for 20 s",
  );
});

test("a process that answers passes its own reason on; one that does not answer is named by its address", () => {
  expect(remotePart(remote, STARTED_AT_MS, NOON_MS)).toMatchObject({
    ok: true,
    lastProgressAt: NOON_MS - 500,
  });
  const failing = { ...well, status: "failing", reason: "feed: not connected for 75 s" } as const;
  expect(remotePart({ ...remote, document: failing }, STARTED_AT_MS, NOON_MS).reason).toBe(failing.reason);
  const gone = { ...remote, answeredAtMs: NOON_MS - PROBE_AGE_MS_MAX - 1, problem: "connection refused" };
  expect(remotePart(gone, STARTED_AT_MS, NOON_MS).reason).toBe(
    "http://127.0.0.1:8081 does not answer (connection refused)",
  );
});

test("a warning of one process is the pipeline's too", () => {
  const parts = {
    clock: { ok: true, reason: null, lastProgressAt: null, ageMs: null, warning: "odd clock" },
  };
  const part = remotePart({ ...remote, document: { ...well, parts } }, STARTED_AT_MS, NOON_MS);
  expect(part).toMatchObject({ ok: true, warning: "odd clock" });
});

test("lag alone is no fault; a commit that does not move while records wait is", () => {
  const lag = { partition: "market/1", committed: 10, end: 30, lag: 20, movedAtMs: NOON_MS };
  const at = (fields: Partial<typeof lag>) =>
    brokerPart({ askedAtMs: NOON_MS, problem: null, lags: [{ ...lag, ...fields }] }, STARTED_AT_MS, NOON_MS);
  expect(at({ lag: 1_000_000 })).toMatchObject({ ok: true, lag: 1_000_000 });
  expect(at({ lag: 0, movedAtMs: STARTED_AT_MS }).ok).toBe(true);
  expect(at({ movedAtMs: NOON_MS - UNCOMMITTED_MS_MAX }).ok).toBe(true);
  expect(at({ movedAtMs: NOON_MS - UNCOMMITTED_MS_MAX - 1 }).reason).toContain(
    "20 records are waiting in market/1 and its commit has not moved for 60 s: check that a processor is running",
  );
});

test("a process that starts says all that it waits for, each with its cause, and waits by a name even before", () => {
  const at = (waits: ReadonlyMap<string, string | null>) =>
    startingHealth(false, waits, NOON_MS - 7_000, NOON_MS).reason;
  const both = new Map([
    ["Cassandra", "no node is up"],
    ["Kafka", null],
  ]);
  expect(at(both)).toBe("start: waiting for 7 s for Cassandra (no node is up) and Kafka");
  expect(at(new Map())).toBe("start: waiting for 7 s for its parts");
});

test("a broker, a store or a topic that does not answer fails with the last known reason", () => {
  const late = NOON_MS - PROBE_AGE_MS_MAX - 1;
  expect(brokerPart({ askedAtMs: late, problem: "refused", lags: [] }, STARTED_AT_MS, NOON_MS).reason).toBe(
    "the broker does not answer (refused)",
  );
  expect(storePart({ okAtMs: late, problem: "no host" }, STARTED_AT_MS, NOON_MS).reason).toContain("no host");
  expect(storePart({ okAtMs: NOON_MS, problem: null }, STARTED_AT_MS, NOON_MS).ok).toBe(true);
  const tail = { lastRecordAtMs: STARTED_AT_MS, deafSinceMs: late };
  expect(tailPart(tail, NOON_MS).reason).toContain(
    "the topic is growing, but no record of it has arrived for 10 s",
  );
  expect(tailPart({ ...tail, deafSinceMs: late + 1 }, NOON_MS).ok).toBe(true);
  // A quiet market says nothing.
  expect(tailPart({ ...tail, deafSinceMs: null }, NOON_MS).ok).toBe(true);
});

test("a lease that stays unconfirmed fails, and says since when what is received waits", () => {
  const at = (ageMs: number) => leasePart({ unconfirmedSinceMs: NOON_MS - ageMs }, NOON_MS);
  expect(leasePart({ unconfirmedSinceMs: null }, NOON_MS)).toMatchObject({
    ok: true,
    reason: null,
    doubtSince: null,
  });
  expect(at(UNACKNOWLEDGED_MS_MAX)).toMatchObject({ ok: true });
  expect(at(75_000)).toMatchObject({ ok: false, doubtSince: NOON_MS - 75_000 });
  expect(at(75_000).reason).toContain(
    "the lease is not confirmed, so received trades have been waiting for 75 s",
  );
});
