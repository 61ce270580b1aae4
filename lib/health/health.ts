// Health means progress: one document from what each part last said of itself and the time. Pure: it asks nobody, reads
// no clock and remembers nothing. A closed market, a quiet symbol and a socket that only pings are not faults. The
// document holds no secret, because what it is made from holds none.

import { spell } from "../base/text.ts";
import {
  type ClockDifference,
  FEED_SILENT_MS_MAX,
  type FeedHealth,
  type UnreceivedSymbol,
} from "../contracts/feed.ts";
import type { OutboxHealth } from "../contracts/log.ts";
import type { IntakeSnapshot } from "../model/intake.ts";
import { type AheadTrade, DAY_MS, MINUTE_MS } from "../model/trade.ts";
import type { ClockStep } from "./clock-steps.ts";

/** What every part tells; each adds figures of its own. Times are ms since 1970, null = never or unknown. */
export type PartHealth = Readonly<{
  ok: boolean;
  /** Why it is not ok, in a sentence; null when it is. */
  reason: string | null;
  /** When something last moved in it, and how long ago that is. */
  lastProgressAt: number | null;
  ageMs: number | null;
}> &
  Readonly<Record<string, unknown>>;

export type HealthDocument = Readonly<{
  status: "ok" | "failing";
  /** The failing parts and why; null when none is. */
  reason: string | null;
  simulated: boolean;
  parts: Readonly<Record<string, PartHealth>>;
}>;

/** A symbol on the watchlist, and when its last known trade happened. */
export type SymbolSnapshot = Readonly<{ symbol: string; lastTradeAtMs: number | null }>;

/** What /health shows of an outbox: its own health has it, with or without dead letters. */
export type OutboxSnapshot = Pick<OutboxHealth, "recordCount" | "bytes" | "bytesMax" | "oldestAtMs">;

/** What /health needs of the ingest. */
export type IngestSnapshot = Readonly<{
  lastAppendAtMs: number | null;
  refusingSinceMs: number | null;
  tradesLost: number;
  problem: string | null;
}>;

/** What /health needs of the processor. */
export type ProcessorSnapshot = Readonly<{
  lastBatchAtMs: number | null;
  lastRowStoredAtMs: number | null;
  lastTriggerAtMs: number | null;
  lastCommitAtMs: number | null;
  rowsInFlight: number;
  windowsUnwritten: number;
  problem: Readonly<{ message: string; sinceMs: number }> | null;
}>;

export type LocalSnapshot = Readonly<{
  simulated: boolean;
  /** When the parts were started: whatever has not happened yet is counted from here. */
  startedAtMs: number;
  feed: FeedHealth;
  symbols: readonly SymbolSnapshot[];
  outbox: OutboxSnapshot;
  publish: IngestSnapshot;
  processor: ProcessorSnapshot;
  /** As health/store.ts judges it. */
  store: PartHealth;
  /** The last trade that was dated too far ahead of its receipt; null = none was. */
  ahead: AheadTrade | null;
  /** The last time the clock was set while the process ran; null or absent = it was not. */
  clockStep?: ClockStep | null;
}>;

/** A lost connection is made again within seconds; somebody needs to know of one that is not. */
export const FEED_DISCONNECTED_MS_MAX = MINUTE_MS;
/** A refusal of a bad moment has passed by then; of a later one somebody needs to know. */
export const UNRECEIVED_MS_MAX = 5 * MINUTE_MS;
const REFUSED_COUNT_MIN = 10;
/** Symbols that the part lists. */
const REFUSED_LISTED_MAX = 20;
const REFUSED_SHARE_WARNED = 0.05;
const REFUSED_SHARE_FAILING = 0.5;
/** Symbols that one warning names; the part lists them all. */
const UNRECEIVED_NAMED_MAX = 3;
/** Three of the processor's triggers. */
export const TRIGGER_AGE_MS_MAX = 15_000;
/** A store that fails for some seconds is retried and forgotten. */
export const STORE_PROBLEM_MS_MAX = 10_000;
/** Records are stored in milliseconds and committed every 5 s. */
export const UNSTORED_AGE_MS_MAX = 30_000;
/** How long /health warns of a clock after the last trade that suggested it is wrong, and after it was set. */
export const CLOCK_WARNING_MS = 10 * MINUTE_MS;
/** Two reads of one clock, in two processes or by two threads, may differ by so much. */
const CLOCK_TURN_MS = 1_000;
/** A trade takes a moment to come: 14 days less a second are 14 days. */
const ROUNDED_UP = 1.001;

