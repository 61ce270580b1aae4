// What the outbox remembers of its own holds on the feed, and from where on its records are in doubt: received while
// another producer may have received the same ones. It is one row of the outbox's own file, so that it is true after
// any kill or power cut, and a copied directory can be told from the one it was copied from. It asks Kafka nothing.

import { statSync } from "node:fs";
import { hostname } from "node:os";
import { LogFullError, LogUnavailableError, SetupError } from "../base/errors.ts";
import { inTransaction, setSync, sqliteFault } from "../base/sqlite.ts";
import type { LeaseJournal } from "../contracts/lease.ts";
import type { OutboxRecord } from "../contracts/log.ts";
import { newSession } from "../model/identity.ts";
import { writeError } from "./errors.ts";
import { DEAD_SHARE, type SharedFile, UNCONFIRMED_REASON } from "./queue.ts";
import {
  deadCrc,
  encodeOwnEvent,
  NO_OWNER,
  type OutboxOwner,
  ownerCrc,
  readOwner,
  recordCrc,
} from "./recovery/salvage.ts";

/** `local` reads the log into its own store, `producer` sends it on. */
export type LogRole = "local" | "producer";

export interface OutboxLease extends LeaseJournal {
  /** The last hold was of this outbox, here, and was not let go: nobody else was seen to hold since. */
  readonly isOwn: boolean;
  /** The first record in doubt; null = none is. */
  readonly unconfirmedFrom: number | null;
  /** When it was received; ms since 1970. */
  unconfirmedSinceMs(): number | null;
  /** The tickers that were wanted when Kafka last said so; null = it never did. */
  readonly symbols: readonly string[] | null;
  keepSymbols(symbols: readonly string[]): void;
  /** From now on each append asks whether another may hold the feed by now. */
  guard(isConfirmed: () => boolean): void;
}

/** For outbox/log.ts: what an append has to do with it. */
export type FileLease = OutboxLease & {
  /** Whether the next record is the first in doubt. */
  isFirstUnconfirmed(): boolean;
  /** In the transaction that appends it. */
  markUnconfirmed(offset: number): void;
  /** After it. */
  noteUnconfirmed(offset: number): void;
  /** Throws SetupError while records wait that the other role left. */
  claimRole(role: LogRole): void;
};

/** Starts of one outbox whose claims may still be on their way. */
const SESSIONS_MAX = 16;
/** Of one transaction that sets records aside: some milliseconds. */
const ASIDE_RECORDS_MAX = 500;
const ASIDE_BYTES_MAX = 256 * 1024;

