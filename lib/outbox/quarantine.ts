// Moves unconfirmed records out of what waits to be sent, because another producer may have received the same trades:
// into the dead letters, as far as their share of the file goes. Feed events stay: no other producer has them. It
// never decides that another producer had the lease: outbox/journal.ts is told.

import { startAtZero } from "../base/metrics.ts";
import { inTransaction } from "../base/sqlite.ts";
import type { OutboxRecord } from "../contracts/log.ts";
import { DEAD_SHARE, UNCONFIRMED_REASON } from "./dead.ts";
import type { OutboxState } from "./state.ts";
import { prepareDeadInsert } from "./tables.ts";

/** The records of one transaction, and the bytes of their values; the last one may exceed them. Some milliseconds. */
const SLICE_RECORDS_MAX = 500;
const SLICE_BYTES_MAX = 256 * 1024;

/** The detail of the feed event `trades_in_doubt`. Times are when the messages were appended, ms since 1970. */
export type QuarantineSummary = Readonly<{
  messageCount: number;
  droppedCount: number;
  fromMs: number;
  toMs: number;
}>;

const NOTHING: QuarantineSummary = { messageCount: 0, droppedCount: 0, fromMs: 0, toMs: 0 };

export class Quarantine {
  readonly #state: OutboxState;
  readonly #select;
  readonly #insertDead;
  readonly #remove;
  /** Since the last reset: a quarantine that failed half-way is resumed, and reported as one. */
  #summary = NOTHING;

  constructor(state: OutboxState) {
    const { db } = state;
    this.#state = state;
    startAtZero(state.metrics.messagesInDoubtTotal, "outcome", ["set_aside", "dropped"]);
    this.#select = db.query<OutboxRecord, [number, number]>(
      `SELECT offset, kind, key, appended_at AS timestampMs, value FROM records
        WHERE offset >= ? AND kind <> 'event' ORDER BY offset LIMIT ?`,
    );
    this.#insertDead = prepareDeadInsert(db);
    this.#remove = db.query("DELETE FROM records WHERE offset = ?");
  }

  get summary(): QuarantineSummary {
    return this.#summary;
  }

  reset(): void {
    this.#summary = NOTHING;
  }

  /** One transaction's worth, from this offset on. False: nothing was left to move. */
  moveSlice(from: number): boolean {
    const state = this.#state;
    const { rows, bytes } = this.#read(from);
    if (rows.length === 0) return false;
    const nowMs = state.clock.now();
    const moved = { count: 0, bytes: 0 };
    const room = state.bytesMax * DEAD_SHARE - state.totals.deadValueBytes;
    inTransaction(state.db, () => {
      for (const row of rows) {
        // The oldest are kept: the later one was received, the likelier the other producer had it too.
        if (moved.bytes + row.value.length <= room) {
          this.#insertDead(row, nowMs, UNCONFIRMED_REASON);
          moved.count += 1;
          moved.bytes += row.value.length;
        }
        this.#remove.run(row.offset);
      }
    });
    state.countRecords(-rows.length, -bytes);
    state.countDead(moved.count, moved.bytes);
    this.#note(rows, moved.count);
    return true;
  }

  #read(from: number): { rows: OutboxRecord[]; bytes: number } {
    const rows: OutboxRecord[] = [];
    let bytes = 0;
    for (const row of this.#select.iterate(from, SLICE_RECORDS_MAX)) {
      rows.push(row);
      bytes += row.value.length;
      if (bytes >= SLICE_BYTES_MAX) break;
    }
    return { rows, bytes };
  }

  #note(rows: readonly OutboxRecord[], movedCount: number): void {
    const { messageCount, droppedCount, fromMs } = this.#summary;
    const newlyDropped = rows.length - movedCount;
    this.#summary = {
      messageCount: messageCount + rows.length,
      droppedCount: droppedCount + newlyDropped,
      fromMs: messageCount === 0 ? rows[0]!.timestampMs : fromMs,
      toMs: rows.at(-1)!.timestampMs,
    };
    const { messagesInDoubtTotal } = this.#state.metrics;
    messagesInDoubtTotal.inc({ outcome: "set_aside" }, movedCount);
    messagesInDoubtTotal.inc({ outcome: "dropped" }, newlyDropped);
  }
}
