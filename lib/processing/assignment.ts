// An epoch begins: for each assigned partition, where reading starts and what the new state may answer for. The log's
// committed position decides; where it proves nothing, everything that the log still has is read again.

import { createYielder } from "../base/clock.ts";
import { StaleEpochError } from "../base/errors.ts";
import type { Delivery, PartitionId, PartitionRange } from "../contracts/log.ts";
import { derivedSequence, derivedSession } from "../model/identity.ts";
import { paneStart } from "../model/panes.ts";
import { DAY_MS, dayOf, type FeedEventRow } from "../model/trade.ts";
import { type Bound, decodeBound, encodeBound } from "./bound.ts";
import { PartitionState } from "./partition-state.ts";
import type { ProcessorDeps, ProcessorState } from "./processor-state.ts";

/** Above an unknown bound: a trade is dated at most a day after its receipt, and clocks get another day. */
const UNKNOWN_BOUND_AHEAD_MS = 2 * DAY_MS;

/** All older state is dropped; each partition is sought as soon as its own start is known. */
export async function beginEpoch(
  state: ProcessorState,
  delivery: Delivery & { type: "assigned" },
  signal: AbortSignal,
): Promise<void> {
  const { epoch } = delivery;
  const { log, clock, metrics } = state.deps;
  const own = new Map<PartitionId, PartitionState>();
  state.epoch = epoch;
  state.partitions = own;
  metrics.epochsTotal.inc();
  const isWanted = () => state.epoch === epoch && !signal.aborted;
  const atMs = clock.now();

  async function begin(id: PartitionId): Promise<void> {
    const range = await state.retryWhile("position", isWanted, () => log.position(epoch, id));
    if (range === undefined) return;
    const partition = await state.retryWhile("start", isWanted, () =>
      startPartition(state.deps, epoch, id, range, atMs),
    );
    if (partition === undefined) return;
    // Into this epoch's own map: a later epoch may have begun during the waits above.
    own.set(id, partition);
    log.seek(epoch, id, partition.expectedOffset);
  }

  try {
    // All at once: one after another took a third of the time of a start.
    await Promise.all(delivery.partitions.map(begin));
  } catch (error) {
    // The partitions were reassigned meanwhile: the next delivery says how.
    if (!(error instanceof StaleEpochError)) throw error;
  }
}

/** Idempotent: it is repeated after any failure that passes. */
async function startPartition(
  deps: ProcessorDeps,
  epoch: number,
  id: PartitionId,
  { committed, beginOffset, endOffset }: PartitionRange,
  atMs: number,
): Promise<PartitionState> {
  const { log, store, clock, logger, limits } = deps;
  const bound = committed === null ? null : decodeBound(committed.metadata);
  if (
    committed !== null &&
    bound !== null &&
    beginOffset <= committed.offset &&
    committed.offset <= endOffset
  ) {
    return recover(deps, committed.offset, bound);
  }
  const isEmpty = await store.isEmpty();
  const maxTradeMs = isEmpty ? Number.NEGATIVE_INFINITY : clock.now() + UNKNOWN_BOUND_AHEAD_MS;
  const unknown = { maxTradeMs, receivedSinceMs: null };
  if (committed !== null) {
    const detail = { partition: id, committedOffset: committed.offset, beginOffset, endOffset };
    logger.warn("the committed position does not fit the log; everything in the log is read again", detail);
    if (committed.offset < beginOffset) await store.putEvents([gapEvent(id, detail, atMs)]);
  }
  // Before anything is read: a committed position beyond the end must not become valid once the log has grown.
  await log.commit(epoch, id, { offset: beginOffset, metadata: encodeBound(unknown) });
  return isEmpty
    ? new PartitionState(beginOffset, unknown, limits?.panesMax)
    : recover(deps, beginOffset, unknown);
}

/**
 * A power cut may cost the log its end while the store keeps the rows. Nothing would ever mark the windows of those
 * rows dirty, so the panes of every row received since the bound are marked here, and the horizon is raised above
 * them: the table alone answers for them.
 */
async function recover(
  { store, clock, limits }: ProcessorDeps,
  offset: number,
  bound: Bound,
): Promise<PartitionState> {
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

/** The same row however often the start is retried. */
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
