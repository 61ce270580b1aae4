// Query 2: the dirty windows of each partition are drained, written and then committed. A commit says that every row
// below its offset is stored and counted in every window it belongs to. Three things make that true:
// 1. drainDirty takes the dirty windows and the watermark in one synchronous step. So each row below that watermark
//    has marked its windows dirty before, and they are in this flush or in an earlier one.
// 2. A partition has one flush in flight. So the windows of earlier flushes are written, or they were marked dirty
//    again and are in this one.
// 3. The commit is sent after the last window of the flush is stored.

import { mayPass, StaleEpochError } from "../base/errors.ts";
import type { PartitionId } from "../contracts/log.ts";
import { encodeBound } from "./bound.ts";
import type { PartitionState } from "./partition-state.ts";
import type { ProcessorState } from "./processor-state.ts";
import { writeWindows } from "./write-windows.ts";

export class Flusher {
  readonly #state: ProcessorState;
  readonly #running = new Set<Promise<boolean>>();

  constructor(state: ProcessorState) {
    this.#state = state;
  }

  /** Resolves when every flush that has started has ended. */
  async settled(): Promise<void> {
    await Promise.all(this.#running);
  }

  /** False when work is left for the next call: a flush failed, or another one was in flight. */
  async flushAll(): Promise<boolean> {
    const state = this.#state;
    const { clock } = state.deps;
    state.last.trigger = clock.now();
    const started: Promise<boolean>[] = [];
    let isEachStarted = true;
    for (const [id, partition] of state.partitions) {
      // A second flush of a partition could commit past windows that the first one has not written.
      if (partition.isFlushing) {
        isEachStarted = false;
        continue;
      }
      partition.dropIdle(clock.now());
      const running: Promise<boolean> = this.#flush(state.epoch, id, partition)
        .catch((error: unknown) => {
          state.fail(error);
          return false;
        })
        .finally(() => this.#running.delete(running));
      this.#running.add(running);
      started.push(running);
    }
    const outcomes = await Promise.all(started);
    return isEachStarted && outcomes.every(Boolean);
  }

  /** False: what could not be written is dirty again. */
  async #flush(epoch: number, id: PartitionId, partition: PartitionState): Promise<boolean> {
    const state = this.#state;
    const { log, clock, metrics } = state.deps;
    partition.isFlushing = true;
    const { windows, offset, bound } = partition.drainDirty();
    let writtenCount = 0;
    try {
      const isWanted = () => state.isCurrent(partition);
      await writeWindows(state.deps, partition, windows, isWanted, (count) => {
        writtenCount = count;
      });
      if (offset <= partition.committedOffset || !isWanted()) return true;
      await log.commit(epoch, id, { offset, metadata: encodeBound(bound) });
      partition.committedOffset = offset;
      state.last.commit = clock.now();
      metrics.commitsTotal.inc();
      state.noteSuccess("aggregates");
      return true;
    } catch (error) {
      partition.markDirtyAgain(windows.slice(writtenCount));
      if (error instanceof StaleEpochError) return true;
      if (!mayPass(error)) throw error;
      state.noteProblem("aggregates", error);
      return false;
    } finally {
      partition.isFlushing = false;
    }
  }
}
