// The log on one SQLite file: the producer's outbox, and the embedded mode's log with a reader behind it. An
// append is one synchronous transaction, so the tick that read a frame ends with the frame on disk. One process
// owns the file; the lock falls with the process, kill -9 included. It deletes only what a durable commit covers.

import assert from "node:assert/strict";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { LogFullError, StaleEpochError } from "../base/errors.ts";
import { type Logger, silentLogger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import { type Database, inTransaction, type SyncMode, sqliteFault } from "../base/sqlite.ts";
import type {
  Delivery,
  LogEntry,
  LogReader,
  LogRecord,
  LogWriter,
  Outbox,
  PartitionRange,
  Position,
  RecordKind,
} from "../contracts/log.ts";
import { damageError, recordDamage, writeError } from "./errors.ts";
import { createOutboxLease, type OutboxLease } from "./owner.ts";
import { createOutbox, createOutboxDeadLetters, type OutboxDeadLetters } from "./queue.ts";
import { openLogFile, recordCrc } from "./recovery/salvage.ts";

/** Where the reader's position is kept: in the file of what it speaks of. `save` returns when it is durable. */
export interface CommitStore {
  load(logId: string): Position | null;
  save(logId: string, position: Position): void;
}

export type SqliteLogOptions = Readonly<{
  /** The directory; the file in it is outbox.sqlite. */
  directory: string;
  topic: string;
  sync: SyncMode;
  bytesMax: number;
  clock: Clock;
  metrics: Metrics;
  /** Hears of a damaged file. */
  logger?: Logger;
}>;

export type SqliteLogHealth = Readonly<{
  recordCount: number;
  /** Records that the reader has not been handed yet. */
  unreadCount: number;
  bytes: number;
  bytesMax: number;
  oldestAtMs: number | null;
}>;

export interface SqliteLog extends LogWriter, Disposable {
  /**
   * The one reader. Opening another moves the epoch on: the older one's deliveries end, its commits fail. The
   * first is opened before the first append: after a power cut only it knows which offsets are used up.
   */
  openReader(commits: CommitStore): LogReader;
  /** The producer's side, instead of a reader: once, and never both. */
  openOutbox(): Outbox;
  /** What the far end refused. */
  readonly dead: OutboxDeadLetters;
  /** The producer's hold on the feed, as far as this file remembers it. */
  readonly lease: OutboxLease;
  /** Of the file, the same over restarts. */
  readonly id: string;
  health(): SqliteLogHealth;
}

/** Of one delivery: about 5 ms of storing, so that everything else on the event loop gets its turn. */
const BATCH_RECORDS_MAX = 256;
/** Of one deletion transaction, for the same reason. */
const DELETE_RECORDS_MAX = 2_000;
/** What a record costs beside its value: ids, key, kind, time, page overhead. Measured 70 to 90. */
const RECORD_OVERHEAD_BYTES = 90;
/** Taken at once, ahead of their records: noting the last one with each append would double the pages it writes. */
const OFFSETS_TAKEN = 10_000;
/** Kept free for feed events, above bytesMax: a full log must still be able to say since when it is full. */
const EVENT_ROOM_BYTES = 1 << 20;

type Row = [
  offset: number,
  kind: RecordKind,
  key: string,
  appendedAt: number,
  value: Uint8Array,
  crc: number | null,
];

export function openSqliteLog(options: SqliteLogOptions): SqliteLog {
  const { topic, sync, bytesMax, clock, metrics, logger = silentLogger } = options;
  const partition = `${topic}/0`;
  const path = join(options.directory, "outbox.sqlite");
  const file = openLogFile({ path, sync, clock, logger });
  const { db } = file;
  const logId = readOrMakeId(db, clock);
  const insert = db.query("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)");
  const select = db.query<unknown, [number, number]>(
    "SELECT offset, kind, key, appended_at, value, crc FROM records WHERE offset >= ? ORDER BY offset LIMIT ?",
  );
  const measure = db.query<{ count: number; size: number }, [number]>(
    "SELECT count(*) AS count, coalesce(sum(length(value)), 0) AS size FROM records WHERE offset < ?",
  );
  const remove = db.query("DELETE FROM records WHERE offset < ?");
  const oldest = db.query<{ offset: number; appended_at: number }, []>(
    "SELECT offset, appended_at FROM records ORDER BY offset LIMIT 1",
  );
  const newest = db.query<{ offset: number }, []>("SELECT offset FROM records ORDER BY offset DESC LIMIT 1");
  const lastOffset = db.query<{ seq: number }, []>("SELECT seq FROM sqlite_sequence WHERE name = 'records'");
  // Lower than the last record's it is raised by SQLite itself: what is taken ahead only saves that work.
  const take = db.query("UPDATE sqlite_sequence SET seq = ? WHERE name = 'records'");

  let takenTo = lastOffset.get()?.seq ?? 0;
  const endAtOpen = takenTo + 1;
  const { totals } = file;
  /** The offset that the next record gets. */
  let end = endAtOpen;
  let epoch = 0;
  /** Where the current reader goes on; null = it has not said yet. */
  let position: number | null = null;
  let isClosed = false;
  /** Wakes the reader; replaced at each wake. */
  let wake = Promise.withResolvers<void>();
  let isDeleting = false;
  let deleteBelow = 0;
  /** No record is left below. */
  let deletedBelow = 0;
  let outbox: ReturnType<typeof createOutbox> | null = null;

  const bytes = () =>
    totals.valueBytes +
    totals.deadValueBytes +
    (totals.recordCount + totals.deadCount) * RECORD_OVERHEAD_BYTES;
  const endOffset = () => end;
  const notify = () => {
    outbox?.wakeUp();
    wake.resolve();
    wake = Promise.withResolvers<void>();
  };
  const gauge = () => {
    metrics.logBytes.set(bytes());
    metrics.logMessages.set(totals.recordCount);
  };
  const shared = {
    db,
    path,
    sync,
    clock,
    totals,
    bytesMax,
    metrics,
    gauge,
    isClosed: () => isClosed,
    endOffset,
  };
  const onMore = (count: number) => {
    end += count;
    notify();
  };
  const lease = createOutboxLease(shared, onMore);

  async function append(entries: readonly LogEntry[]): Promise<void> {
    if (entries.length === 0) return;
    let addedBytes = 0;
    for (const { value } of entries) addedBytes += value.length;
    const limit = entries.every(({ kind }) => kind === "event") ? bytesMax + EVENT_ROOM_BYTES : bytesMax;
    if (bytes() + addedBytes + entries.length * RECORD_OVERHEAD_BYTES > limit) {
      throw new LogFullError(
        `the outbox holds ${bytes()} bytes and its limit is ${bytesMax}`,
        "see why nothing is taken out of it (/health), or raise OUTBOX_MAX_BYTES",
      );
    }
    const now = clock.now();
    const isFirstUnconfirmed = lease.isFirstUnconfirmed();
    const last = end + entries.length - 1;
    const takeTo = last > takenTo ? last + OFFSETS_TAKEN : takenTo;
    try {
      inTransaction(db, () => {
        if (isFirstUnconfirmed) lease.markUnconfirmed(end);
        let offset = end;
        for (const { kind, key, value } of entries) {
          insert.run(offset, kind, key, now, value, recordCrc(offset, kind, key, now, value));
          offset += 1;
        }
        // Behind the first record there ever was, which makes the row.
        if (takeTo > takenTo) take.run(takeTo);
      });
    } catch (error) {
      throw writeError(path, error);
    }
    takenTo = takeTo;
    if (isFirstUnconfirmed) lease.noteUnconfirmed(end);
    end += entries.length;
    totals.recordCount += entries.length;
    totals.valueBytes += addedBytes;
    metrics.messagesAppendedTotal.inc(entries.length);
    gauge();
    notify();
  }

  /** Deletes below the offset a slice at a time; nobody waits for it, and it can be cut off at any point. */
  function deleteUpTo(offset: number): void {
    deleteBelow = Math.max(deleteBelow, offset);
    if (isDeleting) return;
    isDeleting = true;
    const deleteSlice = () => {
      // More than a slice may be a gap, at a start for example.
      if (!isClosed && deleteBelow - deletedBelow > DELETE_RECORDS_MAX)
        deletedBelow = Math.max(deletedBelow, oldest.get()?.offset ?? deleteBelow);
      if (isClosed || deletedBelow >= deleteBelow) {
        isDeleting = false;
        return;
      }
      const below = Math.min(deleteBelow, deletedBelow + DELETE_RECORDS_MAX);
      const { count, size } = measure.get(below)!;
      // In an empty file nothing else says how far it was: behind a commit that went back (a restored store) is a gap.
      // What a forwarder put aside has offsets too, and must not lie above the last one.
      const isEmptied = count === totals.recordCount && totals.deadCount === 0 && takenTo >= end;
      try {
        inTransaction(db, () => {
          remove.run(below);
          if (isEmptied) take.run(end - 1);
        });
        if (isEmptied) takenTo = end - 1;
        deletedBelow = below;
        totals.recordCount -= count;
        totals.valueBytes -= size;
        gauge();
      } catch (error) {
        // A disk without room for the deletion's own pages: the next commit tries again.
        if (sqliteFault(error) === undefined) throw damageError(path, error);
        isDeleting = false;
        return;
      }
      // More commits in this tick are taken with the next slice.
      clock.atEndOfTick(deleteSlice);
    };
    deleteSlice();
  }

  function read(from: number): Row[] {
    try {
      return select.values(from, BATCH_RECORDS_MAX) as Row[];
    } catch (error) {
      throw damageError(path, error);
    }
  }

  /**
   * A reader deletes from the front, and gives back what was taken when nothing is left: so what lies above the newest
   * record was never given. A power cut may take the unsynced end of this file but not the commit that speaks of it:
   * offsets up to there are used up.
   */
  function resolveEnd(committedOffset: number): void {
    if (endAtOpen < committedOffset) {
      assert.equal(end, endAtOpen, "the first reader is opened before the first append");
      raiseOffsets(db, committedOffset);
      takenTo = committedOffset - 1;
    }
    if (end !== endAtOpen) return;
    const newestOffset = newest.get()?.offset;
    end = Math.max(newestOffset === undefined ? endAtOpen : newestOffset + 1, committedOffset);
  }

  function openReader(commits: CommitStore): LogReader {
    assert(outbox === null, "the log has a forwarder");
    lease.claimRole("local");
    const ownEpoch = ++epoch;
    position = null;
    const committed = commits.load(logId);
    if (ownEpoch === 1) resolveEnd(committed?.offset ?? 0);
    // A kill may have cut a deletion off, and a log that is full of what is stored may never see another commit.
    if (committed !== null) deleteUpTo(committed.offset);
    notify();

    const checkEpoch = (given: number) => {
      if (given !== epoch || isClosed) throw new StaleEpochError(`epoch ${given} of the log has ended`);
    };

    async function* deliveries(signal: AbortSignal): AsyncGenerator<Delivery> {
      signal.addEventListener("abort", notify, { once: true });
      const isCurrent = () => ownEpoch === epoch && !signal.aborted && !isClosed;
      if (!isCurrent()) return;
      yield { type: "assigned", epoch: ownEpoch, partitions: [partition] };
      while (isCurrent()) {
        // Taken before the look at the table: an append in between must not be slept through.
        const woken = wake.promise;
        const rows = position === null ? [] : read(position);
        if (rows.length === 0) {
          // Nothing but this: a race with a promise of the abort would keep a reaction of every wait, for ever.
          await woken;
          continue;
        }
        const fromOffset = position!;
        const nextOffset = rows.at(-1)![0] + 1;
        position = nextOffset;
        yield {
          type: "batch",
          epoch: ownEpoch,
          partition,
          fromOffset,
          nextOffset,
          records: rows.map((row) => recordOf(path, row)),
        };
        // Everything above runs in microtasks: with a backlog, sockets and timers would never get their turn.
        if (rows.length === BATCH_RECORDS_MAX)
          await new Promise<void>((resolve) => clock.atEndOfTick(resolve));
      }
    }

    return {
      deliveries,
      async position(given): Promise<PartitionRange> {
        checkEpoch(given);
        return {
          committed: commits.load(logId),
          beginOffset: oldest.get()?.offset ?? end,
          endOffset: end,
        };
      },
      seek(given, sought, offset) {
        checkEpoch(given);
        assert.equal(sought, partition);
        position = offset;
        notify();
      },
      async commit(given, _partition, toCommit) {
        checkEpoch(given);
        commits.save(logId, toCommit);
        deleteUpTo(toCommit.offset);
      },
    };
  }

  function openOutbox(): Outbox {
    assert(epoch === 0 && outbox === null, "the log has a reader or a forwarder");
    lease.claimRole("producer");
    const health = () => ({
      recordCount: totals.recordCount,
      bytes: bytes(),
      bytesMax,
      oldestAtMs: oldest.get()?.appended_at ?? null,
      deadCount: totals.deadCount,
    });
    const sendBelow = () => lease.unconfirmedFrom ?? Number.MAX_SAFE_INTEGER;
    outbox = createOutbox({ ...shared, health, sendBelow });
    return outbox;
  }

  return {
    id: logId,
    append,
    openReader,
    openOutbox,
    dead: createOutboxDeadLetters(shared, onMore),
    lease,
    health: () => ({
      recordCount: totals.recordCount,
      unreadCount: endOffset() - (position ?? oldest.get()?.offset ?? endOffset()),
      bytes: bytes(),
      bytesMax,
      oldestAtMs: oldest.get()?.appended_at ?? null,
    }),
    [Symbol.dispose]() {
      isClosed = true;
      notify();
      file[Symbol.dispose]();
    },
  };
}

function recordOf(path: string, [offset, kind, key, timestampMs, value, crc]: Row): LogRecord {
  if (crc !== null && crc !== recordCrc(offset, kind, key, timestampMs, value))
    throw recordDamage(path, offset);
  return { kind, offset, timestampMs, value };
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

/** The next record gets at least this offset. */
function raiseOffsets(db: Database, offset: number): void {
  inTransaction(db, () => {
    db.run("DELETE FROM sqlite_sequence WHERE name = 'records'");
    db.run("INSERT INTO sqlite_sequence (name, seq) VALUES ('records', ?)", [offset - 1]);
  });
}
