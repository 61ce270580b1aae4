// Every trade gets one UUID at receipt and keeps it: a pure function of (receivedAt, session, sequence, index),
// so a resend, a retry, a replay or a re-read writes the same row. Nothing here looks at a trade's content,
// because equal prints are usually two real trades.

import { createHash } from "node:crypto";
import { TRADES_PER_MESSAGE_MAX } from "./validate.ts";

/** 32 bits of the UUID hold the sequence; a new session begins before it wraps. */
export const SEQUENCE_MAX = 2 ** 32 - 1;
const TIME_MS_MAX = 2 ** 48 - 1;

/** 8 hex digits from 32 random bits. `random` as in Clock. */
export function newSession(random: () => number): string {
  return hex(Math.floor(random() * 2 ** 32), 8);
}

/** Whether tradeUuids accepts it: a record on the topic may not be ours. */
export function isIdentity(session: string, sequence: number, receivedAtMs: number): boolean {
  return (
    /^[0-9a-f]{8}$/.test(session) &&
    // 0 comes from an offset (derivedSequence): our sessions begin at 1.
    isWhole(sequence, 0, SEQUENCE_MAX) &&
    isWhole(receivedAtMs, 0, TIME_MS_MAX)
  );
}

/**
 * The UUIDs of one message: index of the trade (0 to 1023) -> UUIDv7 (RFC 9562), lower case, 36 characters.
 * 48 bits receivedAt, then 74 bits = 32 of sequence, 10 of index, 32 of session, around version and variant.
 * UUIDs of a session sort by arrival. Throws RangeError when a part does not fit.
 */
export function tradeUuids(
  session: string,
  sequence: number,
  receivedAtMs: number,
): (index: number) => string {
  if (!isIdentity(session, sequence, receivedAtMs)) {
    throw new RangeError(
      `not an identity: session ${session}, sequence ${sequence}, receivedAt ${receivedAtMs}`,
    );
  }
  const time = hex(receivedAtMs, 12);
  const sequenceHigh12 = Math.floor(sequence / 2 ** 20);
  const sequenceMiddle14 = Math.floor(sequence / 2 ** 6) % 2 ** 14;
  const sequenceLow6 = sequence % 2 ** 6;
  const head = `${time.slice(0, 8)}-${time.slice(8)}-7${hex(sequenceHigh12, 3)}-${hex(0x8000 | sequenceMiddle14, 4)}-`;
  return (index) => {
    if (!isWhole(index, 0, TRADES_PER_MESSAGE_MAX - 1))
      throw new RangeError(`not the index of a trade: ${index}`);
    return head + hex((sequenceLow6 << 10) | index, 4) + session;
  };
}

/** The inverse of tradeUuids, for a UUID that it made. */
export function identityOf(uuid: string): { session: string; sequence: number; index: number } {
  const digits = uuid.replaceAll("-", "");
  const sequenceHigh12 = Number.parseInt(digits.slice(13, 16), 16);
  const sequenceMiddle14 = Number.parseInt(digits.slice(16, 20), 16) & 0x3fff;
  const lowAndIndex = Number.parseInt(digits.slice(20, 24), 16);
  return {
    session: digits.slice(24),
    sequence: sequenceHigh12 * 2 ** 20 + sequenceMiddle14 * 2 ** 6 + (lowAndIndex >> 10),
    index: lowAndIndex & 0x3ff,
  };
}

/** The session of a record that has none: the first 32 bits of SHA-256 of `topic/partition/symbol`. */
export function derivedSession(partition: string, symbol: string): string {
  return createHash("sha256").update(`${partition}/${symbol}`).digest("hex").slice(0, 8);
}

/** The sequence of a record that has none: its offset, in 32 bits. */
export function derivedSequence(offset: number): number {
  return offset % 2 ** 32;
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

function isWhole(value: number, min: number, max: number): boolean {
  return Number.isInteger(value) && value >= min && value <= max;
}
