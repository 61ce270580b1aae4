// The log on one SQLite file: the producer's outbox, and the embedded mode's log with a reader. An append is one
// synchronous transaction, so the tick that read a frame ends with the frame on disk. One process owns the file; the
// lock falls with the process, kill -9 included. It deletes only what a durable commit or an acknowledgement covers.

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { LogFullError } from "../base/errors.ts";
import { type Logger, silentLogger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import { type Database, inTransaction, type SyncMode } from "../base/sqlite.ts";
import type { LogEntry, LogReader, LogWriter, Outbox } from "../contracts/log.ts";
import { DeadLetterTable, type OutboxDeadLetters } from "./dead.ts";
import { writeError } from "./errors.ts";
import { type OutboxFile, openOutboxFile } from "./file.ts";
import { OutboxJournal, type OutboxLease } from "./journal.ts";
import { OutboxQueue } from "./queue.ts";
import { type CommitStore, ReaderSeat } from "./reader.ts";
import { OutboxState, RECORD_OVERHEAD_BYTES } from "./state.ts";
import { prepareRecordInsert } from "./tables.ts";

export type { CommitStore };

export type SqliteLogOptions = Readonly<{
  /** The directory of the file, which is called outbox.sqlite. */
  directory: string;
  topic: string;
  sync: SyncMode;
  bytesMax: number;
  clock: Clock;
  metrics: Metrics;
  /** Is told of a damaged file. */
  logger?: Logger;
}>;

export type SqliteLogHealth = Readonly<{
  recordCount: number;
  /** Records that the reader has not been handed yet. */
  unreadCount: number;
  bytes: number;
  bytesMax: number;
  /** When the oldest record was appended, ms since 1970; null = there is none. */
  oldestAtMs: number | null;
}>;

export interface SqliteLog extends LogWriter, Disposable {
  /**
   * The one reader. Opening another one begins a new epoch: the older one's deliveries end, its commits fail. The
   * first reader is opened before the first append: after a power cut only its commit knows which offsets are used
   * up. Throws SetupError while the file holds records of `producer`.
   */
  openReader(commits: CommitStore): LogReader;
  /** The producer's side, instead of a reader: once. Throws SetupError while the file holds records of `local`. */
  openOutbox(): Outbox;
  readonly dead: OutboxDeadLetters;
  /** What this file remembers of the producer's leases. */
  readonly lease: OutboxLease;
  /** Identifies the file; the same over restarts, another one after a salvage. */
  readonly id: string;
  health(): SqliteLogHealth;
}

/** Kept free for feed events, above bytesMax: a full log must still be able to say since when it is full. */
const EVENT_ROOM_BYTES = 1 << 20;

/** Throws SetupError when another process owns the file, or when it cannot be opened. */
export function openSqliteLog(options: SqliteLogOptions): SqliteLog {
  const { directory, topic, sync, clock, logger = silentLogger } = options;
  const path = join(directory, "outbox.sqlite");
  const file = openOutboxFile({ path, sync, clock, logger });
  return new OpenLog(file, new OutboxState({ ...options, ...file, path }), `${topic}/0`);
}

class OpenLog implements SqliteLog {
  readonly id: string;
  readonly dead: OutboxDeadLetters;
  readonly #file: OutboxFile;
  readonly #state: OutboxState;
  readonly #journal: OutboxJournal;
  readonly #seat: ReaderSeat;
  readonly #insert;
  readonly #oldest;
  #outbox: OutboxQueue | null = null;

  constructor(file: OutboxFile, state: OutboxState, partition: string) {
    const { db } = state;
    this.#file = file;
    this.#state = state;
    this.id = readOrMakeId(db, state.clock);
    this.dead = new DeadLetterTable(state);
    this.#journal = new OutboxJournal(state);
    this.#seat = new ReaderSeat({ state, logId: this.id, partition });
    this.#insert = prepareRecordInsert(db);
    this.#oldest = db.query<{ appended_at: number }, []>(
      "SELECT appended_at FROM records ORDER BY offset LIMIT 1",
    );
  }

  get lease(): OutboxLease {
    return this.#journal;
  }

  async append(entries: readonly LogEntry[]): Promise<void> {
    if (entries.length === 0) return;
    const state = this.#state;
    const { db, path, offsets } = state;
    let addedBytes = 0;
    for (const { value } of entries) addedBytes += value.length;
    this.#checkRoom(entries, addedBytes);
    const now = state.clock.now();
    const isFirstUnconfirmed = this.#journal.isFirstUnconfirmed();
    const begin = offsets.end;
    const taken = offsets.takenAfter(entries.length);
    try {
      inTransaction(db, () => {
        if (isFirstUnconfirmed) this.#journal.writeUnconfirmed(begin);
        let offset = begin;
        for (const { kind, key, value } of entries) {
          this.#insert(offset, kind, key, now, value);
          offset += 1;
        }
        if (taken > offsets.taken) offsets.note(taken);
      });
    } catch (error) {
      throw writeError(path, error);
    }
    if (isFirstUnconfirmed) this.#journal.noteUnconfirmed(begin);
    offsets.taken = taken;
    offsets.end = begin + entries.length;
    state.metrics.messagesAppendedTotal.inc(entries.length);
    state.countRecords(entries.length, addedBytes);
    state.notify();
  }

  openReader(commits: CommitStore): LogReader {
    assert(this.#outbox === null, "the log has a relay");
    this.#journal.claimRole("local");
    return this.#seat.open(commits);
  }

  openOutbox(): Outbox {
    assert(this.#seat.epoch === 0 && this.#outbox === null, "the log has a reader or a relay");
    this.#journal.claimRole("producer");
    this.#outbox = new OutboxQueue(this.#state, () => this.#journal.unconfirmedFrom);
    return this.#outbox;
  }

  health(): SqliteLogHealth {
    const { totals, bytes, bytesMax } = this.#state;
    return {
      recordCount: totals.recordCount,
      unreadCount: this.#seat.unreadCount,
      bytes,
      bytesMax,
      oldestAtMs: this.#oldest.get()?.appended_at ?? null,
    };
  }

  [Symbol.dispose](): void {
    this.#state.isClosed = true;
    this.#state.notify();
    this.#file[Symbol.dispose]();
  }

  #checkRoom(entries: readonly LogEntry[], addedBytes: number): void {
    const { bytes, bytesMax } = this.#state;
    const limit = entries.every(({ kind }) => kind === "event") ? bytesMax + EVENT_ROOM_BYTES : bytesMax;
    if (bytes + addedBytes + entries.length * RECORD_OVERHEAD_BYTES <= limit) return;
    throw new LogFullError(
      `the outbox holds ${bytes} bytes and its limit is ${bytesMax}`,
      "see why nothing is taken out of it (/health), or raise OUTBOX_MAX_BYTES",
    );
  }
}

function readOrMakeId(db: Database, clock: Clock): string {
  return inTransaction(db, () => {
    const known = db.query<{ id: string }, []>("SELECT id FROM log_identity").get();
    if (known) return known.id;
    const id = Math.floor(clock.random() * 2 ** 52)
      .toString(16)
      .padStart(13, "0");
    db.query("INSERT INTO log_identity (id) VALUES (?)").run(id);
    return id;
  });
}
