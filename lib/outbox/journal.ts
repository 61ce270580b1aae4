// The lease's journal: what this outbox remembers of its own leases, and which of its records are unconfirmed, that is
// received while another producer may have received the same trades. Every change is a new owner row
// (outbox/owner.ts). It asks Kafka nothing: ingest/lease.ts knows who has the lease.

import { statSync } from "node:fs";
import { hostname } from "node:os";
import { LogFullError, LogUnavailableError, SetupError } from "../base/errors.ts";
import { inTransaction, setSync, sqliteFault } from "../base/sqlite.ts";
import type { LeaseJournal } from "../contracts/lease.ts";
import { writeError } from "./errors.ts";
import { encodeOwnEvent } from "./own-event.ts";
import {
  afterAnotherOwner,
  isLastOwner,
  newOwner,
  type OutboxOwner,
  type OutboxRole,
  placeOfClaim,
  prepareOwnerWrite,
  readOwner,
  withClaim,
} from "./owner.ts";
import { Quarantine } from "./quarantine.ts";
import type { OutboxState } from "./state.ts";
import { prepareRecordInsert } from "./tables.ts";

export interface OutboxLease extends LeaseJournal {
  /** The last lease was claimed by this outbox, in this place, and not released; no other owner was seen since. */
  readonly isOwn: boolean;
  /** The offset of the first unconfirmed record; null = every record is confirmed. */
  readonly unconfirmedFrom: number | null;
  /** When that record was appended; ms since 1970. */
  unconfirmedSinceMs(): number | null;
  /** The watchlist as Kafka last said it; null = it never did. */
  readonly symbols: readonly string[] | null;
  keepSymbols(symbols: readonly string[]): void;
  /** From now on each append asks `isConfirmed`: false = another producer may have the lease by now. */
  guard(isConfirmed: () => boolean): void;
}

export class OutboxJournal implements OutboxLease {
  readonly #state: OutboxState;
  /** This machine and this very file: a copy has another one. */
  readonly #here: string;
  readonly #writeOwner: (owner: OutboxOwner) => void;
  readonly #insert;
  readonly #selectFrom;
  readonly #quarantine: Quarantine;
  #owner: OutboxOwner;
  #isConfirmed = () => true;

