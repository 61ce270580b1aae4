// Health of the pipeline that is spread over processes: what producer and processor say of themselves, and the one
// document in which admin shows the whole. Pure, as health/health.ts is, and by the same rule: health means progress.

import { spell } from "../base/text.ts";
import type { FeedHealth } from "../contracts/feed.ts";
import { type AheadTrade, MINUTE_MS } from "../model/trade.ts";
import type { ClockStep } from "./clock-steps.ts";
import {
  ageOf,
  clockPart,
  feedPart,
  type HealthDocument,
  healthDocument,
  type IngestSnapshot,
  judged,
  lastedMs,
  type OutboxSnapshot,
  outboxPart,
  type PartHealth,
  type ProcessorSnapshot,
  processorPart,
  type SymbolSnapshot,
} from "./health.ts";

/** What /health needs of the outbox relay. */
export type RelaySnapshot = Readonly<{
  /** Why the log could not be reached at all; null = it could. */
  problem: string | null;
  lastAckAtMs: number | null;
  /** Since when something waits and nothing at all is acknowledged; null = nothing waits. */
  unacknowledgedSinceMs: number | null;
  failing: readonly Readonly<{ partition: string; sinceMs: number; reason: string }>[];
  /** Records that were refused for good and are dead letters now. */
  deadCount: number;
}>;

/** `unconfirmedSinceMs`: since when records wait for the lease to be confirmed; null = it is, or nothing waits. */
type LeaseSnapshot = Readonly<{ unconfirmedSinceMs: number | null }>;

type ProducerSnapshot = Readonly<{
  simulated: boolean;
  startedAtMs: number;
  feed: FeedHealth;
  symbols: readonly SymbolSnapshot[];
  outbox: OutboxSnapshot;
  publish: IngestSnapshot;
  forward: RelaySnapshot;
  lease: LeaseSnapshot;
  ahead: AheadTrade | null;
  clockStep?: ClockStep | null;
}>;

/** A broker that restarts is back in seconds; somebody needs to know of one that is not. */
export const UNACKNOWLEDGED_MS_MAX = 20_000;
/** Joining a group takes until the others have answered, some of them only when their session times out. */
export const UNJOINED_MS_MAX = MINUTE_MS;
/** Twelve of the processor's triggers, each of which commits what is stored. */
export const UNCOMMITTED_MS_MAX = MINUTE_MS;
/** Five polls of admin. */
export const PROBE_AGE_MS_MAX = 10_000;

export function producerHealth(snapshot: ProducerSnapshot, nowMs: number): HealthDocument {
  const { simulated, startedAtMs, feed, symbols, outbox, publish, forward, lease, ahead } = snapshot;
  return healthDocument(simulated, {
    feed: feedPart(feed, symbols, startedAtMs, nowMs),
    outbox: outboxPart(outbox, publish, nowMs),
    kafka: relayPart(forward, nowMs),
    hold: leasePart(lease, nowMs),
    clock: clockPart(ahead, nowMs, feed.clockDifference, snapshot.clockStep),
  });
}

/** Kafka may be away, or the process was paused: either passes, or somebody needs to know. */
export function leasePart({ unconfirmedSinceMs }: LeaseSnapshot, nowMs: number): PartHealth {
  const unconfirmedMs = lastedMs(unconfirmedSinceMs, nowMs);
  const reason = `not confirmed as the owner of the feed: what it receives has been waiting for ${spell(unconfirmedMs)}`;
  return {
    ...judged(unconfirmedMs > UNACKNOWLEDGED_MS_MAX ? [reason] : [], null, nowMs),
    doubtSince: unconfirmedSinceMs,
  };
}

