// The producer's side of the log on SQLite: what waits is read from any offset on, what was acknowledged is deleted
// and nothing else, what was refused is put aside. It never decides what was acknowledged or refused: ingest/relay.ts does.

import type { Clock } from "../base/clock.ts";
import { LogFullError } from "../base/errors.ts";
import type { Metrics } from "../base/metrics.ts";
import { type Database, inTransaction, type SyncMode, setSync, sqliteFault } from "../base/sqlite.ts";
import type { Outbox, OutboxHealth, OutboxRecord, RecordKind } from "../contracts/log.ts";
import { damageError, recordDamage, writeError } from "./errors.ts";
import { deadCrc, recordCrc, type Totals } from "./recovery/salvage.ts";

/** What outbox/log.ts and this file share of one open log. */
export type SharedFile = Readonly<{
  db: Database;
  path: string;
  sync: SyncMode;
  clock: Clock;
  totals: Totals;
  bytesMax: number;
  metrics: Metrics;
  /** After each change of `held`. */
  gauge: () => void;
  isClosed: () => boolean;
  endOffset: () => number;
}>;

export type DeadRecord = Readonly<{
  offset: number;
  kind: RecordKind;
  key: string;
  appendedAtMs: number;
  refusedAtMs: number;
  reason: string;
  bytes: number;
}>;

/** What the far end refused, each record alone. It counts in the file's bytes until it is sent after all. */
export interface OutboxDeadLetters {
  readonly count: number;
  /** The oldest ones, up to `limit`. */
  list(limit: number): readonly DeadRecord[];
  /**
   * All that was refused, in its order, to the end of what is to be sent: its identity is in the value. How many. Not
   * what another producer may have sent: its trades have other identities there.
   */
  requeue(): number;
  /** Deletes what another producer may have sent. How many. */
  dropDoubtful(): number;
}

/** Of a page, and of one transaction that takes dead letters back. One record may be larger: then it is alone. */
const PAGE_BYTES_MAX = 256 * 1024;
/** Of one deletion transaction: a millisecond or two. */
const DELETE_RECORDS_MAX = 2_000;
/** A disk without room for the deletion's own pages gets so long. */
const DELETE_RETRY_MS = 1_000;
/** Of one transaction that takes dead letters back. */
const REQUEUE_RECORDS_MAX = 500;

/** Of the file, for what is put aside: beyond it the far end, or its operator, has to mend something first. */
export const DEAD_SHARE = 0.25;
/** Of records that another producer may have received too: they are never sent. */
export const UNCONFIRMED_REASON = "another producer held the feed";

type Row = OutboxRecord & { crc: number | null };
type Run = { from: number; to: number };

/** `sendBelow`: the records from there on are in doubt, and wait. Before that they were never read. */
export function createOutbox(
  file: SharedFile & { health: () => OutboxHealth; sendBelow: () => number },
): Outbox & { wakeUp(): void } {
  const { db, path, sync, clock, totals, bytesMax, sendBelow } = file;
  const select = db.query<Row, [number, number, number]>(
    `SELECT offset, kind, key, appended_at AS timestampMs, value, crc FROM records
      WHERE offset >= ? AND offset < ? ORDER BY offset LIMIT ?`,
  );
  const measure = db.query<{ count: number; size: number }, [number, number]>(
    "SELECT count(*) AS count, coalesce(sum(length(value)), 0) AS size FROM records WHERE offset BETWEEN ? AND ?",
  );
  const remove = db.query("DELETE FROM records WHERE offset BETWEEN ? AND ?");
  const insertDead = db.query("INSERT INTO outbox_dead VALUES (?, ?, ?, ?, ?, ?, ?, ?)");

  /** Acknowledged and still in the file, in the order of the acknowledgements. */
  let runs: Run[] = [];
  let isDeleting = false;
  let wakeUp = () => {};

  function read(fromOffset: number, recordsMax: number): OutboxRecord[] {
    const records: Row[] = [];
    let bytes = 0;
    try {
      for (const row of select.iterate(fromOffset, sendBelow(), recordsMax)) {
        const { offset, kind, key, timestampMs, value, crc } = row;
        if (crc !== null && crc !== recordCrc(offset, kind, key, timestampMs, value))
          throw recordDamage(path, offset);
        records.push(row);
        bytes += value.length;
        if (bytes >= PAGE_BYTES_MAX) break;
      }
    } catch (error) {
      throw damageError(path, error);
    }
    return records;
  }

  /** One transaction's worth off the front of `runs`; false: it could not be, and they stay. */
  function deleteSlice(): boolean {
    const slice: Run[] = [];
    let left = DELETE_RECORDS_MAX;
    let whole = 0;
    for (const { from, to } of runs) {
      if (left === 0) break;
      const upTo = Math.min(to, from + left - 1);
      slice.push({ from, to: upTo });
      left -= upTo - from + 1;
      if (upTo === to) whole += 1;
    }
    let count = 0;
    let size = 0;
    try {
      // A deletion that a power cut undoes makes a repeat, which is allowed: it needs no sync of its own.
      if (sync === "full") setSync(db, "normal");
      inTransaction(db, () => {
        for (const { from, to } of slice) {
          const measured = measure.get(from, to)!;
          count += measured.count;
          size += measured.size;
          remove.run(from, to);
        }
      });
    } catch (error) {
      if (sqliteFault(error) === undefined) throw damageError(path, error);
      return false;
    } finally {
      if (sync === "full") setSync(db, "full");
    }
    const cut = slice.length > whole ? runs[whole] : undefined;
    if (cut !== undefined) cut.from = slice.at(-1)!.to + 1;
    runs = runs.slice(whole);
    totals.recordCount -= count;
    totals.valueBytes -= size;
    file.gauge();
    return true;
  }

  function deleteOn(): void {
    if (file.isClosed() || runs.length === 0) isDeleting = false;
    else if (deleteSlice()) clock.atEndOfTick(deleteOn);
    else clock.after(DELETE_RETRY_MS, deleteOn);
  }

  return {
    get endOffset() {
      return Math.min(file.endOffset(), sendBelow());
    },
    read,
    remove(offsets) {
      let last = runs.at(-1);
      for (const offset of offsets) {
        if (last?.to === offset - 1) last.to = offset;
        else {
          last = { from: offset, to: offset };
          runs.push(last);
        }
      }
      if (isDeleting) return;
      isDeleting = true;
      // Not in this tick: what is to be sent next goes out before.
      clock.atEndOfTick(deleteOn);
    },
    flush() {
      while (!file.isClosed() && runs.length > 0 && deleteSlice());
    },
    deadLetter({ offset, kind, key, timestampMs, value }, reason) {
      if (totals.deadValueBytes + value.length > bytesMax * DEAD_SHARE) {
        throw new LogFullError(
          `what is put aside fills its share of the outbox, and this was not taken: ${reason}`,
          "see why messages are refused (`producer replay --dead` lists them), or raise OUTBOX_MAX_BYTES",
        );
      }
      const refusedAtMs = clock.now();
      const crc = deadCrc(recordCrc(offset, kind, key, timestampMs, value), refusedAtMs, reason);
      try {
        inTransaction(db, () => {
          insertDead.run(offset, kind, key, timestampMs, value, crc, refusedAtMs, reason);
          remove.run(offset, offset);
        });
      } catch (error) {
        throw writeError(path, error);
      }
      totals.recordCount -= 1;
      totals.valueBytes -= value.length;
      totals.deadCount += 1;
      totals.deadValueBytes += value.length;
      file.gauge();
    },
    onAppend(callback) {
      wakeUp = callback;
    },
    wakeUp: () => wakeUp(),
    health: file.health,
  };
}

