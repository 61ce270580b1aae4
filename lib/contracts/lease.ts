// Contract: which producer has the lease on the feed. The state is a fold over the records of one key, the same for every
// reader that takes them in their order. The fold knows no time: its caller decides who is silent, and for how long.
// `atMs` and `sinceMs` are for people. In the records a heartbeat is called `alive`, and the outbox of its owner `holder`.

import { parseObject } from "../base/json.ts";

export type LeaseFields = Readonly<{
  /** The outbox: the same over restarts. */
  holder: string;
  /** The process; never used again. */
  session: string;
  host: string;
  pid: number;
  /** Since when it has the lease, and when the record was written, by its own clock; ms since 1970. */
  sinceMs: number;
  atMs: number;
}>;

export type LeaseRecord = LeaseFields &
  (
    | /**
     * Asks for the lease after the term that was seen (0 = none was) and after its last record that counted, by offset:
     * a heartbeat that came since makes the claim void, however late it arrives.
     */
    Readonly<{ type: "claim"; after: number; seen: number }>
    /** A heartbeat; `number` counts those of a session. */
    | Readonly<{ type: "alive"; term: number; number: number }>
    | Readonly<{ type: "released"; term: number }>
  );

export type LeaseState = LeaseFields &
  Readonly<{
    /** Later leases have larger terms; no two leases have the same. */
    term: number;
    /** The term that the claim followed, and whether that could be seen here. */
    after: number;
    isProven: boolean;
    isReleased: boolean;
    /** The offset of the last record that counted: when it moves, the owner lives. */
    offset: number;
  }>;

/** The topic of the lease, as a producer needs it. */
export interface LeaseTopic {
  /** Resolves when the record is acknowledged. Rejects with LogUnavailableError: it may have been written. */
  put(record: Uint8Array): Promise<void>;
  /** Resolves when everything that was written before the call has been read. Rejects with LogUnavailableError. */
  readToEnd(): Promise<void>;
  state(): LeaseState | null;
  /** Calls the listener with each record after it was folded. The returned function ends that. */
  onRecord(listener: (record: LeaseRecord, state: LeaseState | null) => void): () => void;
}

/** What an outbox remembers of its own leases. What a call wrote is there after any crash once it has returned. */
export interface LeaseJournal {
  /** The same over restarts; a copied directory has it too. */
  readonly holder: string;
  /**
   * Whose session it is, if no other outbox is known to have had the lease since: `here` = a process in this very
   * directory, which is gone; `elsewhere` = one in the directory that this one was copied from. Null: another outbox's.
   */
  ownerOf(session: string): "here" | "elsewhere" | null;
  /** To be called before a claim is sent, and before a release is. Both throw LogUnavailableError. */
  claim(session: string): void;
  release(): void;
  /** This outbox has the lease, and no other had it since it last did: only this outbox has what it received. */
  confirm(): void;
  /**
   * Another outbox had the lease: what was received unconfirmed is quarantined. Resolves with the number of messages.
   * Rejects with LogUnavailableError.
   */
  quarantineUnconfirmed(): Promise<number>;
}

export const LEASE_KEY = "#producer";

/**
 * The state after one more record. The first of several claims after one term wins; a heartbeat of a later term is
 * definitive, because compaction may have removed the claim. A term is its claim's offset, which no other claim can have.
 */
export function applyLeaseRecord(
  state: LeaseState | null,
  offset: number,
  record: LeaseRecord,
): LeaseState | null {
  switch (record.type) {
    case "claim": {
      const { after, seen } = record;
      if (state !== null && (after !== state.term || seen !== state.offset)) return state;
      const term = Math.max(offset, after + 1);
      return {
        ...fieldsOf(record),
        term,
        after,
        isProven: state !== null || after === 0,
        isReleased: false,
        offset,
      };
    }
    case "alive":
    case "released": {
      if (state !== null && !isCurrent(state, record)) return state;
      // A heartbeat that was overtaken by the release of its own lease does not undo it.
      const isSame = state?.term === record.term && state.session === record.session;
      const isReleased = record.type === "released" || (isSame && state.isReleased);
      const after = state?.term === record.term ? state.after : record.term;
      return { ...fieldsOf(record), term: record.term, after, isProven: true, isReleased, offset };
    }
  }
}

/**
 * Two sessions can share a term when a broker lost the end of its log, or the topic was recreated: then the greater
 * session is right, for every reader. An unproven claim may have lost to a record that was compacted away: the owner of
 * the term that it followed, or of a later one, is right.
 */
function isCurrent(state: LeaseState, { term, session }: { term: number; session: string }): boolean {
  if (term === state.term) return session >= state.session;
  return term > state.term || (!state.isProven && term >= state.after);
}

/** Nobody has to be waited for: the lease is free, or its owner was a process of this very outbox, which is gone. */
export function isFree(state: LeaseState | null, journal: Pick<LeaseJournal, "ownerOf">): boolean {
  return state === null || state.isReleased || journal.ownerOf(state.session) === "here";
}

function fieldsOf({ holder, session, host, pid, sinceMs, atMs }: LeaseRecord): LeaseFields {
  return { holder, session, host, pid, sinceMs, atMs };
}

export function encodeLeaseRecord(record: LeaseRecord): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(record));
}

const NAME_LENGTH_MAX = 256;

/** Null: it is not a lease record, whoever wrote it. */
export function parseLeaseRecord(value: Uint8Array | null): LeaseRecord | null {
  const fields = parseObject(value);
  if (fields === null) return null;
  const { type, after, seen, term, number, holder, session, host, pid, sinceMs, atMs } = fields;
  if (!isName(holder) || !isName(session) || !isName(host)) return null;
  if (!isCount(pid) || !isCount(sinceMs) || !isCount(atMs)) return null;
  const common = { holder, session, host, pid, sinceMs, atMs };
  if (type === "claim" && isCount(after) && isCount(seen)) return { ...common, type, after, seen };
  if (type === "alive" && isCount(term) && isCount(number)) return { ...common, type, term, number };
  if (type === "released" && isCount(term)) return { ...common, type, term };
  return null;
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= NAME_LENGTH_MAX;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
