// The part `store` of the embedded mode's /health: who holds up writing to market.sqlite, and a write-ahead log that
// another program's reading keeps from shrinking. Pure.

import { spell } from "../base/text.ts";
import { judged, type PartHealth } from "./health.ts";

/** What /health needs of the embedded store. Times are ms since 1970. */
export type StoreSnapshot = Readonly<{
  /** Since when another connection has held the write lock; null = it is free. */
  lockedSinceMs: number | null;
  /** Who, as a subject: `another program (python3, process 4711)`. */
  lockedBy: string;
  /** Why nothing is written just now, whatever the lock; null = it is. */
  refusal: string | null;
  walBytes: number;
  /** Since when a reader has kept the write-ahead log from shrinking; null = none does. */
  walHeldSinceMs: number | null;
  walHeldBy: string;
}>;

/** A lock that is held for less is normal: two programs that write take turns. */
export const LOCK_WARNING_MS = 1_000;
/** A reader that stays for so long that the file has this size was forgotten. At 2,000 trades a second: some minutes. */
export const WAL_BYTES_MAX = 2 * 1_024 ** 3;

/** A held lock warns here; the processor's part fails when it has waited too long. */
export function storePart(store: StoreSnapshot, nowMs: number): PartHealth {
  const { lockedSinceMs, lockedBy, refusal, walBytes, walHeldSinceMs, walHeldBy } = store;
  const warnings: string[] = [];
  const reasons = refusal === null ? [] : [refusal];
  if (lockedSinceMs !== null && nowMs - lockedSinceMs >= LOCK_WARNING_MS) {
    const forMs = spell(nowMs - lockedSinceMs);
    warnings.push(
      `${lockedBy} has held the write lock of market.sqlite for ${forMs}: what is received waits in outbox.sqlite`,
    );
  }
  if (walHeldSinceMs !== null) {
    const held = heldSentence(walHeldBy, walHeldSinceMs, walBytes);
    if (walBytes > WAL_BYTES_MAX) reasons.push(held);
    else warnings.push(held);
  }
  return {
    ...judged(reasons, null, nowMs),
    warning: warnings.length === 0 ? null : warnings.join("; "),
    lockedSince: lockedSinceMs,
    walBytes,
  };
}

export function heldSentence(by: string, sinceMs: number, walBytes: number): string {
  const since = new Date(sinceMs).toISOString().replace(/\.\d+Z$/, "Z");
  return `${by} keeps a read transaction open since ${since}: market.sqlite-wal has grown to ${mebibytes(walBytes)}`;
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 1_024 ** 2)} MiB`;
}
