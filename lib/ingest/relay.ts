// The producer's second loop: outbox -> log. What waits on disk is sent to its partitions, in order, and is deleted
// when its own partition has acknowledged it; never before. One send is in flight for all healthy partitions, and
// one of its own, with back-off, for each that fails: that one neither delays the others nor fills the memory, its
// backlog waits on disk. First copies arrive in order in each partition; repeats are allowed. It drops nothing.

import assert from "node:assert/strict";
import { backoffMs, type Clock } from "../base/clock.ts";
import { LogFullError, LogUnavailableError, RestartError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type {
  Outbox,
  OutboxHealth,
  OutboxRecord,
  PartitionId,
  PartitionSender,
  RecordKind,
  SendOutcome,
} from "../contracts/log.ts";

export type RelayDeps = Readonly<{
  outbox: Outbox;
  sender: PartitionSender;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  limits?: RelayLimits;
}>;

export type RelayLimits = Readonly<{
  /** Of one partition in one send; a larger message goes alone. As much again waits in memory behind it. */
  batchBytesMax: number;
  /** Of one read of the outbox: a fraction of a millisecond of the event loop. */
  pageRecordsMax: number;
}>;

export type RelayHealth = OutboxHealth &
  Readonly<{
    /** Why the log could not be reached at all so far; null once it was, or not yet tried. */
    problem: string | null;
    lastAckAtMs: number | null;
    /** Since when something waits and nothing at all is acknowledged; null = nothing waits. */
    unacknowledgedSinceMs: number | null;
    /** The partitions that cannot be written just now. */
    failing: readonly Readonly<{ partition: PartitionId; sinceMs: number; reason: string }>[];
    /** Since the start. */
    refusedCount: number;
    /** In memory: read and not yet acknowledged; up to two batches and a page for each partition. */
    heldBytes: number;
  }>;

export type Relay = Readonly<{
  /**
   * Ends when the signal aborts, after what still can be sent within DRAIN_MS_MAX: abort it when nothing is appended
   * any more. The rest stays for the next start. Throws SetupError when the log says so before the first send, and
   * PipelineError when the outbox is damaged, RestartError when a partition is gone. Afterwards that the log cannot be written is never an end: what is
   * received meanwhile has only this process.
   */
  run(signal: AbortSignal): Promise<void>;
  health(): RelayHealth;
}>;

const LIMITS: RelayLimits = {
  // Kafka takes a megabyte a batch unless told otherwise; beyond a quarter of it sending gets no cheaper.
  batchBytesMax: 256 * 1024,
  pageRecordsMax: 256,
};
/** What a record costs beside its value, in the batch (some 20) and in memory. */
const RECORD_OVERHEAD_BYTES = 80;
const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 2_000;
/** A stop sends what it can for so long: the outbox is safe on disk. */
const DRAIN_MS_MAX = 5_000;
/** Partitions that are gone may be on their way back, where somebody makes a topic anew step by step. */
const RESTART_MS_MIN = 5_000;
/** A far end that takes nothing in between refuses all, whatever it says: then they wait. */
const DEAD_LETTERS_IN_A_ROW_MAX = 8;
/** Of what the far end says about a refused message; it is kept with it. */
const REASON_LENGTH_MAX = 500;
/** Keys whose partition is remembered; beyond it they are asked for again. */
const KEYS_MAX = 10_000;

/** What one partition waits for. */
type PartitionQueue = {
  readonly partition: PartitionId;
  /** Taken from the outbox and not acknowledged, in order. The first `flightCount` of them are in a send. */
  rows: OutboxRecord[];
  flightCount: number;
  flightBytes: number;
  /** Of the rows that are not in a send. */
  waitingBytes: number;
  /** The next offset to look at for this lane: everything of it below is in `rows`, acknowledged or put aside. */
  from: number;
  /** Of the next batch: less than usual while one is looked for that is too large, or refused. */
  batchBytesMax: number;
  batchRowsMax: number;
  /** Messages put aside since the last acknowledgement. */
  deadLettersInARow: number;
  failure: Failure | null;
  /** During one page: whether its rows are taken. */
  isTaking: boolean;
};

type Failure = { readonly sinceMs: number; reason: string; attempt: number; isDue: boolean };

export function createRelay(deps: RelayDeps): Relay {
  const { outbox, sender, clock, logger, metrics } = deps;
  const { batchBytesMax, pageRecordsMax } = deps.limits ?? LIMITS;
  /** While a send is out, fewer new records than this are not worth a read. */
  const readAheadRecordsMin = pageRecordsMax / 2;
  const startedAtMs = clock.now();
  const queues = new Map<PartitionId, PartitionQueue>();
  const byKey: Record<RecordKind, Map<string, PartitionQueue>> = {
    trades: new Map(),
    event: new Map(),
    dead: new Map(),
  };
  /** Every offset below was looked at for the lanes that were at it. A partition without a lane has none below. */
  let head = 0;
  let isCommonOut = false;
  let sendsOut = 0;
  /** After whom the next page of catching up is read. */
  let lastCaughtUp = 0;
  let lastAckAtMs: number | null = null;
  let problem: string | null = null;
  let refusedCount = 0;
  let signal = new AbortController().signal;
  let isOver = false;
  let fault: { error: unknown } | null = null;
  let wakeup = Promise.withResolvers<void>();
  const wakeUp = () => wakeup.resolve();

  // ---- Reading ----------------------------------------------------------------------------------------------

  function queueFor({ kind, key }: OutboxRecord): PartitionQueue {
    const known = byKey[kind].get(key);
    if (known !== undefined) return known;
    const partition = sender.partitionOf(kind, key);
    let queue = queues.get(partition);
    if (queue === undefined) {
      queue = {
        partition,
        rows: [],
        flightCount: 0,
        flightBytes: 0,
        waitingBytes: 0,
        from: head,
        batchBytesMax,
        batchRowsMax: Number.POSITIVE_INFINITY,
        deadLettersInARow: 0,
        failure: null,
        isTaking: true,
      };
      queues.set(partition, queue);
    }
    if (byKey[kind].size >= KEYS_MAX) byKey[kind].clear();
    byKey[kind].set(key, queue);
    return queue;
  }

  /** A page from `start` on, for every lane that has looked at everything before it and has room. */
  function readPage(start: number): number {
    for (const queue of queues.values()) {
      queue.isTaking = queue.from >= start && queue.waitingBytes < batchBytesMax;
    }
    const records = outbox.read(start, pageRecordsMax);
    for (const record of records) {
      const queue = queueFor(record);
      if (!queue.isTaking || record.offset < queue.from) continue;
      queue.rows.push(record);
      queue.waitingBytes += bytesOf(record);
    }
    const next = records.length === 0 ? outbox.endOffset : records.at(-1)!.offset + 1;
    for (const queue of queues.values()) if (queue.isTaking) queue.from = Math.max(queue.from, next);
    return next;
  }

  /** A healthy partition holds the others back for a round trip; one that is not is passed, and catches up later. */
  function isHeadHeld(): boolean {
    for (const queue of queues.values()) {
      if (queue.from >= head && queue.waitingBytes >= batchBytesMax && isHealthy(queue)) return true;
    }
    return false;
  }

  function isHealthy(queue: PartitionQueue): boolean {
    return (
      queue.failure === null &&
      queue.batchBytesMax === batchBytesMax &&
      queue.batchRowsMax === Number.POSITIVE_INFINITY
    );
  }

  /** In turn, so that one with hours to catch up leaves room for one with seconds. */
  function nextBehind(): PartitionQueue | undefined {
    const all = [...queues.values()];
    for (let step = 1; step <= all.length; step++) {
      const index = (lastCaughtUp + step) % all.length;
      const queue = all[index]!;
      if (queue.from >= head || queue.waitingBytes >= batchBytesMax / 2) continue;
      lastCaughtUp = index;
      return queue;
    }
    return undefined;
  }

  /** At most one page at the head and one behind it; whether there is more to read. */
  function read(): boolean {
    const newCount = outbox.endOffset - head;
    if (newCount > 0 && !(isCommonOut && newCount < readAheadRecordsMin) && !isHeadHeld()) {
      head = readPage(head);
    }
    const behind = nextBehind();
    if (behind !== undefined) readPage(behind.from);
    const isNewLeft = outbox.endOffset > head && !isCommonOut && !isHeadHeld();
    const isBacklog = outbox.endOffset - head >= readAheadRecordsMin && !isHeadHeld();
    return isNewLeft || isBacklog || behind !== undefined;
  }

  // ---- Sending ----------------------------------------------------------------------------------------------

  /** Puts the front of the lane's rows into flight. */
  function takeBatch(queue: PartitionQueue): OutboxRecord[] {
    assert.equal(queue.flightCount, 0, "never two sends for one partition");
    const { rows } = queue;
    let bytes = 0;
    let count = 0;
    while (count < rows.length && count < queue.batchRowsMax) {
      const added = bytesOf(rows[count]!);
      if (count > 0 && bytes + added > queue.batchBytesMax) break;
      bytes += added;
      count += 1;
    }
    queue.flightCount = count;
    queue.flightBytes = bytes;
    queue.waitingBytes -= bytes;
    // A copy: rows are added behind it while it is out.
    return rows.slice(0, count);
  }

  function startSends(): void {
    const healthy: PartitionQueue[] = [];
    for (const queue of queues.values()) {
      if (queue.flightCount > 0 || queue.rows.length === 0) continue;
      if (queue.failure === null) healthy.push(queue);
      else if (queue.failure.isDue && !signal.aborted) {
        queue.failure.isDue = false;
        start([queue]);
      }
    }
    if (isCommonOut || healthy.length === 0) return;
    isCommonOut = true;
    start(healthy, () => {
      isCommonOut = false;
    });
  }

  function start(sent: readonly PartitionQueue[], onBack = () => {}): void {
    sendsOut += 1;
    const batches = sent.map((queue) => ({ partition: queue.partition, entries: takeBatch(queue) }));
    sender
      .send(batches)
      .then((outcomes) => {
        if (isOver) return;
        assert.equal(outcomes.length, sent.length, "an outcome for each batch");
        sendsOut -= 1;
        onBack();
        settle(sent, outcomes);
      })
      .catch((error: unknown) => {
        fault ??= { error };
      })
      .finally(wakeUp);
  }

  // ---- Outcomes ---------------------------------------------------------------------------------------------

  function settle(sent: readonly PartitionQueue[], outcomes: readonly SendOutcome[]): void {
    const acknowledged: number[] = [];
    for (const [index, queue] of sent.entries()) {
      const outcome = outcomes[index]!;
      if (outcome.kind === "acknowledged") {
        for (let row = 0; row < queue.flightCount; row++) acknowledged.push(queue.rows[row]!.offset);
        acknowledge(queue);
      } else {
        queue.waitingBytes += queue.flightBytes;
        resend(queue, outcome, queue.flightCount, queue.flightBytes);
      }
    }
    if (acknowledged.length > 0) outbox.remove(acknowledged);
  }

  function acknowledge(queue: PartitionQueue): void {
    const nowMs = clock.now();
    lastAckAtMs = nowMs;
    metrics.messagesForwardedTotal.inc(queue.flightCount);
    metrics.bytesForwardedTotal.inc(queue.flightBytes - queue.flightCount * RECORD_OVERHEAD_BYTES);
    metrics.receiptToAcknowledgedMs.observe(Math.max(0, nowMs - queue.rows[0]!.timestampMs));
    drop(queue, queue.flightCount);
    queue.deadLettersInARow = 0;
    recover(queue);
    queue.batchRowsMax = queue.batchRowsMax >= 4_096 ? Number.POSITIVE_INFINITY : queue.batchRowsMax * 2;
    // Slowly: where the far end takes less than usual, every refusal on the way is a send for nothing.
    queue.batchBytesMax = Math.min(batchBytesMax, queue.batchBytesMax * 1.05);
  }

  function resend(
    queue: PartitionQueue,
    { kind, error }: Exclude<SendOutcome, { kind: "acknowledged" }>,
    count: number,
    bytes: number,
  ): void {
    queue.flightCount = 0;
    queue.flightBytes = 0;
    metrics.sendsFailedTotal.inc({ reason: kind });
    if (kind === "unavailable" || (count === 1 && queue.deadLettersInARow >= DEAD_LETTERS_IN_A_ROW_MAX)) {
      fail(queue, error);
      return;
    }
    // It answers, so it is no longer one that fails; what is left goes with the next common send.
    recover(queue);
    if (count === 1) deadLetter(queue, kind, error);
    else if (kind === "too_large") queue.batchBytesMax = bytes / 2;
    else queue.batchRowsMax = Math.ceil(count / 2);
  }

  /** Refused alone: nothing else waits for it any longer. */
  function deadLetter(queue: PartitionQueue, kind: "too_large" | "refused", error: Error): void {
    const record = queue.rows[0]!;
    try {
      outbox.deadLetter(record, `${kind}: ${error.message.slice(0, REASON_LENGTH_MAX)}`);
    } catch (notBuried) {
      if (!(notBuried instanceof LogFullError || notBuried instanceof LogUnavailableError)) throw notBuried;
      fail(queue, notBuried);
      return;
    }
    queue.waitingBytes -= bytesOf(record);
    drop(queue, 1);
    queue.batchRowsMax = Number.POSITIVE_INFINITY;
    queue.deadLettersInARow += 1;
    refusedCount += 1;
    metrics.messagesRefusedTotal.inc();
    // Each of the first ones, then ever fewer: a far end that refuses all must not fill the disk with lines.
    if ((refusedCount & (refusedCount - 1)) !== 0) return;
    const { partition } = queue;
    const { offset, kind: recordKind, key, value } = record;
    logger.error("a message was refused and is put aside: see `producer replay --dead`", {
      partition,
      offset,
      kind: recordKind,
      key,
      bytes: value.length,
      refusedCount,
      error,
    });
  }

  /** Takes the first rows, which are done with, off the lane. */
  function drop(queue: PartitionQueue, count: number): void {
    queue.rows = count === queue.rows.length ? [] : queue.rows.slice(count);
    queue.flightCount = 0;
    queue.flightBytes = 0;
  }

  function fail(queue: PartitionQueue, error: Error): void {
    if (queue.failure === null) {
      logger.warn("a partition cannot be written; trying again until it can", {
        partition: queue.partition,
        error,
      });
    }
    const { sinceMs, attempt } = queue.failure ?? { sinceMs: clock.now(), attempt: 0 };
    if (error instanceof RestartError && clock.now() - sinceMs > RESTART_MS_MIN) throw error;
    const failure = { sinceMs, reason: error.message, attempt: attempt + 1, isDue: false };
    queue.failure = failure;
    gaugeFailing();
    clock.after(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), () => {
      failure.isDue = true;
      wakeUp();
    });
  }

  function recover(queue: PartitionQueue): void {
    if (queue.failure === null) return;
    logger.info("a partition can be written again", { partition: queue.partition });
    queue.failure = null;
    gaugeFailing();
  }

  function gaugeFailing(): void {
    let count = 0;
    for (const { failure } of queues.values()) if (failure !== null) count += 1;
    metrics.partitionsFailing.set(count);
  }

  // ---- The loop ---------------------------------------------------------------------------------------------

  /** False: the signal came first. */
  async function untilReady(): Promise<boolean> {
    for (let attempt = 0; !signal.aborted; attempt++) {
      const { promise, resolve, reject } = Promise.withResolvers<boolean>();
      const giveUp = () => resolve(false);
      signal.addEventListener("abort", giveUp, { once: true });
      sender.ready().then(() => resolve(true), reject);
      try {
        return await promise;
      } catch (error) {
        if (!(error instanceof LogUnavailableError)) throw error;
        if (attempt === 0) logger.warn("the log cannot be reached; trying again until it can", { error });
        problem = error.message;
      } finally {
        signal.removeEventListener("abort", giveUp);
      }
      await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), signal);
    }
    return false;
  }

  function isIdle(): boolean {
    if (sendsOut > 0 || outbox.endOffset > head) return false;
    for (const { failure, rows, from } of queues.values()) {
      if (failure === null && (rows.length > 0 || from < head)) return false;
    }
    return true;
  }

  async function forward(): Promise<void> {
    let isLate = false;
    let isTurnAsked = false;
    let cancelDrain: (() => void) | null = null;
    while (!isLate && !(signal.aborted && isIdle())) {
      wakeup = Promise.withResolvers();
      if (signal.aborted) {
        cancelDrain ??= clock.after(DRAIN_MS_MAX, () => {
          isLate = true;
          wakeUp();
        });
      }
      const isMore = read();
      startSends();
      if (isMore && !isTurnAsked) {
        // Sockets and timers have their turn, and what was sent goes out.
        isTurnAsked = true;
        clock.atEndOfTick(() => {
          isTurnAsked = false;
          wakeUp();
        });
      }
      await wakeup.promise;
      if (fault !== null) throw fault.error;
    }
    cancelDrain?.();
  }

  return {
    async run(given) {
      signal = given;
      signal.addEventListener("abort", wakeUp, { once: true });
      try {
        if (!(await untilReady())) return;
        problem = null;
        outbox.onAppend(wakeUp);
        await forward();
        outbox.flush();
      } finally {
        isOver = true;
        signal.removeEventListener("abort", wakeUp);
        outbox.onAppend(() => {});
      }
    },
    health() {
      const state = outbox.health();
      const { oldestAtMs } = state;
      const failing = [...queues.values()].flatMap(({ partition, failure }) =>
        failure === null ? [] : [{ partition, sinceMs: failure.sinceMs, reason: failure.reason }],
      );
      const unacknowledgedSinceMs =
        oldestAtMs === null ? null : Math.max(lastAckAtMs ?? startedAtMs, startedAtMs, oldestAtMs);
      let heldBytes = 0;
      for (const { rows } of queues.values()) for (const row of rows) heldBytes += bytesOf(row);
      return { ...state, problem, lastAckAtMs, unacknowledgedSinceMs, failing, refusedCount, heldBytes };
    },
  };
}

function bytesOf({ key, value }: OutboxRecord): number {
  return value.length + key.length + RECORD_OVERHEAD_BYTES;
}