/** `onRequeued` hears of each transaction's count: so many offsets from endOffset on are taken. */
export function createOutboxDeadLetters(
  file: SharedFile,
  onRequeued: (count: number) => void,
): OutboxDeadLetters {
  const { db, path, clock, totals } = file;
  const list = db.query<DeadRecord, [number]>(
    `SELECT offset, kind, key, appended_at AS appendedAtMs, refused_at AS refusedAtMs, reason,
      length(value) AS bytes FROM outbox_dead ORDER BY offset LIMIT ?`,
  );
  const select = db.query<Pick<OutboxRecord, "offset" | "kind" | "key" | "value">, [number]>(
    `SELECT offset, kind, key, value FROM outbox_dead WHERE reason <> '${UNCONFIRMED_REASON}' ORDER BY offset LIMIT ?`,
  );
  const insert = db.query("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)");
  const remove = db.query("DELETE FROM outbox_dead WHERE offset = ?");
  const measureDoubtful = db.query<{ count: number; size: number }, [string]>(
    "SELECT count(*) AS count, coalesce(sum(length(value)), 0) AS size FROM outbox_dead WHERE reason = ?",
  );
  const removeDoubtful = db.query("DELETE FROM outbox_dead WHERE reason = ?");

  function requeueSlice(): number {
    const now = clock.now();
    const dead: Pick<OutboxRecord, "offset" | "kind" | "key" | "value">[] = [];
    let bytes = 0;
    for (const record of select.iterate(REQUEUE_RECORDS_MAX)) {
      dead.push(record);
      bytes += record.value.length;
      if (bytes >= PAGE_BYTES_MAX) break;
    }
    const count = dead.length;
    inTransaction(db, () => {
      let offset = file.endOffset();
      for (const { offset: old, kind, key, value } of dead) {
        insert.run(offset, kind, key, now, value, recordCrc(offset, kind, key, now, value));
        remove.run(old);
        offset += 1;
      }
    });
    totals.recordCount += count;
    totals.valueBytes += bytes;
    totals.deadCount -= count;
    totals.deadValueBytes -= bytes;
    file.gauge();
    onRequeued(count);
    return count;
  }

  return {
    get count() {
      return totals.deadCount;
    },
    list: (limit) => list.all(limit),
    requeue() {
      let total = 0;
      try {
        for (let count = requeueSlice(); count > 0; count = requeueSlice()) total += count;
      } catch (error) {
        throw writeError(path, error);
      }
      return total;
    },
    dropDoubtful() {
      const { count, size } = measureDoubtful.get(UNCONFIRMED_REASON)!;
      try {
        inTransaction(db, () => removeDoubtful.run(UNCONFIRMED_REASON));
      } catch (error) {
        throw writeError(path, error);
      }
      totals.deadCount -= count;
      totals.deadValueBytes -= size;
      file.gauge();
      return count;
    },
  };
}
