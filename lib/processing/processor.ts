// The second loop: log -> rows -> aggregates. Query 1 stores rows continuously; query 2, called every 5 seconds,
// writes the windows that changed and then commits. So a commit never passes a trade whose row, or whose
// windows, are not stored, and nothing that happens to a process makes an aggregate wrong for good: what
// processing/partition-state.ts remembers is only a cache of the trades table. (The first loop, feed -> log, is ingest/ingest.ts.)

import { chunkBy } from "../base/chunk.ts";
import { backoffMs, type Clock, createYielder } from "../base/clock.ts";
import { isTransient, RowRefusedError, StaleEpochError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Delivery, LogReader, PartitionId, PartitionRange } from "../contracts/log.ts";
import type { StoreWriter } from "../contracts/store.ts";
import type { DeadLetter } from "../model/dead-letter.ts";
import { derivedSequence, derivedSession } from "../model/identity.ts";
import { paneStart } from "../model/panes.ts";
import { DAY_MS, dayOf, type FeedEventRow, type TradeRow } from "../model/trade.ts";
import { deadLetterOf, decodeBatch, type Pending } from "./decode.ts";
import type { InFlight } from "./offset-tracker.ts";
import { type Bound, PartitionState, type PendingRow } from "./partition-state.ts";
import { writeWindows } from "./write-windows.ts";

export type ProcessorDeps = Readonly<{
  log: LogReader;
  store: StoreWriter;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  limits?: Partial<ProcessorLimits>;
  /** Hears of rows when the store has them: for a live view. It must not throw. */
  onRowsStored?: (rows: readonly TradeRow[]) => void;
}>;

/** Small ones make a test or a simulation meet them. */
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
  /** Why the store or the log does not take what it should, and since when; null = it does. */
  problem: Readonly<{ message: string; sinceMs: number }> | null;
}>;

export type Processor = Readonly<{
  /** Query 1. Ends when the signal aborts and everything in flight is stored, written and committed. */
  run(signal: AbortSignal): Promise<void>;
  /** Query 2, every 5 seconds: resolves when what it took is written and committed, or put back. */
  trigger(): Promise<void>;
  health(): ProcessorHealth;
}>;

/** Beyond it reading pauses: 20,000 windows and their panes are about 20 MB. */
const WINDOWS_UNWRITTEN_MAX = 20_000;
const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 5_000;
const PRESSURE_PAUSE_MS = 100;
/** What an unknown bound stands at: any trade is at most a day ahead of its receipt; a day more for clocks. */
const UNKNOWN_BOUND_AHEAD_MS = 2 * DAY_MS;

