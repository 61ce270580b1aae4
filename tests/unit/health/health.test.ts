// Health means progress: each rule at its boundary, and what is never a fault.

import { expect, test } from "bun:test";
import { FEED_SILENT_MS_MAX, type FeedHealth } from "../../../lib/contracts/feed.ts";
import { createStepWatch } from "../../../lib/health/clock-steps.ts";
import {
  CLOCK_WARNING_MS,
  clockPart,
  FEED_DISCONNECTED_MS_MAX,
  feedPart,
  healthDocument,
  type IngestSnapshot,
  type LocalSnapshot,
  localHealth,
  type OutboxSnapshot,
  outboxPart,
  type ProcessorSnapshot,
  processorPart,
  STORE_PROBLEM_MS_MAX,
  TRIGGER_AGE_MS_MAX,
  UNSTORED_AGE_MS_MAX,
} from "../../../lib/health/health.ts";
import { NOON_MS } from "../../support/builders.ts";

const STARTED_AT_MS = NOON_MS - 3_600_000;

const feed: FeedHealth = {
  state: "connected",
  stateSinceMs: STARTED_AT_MS,
  disconnectedSinceMs: null,
  lastFrameAtMs: NOON_MS,
  lastTradeAtMs: NOON_MS,
  lastProblem: null,
  subscribed: ["AAPL"],
  unsubscribed: [],
  unreceived: [],
  intake: { minutes: 10, taken: 0, refused: 0, symbols: [] },
};
const outbox: OutboxSnapshot = { recordCount: 3, bytes: 400, bytesMax: 1_000, oldestAtMs: NOON_MS - 2_000 };
const publish: IngestSnapshot = {
  lastAppendAtMs: NOON_MS,
  refusingSinceMs: null,
  tradesLost: 0,
  problem: null,
};
const processor: ProcessorSnapshot = {
  lastBatchAtMs: NOON_MS,
  lastRowStoredAtMs: NOON_MS,
  lastTriggerAtMs: NOON_MS - 5_000,
  lastCommitAtMs: NOON_MS - 5_000,
  rowsInFlight: 0,
  windowsUnwritten: 4,
  problem: null,
};
const healthy: LocalSnapshot = {
  simulated: false,
  startedAtMs: STARTED_AT_MS,
  feed,
  symbols: [{ symbol: "AAPL", lastTradeAtMs: NOON_MS - 1_000 }],
  outbox,
  publish,
  processor,
  store: { ok: true, reason: null, lastProgressAt: null, ageMs: null, warning: null },
  ahead: null,
};

const feedWith = (fields: Partial<FeedHealth>, startedAtMs = STARTED_AT_MS) =>
  feedPart({ ...feed, ...fields }, [], startedAtMs, NOON_MS);
const processorWith = (fields: Partial<ProcessorSnapshot>, oldestAtMs: number | null = null) =>
  processorPart({ ...processor, ...fields }, oldestAtMs, STARTED_AT_MS, NOON_MS);

test("when everything moves the document is ok, and every part says when it last moved", () => {
  const document = localHealth(healthy, NOON_MS);
  expect(document).toMatchObject({ status: "ok", reason: null, simulated: false });
  expect(Object.keys(document.parts)).toEqual(["feed", "outbox", "processor", "store", "clock"]);
  expect(document.parts.feed).toMatchObject({
    ok: true,
    lastProgressAt: NOON_MS,
    ageMs: 0,
    state: "connected",
  });
  expect(document.parts.outbox).toMatchObject({ recordCount: 3, bytes: 400, oldestAgeMs: 2_000 });
  expect(document.parts.processor).toMatchObject({ lastProgressAt: NOON_MS, ageMs: 0, windowsUnwritten: 4 });
  expect(document.parts.clock).toMatchObject({ ok: true, warning: null });
});

test("one failing part fails the document, whose reason names each of them", () => {
  const snapshot = {
    ...healthy,
    simulated: true,
    publish: { ...publish, problem: "the disk is gone" },
    processor: { ...processor, lastTriggerAtMs: NOON_MS - 20_000 },
  };
  expect(localHealth(snapshot, NOON_MS)).toMatchObject({
    status: "failing",
    reason: "outbox: the disk is gone; processor: the aggregates have not been triggered for 20 s",
    simulated: true,
  });
  expect(healthDocument(false, {})).toEqual({ status: "ok", reason: null, simulated: false, parts: {} });
});

