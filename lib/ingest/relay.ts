// The outbox relay, the producer's second loop: outbox -> Kafka. What waits on disk is sent to its partitions, in order,
// and is deleted when its own partition has acknowledged it; never before. One send is in flight for all healthy
// partitions, and one of its own, with back-off, for each that fails: that one neither delays the others nor fills the
// memory, because its backlog waits on disk. First copies arrive in order in each partition; repeats are allowed. It
// drops nothing.

import assert from "node:assert/strict";
import type { Clock } from "../base/clock.ts";
import { LogUnavailableError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import { outageLoop } from "../base/outages.ts";
import { retry } from "../base/retry.ts";
import type { Outbox, OutboxHealth, PartitionId, PartitionSender } from "../contracts/log.ts";
import { OutboxReader } from "./outbox-reader.ts";
import type { PartitionQueue } from "./partition-queue.ts";
import { RETRY_FIRST_MS, RETRY_MAX_MS, SendOutcomes } from "./send-outcomes.ts";

export type RelayDeps = Readonly<{
  outbox: Outbox;
  sender: PartitionSender;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  limits?: RelayLimits;
}>;

export type RelayLimits = Readonly<{
  /** The bytes of one partition in one send; a larger message goes alone. As much again waits in memory behind it. */
  batchBytesMax: number;
  /** The records of one read of the outbox: a fraction of a millisecond of the event loop. */
  pageRecordsMax: number;
}>;

export type RelayHealth = OutboxHealth &
  Readonly<{
    /** Why Kafka could not be reached so far; null once it was, and before the first attempt. */
    problem: string | null;
    /** ms since 1970, as all times here; null = nothing was acknowledged yet. */
    lastAckAtMs: number | null;
    /** Since when something waits and nothing at all is acknowledged; null = nothing waits. */
    unacknowledgedSinceMs: number | null;
    /** The partitions that cannot be written just now. */
    failing: readonly Readonly<{ partition: PartitionId; sinceMs: number; reason: string }>[];
    /** Messages that were refused since the start. */
    refusedCount: number;
    /** Read into memory and not yet acknowledged; up to two batches and a page for each partition. */
    heldBytes: number;
  }>;

export type Relay = Readonly<{
  /**
   * Resolves when the signal aborts, after what still can be sent within DRAIN_MS_MAX; to be aborted when nothing is
   * appended any more. The rest stays for the next start. Rejects with SetupError when Kafka says so before the first
   * send, with PipelineError when the outbox is damaged, and with RestartError when a partition is gone. After the
   * first send an unreachable log never ends the process: only this process has what it receives meanwhile.
   */
  run(signal: AbortSignal): Promise<void>;
  health(): RelayHealth;
}>;

const LIMITS: RelayLimits = {
  // Kafka takes a megabyte a batch unless told otherwise; beyond a quarter of it sending gets no cheaper.
  batchBytesMax: 256 * 1024,
  pageRecordsMax: 256,
};
/** A stop sends what it can for so long: the outbox is safe on disk. */
const DRAIN_MS_MAX = 5_000;

/** It is to be run once. */
export function createRelay(deps: RelayDeps): Relay {
  const relay = new OutboxRelay(deps);
  return { run: (signal) => relay.run(signal), health: () => relay.health() };
}

class OutboxRelay {
  readonly #deps: RelayDeps;
  readonly #startedAtMs: number;
  readonly #reader: OutboxReader;
  readonly #outcomes: SendOutcomes;
  #signal = new AbortController().signal;
  #isSharedSendOut = false;
  #sendsOut = 0;
  #problem: string | null = null;
  #isOver = false;
  /** What a send or its outcome threw. */
  #fault: { error: unknown } | null = null;
  #wakeup = Promise.withResolvers<void>();
  readonly #wakeUp = () => this.#wakeup.resolve();

  constructor(deps: RelayDeps) {
    const { outbox, sender, clock, logger, metrics, limits = LIMITS } = deps;
    this.#deps = deps;
    this.#startedAtMs = clock.now();
    this.#reader = new OutboxReader({ outbox, sender, ...limits });
    const { queues } = this.#reader;
    this.#outcomes = new SendOutcomes({ outbox, queues, wakeUp: this.#wakeUp, clock, logger, metrics });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { outbox } = this.#deps;
    this.#signal = signal;
    signal.addEventListener("abort", this.#wakeUp, { once: true });
    try {
      if (!(await this.#untilReady())) return;
      this.#problem = null;
      outbox.onAppend(this.#wakeUp);
      await this.#relayAll();
      outbox.flush();
    } finally {
      this.#isOver = true;
      signal.removeEventListener("abort", this.#wakeUp);
      outbox.onAppend(() => {});
    }
  }

  health(): RelayHealth {
    const state = this.#deps.outbox.health();
    const { oldestAtMs } = state;
    const { lastAckAtMs, refusedCount } = this.#outcomes;
    const failing: { partition: PartitionId; sinceMs: number; reason: string }[] = [];
    let heldBytes = 0;
    for (const queue of this.#reader.queues.values()) {
      const { partition, failure } = queue;
      heldBytes += queue.heldBytes();
      if (failure !== null) failing.push({ partition, sinceMs: failure.sinceMs, reason: failure.reason });
    }
    const unacknowledgedSinceMs =
      oldestAtMs === null ? null : Math.max(lastAckAtMs ?? this.#startedAtMs, this.#startedAtMs, oldestAtMs);
    const problem = this.#problem;
    return { ...state, problem, lastAckAtMs, unacknowledgedSinceMs, failing, refusedCount, heldBytes };
  }

  /** False: the signal came first. */
  async #untilReady(): Promise<boolean> {
    const { sender, clock } = this.#deps;
    const signal = this.#signal;
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    aborted.catch(() => {}); // Raced below; before the first attempt nobody listens.
    const giveUp = () => reject(signal.reason);
    signal.addEventListener("abort", giveUp, { once: true });
    const outage = outageLoop(this.#deps, "the log", "relay");
    const onFailure = (error: unknown) => {
      this.#problem = error instanceof Error ? error.message : String(error);
    };
    const isRetryable = (error: unknown) => error instanceof LogUnavailableError;
    const options = {
      clock,
      firstMs: RETRY_FIRST_MS,
      maxMs: RETRY_MAX_MS,
      isRetryable,
      onFailure,
      outage,
      signal,
    };
    try {
      return await retry(options, () => Promise.race([sender.ready().then(() => true), aborted]));
    } catch (error) {
      if (signal.aborted && error === signal.reason) return false;
      throw error;
    } finally {
      signal.removeEventListener("abort", giveUp);
    }
  }

  /** Reads and sends until the signal aborts and nothing is left to send, or DRAIN_MS_MAX after it. */
  async #relayAll(): Promise<void> {
    const { clock } = this.#deps;
    let isLate = false;
    let isTurnAsked = false;
    let cancelDrain: (() => void) | null = null;
    while (!isLate && !(this.#signal.aborted && this.#isIdle())) {
      this.#wakeup = Promise.withResolvers();
      if (this.#signal.aborted) {
        cancelDrain ??= clock.after(DRAIN_MS_MAX, () => {
          isLate = true;
          this.#wakeUp();
        });
      }
      const isMore = this.#reader.read(this.#isSharedSendOut);
      this.#startSends();
      if (isMore && !isTurnAsked) {
        // Sockets and timers have their turn, and what was sent goes out.
        isTurnAsked = true;
        clock.atEndOfTick(() => {
          isTurnAsked = false;
          this.#wakeUp();
        });
      }
      await this.#wakeup.promise;
      if (this.#fault !== null) throw this.#fault.error;
    }
    cancelDrain?.();
  }

  #isIdle(): boolean {
    return this.#sendsOut === 0 && this.#reader.isIdle();
  }

  /** One send for all healthy partitions together, and one for each failing partition that is due. */
  #startSends(): void {
    const writable: PartitionQueue[] = [];
    for (const queue of this.#reader.queues.values()) {
      if (queue.isInFlight || queue.isEmpty) continue;
      if (queue.failure === null) writable.push(queue);
      else if (queue.failure.isDue && !this.#signal.aborted) {
        queue.failure.isDue = false;
        this.#start([queue]);
      }
    }
    if (this.#isSharedSendOut || writable.length === 0) return;
    this.#isSharedSendOut = true;
    this.#start(writable, () => {
      this.#isSharedSendOut = false;
    });
  }

  #start(sent: readonly PartitionQueue[], onBack = () => {}): void {
    this.#sendsOut += 1;
    const batches = sent.map((queue) => ({ partition: queue.partition, entries: queue.takeBatch() }));
    this.#deps.sender
      .send(batches)
      .then((outcomes) => {
        if (this.#isOver) return;
        assert.equal(outcomes.length, sent.length, "an outcome for each batch");
        this.#sendsOut -= 1;
        onBack();
        this.#outcomes.settle(sent, outcomes);
      })
      .catch((error: unknown) => {
        this.#fault ??= { error };
      })
      .finally(this.#wakeUp);
  }
}
