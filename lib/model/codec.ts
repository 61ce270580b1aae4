// Message <-> bytes of the topic: plain Avro of schemas/trades.avsc. Our three fields stand after the origin's,
// so whoever reads with the origin's schema still can. The only file that names avsc.

import { Type } from "avsc";
import schemaJson from "../../schemas/trades.avsc" with { type: "json" };
import { parseObject } from "../base/json.ts";
import { isIdentity } from "./identity.ts";
import {
  type DeadLetter,
  type DeadReason,
  type FeedEventRow,
  type Message,
  TRADES_PER_MESSAGE_MAX,
  type Trade,
} from "./trade.ts";

type AvroTrade = { c: (string | null)[] | null; p: number; s: string; t: number; v: number };
type OriginMessage = { data: AvroTrade[]; type: string };
type AvroMessage = OriginMessage & { session: string; sequence: number; receivedAt: number };

const schema = schemaJson as { fields: { name: string }[] };
const ours = Type.forSchema(schema as never, { omitRecordMethods: true });
const origins = Type.forSchema(
  { ...schema, fields: schema.fields.filter(({ name }) => name === "data" || name === "type") } as never,
  { omitRecordMethods: true },
);

/** What a message carries besides its identity. `symbol` is that of every trade in it. */
export type Decoded = { ok: true; message: Message; symbol: string } | { ok: false; reason: DeadReason };

export function encodeMessage(message: Message): Uint8Array {
  const { session, sequence, receivedAtMs, trades } = message;
  const data = trades.map(({ conditions, price, symbol, tradedAtMs, volume }) => ({
    c: conditions,
    p: price,
    s: symbol,
    t: tradedAtMs,
    v: volume,
  }));
  return ours.toBuffer({ data, type: "trade", session, sequence, receivedAt: receivedAtMs });
}

/** Never throws: the topic may hold anything. Whether each trade can be true is badTrade's to say. */
export function decodeMessage(bytes: Uint8Array): Decoded {
  return readPlain(bytes) ?? readAny(bytes);
}

function readAny(bytes: Uint8Array): Decoded {
  const raw = read(bytes);
  if (raw === null) return { ok: false, reason: readsAsOrigins(bytes) ? "no_session" : "undecodable" };
  const { data, type, session, sequence, receivedAt: receivedAtMs } = raw;
  const symbol = data[0]?.s;
  if (type !== "trade" || symbol === undefined) return { ok: false, reason: "undecodable" };
  if (session === "") return { ok: false, reason: "no_session" };
  if (!isIdentity(session, sequence, receivedAtMs) || data.length > TRADES_PER_MESSAGE_MAX) {
    return { ok: false, reason: "bad_identity" };
  }
  const trades: Trade[] = [];
  for (const { c, p, s, t, v } of data) {
    if (s !== symbol) return { ok: false, reason: "several_symbols" };
    trades.push({ symbol: s, price: p, volume: v, tradedAtMs: t, conditions: c });
  }
  return { ok: true, message: { session, sequence, receivedAtMs, trades }, symbol };
}

/** Seven bytes of a varint: beyond it a double would not be exact, and no message of ours has such a number. */
const PLAIN_LONG_MAX = 2 ** 49;

/** Where readPlain is, which runs to its end in one go: variables of its own would be made anew for each message. */
let plain: Uint8Array = new Uint8Array(0);
let at = 0;
/** A double by its bytes; every platform that Bun runs on has the lowest first, as Avro does. */
const double = new Float64Array(1);
const doubleBytes = new Uint8Array(double.buffer);

/**
 * What our encoder writes, read in one walk, faster than by avsc: one block of trades of one symbol, numbers of up to
 * seven bytes, an identity. Null: it is anything else, and avsc is asked. So what is taken, and as what, is avsc's to
 * say (tests/unit/model/codec.test.ts compares the two), and this may be narrow.
 */
function readPlain(bytes: Uint8Array): Decoded | null {
  plain = bytes;
  at = 0;
  const count = readLong();
  if (!(count > 0 && count <= TRADES_PER_MESSAGE_MAX)) return null;
  const trades: Trade[] = [];
  let first: string | null = null;
  for (let left = count; left > 0; left--) {
    const conditions = readConditions();
    if (conditions === undefined) return null;
    const price = readDouble();
    const symbol = readText();
    first ??= symbol;
    const tradedAtMs = readLong();
    const volume = readDouble();
    if (symbol === null || symbol !== first || Number.isNaN(tradedAtMs)) return null;
    trades.push({ symbol, price, volume, tradedAtMs, conditions });
  }
  if (first === null || readLong() !== 0 || readText() !== "trade") return null;
  const session = readText();
  const sequence = readLong();
  const receivedAtMs = readLong();
  if (session === null || at !== bytes.length || !isIdentity(session, sequence, receivedAtMs)) return null;
  return { ok: true, message: { session, sequence, receivedAtMs, trades }, symbol: first };
}

