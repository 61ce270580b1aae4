// What the outbox remembers of its own holds on the feed, and from where on its records are in doubt: received while
// another producer may have received the same ones. It is one row of the outbox's own file, so that it is true after
// any kill or power cut, and a copied directory can be told from the one it was copied from. It asks Kafka nothing.

import { statSync } from "node:fs";
import { hostname } from "node:os";
import { LogFullError, LogUnavailableError, SetupError } from "../base/errors.ts";
import { inTransaction, setSync, sqliteFault } from "../base/sqlite.ts";
import type { HoldMemory } from "../contracts/lease.ts";
import type { OutboxRecord } from "../contracts/log.ts";
import { newSession } from "../model/identity.ts";
import { writeError } from "./errors.ts";
import { DEAD_SHARE, DOUBT_REASON, type SharedFile } from "./queue.ts";
import {
  deadCrc,
  encodeOwnEvent,
  type Keeper,
  keeperCrc,
  NO_KEEPER,
  readKeeper,
  recordCrc,
} from "./recovery/salvage.ts";

/** `local` reads the log into its own store, `producer` sends it on. */
export type LogRole = "local" | "producer";

export interface OutboxHold extends HoldMemory {
  /** The last hold was of this outbox, here, and was not let go: nobody else was seen to hold since. */
  readonly isHeld: boolean;
  /** The first record in doubt; null = none is. */
  readonly doubtFrom: number | null;
  /** When it was received; ms since 1970. */
  doubtSinceMs(): number | null;
  /** The tickers that were wanted when Kafka last said so; null = it never did. */
  readonly symbols: readonly string[] | null;
  keepSymbols(symbols: readonly string[]): void;
  /** From now on each append asks whether another may hold the feed by now. */
  guard(isConfirmed: () => boolean): void;
}

/** For outbox/log.ts: what an append has to do with it. */
export type HoldOfFile = OutboxHold & {
  /** Whether the next record is the first in doubt. */
  isDoubtBeginning(): boolean;
  /** In the transaction that appends it. */
  markDoubt(offset: number): void;
  /** After it. */
  noteDoubt(offset: number): void;
  /** Throws SetupError while records wait that the other role left. */
  take(role: LogRole): void;
};

/** Starts of one outbox whose claims may still be on their way. */
const SESSIONS_MAX = 16;
/** Of one transaction that sets records aside: some milliseconds. */
const ASIDE_RECORDS_MAX = 500;
const ASIDE_BYTES_MAX = 256 * 1024;

