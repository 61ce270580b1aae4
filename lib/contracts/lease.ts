// Which producer holds the feed: a fold over the records of one key, the same for whoever reads them in their order.
// It knows no time: who is silent, and for how long, is for its caller to say. `atMs` and `sinceMs` are for people.

import { parseObject } from "../base/json.ts";

export type LeaseFields = Readonly<{
  /** The outbox: the same over restarts. */
  holder: string;
  /** Of one process, never used again. */
  session: string;
  host: string;
  pid: number;
  /** Since when it holds the feed, by its own clock; ms since 1970. */
  sinceMs: number;
  atMs: number;
}>;

export type LeaseRecord = LeaseFields &
  (
    | /**
     * A wish to hold, after the term that was seen (0 = none was) and after its last record that counted, by offset:
     * a sign of life that came since makes it void, however late the claim arrives.
     */
    Readonly<{ type: "claim"; after: number; seen: number }>
    /** `number` counts a session's signs of life. */
    | Readonly<{ type: "alive"; term: number; number: number }>
    | Readonly<{ type: "released"; term: number }>
  );

export type LeaseState = LeaseFields &
  Readonly<{
    /** Later holds have larger terms; no two holds have the same. */
    term: number;
    /** The term that the claim followed, and whether that could be seen here. */
    after: number;
    isProven: boolean;
    isReleased: boolean;
    /** Of the last record that counted: where it moves the holder shows life. */
    offset: number;
  }>;

/** The topic of the hold, as whoever takes it needs it. */
export interface LeaseTopic {
  put(record: Uint8Array): Promise<void>;
  /** Resolves when everything that was written before the call has been read. Rejects with LogUnavailableError. */
  readToEnd(): Promise<void>;
  state(): LeaseState | null;
  /** Hears of each record after it was folded. */
  onRecord(listener: (record: LeaseRecord, state: LeaseState | null) => void): () => void;
}

/** What an outbox remembers of its own holds. True after any crash, when a call returned. */
export interface LeaseJournal {
  /** The same over restarts; a copied directory has it too. */
  readonly holder: string;
  /**
   * Of a session whose hold no other's is known to have followed: `here` = of a process in this very directory, which
   * is gone; `elsewhere` = in the one that this was copied from. Null: another's.
   */
  ownerOf(session: string): "here" | "elsewhere" | null;
  /** Before a claim is sent, and before a release is. Throw LogUnavailableError. */
  claim(session: string): void;
  release(): void;
  /** The feed is this outbox's, and nobody else held it since it last was: what it received is its alone. */
  confirm(): void;
  /**
   * Another held the feed. What was received in doubt is set aside; how many messages. Rejects with
   * LogUnavailableError.
   */
  quarantineUnconfirmed(): Promise<number>;
}

export const LEASE_KEY = "#producer";

/**
 * Of several claims after one term the first wins; a sign of life of a later term is definitive, because compaction
 * may have eaten the claim. A term is its claim's offset, which no other claim can have.
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
      // A sign of life that was overtaken by its own release does not undo it.
      const isSame = state?.term === record.term && state.session === record.session;
      const isReleased = record.type === "released" || (isSame && state.isReleased);
      const after = state?.term === record.term ? state.after : record.term;
      return { ...fieldsOf(record), term: record.term, after, isProven: true, isReleased, offset };
    }
  }
}

/**
 * Two sessions of one term there can be where a broker lost its end, or a topic was made anew: then the greater session
 * is right, for everybody. An unproven claim may have lost to what was compacted away: whoever held what it followed,
 * or came after, is right.
 */
function isCurrent(state: LeaseState, { term, session }: { term: number; session: string }): boolean {
  if (term === state.term) return session >= state.session;
  return term > state.term || (!state.isProven && term >= state.after);
}

/** Nobody has to be waited for: the feed is free, or its holder was a process of this very outbox, which is gone. */
export function isFree(state: LeaseState | null, journal: Pick<LeaseJournal, "ownerOf">): boolean {
  return state === null || state.isReleased || journal.ownerOf(state.session) === "here";
}

function fieldsOf({ holder, session, host, pid, sinceMs, atMs }: LeaseRecord): LeaseFields {
  return { holder, session, host, pid, sinceMs, atMs };
}

export function encodeLeaseRecord(record: LeaseRecord): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(record));
}

const WORD_LENGTH_MAX = 256;

/** Null: it is none, whoever wrote it. */
export function parseLeaseRecord(value: Uint8Array | null): LeaseRecord | null {
  const fields = parseObject(value);
  if (fields === null) return null;
  const { type, after, seen, term, number, holder, session, host, pid, sinceMs, atMs } = fields;
  if (!isWord(holder) || !isWord(session) || !isWord(host)) return null;
  if (!isCount(pid) || !isCount(sinceMs) || !isCount(atMs)) return null;
  const words = { holder, session, host, pid, sinceMs, atMs };
  if (type === "claim" && isCount(after) && isCount(seen)) return { ...words, type, after, seen };
  if (type === "alive" && isCount(term) && isCount(number)) return { ...words, type, term, number };
  if (type === "released" && isCount(term)) return { ...words, type, term };
  return null;
}

function isWord(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= WORD_LENGTH_MAX;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
