// The embedded mode's side of the log on SQLite: one reader at a time, each in an epoch of its own. Its commits are
// durable in the store that it reads into (CommitStore), and outbox/commit-deletion.ts deletes what they cover.

import assert from "node:assert/strict";
import { StaleEpochError } from "../base/errors.ts";
import type {
  Delivery,
  LogReader,
  LogRecord,
  PartitionRange,
  Position,
  RecordKind,
} from "../contracts/log.ts";
import { recordCrc } from "./checksum.ts";
import { FrontDeletion } from "./commit-deletion.ts";
import { damageError, recordDamage } from "./errors.ts";
import type { OutboxState } from "./state.ts";

/**
 * Keeps the reader's position, in the same file as the rows it speaks of. `save` has ended when it is durable. It may
 * have to wait, for another program's lock for example, and calls `check`, which may throw, before each attempt.
 */
export interface CommitStore {
  load(logId: string): Position | null;
  save(logId: string, position: Position, check?: () => void): Promise<void> | void;
}

/** The records of one delivery: about 5 ms of storing, so that everything else on the event loop gets its turn. */
const BATCH_RECORDS_MAX = 256;

type Row = [
  offset: number,
  kind: RecordKind,
  key: string,
  appendedAtMs: number,
  value: Uint8Array,
  crc: number | null,
];

export type ReaderOptions = Readonly<{ state: OutboxState; logId: string; partition: string }>;

/** What all readers of one log share. Only the newest is served. */
export class ReaderSeat {
  readonly state: OutboxState;
  readonly logId: string;
  readonly partition: string;
  readonly deletion: FrontDeletion;
  /** The epoch of the newest reader; 0 = none was opened. */
  epoch = 0;
  /** Where the newest reader reads on; null = it has not said yet. */
  position: number | null = null;
  readonly #select;
  readonly #oldest;
  readonly #newest;
  #wakeup = Promise.withResolvers<void>();

  constructor({ state, logId, partition }: ReaderOptions) {
    const { db } = state;
    this.state = state;
    this.logId = logId;
    this.partition = partition;
    this.deletion = new FrontDeletion(state);
    this.#select = db.query<unknown, [number, number]>(
      "SELECT offset, kind, key, appended_at, value, crc FROM records WHERE offset >= ? ORDER BY offset LIMIT ?",
    );
    this.#oldest = db.query<{ offset: number }, []>("SELECT offset FROM records ORDER BY offset LIMIT 1");
    this.#newest = db.query<{ offset: number }, []>(
      "SELECT offset FROM records ORDER BY offset DESC LIMIT 1",
    );
    state.onChange(() => this.#wakeUp());
  }

  open(commits: CommitStore): LogReader {
    const epoch = ++this.epoch;
    this.position = null;
    const committed = commits.load(this.logId);
    if (epoch === 1) this.#resolveEnd(committed?.offset ?? 0);
    // A kill may have cut a deletion off, and a log that is full of stored records may never see another commit.
    if (committed !== null) this.deletion.deleteBelow(committed.offset);
    this.state.notify();
    return new Reader(this, epoch, commits);
  }

  /** Resolves at the next change, also that of another reader's opening. */
  get woken(): Promise<void> {
    return this.#wakeup.promise;
  }

  /** The offset of the oldest record, or the one that the next record gets. */
  get beginOffset(): number {
    return this.#oldest.get()?.offset ?? this.state.offsets.end;
  }

  /** How many records the newest reader has not been handed. */
  get unreadCount(): number {
    return this.state.offsets.end - (this.position ?? this.beginOffset);
  }

  read(from: number): Row[] {
    try {
      return this.#select.values(from, BATCH_RECORDS_MAX) as Row[];
    } catch (error) {
      throw damageError(this.state.path, error);
    }
  }

  #wakeUp(): void {
    this.#wakeup.resolve();
    this.#wakeup = Promise.withResolvers<void>();
  }

  /**
   * A reader deletes from the front, and gives back the offsets taken ahead when nothing is left: so no offset above
   * the newest record was ever given. A power cut may take the unsynced end of this file but not the commit that
   * speaks of it, so every offset below the commit is used up.
   */
  #resolveEnd(committedOffset: number): void {
    const { offsets } = this.state;
    const { endAtOpen } = offsets;
    if (endAtOpen < committedOffset) {
      assert.equal(offsets.end, endAtOpen, "the first reader is opened before the first append");
      offsets.raiseTo(committedOffset);
    }
    if (offsets.end !== endAtOpen) return;
    const newestOffset = this.#newest.get()?.offset;
    offsets.end = Math.max(newestOffset === undefined ? endAtOpen : newestOffset + 1, committedOffset);
  }
}

class Reader implements LogReader {
  readonly #seat: ReaderSeat;
  readonly #epoch: number;
  readonly #commits: CommitStore;

  constructor(seat: ReaderSeat, epoch: number, commits: CommitStore) {
    this.#seat = seat;
    this.#epoch = epoch;
    this.#commits = commits;
  }

  async *deliveries(signal: AbortSignal): AsyncGenerator<Delivery> {
    const seat = this.#seat;
    const { state, partition } = seat;
    const epoch = this.#epoch;
    signal.addEventListener("abort", () => state.notify(), { once: true });
    const isCurrent = () => epoch === seat.epoch && !signal.aborted && !state.isClosed;
    if (!isCurrent()) return;
    yield { type: "assigned", epoch, partitions: [partition] };
    while (isCurrent()) {
      // Taken before the look at the table: an append in between must not be slept through.
      const { woken } = seat;
      const rows = seat.position === null ? [] : seat.read(seat.position);
      if (rows.length === 0) {
        // This promise alone: a race with one of the abort would keep a reaction of every wait for ever.
        await woken;
        continue;
      }
      const fromOffset = seat.position!;
      const nextOffset = rows.at(-1)![0] + 1;
      seat.position = nextOffset;
      const records = rows.map((row) => recordOf(state.path, row));
      yield { type: "batch", epoch, partition, fromOffset, nextOffset, records };
      // Everything above runs in microtasks: with a backlog, sockets and timers would never get their turn.
      if (rows.length === BATCH_RECORDS_MAX)
        await new Promise<void>((resolve) => state.clock.atEndOfTick(resolve));
    }
  }

  async position(epoch: number): Promise<PartitionRange> {
    this.#checkEpoch(epoch);
    const { logId, beginOffset, state } = this.#seat;
    return { committed: this.#commits.load(logId), beginOffset, endOffset: state.offsets.end };
  }

  seek(epoch: number, partition: string, offset: number): void {
    this.#checkEpoch(epoch);
    assert.equal(partition, this.#seat.partition);
    this.#seat.position = offset;
    this.#seat.state.notify();
  }

  async commit(epoch: number, _partition: string, position: Position): Promise<void> {
    const check = () => this.#checkEpoch(epoch);
    check();
    await this.#commits.save(this.#seat.logId, position, check);
    this.#seat.deletion.deleteBelow(position.offset);
  }

  #checkEpoch(epoch: number): void {
    if (epoch !== this.#seat.epoch || this.#seat.state.isClosed)
      throw new StaleEpochError(`epoch ${epoch} of the log has ended`);
  }
}

function recordOf(path: string, [offset, kind, key, timestampMs, value, crc]: Row): LogRecord {
  if (crc !== null && crc !== recordCrc(offset, kind, key, timestampMs, value))
    throw recordDamage(path, offset);
  return { kind, offset, timestampMs, value };
}