/** A zigzag varint; NaN where it is none, or too long, and NaN is no count, no branch, no length and no identity. */
function readLong(): number {
  const one = plain[at++];
  if (one === undefined) return Number.NaN;
  if (one < 0x80) return one & 1 ? -((one + 1) >> 1) : one >> 1;
  let raw = one - 0x80;
  for (let scale = 0x80; scale < PLAIN_LONG_MAX; scale *= 0x80) {
    const byte = plain[at++];
    if (byte === undefined) return Number.NaN;
    if (byte < 0x80) {
      raw += byte * scale;
      return raw % 2 === 0 ? raw / 2 : -(raw + 1) / 2;
    }
    raw += (byte - 0x80) * scale;
  }
  return Number.NaN;
}

/** Some number beyond the end; whatever is read after it is then missing. */
function readDouble(): number {
  for (let byte = 0; byte < 8; byte++) doubleBytes[byte] = plain[at + byte]!;
  at += 8;
  return double[0]!;
}

function readText(): string | null {
  const length = readLong();
  if (!(length >= 0 && length <= plain.length - at)) return null;
  at += length;
  return textOf(plain, at - length, length);
}

/** Undefined: not as we write it. */
function readConditions(): (string | null)[] | null | undefined {
  const branch = readLong();
  if (branch === 1) return null;
  if (branch !== 0) return undefined;
  const conditions: (string | null)[] = [];
  let count = readLong();
  if (count === 0) return conditions;
  if (!(count > 0)) return undefined;
  for (; count > 0; count--) {
    const which = readLong();
    const text = which === 1 ? readText() : null;
    if (which !== 0 && text === null) return undefined;
    conditions.push(text);
  }
  return readLong() === 0 ? conditions : undefined;
}

/** Symbols, sessions and conditions: a few hundred texts that come again and again. */
const TEXTS_KEPT_MAX = 1_024;
const TEXT_KEPT_LENGTH_MAX = 32;
const keptTexts: (string | undefined)[] = new Array(TEXTS_KEPT_MAX).fill(undefined);

/** UTF-8 to text. One that was met before is handed out again: comparing it costs less than making it. */
function textOf(bytes: Uint8Array, from: number, length: number): string {
  if (length > TEXT_KEPT_LENGTH_MAX) return sliceText(bytes, from, length);
  let hash = length;
  for (let at = from; at < from + length; at++) hash = (Math.imul(hash, 31) + bytes[at]!) | 0;
  const place = (hash ^ (hash >>> 10)) & (TEXTS_KEPT_MAX - 1);
  const kept = keptTexts[place];
  if (kept !== undefined && isText(kept, bytes, from, length)) return kept;
  const text = sliceText(bytes, from, length);
  // As many letters as bytes is plain ASCII, of which a letter is its byte, or has a sign that is no byte at all.
  if (text.length === length) keptTexts[place] = text;
  return text;
}

function isText(text: string, bytes: Uint8Array, from: number, length: number): boolean {
  if (text.length !== length) return false;
  for (let index = 0; index < length; index++) {
    if (text.charCodeAt(index) !== bytes[from + index]) return false;
  }
  return true;
}

function sliceText(bytes: Uint8Array, from: number, length: number): string {
  return asBuffer(bytes).toString("utf8", from, from + length);
}

/** What a message holds that decodeMessage does not take: any symbols, any number of them, perhaps no identity. */
export type Foreign = Readonly<{
  trades: readonly Trade[];
  identity: Readonly<{ session: string; sequence: number; receivedAtMs: number }> | null;
}>;

/** Never throws; null = no message of trades at all. */
export function readForeign(bytes: Uint8Array): Foreign | null {
  const own = read(bytes);
  const raw = own ?? readOrigins(bytes);
  if (raw === null || raw.type !== "trade" || raw.data.length === 0) return null;
  const trades = raw.data.map(({ c, p, s, t, v }) => ({
    symbol: s,
    price: p,
    volume: v,
    tradedAtMs: t,
    conditions: c,
  }));
  if (own === null) return { trades, identity: null };
  const { session, sequence, receivedAt: receivedAtMs } = own;
  const isIts = isIdentity(session, sequence, receivedAtMs);
  return { trades, identity: isIts ? { session, sequence, receivedAtMs } : null };
}