/** The document of the embedded mode: all parts are in this process. */
export function localHealth(snapshot: LocalSnapshot, nowMs: number): HealthDocument {
  const { simulated, startedAtMs, feed, symbols, outbox, publish, processor, store, ahead } = snapshot;
  return healthDocument(simulated, {
    feed: feedPart(feed, symbols, startedAtMs, nowMs),
    outbox: outboxPart(outbox, publish, nowMs),
    processor: processorPart(processor, outbox.oldestAtMs, startedAtMs, nowMs),
    store,
    clock: clockPart(ahead, nowMs, feed.clockDifference, snapshot.clockStep),
  });
}

export function healthDocument(
  simulated: boolean,
  parts: Readonly<Record<string, PartHealth>>,
): HealthDocument {
  const reasons = Object.entries(parts).flatMap(([name, { ok, reason }]) =>
    ok ? [] : [`${name}: ${reason ?? "not ok"}`],
  );
  const status = reasons.length === 0 ? "ok" : "failing";
  return { status, reason: reasons.length === 0 ? null : reasons.join("; "), simulated, parts };
}

export function feedPart(
  feed: FeedHealth,
  symbols: readonly SymbolSnapshot[],
  startedAtMs: number,
  nowMs: number,
): PartHealth {
  const { state, stateSinceMs, lastFrameAtMs, lastTradeAtMs, lastProblem } = feed;
  const because = lastProblem === null ? "" : ` (${lastProblem})`;
  const reasons: string[] = [];
  const isConnected = state === "connected";
  const disconnectedMs = isConnected ? 0 : lastedMs(feed.disconnectedSinceMs, nowMs);
  if (disconnectedMs > FEED_DISCONNECTED_MS_MAX) {
    reasons.push(`not connected for ${spell(disconnectedMs)}${because}`);
  } else {
    // An open socket was alive when it opened.
    const aliveAtMs = Math.max(lastFrameAtMs ?? startedAtMs, isConnected ? stateSinceMs : 0);
    const silentMs = nowMs - aliveAtMs;
    if (silentMs > FEED_SILENT_MS_MAX)
      reasons.push(`no frame, not even a ping, for ${spell(silentMs)}${because}`);
  }
  const refused = feed.unreceived.filter(
    ({ kind, sinceMs }) => kind === "refused" && nowMs - sinceMs > UNRECEIVED_MS_MAX,
  );
  if (refused.length > 0) reasons.push(unreceivedText(refused, nowMs));
  const intake = judgedIntake(feed.intake);
  if (intake.reason !== null) reasons.push(intake.reason);
  const warnings = [
    ...(feed.unreceived.length === 0 ? [] : [unreceivedText(feed.unreceived, nowMs)]),
    ...(intake.warning === null ? [] : [intake.warning]),
  ];
  return {
    ...judged(reasons, lastFrameAtMs, nowMs),
    state,
    stateSince: stateSinceMs,
    lastFrameAt: lastFrameAtMs,
    lastTradeAt: lastTradeAtMs,
    lastProblem,
    subscribed: feed.subscribed,
    unsubscribed: feed.unsubscribed,
    disconnectedSince: feed.disconnectedSinceMs,
    unreceived: feed.unreceived.map(({ symbol, kind, sinceMs, reason }) => ({
      symbol,
      kind,
      since: sinceMs,
      reason,
    })),
    intake: { ...feed.intake, symbols: feed.intake.symbols.slice(0, REFUSED_LISTED_MAX) },
    warning: warnings.length === 0 ? null : warnings.join("; "),
    symbols: Object.fromEntries(
      symbols.map(({ symbol, lastTradeAtMs: lastAtMs }) => [
        symbol,
        { lastTradeAt: lastAtMs, ageMs: ageOf(lastAtMs, nowMs) },
      ]),
    ),
  };
}