export function createProcessor(deps: ProcessorDeps): Processor {
  const { log, store, clock, logger, metrics, limits, onRowsStored } = deps;
  const windowsUnwrittenMax = limits?.windowsUnwrittenMax ?? WINDOWS_UNWRITTEN_MAX;
  let epoch = -1;
  /** Of this epoch. Work that belongs to an older one holds on to objects that nobody else knows any more. */
  let partitions = new Map<PartitionId, PartitionState>();
  const takes = new Set<Promise<boolean>>();
  const puts = new Set<Promise<void>>();
  let rowsInFlight = 0;
  let problem: ProcessorHealth["problem"] = null;
  const last: Record<"batch" | "row" | "trigger" | "commit", number | null> = {
    batch: null,
    row: null,
    trigger: null,
    commit: null,
  };
  /** Rejects when work in the background met a bug. */
  const failure = Promise.withResolvers<never>();
  failure.promise.catch(() => {}); // Raced in run(); without a run there is nobody to tell.

  const isCurrent = (partition: PartitionState) => [...partitions.values()].includes(partition);
  const windowsUnwritten = () =>
    [...partitions.values()].reduce((sum, { unwrittenCount }) => sum + unwrittenCount, 0);

  // ---- Where reading starts ---------------------------------------------------------------------------------

  /** A new epoch: everything remembered is dropped, and reading starts where the log says it was committed. */
  async function assign(delivery: Delivery & { type: "assigned" }, signal: AbortSignal): Promise<void> {
    epoch = delivery.epoch;
    const own = new Map<PartitionId, PartitionState>();
    partitions = own;
    metrics.epochsTotal.inc();
    const isWanted = () => epoch === delivery.epoch && !signal.aborted;
    const atMs = clock.now();
    try {
      // All at once: one after the other they took a third of a start.
      await Promise.all(
        delivery.partitions.map(async (id) => {
          const range = await insist("position", isWanted, () => log.position(delivery.epoch, id));
          if (range === undefined) return;
          const partition = await insist("start", isWanted, () =>
            startPartition(delivery.epoch, id, range, atMs),
          );
          if (partition === undefined) return;
          // Not into those of a later epoch, which may have begun while this one waited.
          own.set(id, partition);
          log.seek(delivery.epoch, id, partition.expectedOffset);
        }),
      );
    } catch (error) {
      // Dealt out anew meanwhile: the next delivery says how.
      if (!(error instanceof StaleEpochError)) throw error;
    }
  }

  async function startPartition(
    ownEpoch: number,
    id: PartitionId,
    range: PartitionRange,
    atMs: number,
  ): Promise<PartitionState> {
    const { committed, beginOffset, endOffset } = range;
    const bound = committed === null ? null : decodeBound(committed.metadata);
    if (
      committed !== null &&
      bound !== null &&
      beginOffset <= committed.offset &&
      committed.offset <= endOffset
    ) {
      return recover(committed.offset, bound);
    }
    const isEmpty = await store.isEmpty();
    const maxTradeMs = isEmpty ? Number.NEGATIVE_INFINITY : clock.now() + UNKNOWN_BOUND_AHEAD_MS;
    const unknown = { maxTradeMs, receivedSinceMs: null };
    if (committed !== null) {
      const detail = { partition: id, committedOffset: committed.offset, beginOffset, endOffset };
      logger.warn("the committed position does not fit the log; reading all that the log has", detail);
      if (committed.offset < beginOffset) await store.putEvents([gapEvent(id, detail, atMs)]);
    }
    // Before anything is read: a position beyond the end must not come true again when the log has grown.
    await log.commit(ownEpoch, id, { offset: beginOffset, metadata: encodeBound(unknown) });
    return isEmpty
      ? new PartitionState(beginOffset, unknown, limits?.panesMax)
      : recover(beginOffset, unknown);
  }

  /**
   * Where the log may have lost its end while the store kept the rows (a power cut), nothing would ever mark
   * the windows of those rows: so every row received since is marked, and vouched for by the table alone.
   */
  async function recover(offset: number, bound: Bound): Promise<PartitionState> {
    const touched = new Map<string, Readonly<{ symbol: string; startMs: number }>>();
    const yieldIfDue = createYielder(clock);
    let { maxTradeMs } = bound;
    for await (const rows of store.scanReceived?.(bound.receivedSinceMs) ?? []) {
      for (const { symbol, trade_timestamp } of rows) {
        maxTradeMs = Math.max(maxTradeMs, trade_timestamp);
        const startMs = paneStart(trade_timestamp);
        touched.set(`${startMs} ${symbol}`, { symbol, startMs });
      }
      await yieldIfDue();
    }
    const partition = new PartitionState(offset, { ...bound, maxTradeMs }, limits?.panesMax);
    for (const { symbol, startMs } of touched.values()) partition.markDirty(symbol, startMs);
    return partition;
  }

  /** The same row however often the start is tried again. */
  function gapEvent(
    id: PartitionId,
    detail: Readonly<{ committedOffset: number }>,
    atMs: number,
  ): FeedEventRow {
    return {
      day: dayOf(atMs),
      event_timestamp: atMs,
      session: derivedSession(id, ""),
      sequence: derivedSequence(detail.committedOffset),
      type: "log_gap",
      detail: JSON.stringify(detail),
    };
  }

  // ---- Query 1: rows ----------------------------------------------------------------------------------------

  async function read(signal: AbortSignal): Promise<void> {
    for await (const delivery of log.deliveries(signal)) {
      if (delivery.type === "assigned") await assign(delivery, signal);
      else await takeBatch(delivery, signal);
    }
    await Promise.all(puts);
    for (let attempt = 0; ; attempt++) {
      // Whatever another trigger has taken meanwhile, and then the rest.
      await Promise.all(takes);
      if (await flushAll()) return;
      await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random));
    }
  }

  async function takeBatch(delivery: Delivery & { type: "batch" }, signal: AbortSignal): Promise<void> {
    const partition = partitions.get(delivery.partition);
    if (delivery.epoch !== epoch || partition === undefined) return;
    if (delivery.fromOffset !== partition.expectedOffset) {
      try {
        log.seek(epoch, delivery.partition, partition.expectedOffset);
      } catch (error) {
        // Dealt out anew meanwhile: the next delivery says how.
        if (!(error instanceof StaleEpochError)) throw error;
      }
      return;
    }
    partition.expectedOffset = delivery.nextOffset;
    last.batch = clock.now();
    const { rows, events, deadLetters } = decodeBatch(partition, delivery.partition, delivery.records);
    partition.tracker.open(delivery.nextOffset, delivery.records.at(-1)?.timestampMs ?? last.batch, 0);
    metrics.recordsUnstored.set(partition.tracker.openCount);

    for (const group of groupsOf(rows)) await startPut(() => putRows(partition, group), group.length);
    if (events.length > 0)
      await startPut(
        () => putSides(partition, "event", events, (rows) => store.putEvents(rows)),
        events.length,
      );
    if (deadLetters.length > 0) await startPut(() => putLetters(partition, deadLetters), deadLetters.length);

    while (windowsUnwritten() > windowsUnwrittenMax && !signal.aborted && isCurrent(partition)) {
      await trigger();
      if (windowsUnwritten() > windowsUnwrittenMax) await clock.sleep(PRESSURE_PAUSE_MS, signal);
    }
  }

  /** Rows of one put share the store's group, up to its size. */
  function groupsOf(rows: readonly PendingRow[]): PendingRow[][] {
    return chunkBy(rows, ({ row }) => store.groupOf(row), store.rowsPerPutMax);
  }

  /** Starts a put when one of the store's places is free; not waiting for its end overlaps it with reading. */
  async function startPut(put: () => Promise<void>, rowCount: number): Promise<void> {
    while (puts.size >= store.putsInFlightMax) await Promise.race(puts);
    rowsInFlight += rowCount;
    const running: Promise<void> = put()
      .catch((error: unknown) => failure.reject(error))
      .finally(() => {
        rowsInFlight -= rowCount;
        puts.delete(running);
      });
    puts.add(running);
  }

  async function putRows(partition: PartitionState, group: readonly PendingRow[]): Promise<void> {
    const rows = group.map(({ row }) => row);
    try {
      const isStored = await insist(
        "put_trades",
        () => isCurrent(partition),
        () => store.putTrades(rows).then(yes),
      );
      if (!isStored) return;
      acknowledge(partition, group);
      onRowsStored?.(rows);
    } catch (error) {
      if (!(error instanceof RowRefusedError)) throw error;
      // Each alone: what is refused alone is invalid, and goes where it blocks nobody.
      if (group.length > 1) for (const pending of group) await putRows(partition, [pending]);
      else for (const pending of group) await putRefused(partition, pending);
    }
  }

  /** One synchronous step from the store's word to memory, marks and watermark. */
  function acknowledge(partition: PartitionState, group: readonly PendingRow[]): void {
    const now = clock.now();
    last.row = now;
    metrics.rowsStoredTotal.inc(group.length);
    let inFlight: InFlight | null = null;
    for (const pending of group) {
      partition.acknowledgeRow(pending, now);
      if (pending.inFlight === inFlight) continue;
      inFlight = pending.inFlight;
      if (pending.isResend) metrics.resendsTotal.inc();
      metrics.receiptToStoredMs.observe(Math.max(0, now - pending.row.ingest_timestamp));
    }
  }

  async function putRefused(partition: PartitionState, pending: PendingRow): Promise<void> {
    const deadLetter = deadLetterOf(pending);
    const isStored = await insist(
      "put_dead",
      () => isCurrent(partition),
      () => store.putDead([deadLetter]).then(yes),
    );
    if (!isStored) return;
    countLetters([deadLetter]);
    partition.acknowledgeRefused(pending);
  }

  async function putLetters(
    partition: PartitionState,
    deadLetters: readonly Pending<DeadLetter>[],
  ): Promise<void> {
    await putSides(partition, "dead", deadLetters, (items) => store.putDead(items));
    countLetters(deadLetters.map(({ item }) => item));
  }

  function countLetters(deadLetters: readonly DeadLetter[]): void {
    for (const { reason } of deadLetters) metrics.deadLettersTotal.inc({ reason });
    logger.warn("put aside what cannot be taken", {
      count: deadLetters.length,
      reason: deadLetters[0]?.reason,
    });
  }

  async function putSides<T>(
    partition: PartitionState,
    kind: "event" | "dead",
    sides: readonly Pending<T>[],
    put: (items: readonly T[]) => Promise<void>,
  ): Promise<void> {
    try {
      const items = sides.map(({ item }) => item);
      if (
        !(await insist(
          `put_${kind}`,
          () => isCurrent(partition),
          () => put(items).then(yes),
        ))
      )
        return;
    } catch (error) {
      if (!(error instanceof RowRefusedError)) throw error;
      if (sides.length > 1) {
        for (const side of sides) await putSides(partition, kind, [side], put);
        return;
      }
      // Nothing is left that would take it; holding the log back for it would lose trades.
      metrics.refusedForGoodTotal.inc({ kind });
      logger.error("the store refuses a side record for good", { kind, error });
    }
    for (const { inFlight } of sides) partition.tracker.acknowledge(inFlight);
  }

  // ---- Query 2: aggregates, then the commit -----------------------------------------------------------------

  async function trigger(): Promise<void> {
    await flushAll();
  }

  /** False when something waits for the next trigger: it failed, or another take was in flight. */
  async function flushAll(): Promise<boolean> {
    last.trigger = clock.now();
    const started: Promise<boolean>[] = [];
    let isAllTaken = true;
    for (const [id, partition] of partitions) {
      // One take in flight per partition: a second one could commit past windows that the first has not written.
      if (partition.isFlushing) {
        isAllTaken = false;
        continue;
      }
      partition.dropIdle(clock.now());
      const settling: Promise<boolean> = flush(epoch, id, partition)
        .catch((error: unknown) => {
          failure.reject(error);
          return false;
        })
        .finally(() => takes.delete(settling));
      takes.add(settling);
      started.push(settling);
    }
    const settled = await Promise.all(started);
    metrics.windowsUnwritten.set(windowsUnwritten());
    return isAllTaken && settled.every(Boolean);
  }

  /** Takes what has changed, writes it, commits. False: what could not be written waits for the next trigger. */
  async function flush(ownEpoch: number, id: PartitionId, partition: PartitionState): Promise<boolean> {
    partition.isFlushing = true;
    const { windows, offset, bound } = partition.drainDirty();
    let writtenCount = 0;
    try {
      const isWanted = () => isCurrent(partition);
      await writeWindows({ store, clock, logger, metrics }, partition, windows, isWanted, (count) => {
        writtenCount = count;
      });
      if (offset <= partition.committedOffset || !isWanted()) return true;
      await log.commit(ownEpoch, id, { offset, metadata: encodeBound(bound) });
      partition.committedOffset = offset;
      last.commit = clock.now();
      metrics.commitsTotal.inc();
      problem = null;
      return true;
    } catch (error) {
      partition.markDirtyAgain(windows.slice(writtenCount));
      if (error instanceof StaleEpochError) return true;
      if (!isTransient(error)) throw error;
      noteProblem("aggregates", error);
      return false;
    } finally {
      partition.isFlushing = false;
    }
  }

  // ---- What both do about failures --------------------------------------------------------------------------

  /** Tries until it succeeds; undefined when it is no longer wanted. What repeating cannot mend comes out. */
  async function insist<T>(
    operation: string,
    isWanted: () => boolean,
    work: () => Promise<T>,
  ): Promise<T | undefined> {
    for (let attempt = 0; isWanted(); attempt++) {
      try {
        const result = await work();
        problem = null;
        return result;
      } catch (error) {
        if (!isTransient(error)) throw error;
        noteProblem(operation, error);
        await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random));
      }
    }
    return undefined;
  }

  function noteProblem(operation: string, error: Error): void {
    metrics.storeRetriesTotal.inc({ operation });
    if (problem === null) logger.warn("not taken; trying again until it is", { operation, error });
    problem = { message: error.message, sinceMs: problem?.sinceMs ?? clock.now() };
  }

  return {
    run: (signal) => Promise.race([read(signal), failure.promise]),
    trigger,
    health: () => ({
      epoch,
      partitions: [...partitions.keys()],
      lastBatchAtMs: last.batch,
      lastRowStoredAtMs: last.row,
      lastTriggerAtMs: last.trigger,
      lastCommitAtMs: last.commit,
      rowsInFlight,
      windowsUnwritten: windowsUnwritten(),
      problem,
    }),
  };
}

const yes = () => true as const;

/** JSON has no -Infinity: null stands for it. */
function encodeBound({ maxTradeMs, receivedSinceMs }: Bound): string {
  return JSON.stringify({
    maxTradeMs: maxTradeMs === Number.NEGATIVE_INFINITY ? null : maxTradeMs,
    receivedSinceMs,
  });
}

/** Null: written by nobody we know, so it proves nothing. */
function decodeBound(metadata: string): Bound | null {
  try {
    const { maxTradeMs, receivedSinceMs } = JSON.parse(metadata) as Record<string, unknown>;
    if (maxTradeMs !== null && typeof maxTradeMs !== "number") return null;
    return {
      maxTradeMs: maxTradeMs ?? Number.NEGATIVE_INFINITY,
      receivedSinceMs: typeof receivedSinceMs === "number" ? receivedSinceMs : null,
    };
  } catch {
    return null;
  }
}