test("a closed market is no fault: pings without a trade, quiet symbols and an empty outbox are fine", () => {
  const document = localHealth(
    {
      ...healthy,
      feed: { ...feed, lastFrameAtMs: NOON_MS - 59_000, lastTradeAtMs: null },
      symbols: [
        { symbol: "AAPL", lastTradeAtMs: null },
        { symbol: "MSFT", lastTradeAtMs: NOON_MS - 86_400_000 },
      ],
      outbox: { ...outbox, recordCount: 0, oldestAtMs: null },
      publish: { ...publish, lastAppendAtMs: null },
      processor: { ...processor, lastBatchAtMs: null, lastRowStoredAtMs: null, lastCommitAtMs: null },
    },
    NOON_MS,
  );
  expect(document.status).toBe("ok");
  expect(document.parts.feed?.symbols).toEqual({
    AAPL: { lastTradeAt: null, ageMs: null },
    MSFT: { lastTradeAt: NOON_MS - 86_400_000, ageMs: 86_400_000 },
  });
});

test("a feed may be without a connection for a minute, and says why when it takes longer", () => {
  const since = (ms: number) =>
    feedWith({ state: "waiting", disconnectedSinceMs: NOON_MS - ms, lastProblem: "refused_401 wrong token" });
  expect(since(FEED_DISCONNECTED_MS_MAX).ok).toBe(true);
  expect(since(FEED_DISCONNECTED_MS_MAX + 1)).toMatchObject({
    ok: false,
    reason: "not connected for 60 s (refused_401 wrong token)",
  });
});

test("attempts in between do not begin the minute anew", () => {
  const cutOff = (ms: number) =>
    feedWith({ state: "connecting", stateSinceMs: NOON_MS - 10, disconnectedSinceMs: NOON_MS - ms });
  expect(cutOff(FEED_DISCONNECTED_MS_MAX).ok).toBe(true);
  expect(cutOff(FEED_DISCONNECTED_MS_MAX + 1).ok).toBe(false);
});

test("a feed without any frame for 150 s fails, connected or between attempts", () => {
  const silent = (state: FeedHealth["state"], stateMs: number, frameMs: number | null) =>
    feedWith({
      state,
      stateSinceMs: NOON_MS - stateMs,
      lastFrameAtMs: frameMs === null ? null : NOON_MS - frameMs,
    });
  expect(silent("connected", 3_600_000, FEED_SILENT_MS_MAX).ok).toBe(true);
  expect(silent("connected", 3_600_000, FEED_SILENT_MS_MAX + 1)).toMatchObject({
    ok: false,
    reason: "no frame, not even a ping, for 150 s",
  });
  expect(silent("waiting", 100, FEED_SILENT_MS_MAX + 1).ok).toBe(false);
  // A socket that has just opened has its first ping still to come.
  expect(silent("connected", 1_000, 3_600_000).ok).toBe(true);
  expect(silent("connected", 1_000, null).ok).toBe(true);
});

test("a feed that never connected is given the same minute", () => {
  const young = (ms: number) => {
    const begunMs = NOON_MS - ms;
    const never = { state: "connecting", disconnectedSinceMs: begunMs, lastFrameAtMs: null } as const;
    return feedWith({ ...never, stateSinceMs: NOON_MS - 10 }, begunMs);
  };
  expect(young(FEED_DISCONNECTED_MS_MAX).ok).toBe(true);
  expect(young(FEED_DISCONNECTED_MS_MAX + 1).ok).toBe(false);
});

test("an outbox that refuses trades fails at once and says how many are lost", () => {
  const part = outboxPart(
    outbox,
    { ...publish, refusingSinceMs: NOON_MS - 700_000, tradesLost: 12 },
    NOON_MS,
  );
  expect(part).toMatchObject({ ok: false, tradesLost: 12 });
  expect(part.reason).toBe(
    "it is full: trades have been refused for 11 min (12 trades lost since the start)",
  );
  // Lost trades of an hour ago are told, but what moves again is well.
  expect(outboxPart(outbox, { ...publish, tradesLost: 12 }, NOON_MS)).toMatchObject({
    ok: true,
    tradesLost: 12,
  });
});

