// Query 1's writes: the rows, feed events and dead letters of decoded batches, several puts at once. A record is
// acknowledged only when the store has all that came of it; what the store refuses becomes a dead letter, so that it
// blocks nothing.

import { chunkBy } from "../base/chunk.ts";
import { RowRefusedError } from "../base/errors.ts";
import type { DeadLetter } from "../model/dead-letter.ts";
import { type DecodedBatch, deadLetterOf, type Pending } from "./decode.ts";
import type { InFlight } from "./offset-tracker.ts";
import type { PartitionState, PendingRow } from "./partition-state.ts";
import type { Operation, ProcessorState } from "./processor-state.ts";

export class RowPuts {
  readonly #state: ProcessorState;
  readonly #running = new Set<Promise<void>>();
  #rowsInFlight = 0;

  constructor(state: ProcessorState) {
    this.#state = state;
  }

  get rowsInFlight(): number {
    return this.#rowsInFlight;
  }

  /**
   * Resolves when the last put of the batch has started, which overlaps storing with reading. A put that fails for
   * good rejects ProcessorState.failed.
   */
  async put(partition: PartitionState, { rows, events, deadLetters }: DecodedBatch): Promise<void> {
    const { store } = this.#state.deps;
    for (const group of chunkBy(rows, ({ row }) => store.groupOf(row), store.rowsPerPutMax)) {
      await this.#start(group.length, () => this.#putRows(partition, group));
    }
    if (events.length > 0) {
      await this.#start(events.length, () =>
        this.#putSideRecords(partition, "event", events, (items) => store.putEvents(items)),
      );
    }
    if (deadLetters.length > 0) {
      await this.#start(deadLetters.length, () => this.#putDeadLetters(partition, deadLetters));
    }
  }

  /** Resolves when every put that has started has ended. */
  async settled(): Promise<void> {
    await Promise.all(this.#running);
  }

  /** Waits until the store has a place for one more put, and starts it. */
  async #start(rowCount: number, put: () => Promise<void>): Promise<void> {
    while (this.#running.size >= this.#state.deps.store.putsInFlightMax) await Promise.race(this.#running);
    this.#rowsInFlight += rowCount;
    const running: Promise<void> = put()
      .catch((error: unknown) => this.#state.fail(error))
      .finally(() => {
        this.#rowsInFlight -= rowCount;
        this.#running.delete(running);
      });
    this.#running.add(running);
  }

  /** Retries until the store has it; undefined when the partition no longer belongs to the current epoch. */
  #untilStored(
    operation: Operation,
    partition: PartitionState,
    put: () => Promise<void>,
  ): Promise<true | undefined> {
    const state = this.#state;
    return state.retryWhile(
      operation,
      () => state.isCurrent(partition),
      () => put().then(yes),
    );
  }

  async #putRows(partition: PartitionState, group: readonly PendingRow[]): Promise<void> {
    const { store, onRowsStored } = this.#state.deps;
    const rows = group.map(({ row }) => row);
    try {
      if (!(await this.#untilStored("put_trades", partition, () => store.putTrades(rows)))) return;
      this.#acknowledge(partition, group);
      onRowsStored?.(rows);
    } catch (error) {
      if (!(error instanceof RowRefusedError)) throw error;
      // One at a time: a row that is refused alone is invalid.
      if (group.length > 1) for (const pending of group) await this.#putRows(partition, [pending]);
      else for (const pending of group) await this.#putRefused(partition, pending);
    }
  }

  /** One synchronous step: the store has the rows, so panes, dirty windows and the watermark learn of them. */
  #acknowledge(partition: PartitionState, group: readonly PendingRow[]): void {
    const { clock, metrics } = this.#state.deps;
    const now = clock.now();
    this.#state.last.row = now;
    metrics.rowsStoredTotal.inc(group.length);
    let inFlight: InFlight | null = null;
    for (const pending of group) {
      partition.acknowledgeRow(pending, now);
      if (pending.inFlight === inFlight) continue;
      inFlight = pending.inFlight;
      if (pending.isResend) metrics.resendsTotal.inc();
      metrics.receiptToStoredSeconds.observe(Math.max(0, now - pending.row.ingest_timestamp) / 1_000);
    }
  }

  async #putRefused(partition: PartitionState, pending: PendingRow): Promise<void> {
    const { store } = this.#state.deps;
    const deadLetter = deadLetterOf(pending);
    if (!(await this.#untilStored("put_dead", partition, () => store.putDead([deadLetter])))) return;
    this.#countDeadLetters([deadLetter]);
    partition.acknowledgeRefused(pending);
  }

  async #putDeadLetters(
    partition: PartitionState,
    deadLetters: readonly Pending<DeadLetter>[],
  ): Promise<void> {
    const { store } = this.#state.deps;
    await this.#putSideRecords(partition, "dead", deadLetters, (items) => store.putDead(items));
    this.#countDeadLetters(deadLetters.map(({ item }) => item));
  }

  #countDeadLetters(deadLetters: readonly DeadLetter[]): void {
    const { metrics, logger } = this.#state.deps;
    for (const { reason } of deadLetters) metrics.deadLettersTotal.inc({ reason });
    logger.warn("records that cannot be stored became dead letters", {
      count: deadLetters.length,
      reason: deadLetters[0]?.reason,
    });
  }

  async #putSideRecords<T>(
    partition: PartitionState,
    kind: "event" | "dead",
    sideRecords: readonly Pending<T>[],
    put: (items: readonly T[]) => Promise<void>,
  ): Promise<void> {
    const { metrics, logger } = this.#state.deps;
    try {
      const items = sideRecords.map(({ item }) => item);
      if (!(await this.#untilStored(`put_${kind}`, partition, () => put(items)))) return;
    } catch (error) {
      if (!(error instanceof RowRefusedError)) throw error;
      if (sideRecords.length > 1) {
        for (const one of sideRecords) await this.#putSideRecords(partition, kind, [one], put);
        return;
      }
      // Nothing else would accept it, and to stop the log for it would lose trades.
      metrics.refusedForGoodTotal.inc({ kind });
      logger.error("the store refused a feed event or a dead letter for good; it is not stored", {
        kind,
        error,
      });
    }
    for (const { inFlight } of sideRecords) partition.tracker.acknowledge(inFlight);
  }
}

const yes = () => true as const;
