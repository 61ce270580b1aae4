// The second loop: log -> rows -> windows. Query 1 (put-rows.ts) stores rows all the time. Query 2 (flush.ts), called
// every 5 seconds, writes the dirty windows and then commits. So a commit never passes a trade whose row, or one of
// whose windows, is not stored, and nothing that happens to a process makes an aggregate wrong for good: what
// partition-state.ts remembers is only a cache of the trades table. (The first loop, feed -> log, is ingest/ingest.ts.)

import { backoffMs } from "../base/clock.ts";
import { StaleEpochError } from "../base/errors.ts";
import { startAtZero } from "../base/metrics.ts";
import type { Delivery } from "../contracts/log.ts";
import { AGGREGATES } from "../model/aggregates.ts";
import { DEAD_REASONS } from "../model/dead-letter.ts";
import { beginEpoch } from "./assignment.ts";
import { decodeBatch } from "./decode.ts";
import { Flusher } from "./flush.ts";
import {
  type ProcessorDeps,
  type ProcessorHealth,
  ProcessorState,
  RETRY_FIRST_MS,
  RETRY_MAX_MS,
} from "./processor-state.ts";
import { RowPuts } from "./put-rows.ts";

export type Processor = Readonly<{
  /**
   * Query 1. Resolves when the signal has aborted and everything in flight is stored, written and committed. Rejects
   * with a bug, or with what the log rejects with.
   */
  run(signal: AbortSignal): Promise<void>;
  /** Query 2, every 5 seconds: resolves when the windows it drained are written and committed, or dirty again. */
  trigger(): Promise<void>;
  health(): ProcessorHealth;
}>;

/** Reading pauses above it: 20,000 windows and their panes are about 20 MB. */
const WINDOWS_UNWRITTEN_MAX = 20_000;
const BACK_PRESSURE_PAUSE_MS = 100;

type Parts = Readonly<{ state: ProcessorState; rowPuts: RowPuts; flusher: Flusher }>;

export function createProcessor(deps: ProcessorDeps): Processor {
  const state = new ProcessorState(deps);
  const { metrics } = deps;
  startAtZero(metrics.deadLettersTotal, "reason", DEAD_REASONS);
  startAtZero(
    metrics.windowsWrittenTotal,
    "kind",
    AGGREGATES.map(({ kind }) => kind),
  );
  startAtZero(metrics.refusedForGoodTotal, "kind", ["event", "dead", "window"]);
  metrics.recordsUnstored.readFrom(() => state.recordsUnstored);
  metrics.windowsUnwritten.readFrom(() => state.windowsUnwritten);
  const parts = { state, rowPuts: new RowPuts(state), flusher: new Flusher(state) };
  return {
    run: (signal) => Promise.race([read(parts, signal), state.failed]),
    async trigger() {
      await parts.flusher.flushAll();
    },
    health: () => healthOf(parts),
  };
}

async function read(parts: Parts, signal: AbortSignal): Promise<void> {
  const { state, rowPuts, flusher } = parts;
  const { log, clock } = state.deps;
  for await (const delivery of log.deliveries(signal)) {
    if (delivery.type === "assigned") await beginEpoch(state, delivery, signal);
    else await acceptBatch(parts, delivery, signal);
  }
  await rowPuts.settled();
  for (let attempt = 0; ; attempt++) {
    // First the flushes that a trigger started meanwhile, then whatever is left.
    await flusher.settled();
    if (await flusher.flushAll()) return;
    await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random));
  }
}

async function acceptBatch(
  { state, rowPuts, flusher }: Parts,
  delivery: Delivery & { type: "batch" },
  signal: AbortSignal,
): Promise<void> {
  const { log, clock, limits } = state.deps;
  const partition = state.partitions.get(delivery.partition);
  if (delivery.epoch !== state.epoch || partition === undefined) return;
  if (delivery.fromOffset !== partition.expectedOffset) {
    try {
      log.seek(state.epoch, delivery.partition, partition.expectedOffset);
    } catch (error) {
      // The partitions were reassigned meanwhile: the next delivery says how.
      if (!(error instanceof StaleEpochError)) throw error;
    }
    return;
  }
  partition.expectedOffset = delivery.nextOffset;
  const nowMs = clock.now();
  state.last.batch = nowMs;
  const decoded = decodeBatch(partition, delivery.partition, delivery.records);
  // The offsets behind the last record may hold nothing readable: the watermark passes them with that record.
  partition.tracker.open(delivery.nextOffset, delivery.records.at(-1)?.timestampMs ?? nowMs, 0);
  await rowPuts.put(partition, decoded);

  const windowsMax = limits?.windowsUnwrittenMax ?? WINDOWS_UNWRITTEN_MAX;
  while (state.windowsUnwritten > windowsMax && !signal.aborted && state.isCurrent(partition)) {
    await flusher.flushAll();
    if (state.windowsUnwritten > windowsMax) await clock.sleep(BACK_PRESSURE_PAUSE_MS, signal);
  }
}

function healthOf({ state, rowPuts }: Parts): ProcessorHealth {
  const { epoch, partitions, last, windowsUnwritten, problem } = state;
  return {
    epoch,
    partitions: [...partitions.keys()],
    lastBatchAtMs: last.batch,
    lastRowStoredAtMs: last.row,
    lastTriggerAtMs: last.trigger,
    lastCommitAtMs: last.commit,
    rowsInFlight: rowPuts.rowsInFlight,
    windowsUnwritten,
    problem,
  };
}
