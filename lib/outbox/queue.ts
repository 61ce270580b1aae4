// The producer's side of the log on SQLite, the near end of the outbox relay. What waits is read from any offset on,
// what was acknowledged is deleted and nothing else, and what was refused becomes a dead letter. What counts as
// acknowledged or refused is decided by ingest/relay.ts, never here.

import { LogFullError } from "../base/errors.ts";
import { inTransaction, setSync, sqliteFault } from "../base/sqlite.ts";
import type { Outbox, OutboxHealth, OutboxRecord } from "../contracts/log.ts";
import { recordCrc } from "./checksum.ts";
import { DEAD_SHARE } from "./dead.ts";
import { damageError, recordDamage, writeError } from "./errors.ts";
import { OffsetRuns } from "./runs.ts";
import type { OutboxState } from "./state.ts";
import { prepareDeadInsert } from "./tables.ts";

/** The values of one page. A record may be larger than that: then it is alone in its page. */
const PAGE_BYTES_MAX = 256 * 1024;
/** The records of one deletion transaction: a millisecond or two. */
const DELETE_RECORDS_MAX = 2_000;
/** The wait before a deletion that found the disk full is tried again: it needs pages of its own. */
const DELETE_RETRY_MS = 1_000;

type Row = OutboxRecord & { crc: number | null };

export class OutboxQueue implements Outbox {
  readonly #state: OutboxState;
  readonly #unconfirmedFrom: () => number | null;
  readonly #select;
  readonly #measure;
  readonly #remove;
  readonly #oldest;
  readonly #insertDead;
  /** Acknowledged and still in the file. */
  readonly #acknowledged = new OffsetRuns();
  #isDeleting = false;
  #onAppend = () => {};

  /** The records from `unconfirmedFrom` on wait and are not shown. No record before it was ever held back. */
  constructor(state: OutboxState, unconfirmedFrom: () => number | null) {
    const { db } = state;
    this.#state = state;
    this.#unconfirmedFrom = unconfirmedFrom;
    this.#select = db.query<Row, [number, number, number]>(
      `SELECT offset, kind, key, appended_at AS timestampMs, value, crc FROM records
        WHERE offset >= ? AND offset < ? ORDER BY offset LIMIT ?`,
    );
    this.#measure = db.query<{ count: number; size: number }, [number, number]>(
      "SELECT count(*) AS count, coalesce(sum(length(value)), 0) AS size FROM records WHERE offset BETWEEN ? AND ?",
    );
    this.#remove = db.query("DELETE FROM records WHERE offset BETWEEN ? AND ?");
    this.#oldest = db.query<{ appended_at: number }, []>(
      "SELECT appended_at FROM records ORDER BY offset LIMIT 1",
    );
    this.#insertDead = prepareDeadInsert(db);
    state.onChange(() => this.#onAppend());
  }

  get endOffset(): number {
    return Math.min(this.#state.offsets.end, this.#sendBelow);
  }

  read(fromOffset: number, recordsMax: number): OutboxRecord[] {
    const { path } = this.#state;
    const records: Row[] = [];
    let bytes = 0;
    try {
      for (const row of this.#select.iterate(fromOffset, this.#sendBelow, recordsMax)) {
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

  remove(offsets: readonly number[]): void {
    // A typed array sorts by number and without a comparator.
    this.#acknowledged.add(new Float64Array(offsets).sort());
    if (this.#isDeleting) return;
    this.#isDeleting = true;
    // Not in this tick: what is to be sent next goes out first.
    this.#state.clock.atEndOfTick(() => this.#deleteNext());
  }

  flush(): void {
    while (!this.#state.isClosed && !this.#acknowledged.isEmpty && this.#deleteSlice());
  }

  deadLetter(record: OutboxRecord, reason: string): void {
    const state = this.#state;
    const { offset, value } = record;
    if (state.totals.deadValueBytes + value.length > state.bytesMax * DEAD_SHARE) {
      throw new LogFullError(
        `the dead letters fill their share of the outbox, so this message was not added to them: ${reason}`,
        "see why messages are refused (`producer replay --dead` lists them), or raise OUTBOX_MAX_BYTES",
      );
    }
    const refusedAtMs = state.clock.now();
    try {
      inTransaction(state.db, () => {
        this.#insertDead(record, refusedAtMs, reason);
        this.#remove.run(offset, offset);
      });
    } catch (error) {
      throw writeError(state.path, error);
    }
    state.countRecords(-1, -value.length);
    state.countDead(1, value.length);
  }

  onAppend(callback: () => void): void {
    this.#onAppend = callback;
  }

  health(): OutboxHealth {
    const { totals, bytes, bytesMax } = this.#state;
    const oldestAtMs = this.#oldest.get()?.appended_at ?? null;
    return { recordCount: totals.recordCount, bytes, bytesMax, oldestAtMs, deadCount: totals.deadCount };
  }

  get #sendBelow(): number {
    return this.#unconfirmedFrom() ?? Number.MAX_SAFE_INTEGER;
  }

  /** One transaction's worth of deletion. False: the disk did not allow it, and the offsets stay noted. */
  #deleteSlice(): boolean {
    const { db, path, sync } = this.#state;
    const slice = this.#acknowledged.front(DELETE_RECORDS_MAX);
    let count = 0;
    let size = 0;
    try {
      // A deletion that a power cut undoes makes a repeat, which is allowed: it needs no sync of its own.
      if (sync === "full") setSync(db, "normal");
      inTransaction(db, () => {
        for (const { from, to } of slice) {
          const measured = this.#measure.get(from, to)!;
          count += measured.count;
          size += measured.size;
          this.#remove.run(from, to);
        }
      });
    } catch (error) {
      if (sqliteFault(error) === undefined) throw damageError(path, error);
      return false;
    } finally {
      if (sync === "full") setSync(db, "full");
    }
    this.#acknowledged.drop(slice);
    this.#state.countRecords(-count, -size);
    return true;
  }

  #deleteNext(): void {
    const { clock, isClosed } = this.#state;
    if (isClosed || this.#acknowledged.isEmpty) this.#isDeleting = false;
    else if (this.#deleteSlice()) clock.atEndOfTick(() => this.#deleteNext());
    else clock.after(DELETE_RETRY_MS, () => this.#deleteNext());
  }
}