function read(bytes: Uint8Array): AvroMessage | null {
  if (!hasDataInBounds(bytes)) return null;
  try {
    return ours.fromBuffer(asBuffer(bytes)) as AvroMessage;
  } catch {
    // Any byte string but a message of ours ends here, and becomes a dead letter: that is the count of it.
    return null;
  }
}

function readsAsOrigins(bytes: Uint8Array): boolean {
  const raw = readOrigins(bytes);
  return raw !== null && raw.data.length > 0;
}

function readOrigins(bytes: Uint8Array): OriginMessage | null {
  if (!hasDataInBounds(bytes)) return null;
  try {
    return origins.fromBuffer(asBuffer(bytes)) as OriginMessage;
  } catch {
    // As above.
    return null;
  }
}

/**
 * Walks over the `data` array alone. avsc looks for the end of the bytes only when it is done, so a record that
 * claims 2^50 trades would keep it reading zeros until the memory is gone; here a count ends the walk as soon as
 * it exceeds the bytes that are left.
 */
function hasDataInBounds(bytes: Uint8Array): boolean {
  const end = bytes.length;
  let at = 0;

  /** A zigzag varint, or NaN beyond the end. Doubles are exact as far as any count can be true. */
  function readLong(): number {
    let raw = 0;
    for (let scale = 1; at < end && scale < 2 ** 53; scale *= 128) {
      const byte = bytes[at++]!;
      raw += (byte & 0x7f) * scale;
      if (byte < 0x80) return raw % 2 === 0 ? raw / 2 : -(raw + 1) / 2;
    }
    return Number.NaN;
  }

  /** Blocks of counted items until an empty one; each item is at least one byte. */
  function walkArray(walkItem: () => boolean): boolean {
    for (;;) {
      let count = readLong();
      if (count === 0) return true;
      if (count < 0) {
        count = -count;
        readLong(); // The block's size in bytes, for readers that skip.
      }
      if (!(count <= end - at)) return false;
      while (count-- > 0) if (!walkItem()) return false;
    }
  }

  function skip(length: number): boolean {
    if (!(length >= 0)) return false;
    at += length;
    return at <= end;
  }

  const walkCondition = () => {
    const branch = readLong();
    return branch === 0 || (branch === 1 && skip(readLong()));
  };
  const walkTrade = () => {
    const branch = readLong();
    if (branch !== 1 && !(branch === 0 && walkArray(walkCondition))) return false;
    return skip(8) && skip(readLong()) && !Number.isNaN(readLong()) && skip(8);
  };
  return walkArray(walkTrade);
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A feed event on its topic: JSON, in the column names of feed_events. */
export function encodeEvent(row: FeedEventRow): Uint8Array {
  return Buffer.from(JSON.stringify(row));
}

export function decodeEvent(bytes: Uint8Array): FeedEventRow | null {
  const row = parseObject(bytes);
  if (row === null) return null;
  const { day, event_timestamp, session, sequence, type, detail } = row;
  const isEvent =
    typeof day === "string" &&
    typeof session === "string" &&
    typeof type === "string" &&
    typeof detail === "string" &&
    Number.isSafeInteger(event_timestamp) &&
    Number.isSafeInteger(sequence);
  return isEvent
    ? { day, event_timestamp: Number(event_timestamp), session, sequence: Number(sequence), type, detail }
    : null;
}

/** A dead letter on its topic: JSON, its payload in base64 because it may be anything. */
export function encodeDeadLetter(deadLetter: DeadLetter): Uint8Array {
  return Buffer.from(
    JSON.stringify({ ...deadLetter, payload: Buffer.from(deadLetter.payload).toString("base64") }),
  );
}

export function decodeDeadLetter(bytes: Uint8Array): DeadLetter | null {
  const deadLetter = parseObject(bytes);
  if (deadLetter === null) return null;
  const { session, sequence, item, receivedAtMs, reason, source, payload } = deadLetter;
  const isLetter =
    typeof session === "string" &&
    Number.isSafeInteger(sequence) &&
    Number.isSafeInteger(item) &&
    Number.isSafeInteger(receivedAtMs) &&
    typeof reason === "string" &&
    (source === "feed" || source === "processor") &&
    typeof payload === "string";
  if (!isLetter) return null;
  return {
    session,
    sequence: Number(sequence),
    item: Number(item),
    receivedAtMs: Number(receivedAtMs),
    // Reasons may grow; an older reader keeps what a newer producer says.
    reason: reason as DeadReason,
    source,
    payload: Buffer.from(payload, "base64"),
  };
}