/** `onChange` hears when other records are to be sent than before; of events that were added their count. */
export function createOutboxHold(file: SharedFile, onChange: (addedCount: number) => void): HoldOfFile {
  const { db, path, sync, clock, held, bytesMax, metrics } = file;
  const here = placeOf(path);
  const replace = db.query("INSERT OR REPLACE INTO keeper (id, words, crc) VALUES (1, ?, ?)");
  const select = db.query<OutboxRecord, [number, number]>(
    `SELECT offset, kind, key, appended_at AS timestampMs, value FROM records
      WHERE offset >= ? AND kind <> 'event' ORDER BY offset LIMIT ?`,
  );
  const firstInDoubt = db.query<{ appended_at: number }, [number]>(
    "SELECT appended_at FROM records WHERE offset >= ? ORDER BY offset LIMIT 1",
  );
  const insertDead = db.query("INSERT INTO outbox_dead VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  const insert = db.query("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)");
  const remove = db.query("DELETE FROM records WHERE offset = ?");
  let isConfirmed = () => true;
  let keeper: Keeper = readKeeper(db) ?? {
    ...NO_KEEPER,
    holder: newSession(clock.random) + newSession(clock.random),
  };

  function write(next: Keeper): void {
    const words = JSON.stringify(next);
    replace.run(words, keeperCrc(words));
  }

  /** Synced where what follows must not be seen by others before it: a claim, above all. */
  function save(next: Keeper, isSynced: boolean): void {
    try {
      if (isSynced && sync !== "full") setSync(db, "full");
      inTransaction(db, () => write(next));
      keeper = next;
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

  const aside = { messageCount: 0, droppedCount: 0, fromMs: 0, toMs: 0 };

  /** False: nothing is left to set aside. */
  function setAsideSlice(from: number): boolean {
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
    const room = bytesMax * DEAD_SHARE - held.deadValueBytes;
    inTransaction(db, () => {
      for (const { offset, kind, key, timestampMs, value } of rows) {
        // The oldest are kept: the later one was received, the likelier the other producer had it too.
        if (moved.bytes + value.length <= room) {
          const crc = deadCrc(recordCrc(offset, kind, key, timestampMs, value), nowMs, DOUBT_REASON);
          insertDead.run(offset, kind, key, timestampMs, value, crc, nowMs, DOUBT_REASON);
          moved.count += 1;
          moved.bytes += value.length;
        }
        remove.run(offset);
      }
    });
    held.recordCount -= rows.length;
    held.valueBytes -= bytes;
    held.deadCount += moved.count;
    held.deadValueBytes += moved.bytes;
    if (aside.messageCount === 0) aside.fromMs = rows[0]!.timestampMs;
    aside.toMs = rows.at(-1)!.timestampMs;
    aside.messageCount += rows.length;
    aside.droppedCount += rows.length - moved.count;
    metrics.messagesInDoubtTotal.inc({ outcome: "set_aside" }, moved.count);
    metrics.messagesInDoubtTotal.inc({ outcome: "dropped" }, rows.length - moved.count);
    file.gauge();
    return true;
  }

  /** Nothing is in doubt any more, and none of the holds so far is this outbox's; with the event that says it. */
  function forget(): void {
    const next = { ...keeper, sessions: [], isReleased: false, doubtFrom: null };
    if (aside.messageCount === 0) {
      save(next, true);
      return;
    }
    const offset = file.endOffset();
    const { key, value, atMs } = encodeOwnEvent(clock, "trades_in_doubt", aside);
    inTransaction(db, () => {
      insert.run(offset, "event", key, atMs, value, recordCrc(offset, "event", key, atMs, value));
      write(next);
    });
    keeper = next;
    held.recordCount += 1;
    held.valueBytes += value.length;
    Object.assign(aside, { messageCount: 0, droppedCount: 0 });
    file.gauge();
    onChange(1);
  }

  return {
    get holder() {
      return keeper.holder;
    },
    get doubtFrom() {
      return keeper.doubtFrom;
    },
    doubtSinceMs: () =>
      keeper.doubtFrom === null ? null : (firstInDoubt.get(keeper.doubtFrom)?.appended_at ?? null),
    get symbols() {
      return keeper.symbols;
    },
    get isHeld() {
      return !keeper.isReleased && keeper.sessions.at(-1)?.place === here;
    },
    whose(session) {
      const own = keeper.sessions.find((one) => one.session === session);
      if (own === undefined) return null;
      return own.place === here ? "here" : "elsewhere";
    },
    claim(session) {
      const older = keeper.sessions.filter((one) => one.session !== session);
      const sessions = [...older, { session, place: here }].slice(-SESSIONS_MAX);
      save({ ...keeper, sessions, isReleased: false }, true);
    },
    release() {
      save({ ...keeper, isReleased: true }, true);
    },
    confirm() {
      if (keeper.doubtFrom === null) return;
      try {
        // Lost in a power cut it is said again by the next start.
        inTransaction(db, () => write({ ...keeper, doubtFrom: null }));
      } catch (error) {
        // A full disk: the next sign of life that is read back tries again.
        if (sqliteFault(error) === undefined) throw error;
        return;
      }
      keeper = { ...keeper, doubtFrom: null };
      onChange(0);
    },
    async disown() {
      let messageCount = 0;
      const { doubtFrom } = keeper;
      try {
        while (doubtFrom !== null && setAsideSlice(doubtFrom)) {
          await new Promise<void>((resolve) => clock.atEndOfTick(resolve));
          if (file.isClosed()) return 0;
        }
        messageCount = aside.messageCount;
        if (doubtFrom !== null || keeper.sessions.length > 0) forget();
      } catch (error) {
        throw notWritten(error);
      }
      return messageCount;
    },
    keepSymbols(symbols) {
      if (JSON.stringify(symbols) !== JSON.stringify(keeper.symbols)) save({ ...keeper, symbols }, false);
    },
    guard(given) {
      isConfirmed = given;
    },
    isDoubtBeginning: () => keeper.doubtFrom === null && !isConfirmed(),
    markDoubt: (offset) => write({ ...keeper, doubtFrom: offset }),
    noteDoubt(offset) {
      keeper = { ...keeper, doubtFrom: offset };
    },
    take(role) {
      if (keeper.role === role) return;
      if (keeper.role !== null && held.recordCount + held.deadCount > 0) {
        const counts = `${held.recordCount} records wait in it, ${held.deadCount} are put aside`;
        throw new SetupError(
          `${path} is the one of \`${keeper.role}\`: ${counts}`,
          `run \`${keeper.role}\` until it is empty, or give \`${role}\` a DATA_DIR of its own`,
        );
      }
      save({ ...keeper, role, doubtFrom: null }, false);
    },
  };
}

/** This machine and this very file: a copy has another one. */
function placeOf(path: string): string {
  const { dev, ino } = statSync(`${path}-owner`);
  return `${hostname()} ${dev}:${ino}`;
}
