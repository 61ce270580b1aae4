// The owner row of the outbox file: which binary the file belongs to, its claims of the lease, and from which offset
// on its records are unconfirmed. It lies in the file itself, so that it is true after any kill or power cut, and so
// that a copied directory can be told from the original. The changes of it are pure functions; outbox/journal.ts
// decides when they are made.

import type { Database } from "../base/sqlite.ts";
import { newSession } from "../model/identity.ts";
import { ownerCrc } from "./checksum.ts";
import { DamageError } from "./errors.ts";
import { valuesOf } from "./tables.ts";

/** `local` reads the log into its own store, `producer` sends it on. */
export type OutboxRole = "local" | "producer";

type Claim = Readonly<{ session: string; place: string }>;

export type OutboxOwner = Readonly<{
  /** Null: no binary has used the file yet. */
  role: OutboxRole | null;
  /** The same over restarts and salvages; a copied directory has it too. */
  holder: string;
  /** The claims of this outbox since it last knew of another owner of the lease, oldest first. */
  sessions: readonly Claim[];
  /** Whether the last lease was released at a clean stop. */
  isReleased: boolean;
  /** The offset of the first unconfirmed record; null = every record is confirmed. */
  unconfirmedFrom: number | null;
  /** The watchlist as Kafka last said it; null = it never did. */
  symbols: readonly string[] | null;
}>;

/** The row as JSON. The table `keeper`, its column `words` and the key `doubtFrom` keep their names on disk. */
type StoredOwner = Omit<OutboxOwner, "unconfirmedFrom"> & Readonly<{ doubtFrom: number | null }>;

/** The claims of one outbox that may still be on their way to Kafka. */
const SESSIONS_MAX = 16;

export function newOwner(random: () => number): OutboxOwner {
  const holder = newSession(random) + newSession(random);
  return { role: null, holder, sessions: [], isReleased: false, unconfirmedFrom: null, symbols: null };
}

/** Null: the row was never written. Throws DamageError when it does not match its checksum. */
export function readOwner(db: Database): OutboxOwner | null {
  const [row] = valuesOf(db, "SELECT words, crc FROM keeper");
  if (row === undefined) return null;
  const [json, crc] = row as [string, number];
  if (ownerCrc(json) !== crc) throw new DamageError("the owner row does not match its checksum");
  const { doubtFrom, ...owner } = JSON.parse(json) as StoredOwner;
  return { ...owner, unconfirmedFrom: doubtFrom };
}

/** Replaces the row. To be called in a transaction. */
export function prepareOwnerWrite(db: Database): (owner: OutboxOwner) => void {
  const replace = db.query("INSERT OR REPLACE INTO keeper (id, words, crc) VALUES (1, ?, ?)");
  return ({ unconfirmedFrom, ...owner }) => {
    const stored: StoredOwner = { ...owner, doubtFrom: unconfirmedFrom };
    const json = JSON.stringify(stored);
    replace.run(json, ownerCrc(json));
  };
}

export function withClaim(owner: OutboxOwner, claim: Claim): OutboxOwner {
  const older = owner.sessions.filter(({ session }) => session !== claim.session);
  return { ...owner, sessions: [...older, claim].slice(-SESSIONS_MAX), isReleased: false };
}

/** After another producer had the lease: nothing is unconfirmed any more, and no claim so far counts as this outbox's. */
export function afterAnotherOwner(owner: OutboxOwner): OutboxOwner {
  return { ...owner, sessions: [], isReleased: false, unconfirmedFrom: null };
}

/** Where the session's claim was made: in this place or in another one. Null: the session is not of this outbox. */
export function placeOfClaim(
  { sessions }: OutboxOwner,
  session: string,
  here: string,
): "here" | "elsewhere" | null {
  const own = sessions.find((claim) => claim.session === session);
  if (own === undefined) return null;
  return own.place === here ? "here" : "elsewhere";
}

/** Whether the last lease was claimed in this place and not released, with no other owner seen since. */
export function isLastOwner({ isReleased, sessions }: OutboxOwner, here: string): boolean {
  return !isReleased && sessions.at(-1)?.place === here;
}