/** Beyond a share of what came lately somebody should know; beyond half of it the feed is of no use. */
function judgedIntake(intake: IntakeSnapshot): Readonly<{ reason: string | null; warning: string | null }> {
  const { minutes, taken, refused, symbols } = intake;
  const share = refused / (taken + refused);
  // Of a few odd frames no share can be told.
  const isMuch = refused >= REFUSED_COUNT_MIN && share > REFUSED_SHARE_WARNED;
  const dead = symbols.filter((one) => one.taken === 0 && one.refused >= REFUSED_COUNT_MIN);
  if (!isMuch && dead.length === 0) return { reason: null, warning: null };
  const named = (isMuch ? symbols : dead)
    .slice(0, UNRECEIVED_NAMED_MAX)
    .map((one) => `${one.symbol} ${one.refused} of ${one.taken + one.refused} (${one.reason})`);
  const text = `${refused} of ${taken + refused} trades of the last ${minutes} minutes were refused${named.length === 0 ? "" : `: ${named.join(", ")}`}; they are kept as dead letters`;
  return isMuch && share > REFUSED_SHARE_FAILING
    ? { reason: text, warning: null }
    : { reason: null, warning: text };
}

function unreceivedText(unreceived: readonly UnreceivedSymbol[], nowMs: number): string {
  const named = unreceived
    .slice(0, UNRECEIVED_NAMED_MAX)
    .map(
      ({ symbol, sinceMs, reason }) =>
        `${symbol} has not been received for ${spell(nowMs - sinceMs)}: ${reason}`,
    );
  const unnamedCount = unreceived.length - named.length;
  return [...named, ...(unnamedCount > 0 ? [`and ${unnamedCount} more`] : [])].join("; ");
}

export function outboxPart(outbox: OutboxSnapshot, publish: IngestSnapshot, nowMs: number): PartHealth {
  const { recordCount, bytes, bytesMax, oldestAtMs } = outbox;
  const { refusingSinceMs, tradesLost, problem, lastAppendAtMs } = publish;
  const reasons: string[] = [];
  if (refusingSinceMs !== null) {
    const lost = `${tradesLost} trades lost since the start`;
    reasons.push(
      `it is full: trades have been refused for ${spell(lastedMs(refusingSinceMs, nowMs))} (${lost})`,
    );
  }
  if (problem !== null) reasons.push(problem);
  return {
    ...judged(reasons, lastAppendAtMs, nowMs),
    recordCount,
    bytes,
    bytesMax,
    oldestAt: oldestAtMs,
    oldestAgeMs: ageOf(oldestAtMs, nowMs),
    tradesLost,
  };
}

/** `oldestUnstoredAtMs`: when the oldest record entered the log that is not yet stored and committed; null = none. */
export function processorPart(
  processor: ProcessorSnapshot,
  oldestUnstoredAtMs: number | null,
  startedAtMs: number,
  nowMs: number,
): PartHealth {
  const { lastBatchAtMs, lastRowStoredAtMs, lastTriggerAtMs, lastCommitAtMs, problem } = processor;
  const reasons: string[] = [];
  const triggerAgeMs = nowMs - (lastTriggerAtMs ?? startedAtMs);
  if (triggerAgeMs > TRIGGER_AGE_MS_MAX) {
    reasons.push(`the aggregates have not been triggered for ${spell(triggerAgeMs)}`);
  }
  const problemMs = lastedMs(problem?.sinceMs ?? null, nowMs);
  if (problem !== null && problemMs > STORE_PROBLEM_MS_MAX) {
    reasons.push(`no progress for ${spell(problemMs)}: ${problem.message}`);
  }
  // What an earlier run left behind has waited for this run only since it started.
  const waitedMs = oldestUnstoredAtMs === null ? 0 : nowMs - Math.max(oldestUnstoredAtMs, startedAtMs);
  if (waitedMs > UNSTORED_AGE_MS_MAX) {
    reasons.push(`the oldest record has been waiting to be stored for ${spell(waitedMs)}`);
  }
  const progress = [lastRowStoredAtMs, lastTriggerAtMs, lastCommitAtMs].filter((atMs) => atMs !== null);
  return {
    ...judged(reasons, progress.length === 0 ? null : Math.max(...progress), nowMs),
    lastBatchAt: lastBatchAtMs,
    lastRowStoredAt: lastRowStoredAtMs,
    lastTriggerAt: lastTriggerAtMs,
    lastCommitAt: lastCommitAtMs,
    oldestUnstoredAt: oldestUnstoredAtMs,
    oldestUnstoredAgeMs: ageOf(oldestUnstoredAtMs, nowMs),
    rowsInFlight: processor.rowsInFlight,
    windowsUnwritten: processor.windowsUnwritten,
    problem: problem === null ? null : { message: problem.message, sinceMs: problem.sinceMs },
  };
}