test("an outbox that cannot be written fails at once", () => {
  const part = outboxPart(outbox, { ...publish, problem: "disk I/O error" }, NOON_MS);
  expect(part).toMatchObject({ ok: false, reason: "disk I/O error" });
});

test("the trigger may be 15 s late, counted from the start when there was none", () => {
  const late = (ms: number) => processorWith({ lastTriggerAtMs: NOON_MS - ms });
  expect(late(TRIGGER_AGE_MS_MAX).ok).toBe(true);
  expect(late(TRIGGER_AGE_MS_MAX + 1)).toMatchObject({ ok: false });
  const never = { ...processor, lastTriggerAtMs: null };
  expect(processorPart(never, null, NOON_MS - TRIGGER_AGE_MS_MAX, NOON_MS).ok).toBe(true);
  expect(processorPart(never, null, NOON_MS - TRIGGER_AGE_MS_MAX - 1, NOON_MS).ok).toBe(false);
});

test("a store may take nothing for 10 s", () => {
  const problem = (ms: number) =>
    processorWith({ problem: { message: "database is locked", sinceMs: NOON_MS - ms } });
  expect(problem(STORE_PROBLEM_MS_MAX).ok).toBe(true);
  expect(problem(STORE_PROBLEM_MS_MAX + 1)).toMatchObject({
    ok: false,
    reason: "no progress for 10 s: database is locked",
  });
});

test("a record may wait for 30 s to be stored; what an earlier run left waits since the start", () => {
  expect(processorWith({}, NOON_MS - UNSTORED_AGE_MS_MAX).ok).toBe(true);
  expect(processorWith({}, NOON_MS - UNSTORED_AGE_MS_MAX - 1)).toMatchObject({
    ok: false,
    reason: "the oldest record has been waiting to be stored for 30 s",
  });
  const leftover = (startedMs: number) =>
    processorPart(processor, NOON_MS - 86_400_000, NOON_MS - startedMs, NOON_MS);
  expect(leftover(UNSTORED_AGE_MS_MAX)).toMatchObject({ ok: true, oldestUnstoredAgeMs: 86_400_000 });
  expect(leftover(UNSTORED_AGE_MS_MAX + 1).ok).toBe(false);
});

test("a trade dated ahead of its receipt warns of the clock for ten minutes and never fails", () => {
  const ahead = (ms: number) =>
    clockPart({ symbol: "AAPL", aheadMs: 90_000, receivedAtMs: NOON_MS - ms }, NOON_MS);
  expect(ahead(CLOCK_WARNING_MS)).toMatchObject({
    ok: true,
    warning: "a trade of AAPL was dated 90 s ahead of its receipt: is this machine's clock right?",
  });
  expect(ahead(CLOCK_WARNING_MS + 1)).toMatchObject({ ok: true, warning: null });
});

test("a clock that all trades call slow fails, and says by how much and what to do", () => {
  const slow = { clockIs: "behind", byMs: 14 * 86_400_000 - 300, tradeCount: 20, symbolCount: 1 } as const;
  expect(clockPart(null, NOON_MS, slow)).toMatchObject({
    ok: false,
    reason:
      "this machine's clock is about 14 days behind the market's, say the last 20 trades of one symbol: set it (timedatectl, chrony); trades are put aside until then (impossible_time), and replay --dead brings them in afterwards",
  });
  expect(clockPart(null, NOON_MS, { ...slow, byMs: 61_000, symbolCount: 3 }).reason).toBe(
    "this machine's clock is about 61 s behind the market's, say the last 20 trades of 3 symbols: set it (timedatectl, chrony)",
  );
  const document = localHealth({ ...healthy, feed: { ...feed, clockDifference: slow } }, NOON_MS);
  expect([document.status, document.parts.clock?.ok]).toEqual(["failing", false]);
});

