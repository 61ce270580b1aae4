// Message <-> bytes of the topic: plain Avro of schemas/trades.avsc. Our three fields stand after the origin's,
// so whoever reads with the origin's schema still can. The only file that names avsc.

import { Type } from "avsc";
import schemaJson from "../schemas/trades.avsc" with { type: "json" };
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
  if (!hasDataInBounds(bytes)) return false;
  try {
    return (origins.fromBuffer(asBuffer(bytes)) as OriginMessage).data.length > 0;
  } catch {
    return false;
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
export function encodeDeadLetter(letter: DeadLetter): Uint8Array {
  return Buffer.from(JSON.stringify({ ...letter, payload: Buffer.from(letter.payload).toString("base64") }));
}

export function decodeDeadLetter(bytes: Uint8Array): DeadLetter | null {
  const letter = parseObject(bytes);
  if (letter === null) return null;
  const { session, sequence, item, receivedAtMs, reason, source, payload } = letter;
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

function parseObject(bytes: Uint8Array): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