  constructor(state: OutboxState) {
    const { db, path, clock } = state;
    this.#state = state;
    this.#here = placeOf(path);
    this.#writeOwner = prepareOwnerWrite(db);
    this.#insert = prepareRecordInsert(db);
    this.#selectFrom = db.query<{ appended_at: number }, [number]>(
      "SELECT appended_at FROM records WHERE offset >= ? ORDER BY offset LIMIT 1",
    );
    this.#quarantine = new Quarantine(state);
    this.#owner = readOwner(db) ?? newOwner(clock.random);
  }

  get holder(): string {
    return this.#owner.holder;
  }

  get isOwn(): boolean {
    return isLastOwner(this.#owner, this.#here);
  }

  get symbols(): readonly string[] | null {
    return this.#owner.symbols;
  }

  get unconfirmedFrom(): number | null {
    return this.#owner.unconfirmedFrom;
  }

  unconfirmedSinceMs(): number | null {
    const { unconfirmedFrom } = this.#owner;
    return unconfirmedFrom === null ? null : (this.#selectFrom.get(unconfirmedFrom)?.appended_at ?? null);
  }

  ownerOf(session: string): "here" | "elsewhere" | null {
    return placeOfClaim(this.#owner, session, this.#here);
  }

  claim(session: string): void {
    this.#save(withClaim(this.#owner, { session, place: this.#here }), "synced");
  }

  release(): void {
    this.#save({ ...this.#owner, isReleased: true }, "synced");
  }

  keepSymbols(symbols: readonly string[]): void {
    if (JSON.stringify(symbols) === JSON.stringify(this.#owner.symbols)) return;
    this.#save({ ...this.#owner, symbols }, "unsynced");
  }

  guard(isConfirmed: () => boolean): void {
    this.#isConfirmed = isConfirmed;
  }

  confirm(): void {
    if (this.#owner.unconfirmedFrom === null) return;
    const next = { ...this.#owner, unconfirmedFrom: null };
    try {
      // If a power cut takes this back, the next start confirms again.
      inTransaction(this.#state.db, () => this.#writeOwner(next));
    } catch (error) {
      // A full disk: the next heartbeat that is read back tries again.
      if (sqliteFault(error) === undefined) throw error;
      return;
    }
    this.#owner = next;
    this.#state.notify();
  }

  async quarantineUnconfirmed(): Promise<number> {
    const state = this.#state;
    const { unconfirmedFrom } = this.#owner;
    try {
      while (unconfirmedFrom !== null && this.#quarantine.moveSlice(unconfirmedFrom)) {
        await new Promise<void>((resolve) => state.clock.atEndOfTick(resolve));
        if (state.isClosed) return 0;
      }
      const { messageCount } = this.#quarantine.summary;
      if (unconfirmedFrom !== null || this.#owner.sessions.length > 0) this.#endUnconfirmed();
      return messageCount;
    } catch (error) {
      throw this.#unavailableError(error);
    }
  }

  // ---- For outbox/log.ts --------------------------------------------------------------------------------------

  /** Whether a record appended now is the first unconfirmed one. */
  isFirstUnconfirmed(): boolean {
    return this.#owner.unconfirmedFrom === null && !this.#isConfirmed();
  }

  /** To be called in the transaction that appends it; `noteUnconfirmed` follows when that is committed. */
  writeUnconfirmed(offset: number): void {
    this.#writeOwner({ ...this.#owner, unconfirmedFrom: offset });
  }

  noteUnconfirmed(offset: number): void {
    this.#owner = { ...this.#owner, unconfirmedFrom: offset };
  }

  /** Throws SetupError while the file holds records of the other binary. */
  claimRole(role: OutboxRole): void {
    const { totals, path } = this.#state;
    const owner = this.#owner;
    if (owner.role === role) return;
    if (owner.role !== null && totals.recordCount + totals.deadCount > 0) {
      const counts = `records waiting: ${totals.recordCount}, dead letters: ${totals.deadCount}`;
      throw new SetupError(
        `${path} belongs to \`${owner.role}\` and is not empty (${counts})`,
        `run \`${owner.role}\` until it is empty, or give \`${role}\` a DATA_DIR of its own`,
      );
    }
    this.#save({ ...owner, role, unconfirmedFrom: null }, "unsynced");
  }

  // ---- Writing ------------------------------------------------------------------------------------------------

  /** Synced where others must not see what follows before the row is durable: above all a claim. */
  #save(next: OutboxOwner, durability: "synced" | "unsynced"): void {
    const { db, sync } = this.#state;
    const isRaised = durability === "synced" && sync !== "full";
    try {
      if (isRaised) setSync(db, "full");
      inTransaction(db, () => this.#writeOwner(next));
      this.#owner = next;
    } catch (error) {
      throw this.#unavailableError(error);
    } finally {
      if (isRaised) setSync(db, sync);
    }
  }

  /** Another producer had the lease: the owner row says so, and with it the event that says what was quarantined. */
  #endUnconfirmed(): void {
    const next = afterAnotherOwner(this.#owner);
    const { summary } = this.#quarantine;
    if (summary.messageCount === 0) {
      this.#save(next, "synced");
      return;
    }
    const { db, clock, offsets } = this.#state;
    const { key, value, atMs } = encodeOwnEvent(clock, "trades_in_doubt", summary);
    inTransaction(db, () => {
      this.#insert(offsets.end, "event", key, atMs, value);
      this.#writeOwner(next);
    });
    this.#owner = next;
    this.#quarantine.reset();
    offsets.end += 1;
    this.#state.countRecords(1, value.length);
    this.#state.notify();
  }

  /** A full disk counts as unavailable: room may be made, and then the same call succeeds. */
  #unavailableError(error: unknown): unknown {
    const known = writeError(this.#state.path, error);
    return known instanceof LogFullError ? new LogUnavailableError(known.message, known.hint, error) : known;
  }
}

/** By the inode of the lock file: a salvage leaves it alone, and a copy of the directory has another one. */
function placeOf(path: string): string {
  const { dev, ino } = statSync(`${path}-owner`);
  return `${hostname()} ${dev}:${ino}`;
}