/** When nothing waits nothing is wrong, however long ago the last acknowledgement was. */
export function relayPart(forward: RelaySnapshot, nowMs: number): PartHealth {
  const { lastAckAtMs, unacknowledgedSinceMs, failing, problem, deadCount } = forward;
  const reasons: string[] = [];
  const late = failing.filter(({ sinceMs }) => lastedMs(sinceMs, nowMs) > UNACKNOWLEDGED_MS_MAX);
  const silentMs = lastedMs(unacknowledgedSinceMs, nowMs);
  const first = late[0];
  if (silentMs > UNACKNOWLEDGED_MS_MAX) {
    const cause = problem ?? failing[0]?.reason ?? null;
    const because = cause === null ? "" : ` (${cause})`;
    reasons.push(`records are waiting and none has been acknowledged for ${spell(silentMs)}${because}`);
  } else if (first !== undefined) {
    const others = late.length > 1 ? ` and of ${late.length - 1} more partitions` : "";
    const lateMs = lastedMs(first.sinceMs, nowMs);
    reasons.push(
      `no record of ${first.partition}${others} has been acknowledged for ${spell(lateMs)} (${first.reason})`,
    );
  }
  return {
    ...judged(reasons, lastAckAtMs, nowMs),
    lastAckAt: lastAckAtMs,
    deadCount,
    failing: failing.map(({ partition, sinceMs, reason }) => ({ partition, since: sinceMs, reason })),
  };
}

type ConsumerSnapshot = Readonly<{
  simulated: boolean;
  startedAtMs: number;
  processor: ProcessorSnapshot & Readonly<{ epoch: number; partitions: readonly string[] }>;
}>;

export function consumerHealth(snapshot: ConsumerSnapshot, nowMs: number): HealthDocument {
  const { simulated, startedAtMs, processor } = snapshot;
  const { lastRowStoredAtMs, lastTriggerAtMs, rowsInFlight, partitions, epoch } = processor;
  const unjoinedMs = epoch < 0 ? nowMs - startedAtMs : 0;
  const reasons: string[] = [];
  if (unjoinedMs > UNJOINED_MS_MAX) {
    reasons.push(`no partition has been assigned to it in the ${spell(unjoinedMs)} since its start`);
  }
  // With a backlog records are old although everything moves: what counts is whether rows are stored.
  const stalledMs = rowsInFlight > 0 ? nowMs - Math.max(lastRowStoredAtMs ?? startedAtMs, startedAtMs) : 0;
  if (stalledMs > UNACKNOWLEDGED_MS_MAX) {
    reasons.push(`${rowsInFlight} rows are in flight and none has been stored for ${spell(stalledMs)}`);
  }
  const group = { ...judged(reasons, lastRowStoredAtMs ?? lastTriggerAtMs, nowMs), epoch, partitions };
  return healthDocument(simulated, {
    group,
    processor: processorPart(processor, null, startedAtMs, nowMs),
  });
}

/** What admin knows of one process: its document, or why there is none. */
export type RemoteSnapshot = Readonly<{
  name: string;
  url: string;
  /** When it last answered; null = never since the start. */
  answeredAtMs: number | null;
  document: HealthDocument | null;
  problem: string | null;
}>;

export function remotePart(remote: RemoteSnapshot, startedAtMs: number, nowMs: number): PartHealth {
  const { url, answeredAtMs, document, problem } = remote;
  const reasons: string[] = [];
  const silentMs = nowMs - (answeredAtMs ?? startedAtMs);
  if (answeredAtMs === null || document === null || silentMs > PROBE_AGE_MS_MAX) {
    // A process that starts together with this one has a moment to answer.
    if (silentMs > PROBE_AGE_MS_MAX || answeredAtMs !== null || problem !== null) {
      reasons.push(`${url} does not answer${problem === null ? "" : ` (${problem})`}`);
    }
  } else if (document.status !== "ok") {
    reasons.push(document.reason ?? "it is failing and gives no reason");
  }
  const progress = Object.values(document?.parts ?? {}).flatMap(({ lastProgressAt }) =>
    typeof lastProgressAt === "number" ? [lastProgressAt] : [],
  );
  const warning = Object.values(document?.parts ?? {}).find(({ warning }) => typeof warning === "string");
  return {
    ...judged(reasons, progress.length === 0 ? null : Math.max(...progress), nowMs),
    url,
    answeredAt: answeredAtMs,
    parts: document?.parts ?? null,
    ...(warning && { warning: warning.warning }),
  };
}

