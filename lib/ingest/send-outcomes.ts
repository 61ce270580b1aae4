// What becomes of a send, partition by partition: acknowledged records leave the outbox, a batch that is too large or
// refused is halved until one record is left, that record is dead-lettered, and a partition that cannot be written waits
// with back-off. It sends nothing, and deletes nothing that its own partition has not acknowledged.

import { backoffMs, type Clock } from "../base/clock.ts";
import { LogFullError, LogUnavailableError, RestartError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import { type Metrics, startAtZero } from "../base/metrics.ts";
import { outageLoop } from "../base/outages.ts";
import { type Outbox, type OutboxRecord, SEND_FAILURES, type SendOutcome } from "../contracts/log.ts";
import type { PartitionQueue } from "./partition-queue.ts";

export type SendOutcomesDeps = Readonly<{
  outbox: Pick<Outbox, "remove" | "deadLetter">;
  /** All there are. */
  queues: ReadonlyMap<string, PartitionQueue>;
  /** Called when a partition that failed is due again. */
  wakeUp: () => void;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}>;

type Unacknowledged = Exclude<SendOutcome, { kind: "acknowledged" }>;

/** The waits between the attempts of a partition that cannot be written. */
export const RETRY_FIRST_MS = 50;
export const RETRY_MAX_MS = 2_000;
/** Partitions that are gone may be on their way back, where somebody makes a topic anew step by step. */
const RESTART_MS_MIN = 5_000;
/** Kafka that takes nothing in between refuses everything, whatever it says: then the rest waits. */
const DEAD_LETTERS_IN_A_ROW_MAX = 8;
/** Of what Kafka says about a refused message; it is kept with the message. */
const REASON_LENGTH_MAX = 500;

export class SendOutcomes {
  readonly #deps: SendOutcomesDeps;
  #lastAckAtMs: number | null = null;
  #refusedCount = 0;

  constructor(deps: SendOutcomesDeps) {
    this.#deps = deps;
    startAtZero(deps.metrics.sendsFailedTotal, "reason", SEND_FAILURES);
  }

  /** ms since 1970; null = nothing was acknowledged yet. */
  get lastAckAtMs(): number | null {
    return this.#lastAckAtMs;
  }

  /** Messages that were dead-lettered, since the start. */
  get refusedCount(): number {
    return this.#refusedCount;
  }

  /** One outcome for each of the queues whose batches were sent. Throws RestartError, and what the outbox throws. */
  settle(sent: readonly PartitionQueue[], outcomes: readonly SendOutcome[]): void {
    const acknowledged: number[] = [];
    for (const [index, queue] of sent.entries()) {
      const outcome = outcomes[index]!;
      if (outcome.kind === "acknowledged") {
        queue.addFlightOffsets(acknowledged);
        this.#acknowledge(queue);
      } else {
        this.#takeBack(queue, outcome);
      }
    }
    if (acknowledged.length > 0) this.#deps.outbox.remove(acknowledged);
  }

  #acknowledge(queue: PartitionQueue): void {
    const { clock, metrics } = this.#deps;
    const nowMs = clock.now();
    const { bytes, oldestAtMs } = queue.flightSummary();
    this.#lastAckAtMs = nowMs;
    metrics.messagesForwardedTotal.inc(queue.flightCount);
    metrics.bytesForwardedTotal.inc(bytes);
    metrics.receiptToAcknowledgedSeconds.observe(Math.max(0, nowMs - oldestAtMs) / 1_000);
    queue.acknowledge();
    this.#recover(queue);
  }

  #takeBack(queue: PartitionQueue, { kind, error }: Unacknowledged): void {
    const { count, bytes } = queue.returnFlight();
    this.#deps.metrics.sendsFailedTotal.inc({ reason: kind });
    if (kind === "unavailable" || (count === 1 && queue.deadLettersInARow >= DEAD_LETTERS_IN_A_ROW_MAX)) {
      this.#markFailing(queue, error);
      return;
    }
    // Its brokers answer, so it no longer fails; what is left goes with the next shared send.
    this.#recover(queue);
    if (count === 1) this.#deadLetter(queue, kind, error);
    else if (kind === "too_large") queue.halveBytes(bytes);
    else queue.halveRecords(count);
  }

  /** The first record was refused alone: nothing else waits for it any longer. */
  #deadLetter(queue: PartitionQueue, kind: "too_large" | "refused", error: Error): void {
    const { outbox, metrics } = this.#deps;
    const record = queue.first;
    try {
      outbox.deadLetter(record, `${kind}: ${error.message.slice(0, REASON_LENGTH_MAX)}`);
    } catch (notKept) {
      if (!(notKept instanceof LogFullError || notKept instanceof LogUnavailableError)) throw notKept;
      this.#markFailing(queue, notKept);
      return;
    }
    queue.dropDeadLetter();
    this.#refusedCount += 1;
    metrics.messagesRefusedTotal.inc();
    // Ever fewer lines: Kafka that refuses everything must not fill the disk with them.
    if (isPowerOfTwo(this.#refusedCount)) this.#logRefusal(queue, record, error);
  }

  #logRefusal({ partition }: PartitionQueue, record: OutboxRecord, error: Error): void {
    const { offset, kind, key, value } = record;
    this.#deps.logger.error(
      "Kafka refused a message, which is now a dead letter: stop the producer and run `producer replay --dead` to send it again",
      {
        partition,
        offset,
        kind,
        key,
        bytes: value.length,
        refusedCount: this.#refusedCount,
        error,
      },
    );
  }

  #markFailing(queue: PartitionQueue, error: Error): void {
    const { clock, wakeUp } = this.#deps;
    outageLoop(this.#deps, "the log", queue.partition).failed(error);
    const { sinceMs, attempt } = queue.failure ?? { sinceMs: clock.now(), attempt: 0 };
    if (error instanceof RestartError && clock.now() - sinceMs > RESTART_MS_MIN) throw error;
    const failure = { sinceMs, reason: error.message, attempt: attempt + 1, isDue: false };
    queue.failure = failure;
    this.#gaugeFailing();
    clock.after(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), () => {
      failure.isDue = true;
      wakeUp();
    });
  }

  #recover(queue: PartitionQueue): void {
    if (queue.failure === null) return;
    outageLoop(this.#deps, "the log", queue.partition).worked();
    queue.failure = null;
    this.#gaugeFailing();
  }

  #gaugeFailing(): void {
    let count = 0;
    for (const { failure } of this.#deps.queues.values()) if (failure !== null) count += 1;
    this.#deps.metrics.partitionsFailing.set(count);
  }
}

/** Counts from 1. */
function isPowerOfTwo(count: number): boolean {
  return (count & (count - 1)) === 0;
}
