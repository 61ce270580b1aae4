// The dead letters of the outbox (the table outbox_dead): what Kafka refused, each record alone, and the trades that
// were quarantined because another producer may have received them too. They count in the file's bytes. It decides
// neither: ingest/relay.ts and outbox/quarantine.ts do.

import { inTransaction } from "../base/sqlite.ts";
import type { OutboxRecord, RecordKind } from "../contracts/log.ts";
import { writeError } from "./errors.ts";
import type { OutboxState } from "./state.ts";
import { prepareRecordInsert } from "./tables.ts";

/** Times are in ms since 1970. */
export type DeadRecord = Readonly<{
  offset: number;
  kind: RecordKind;
  key: string;
  appendedAtMs: number;
  refusedAtMs: number;
  reason: string;
  /** The length of the value. */
  bytes: number;
}>;

/** Methods that write throw LogFullError or LogUnavailableError. */
export interface OutboxDeadLetters {
  readonly count: number;
  /** The oldest ones, up to `limit`. */
  list(limit: number): readonly DeadRecord[];
  /**
   * Moves what Kafka refused back to the end of what waits, in order. The identities are in the values, so they stay.
   * Quarantined trades are left out: another producer may have sent them, under other identities. Returns how many
   * were moved.
   */
  requeue(): number;
  /** Deletes the quarantined trades; returns how many. */
  dropUnconfirmed(): number;
}

/** The share of bytesMax for the values of dead letters. Beyond it Kafka, or its operator, has to fix something first. */
export const DEAD_SHARE = 0.25;
/** The reason of a quarantined record: it is never sent. */
export const UNCONFIRMED_REASON = "another producer held the feed";
/** The records of one transaction that requeues, and the bytes of their values; the last one may exceed them. */
const REQUEUE_RECORDS_MAX = 500;
const REQUEUE_BYTES_MAX = 256 * 1024;

type Requeued = Pick<OutboxRecord, "offset" | "kind" | "key" | "value">;

export class DeadLetterTable implements OutboxDeadLetters {
  readonly #state: OutboxState;
  readonly #list;
  readonly #select;
  readonly #insert;
  readonly #remove;
  readonly #measureUnconfirmed;
  readonly #removeUnconfirmed;

  constructor(state: OutboxState) {
    const { db } = state;
    this.#state = state;
    this.#list = db.query<DeadRecord, [number]>(
      `SELECT offset, kind, key, appended_at AS appendedAtMs, refused_at AS refusedAtMs, reason,
        length(value) AS bytes FROM outbox_dead ORDER BY offset LIMIT ?`,
    );
    this.#select = db.query<Requeued, [string, number]>(
      "SELECT offset, kind, key, value FROM outbox_dead WHERE reason <> ? ORDER BY offset LIMIT ?",
    );
    this.#insert = prepareRecordInsert(db);
    this.#remove = db.query("DELETE FROM outbox_dead WHERE offset = ?");
    this.#measureUnconfirmed = db.query<{ count: number; size: number }, [string]>(
      "SELECT count(*) AS count, coalesce(sum(length(value)), 0) AS size FROM outbox_dead WHERE reason = ?",
    );
    this.#removeUnconfirmed = db.query("DELETE FROM outbox_dead WHERE reason = ?");
  }

  get count(): number {
    return this.#state.totals.deadCount;
  }

  list(limit: number): readonly DeadRecord[] {
    return this.#list.all(limit);
  }

  requeue(): number {
    let total = 0;
    try {
      for (let count = this.#requeueSlice(); count > 0; count = this.#requeueSlice()) total += count;
    } catch (error) {
      throw writeError(this.#state.path, error);
    }
    return total;
  }

  dropUnconfirmed(): number {
    const { db, path } = this.#state;
    const { count, size } = this.#measureUnconfirmed.get(UNCONFIRMED_REASON)!;
    try {
      inTransaction(db, () => this.#removeUnconfirmed.run(UNCONFIRMED_REASON));
    } catch (error) {
      throw writeError(path, error);
    }
    this.#state.countDead(-count, -size);
    return count;
  }

  #requeueSlice(): number {
    const state = this.#state;
    const { db, offsets } = state;
    const nowMs = state.clock.now();
    const records: Requeued[] = [];
    let bytes = 0;
    for (const record of this.#select.iterate(UNCONFIRMED_REASON, REQUEUE_RECORDS_MAX)) {
      records.push(record);
      bytes += record.value.length;
      if (bytes >= REQUEUE_BYTES_MAX) break;
    }
    const count = records.length;
    inTransaction(db, () => {
      let offset = offsets.end;
      for (const { offset: old, kind, key, value } of records) {
        this.#insert(offset, kind, key, nowMs, value);
        this.#remove.run(old);
        offset += 1;
      }
    });
    offsets.end += count;
    state.countDead(-count, -bytes);
    state.countRecords(count, bytes);
    state.notify();
    return count;
  }
}
