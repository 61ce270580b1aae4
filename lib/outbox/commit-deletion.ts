// Deletes from the front of the file what the reader's commits cover, a slice a tick. Nobody waits for it, and it can
// be cut off at any point. It never deletes a record at or above a commit.

import { inTransaction, sqliteFault } from "../base/sqlite.ts";
import { damageError } from "./errors.ts";
import type { OutboxState } from "./state.ts";

/** The records of one transaction: a few milliseconds, so that everything else on the event loop gets its turn. */
const SLICE_RECORDS_MAX = 2_000;

export class FrontDeletion {
  readonly #state: OutboxState;
  readonly #measure;
  readonly #remove;
  readonly #oldest;
  #isRunning = false;
  /** The highest commit. */
  #goal = 0;
  /** No record is left below this offset. */
  #done = 0;

  constructor(state: OutboxState) {
    const { db } = state;
    this.#state = state;
    this.#measure = db.query<{ count: number; size: number }, [number]>(
      "SELECT count(*) AS count, coalesce(sum(length(value)), 0) AS size FROM records WHERE offset < ?",
    );
    this.#remove = db.query("DELETE FROM records WHERE offset < ?");
    this.#oldest = db.query<{ offset: number }, []>("SELECT offset FROM records ORDER BY offset LIMIT 1");
  }

  /** Deletes what lies below the offset: the first slice now, the others in later ticks. */
  deleteBelow(offset: number): void {
    this.#goal = Math.max(this.#goal, offset);
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#deleteNext();
  }

  #deleteNext(): void {
    const { isClosed, clock } = this.#state;
    // A distance of more than a slice may be a gap, for example at a start.
    if (!isClosed && this.#goal - this.#done > SLICE_RECORDS_MAX)
      this.#done = Math.max(this.#done, this.#oldest.get()?.offset ?? this.#goal);
    if (isClosed || this.#done >= this.#goal || !this.#deleteSlice()) {
      this.#isRunning = false;
      return;
    }
    // Further commits in this tick are covered by the next slice.
    clock.atEndOfTick(() => this.#deleteNext());
  }

  /** False: the disk has no room for the deletion's own pages. The next commit tries again. */
  #deleteSlice(): boolean {
    const { db, path, totals, offsets } = this.#state;
    const below = Math.min(this.#goal, this.#done + SLICE_RECORDS_MAX);
    const { count, size } = this.#measure.get(below)!;
    // Offsets taken ahead are given back when the file is empty: nothing else says then how far it was, and behind a
    // commit that went back (a restored store) they would be a gap. Dead letters have offsets too, and none may lie
    // above the last one.
    const isEmptied = count === totals.recordCount && totals.deadCount === 0 && offsets.taken >= offsets.end;
    try {
      inTransaction(db, () => {
        this.#remove.run(below);
        if (isEmptied) offsets.note(offsets.end - 1);
      });
    } catch (error) {
      if (sqliteFault(error) === undefined) throw damageError(path, error);
      return false;
    }
    if (isEmptied) offsets.taken = offsets.end - 1;
    this.#done = below;
    this.#state.countRecords(-count, -size);
    return true;
  }
}
