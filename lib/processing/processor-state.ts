// What the parts of one processor share: its dependencies, the partitions of the current epoch, what /health shows
// and the one retry. It decides nothing about a row.

import type { Clock } from "../base/clock.ts";
import { LogUnavailableError, mayPass } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import { type Metrics, startAtZero } from "../base/metrics.ts";
import { type OutageLoop, outageLoop } from "../base/outages.ts";
import { retryWhile } from "../base/retry.ts";
import type { LogReader, PartitionId } from "../contracts/log.ts";
import type { StoreWriter } from "../contracts/store.ts";
import type { TradeRow } from "../model/trade.ts";
import type { PartitionState } from "./partition-state.ts";

export type ProcessorDeps = Readonly<{
  log: LogReader;
  store: StoreWriter;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  limits?: Partial<ProcessorLimits>;
  /** Called with rows as soon as the store has them, for a live view. It must not throw. */
  onRowsStored?: (rows: readonly TradeRow[]) => void;
}>;

/** Tests and simulations set small limits, so that they are reached. */
export type ProcessorLimits = Readonly<{ panesMax: number; windowsUnwrittenMax: number }>;

export type ProcessorHealth = Readonly<{
  epoch: number;
  partitions: readonly PartitionId[];
  lastBatchAtMs: number | null;
  lastRowStoredAtMs: number | null;
  lastTriggerAtMs: number | null;
  lastCommitAtMs: number | null;
  rowsInFlight: number;
  windowsUnwritten: number;
  /** Why the store or the log does not accept work, and since when (ms since 1970); null = it does. */
  problem: Readonly<{ message: string; sinceMs: number }> | null;
}>;

/** What is tried again for as long as it fails. A closed list: it is a metric's label. */
const OPERATIONS = ["position", "start", "put_trades", "put_event", "put_dead", "aggregates"] as const;
export type Operation = (typeof OPERATIONS)[number];

export const RETRY_FIRST_MS = 50;
export const RETRY_MAX_MS = 5_000;

export class ProcessorState {
  readonly deps: ProcessorDeps;
  /** -1 before the first assignment. */
  epoch = -1;
  /** Those of the current epoch. Work that belongs to an older epoch keeps objects that are no longer in here. */
  partitions = new Map<PartitionId, PartitionState>();
  /** When each of these last happened, ms since 1970; null = never. */
  readonly last: Record<"batch" | "row" | "trigger" | "commit", number | null> = {
    batch: null,
    row: null,
    trigger: null,
    commit: null,
  };
  #problem: ProcessorHealth["problem"] = null;
  /** Operations whose last attempt failed. */
  readonly #failing = new Set<Operation>();
  readonly #failure = Promise.withResolvers<never>();

  constructor(deps: ProcessorDeps) {
    this.deps = deps;
    startAtZero(deps.metrics.storeRetriesTotal, "operation", OPERATIONS);
    this.#failure.promise.catch(() => {}); // Raced in run(); without a run nobody waits for it.
  }

  get problem(): ProcessorHealth["problem"] {
    return this.#problem;
  }

  get windowsUnwritten(): number {
    let count = 0;
    for (const { unwrittenCount } of this.partitions.values()) count += unwrittenCount;
    return count;
  }

  /** Records that were read from the log and are not wholly stored. */
  get recordsUnstored(): number {
    let count = 0;
    for (const { tracker } of this.partitions.values()) count += tracker.openCount;
    return count;
  }

  isCurrent(partition: PartitionState): boolean {
    for (const current of this.partitions.values()) if (current === partition) return true;
    return false;
  }

  /** Rejects when work in the background failed in a way that no retry can mend: a bug. */
  get failed(): Promise<never> {
    return this.#failure.promise;
  }

  fail(error: unknown): void {
    this.#failure.reject(error);
  }

  /**
   * Runs the work until it succeeds; undefined when it is no longer wanted. Rejects with an error that is not
   * transient.
   */
  async retryWhile<T extends NonNullable<unknown>>(
    operation: Operation,
    isWanted: () => boolean,
    work: () => Promise<T>,
  ): Promise<T | undefined> {
    const { clock } = this.deps;
    const onFailure = (error: unknown) => this.noteProblem(operation, error);
    const options = { clock, firstMs: RETRY_FIRST_MS, maxMs: RETRY_MAX_MS, isRetryable: mayPass, onFailure };
    try {
      const result = await retryWhile(isWanted, options, work);
      if (result !== undefined) this.noteSuccess(operation);
      return result;
    } finally {
      if (this.#failing.delete(operation)) for (const one of this.#outagesOf(operation)) one.over();
    }
  }

  noteProblem(operation: Operation, error: unknown): void {
    const { clock, metrics } = this.deps;
    metrics.storeRetriesTotal.inc({ operation });
    this.#failing.add(operation);
    const [ofLog, ofStore] = this.#outagesOf(operation);
    const isOfLog = error instanceof LogUnavailableError || operation === "position";
    (isOfLog ? ofLog : ofStore).failed(error);
    const message = error instanceof Error ? error.message : String(error);
    this.#problem = { message, sinceMs: this.#problem?.sinceMs ?? clock.now() };
  }

  noteSuccess(operation: Operation): void {
    this.#problem = null;
    if (!this.#failing.delete(operation)) return;
    for (const one of this.#outagesOf(operation)) one.worked();
  }

  #outagesOf(operation: Operation): readonly [log: OutageLoop, store: OutageLoop] {
    return [outageLoop(this.deps, "the log", operation), outageLoop(this.deps, "the store", operation)];
  }
}
