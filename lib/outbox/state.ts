// One open outbox file and what is known of its content: the state that the writer, the reader, the queue, the dead
// letters and the lease's journal share. It counts and it wakes; it writes no record.

import type { Clock } from "../base/clock.ts";
import type { Metrics } from "../base/metrics.ts";
import { type Database, inTransaction, type SyncMode } from "../base/sqlite.ts";
import { lastOffsetNoted, type Totals } from "./tables.ts";

/** What a record costs beside its value: ids, key, kind, time, page overhead. Measured 70 to 90. */
export const RECORD_OVERHEAD_BYTES = 90;

export type OutboxStateOptions = Readonly<{
  db: Database;
  path: string;
  totals: Totals;
  sync: SyncMode;
  bytesMax: number;
  clock: Clock;
  metrics: Metrics;
}>;

export class OutboxState {
  readonly db: Database;
  readonly path: string;
  readonly sync: SyncMode;
  readonly bytesMax: number;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly offsets: Offsets;
  isClosed = false;
  readonly #totals: Totals;
  readonly #listeners: (() => void)[] = [];

  constructor({ db, path, totals, sync, bytesMax, clock, metrics }: OutboxStateOptions) {
    this.db = db;
    this.path = path;
    this.sync = sync;
    this.bytesMax = bytesMax;
    this.clock = clock;
    this.metrics = metrics;
    this.offsets = new Offsets(db);
    this.#totals = totals;
  }

  get totals(): Readonly<Totals> {
    return this.#totals;
  }

  /** What counts against bytesMax. */
  get bytes(): number {
    const { recordCount, valueBytes, deadCount, deadValueBytes } = this.#totals;
    return valueBytes + deadValueBytes + (recordCount + deadCount) * RECORD_OVERHEAD_BYTES;
  }

  /** After a transaction that added records (or, with numbers below 0, removed some). */
  countRecords(count: number, valueBytes: number): void {
    this.#totals.recordCount += count;
    this.#totals.valueBytes += valueBytes;
    this.#updateGauges();
  }

  /** The same for dead letters. */
  countDead(count: number, valueBytes: number): void {
    this.#totals.deadCount += count;
    this.#totals.deadValueBytes += valueBytes;
    this.#updateGauges();
  }

  /** Calls back whenever there may be something new to read, in the tick of the change. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  notify(): void {
    for (const listener of this.#listeners) listener();
  }

  #updateGauges(): void {
    this.metrics.logBytes.set(this.bytes);
    this.metrics.logMessages.set(this.#totals.recordCount);
  }
}

/** Taken at once, ahead of their records: noting the last one with each append would double the pages it writes. */
const OFFSETS_TAKEN = 10_000;

/** Which offset comes next. SQLite notes the last one taken, so that no crash gives an offset twice. */
export class Offsets {
  /** The offset that the next record gets. */
  end: number;
  /** What `end` was when the file was opened. */
  readonly endAtOpen: number;
  /** As noted in the file; at least that of the last record. */
  taken: number;
  readonly #db: Database;
  readonly #note: ReturnType<Database["query"]>;

  constructor(db: Database) {
    this.#db = db;
    this.taken = lastOffsetNoted(db);
    this.endAtOpen = this.taken + 1;
    this.end = this.endAtOpen;
    // A number below the last record's is raised by SQLite itself: taking ahead only saves that work.
    this.#note = db.query("UPDATE sqlite_sequence SET seq = ? WHERE name = 'records'");
  }

  /** The last offset that is taken when so many records are added. */
  takenAfter(count: number): number {
    const last = this.end + count - 1;
    return last > this.taken ? last + OFFSETS_TAKEN : this.taken;
  }

  /**
   * To be called in a transaction, after its records: the first record there ever was makes the row. Set `taken` when
   * the transaction is committed.
   */
  note(taken: number): void {
    this.#note.run(taken);
  }

  /** The next record gets at least this offset. */
  raiseTo(offset: number): void {
    const db = this.#db;
    inTransaction(db, () => {
      db.run("DELETE FROM sqlite_sequence WHERE name = 'records'");
      db.run("INSERT INTO sqlite_sequence (name, seq) VALUES ('records', ?)", [offset - 1]);
    });
    this.taken = offset - 1;
  }
}