/**
 * A clock that all trades call slow fails: every receipt is wrong, and behind by over a day no trade is taken. All else is
 * a warning: a single odd trade, a clock that seems fast (or the feed plays an old day), and a clock that was set.
 */
export function clockPart(
  ahead: AheadTrade | null,
  nowMs: number,
  difference: ClockDifference | null = null,
  step: ClockStep | null = null,
): PartHealth {
  const isBehind = difference?.clockIs === "behind";
  const warnings: string[] = [];
  if (!isBehind && isNews(ahead?.receivedAtMs, nowMs)) {
    const { symbol, aheadMs } = ahead!;
    warnings.push(
      `a trade of ${symbol} was dated ${spell(aheadMs)} ahead of its receipt: is this machine's clock right?`,
    );
  }
  if (difference?.clockIs === "ahead") {
    warnings.push(
      `every trade lately is dated ${spell(difference.byMs)} or more before its receipt: is this machine's clock ahead (timedatectl, chrony), or does the feed play an old day?`,
    );
  }
  if (isNews(step?.atMs, nowMs)) {
    const { byMs, atMs } = step!;
    const direction = byMs > 0 ? "forward" : "back";
    warnings.push(
      `this machine's clock was set ${direction} by ${spell(Math.abs(byMs) * ROUNDED_UP)}, or it slept, until ${new Date(atMs).toISOString()}: ages before that are wrong`,
    );
  }
  return {
    ...judged(isBehind ? [slowClock(difference)] : [], null, nowMs),
    warning: warnings.length === 0 ? null : warnings.join("; "),
  };
}

function slowClock({ byMs, tradeCount, symbolCount }: ClockDifference): string {
  const who = `the last ${tradeCount} trades of ${symbolCount === 1 ? "one symbol" : `${symbolCount} symbols`}`;
  const meanwhile =
    byMs > DAY_MS
      ? "; trades are put aside until then (impossible_time), and replay --dead brings them in afterwards"
      : "";
  return `this machine's clock is about ${spell(byMs * ROUNDED_UP)} behind the market's, say ${who}: set it (timedatectl, chrony)${meanwhile}`;
}

/** A time that lies far ahead of now was told by a clock that has been set since. */
function isNews(atMs: number | undefined, nowMs: number): boolean {
  return atMs !== undefined && Math.abs(nowMs - atMs) <= CLOCK_WARNING_MS;
}

/** For how long something lasts; null = it is not. What began ahead of now began before the clock was set back. */
export function lastedMs(sinceMs: number | null, nowMs: number): number {
  if (sinceMs === null) return 0;
  return sinceMs > nowMs + CLOCK_TURN_MS ? Number.POSITIVE_INFINITY : nowMs - sinceMs;
}

export function judged(reasons: readonly string[], lastProgressAt: number | null, nowMs: number) {
  const ok = reasons.length === 0;
  return {
    ok,
    reason: ok ? null : reasons.join("; "),
    lastProgressAt,
    ageMs: ageOf(lastProgressAt, nowMs),
  };
}

/** Never negative: a clock may have stepped back. */
export function ageOf(atMs: number | null, nowMs: number): number | null {
  return atMs === null ? null : Math.max(0, nowMs - atMs);
}