/** `onChange` hears when other records are to be sent than before; of events that were added their count. */
export function createOutboxLease(file: SharedFile, onChange: (addedCount: number) => void): FileLease {
  const { db, path, sync, clock, totals, bytesMax, metrics } = file;
  const here = placeOf(path);
  const replace = db.query("INSERT OR REPLACE INTO keeper (id, words, crc) VALUES (1, ?, ?)");
  const select = db.query<OutboxRecord, [number, number]>(
    `SELECT offset, kind, key, appended_at AS timestampMs, value FROM records
      WHERE offset >= ? AND kind <> 'event' ORDER BY offset LIMIT ?`,
  );
  const firstUnconfirmed = db.query<{ appended_at: number }, [number]>(
    "SELECT appended_at FROM records WHERE offset >= ? ORDER BY offset LIMIT 1",
  );
  const insertDead = db.query("INSERT INTO outbox_dead VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  const insert = db.query("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)");
  const remove = db.query("DELETE FROM records WHERE offset = ?");
  let isConfirmed = () => true;
  let owner: OutboxOwner = readOwner(db) ?? {
    ...NO_OWNER,
    holder: newSession(clock.random) + newSession(clock.random),
  };

  function write(next: OutboxOwner): void {
    const words = JSON.stringify(next);
    replace.run(words, ownerCrc(words));
  }

  /** Synced where what follows must not be seen by others before it: a claim, above all. */
  function save(next: OutboxOwner, isSynced: boolean): void {
    try {
      if (isSynced && sync !== "full") setSync(db, "full");
      inTransaction(db, () => write(next));
      owner = next;
    } catch (error) {
      throw notWritten(error);
    } finally {
      if (isSynced && sync !== "full") setSync(db, sync);
    }
  }

  /** A full disk too: room may be made, and then the same succeeds. */
  function notWritten(error: unknown): unknown {
    const known = writeError(path, error);
    return known instanceof LogFullError ? new LogUnavailableError(known.message, known.hint, error) : known;
  }

  const quarantined = { messageCount: 0, droppedCount: 0, fromMs: 0, toMs: 0 };

  /** False: nothing is left to set aside. */
  function quarantineSlice(from: number): boolean {
    const rows: OutboxRecord[] = [];
    let bytes = 0;
    for (const row of select.iterate(from, ASIDE_RECORDS_MAX)) {
      rows.push(row);
      bytes += row.value.length;
      if (bytes >= ASIDE_BYTES_MAX) break;
    }
    if (rows.length === 0) return false;
    const nowMs = clock.now();
    const moved = { count: 0, bytes: 0 };
    const room = bytesMax * DEAD_SHARE - totals.deadValueBytes;
    inTransaction(db, () => {
      for (const { offset, kind, key, timestampMs, value } of rows) {
        // The oldest are kept: the later one was received, the likelier the other producer had it too.
        if (moved.bytes + value.length <= room) {
          const crc = deadCrc(recordCrc(offset, kind, key, timestampMs, value), nowMs, UNCONFIRMED_REASON);
          insertDead.run(offset, kind, key, timestampMs, value, crc, nowMs, UNCONFIRMED_REASON);
          moved.count += 1;
          moved.bytes += value.length;
        }
        remove.run(offset);
      }
    });
    totals.recordCount -= rows.length;
    totals.valueBytes -= bytes;
    totals.deadCount += moved.count;
    totals.deadValueBytes += moved.bytes;
    if (quarantined.messageCount === 0) quarantined.fromMs = rows[0]!.timestampMs;
    quarantined.toMs = rows.at(-1)!.timestampMs;
    quarantined.messageCount += rows.length;
    quarantined.droppedCount += rows.length - moved.count;
    metrics.messagesInDoubtTotal.inc({ outcome: "set_aside" }, moved.count);
    metrics.messagesInDoubtTotal.inc({ outcome: "dropped" }, rows.length - moved.count);
    file.gauge();
    return true;
  }

  /** Nothing is in doubt any more, and none of the holds so far is this outbox's; with the event that says it. */
  function forget(): void {
    const next = { ...owner, sessions: [], isReleased: false, doubtFrom: null };
    if (quarantined.messageCount === 0) {
      save(next, true);
      return;
    }
    const offset = file.endOffset();
    const { key, value, atMs } = encodeOwnEvent(clock, "trades_in_doubt", quarantined);
    inTransaction(db, () => {
      insert.run(offset, "event", key, atMs, value, recordCrc(offset, "event", key, atMs, value));
      write(next);
    });
    owner = next;
    totals.recordCount += 1;
    totals.valueBytes += value.length;
    Object.assign(quarantined, { messageCount: 0, droppedCount: 0 });
    file.gauge();
    onChange(1);
  }

  return {
    get holder() {
      return owner.holder;
    },
    get unconfirmedFrom() {
      return owner.doubtFrom;
    },
    unconfirmedSinceMs: () =>
      owner.doubtFrom === null ? null : (firstUnconfirmed.get(owner.doubtFrom)?.appended_at ?? null),
    get symbols() {
      return owner.symbols;
    },
    get isOwn() {
      return !owner.isReleased && owner.sessions.at(-1)?.place === here;
    },
    ownerOf(session) {
      const own = owner.sessions.find((one) => one.session === session);
      if (own === undefined) return null;
      return own.place === here ? "here" : "elsewhere";
    },
    claim(session) {
      const older = owner.sessions.filter((one) => one.session !== session);
      const sessions = [...older, { session, place: here }].slice(-SESSIONS_MAX);
      save({ ...owner, sessions, isReleased: false }, true);
    },
    release() {
      save({ ...owner, isReleased: true }, true);
    },
    confirm() {
      if (owner.doubtFrom === null) return;
      try {
        // Lost in a power cut it is said again by the next start.
        inTransaction(db, () => write({ ...owner, doubtFrom: null }));
      } catch (error) {
        // A full disk: the next sign of life that is read back tries again.
        if (sqliteFault(error) === undefined) throw error;
        return;
      }
      owner = { ...owner, doubtFrom: null };
      onChange(0);
    },
    async quarantineUnconfirmed() {
      let messageCount = 0;
      const { doubtFrom } = owner;
      try {
        while (doubtFrom !== null && quarantineSlice(doubtFrom)) {
          await new Promise<void>((resolve) => clock.atEndOfTick(resolve));
          if (file.isClosed()) return 0;
        }
        messageCount = quarantined.messageCount;
        if (doubtFrom !== null || owner.sessions.length > 0) forget();
      } catch (error) {
        throw notWritten(error);
      }
      return messageCount;
    },
    keepSymbols(symbols) {
      if (JSON.stringify(symbols) !== JSON.stringify(owner.symbols)) save({ ...owner, symbols }, false);
    },
    guard(given) {
      isConfirmed = given;
    },
    isFirstUnconfirmed: () => owner.doubtFrom === null && !isConfirmed(),
    markUnconfirmed: (offset) => write({ ...owner, doubtFrom: offset }),
    noteUnconfirmed(offset) {
      owner = { ...owner, doubtFrom: offset };
    },
    claimRole(role) {
      if (owner.role === role) return;
      if (owner.role !== null && totals.recordCount + totals.deadCount > 0) {
        const counts = `${totals.recordCount} records wait in it, ${totals.deadCount} are put aside`;
        throw new SetupError(
          `${path} is the one of \`${owner.role}\`: ${counts}`,
          `run \`${owner.role}\` until it is empty, or give \`${role}\` a DATA_DIR of its own`,
        );
      }
      save({ ...owner, role, doubtFrom: null }, false);
    },
  };
}

/** This machine and this very file: a copy has another one. */
function placeOf(path: string): string {
  const { dev, ino } = statSync(`${path}-owner`);
  return `${hostname()} ${dev}:${ino}`;
}