/** One partition, as the broker tells of it. `movedAtMs`: when its commit last moved, or nothing waited in it. */
export type LagSnapshot = Readonly<{
  partition: string;
  committed: number | null;
  end: number;
  lag: number;
  movedAtMs: number;
}>;

export type BrokerSnapshot = Readonly<{
  askedAtMs: number | null;
  problem: string | null;
  lags: readonly LagSnapshot[];
}>;

export function brokerPart(broker: BrokerSnapshot, startedAtMs: number, nowMs: number): PartHealth {
  const { askedAtMs, problem, lags } = broker;
  const reasons: string[] = [];
  const silentMs = nowMs - (askedAtMs ?? startedAtMs);
  if (silentMs > PROBE_AGE_MS_MAX)
    reasons.push(`the broker does not answer${problem === null ? "" : ` (${problem})`}`);
  const stuck = lags.filter(({ lag, movedAtMs }) => lag > 0 && nowMs - movedAtMs > UNCOMMITTED_MS_MAX);
  const first = stuck[0];
  if (first !== undefined) {
    const others = stuck.length > 1 ? ` (nor those of ${stuck.length - 1} more partitions)` : "";
    reasons.push(
      `${first.lag} records are waiting in ${first.partition} and its commit has not moved for ${spell(nowMs - first.movedAtMs)}${others}: is a processor running?`,
    );
  }
  const moved = lags.map(({ movedAtMs }) => movedAtMs);
  return {
    ...judged(reasons, moved.length === 0 ? null : Math.max(...moved), nowMs),
    lag: lags.reduce((sum, { lag }) => sum + lag, 0),
    partitions: lags.map(({ partition, committed, end, lag }) => ({ partition, committed, end, lag })),
  };
}

/** When admin's own read of the store was last answered, and why it was not answered since. */
export type ProbeSnapshot = Readonly<{ okAtMs: number | null; problem: string | null }>;

export function storePart(
  { okAtMs, problem }: ProbeSnapshot,
  startedAtMs: number,
  nowMs: number,
): PartHealth {
  const silentMs = nowMs - (okAtMs ?? startedAtMs);
  const because = problem === null ? "" : ` (${problem})`;
  const reasons =
    silentMs > PROBE_AGE_MS_MAX ? [`no read has been answered for ${spell(silentMs)}${because}`] : [];
  return judged(reasons, okAtMs, nowMs);
}

/** The live view where it is fed by the topic itself. */
type TailSnapshot = Readonly<{
  lastRecordAtMs: number | null;
  /** Since when the topic grows and no record of it arrives; null = records arrive, or it does not grow. */
  deafSinceMs: number | null;
}>;

export function tailPart({ lastRecordAtMs, deafSinceMs }: TailSnapshot, nowMs: number): PartHealth {
  const deafMs = deafSinceMs === null ? 0 : nowMs - deafSinceMs;
  const reasons =
    deafMs > PROBE_AGE_MS_MAX
      ? [`the topic is growing, but no record of it has arrived for ${spell(deafMs)}`]
      : [];
  return { ...judged(reasons, lastRecordAtMs, nowMs), recordAgeMs: ageOf(lastRecordAtMs, nowMs) };
}

/**
 * The health of a process that is still starting: failing, with what it waits for. `waits`: each such part, and why it is
 * not there yet.
 */
export function startingHealth(
  simulated: boolean,
  waits: ReadonlyMap<string, string | null>,
  startedAtMs: number,
  nowMs: number,
): HealthDocument {
  const all = [...waits].map(([what, problem]) => (problem === null ? what : `${what} (${problem})`));
  const whats = all.length === 0 ? "its parts" : all.join(" and ");
  const reason = `waiting for ${spell(nowMs - startedAtMs)} for ${whats}`;
  return healthDocument(simulated, { start: judged([reason], null, nowMs) });
}