test("a clock that seems fast, or was set, is a warning", () => {
  const fast = { clockIs: "ahead", byMs: 40 * 86_400_000, tradeCount: 20, symbolCount: 2 } as const;
  expect(clockPart(null, NOON_MS, fast)).toMatchObject({
    ok: true,
    warning: expect.stringContaining("40 days or more before its receipt"),
  });
  const step = { byMs: -3 * 3_600_000, atMs: NOON_MS - 1_000 };
  expect(clockPart(null, NOON_MS, null, step)).toMatchObject({
    ok: true,
    warning: `this machine's clock was set back by 180 min, or it slept, until ${new Date(NOON_MS - 1_000).toISOString()}: ages before that are wrong`,
  });
  expect(clockPart(null, NOON_MS + CLOCK_WARNING_MS, null, step).warning).toBeNull();
});

test("the clock is seen to be set, by a minute or more and in either direction, and each time once", () => {
  const time = { nowMs: NOON_MS, monotonicMs: 5 };
  const lastStep = createStepWatch({ now: () => time.nowMs, monotonic: () => time.monotonicMs });
  const pass = (wallMs: number, monotonicMs: number) => {
    time.nowMs += wallMs;
    time.monotonicMs += monotonicMs;
    return lastStep();
  };
  expect(pass(3_600_000, 3_600_000)).toBeNull();
  expect(pass(1_000, 60_999)).toBeNull();
  const back = { byMs: -3 * 3_600_000 - 59_999, atMs: NOON_MS + 3_601_000 - 3 * 3_600_000 };
  expect(pass(-3 * 3_600_000, 0)).toEqual(back);
  expect(pass(2_000, 2_000)).toEqual(back);
  expect(pass(7_200_000, 1_000)?.byMs).toBe(7_199_000);
});

test("a fault that began before the clock was set back is not hidden until that time comes again", () => {
  const ahead = NOON_MS + 3 * 3_600_000;
  expect(
    processorPart(
      { ...processor, problem: { message: "away", sinceMs: ahead } },
      null,
      STARTED_AT_MS,
      NOON_MS,
    ),
  ).toMatchObject({ ok: false, reason: "no progress for an unknown time: away" });
  const lost = { ...feed, state: "waiting", disconnectedSinceMs: ahead } as const;
  expect(feedPart(lost, [], STARTED_AT_MS, NOON_MS).reason).toBe("not connected for an unknown time");
});

test("a clock that stepped back makes no age negative and nothing fail", () => {
  const document = localHealth(healthy, NOON_MS - 3_000_000);
  expect(document.status).toBe("ok");
  expect(document.parts.feed?.ageMs).toBe(0);
});

test("a symbol named like a part of an object is a symbol", () => {
  const part = feedPart(feed, [{ symbol: "__proto__", lastTradeAtMs: 1 }], STARTED_AT_MS, NOON_MS);
  expect(JSON.stringify(part.symbols)).toContain('"__proto__"');
});

const intakeOf = (taken: number, refused: number, symbols: FeedHealth["intake"]["symbols"] = []) =>
  feedWith({ intake: { minutes: 10, taken, refused, symbols } });

test("a share of a few percent that is refused is a warning, more than half of all fails; a few odd frames are neither", () => {
  for (const [taken, refused, ok, isWarned] of [
    [0, 9, true, false],
    [190, 10, true, false],
    [189, 10, true, true],
    [10, 10, true, true],
    [9, 10, false, false],
    [0, 10, false, false],
  ] as const) {
    const { ok: isOk, warning } = intakeOf(taken, refused);
    expect([taken, refused, isOk, warning !== null]).toEqual([taken, refused, ok, isWarned]);
  }
});

test("what is refused is told with its symbols and reasons, and a symbol of which nothing is taken is never just quiet", () => {
  const eur = { symbol: "OANDA:EUR_USD", taken: 0, refused: 40, reason: "bad_volume" };
  const half = { symbol: "AAPL", taken: 60, refused: 60, reason: "bad_price" };
  expect(intakeOf(10_000, 40, [eur]).warning).toBe(
    "40 of 10040 trades of the last 10 minutes were refused: OANDA:EUR_USD 40 of 40 (bad_volume); they are kept as dead letters",
  );
  const { reason, intake } = intakeOf(60, 100, [half, eur]);
  expect(reason).toBe(
    "100 of 160 trades of the last 10 minutes were refused: AAPL 60 of 120 (bad_price), OANDA:EUR_USD 40 of 40 (bad_volume); they are kept as dead letters",
  );
  expect(intake).toEqual({ minutes: 10, taken: 60, refused: 100, symbols: [half, eur] });
});
