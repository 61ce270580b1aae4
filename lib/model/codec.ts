// Message <-> bytes of the topic: plain Avro of schemas/trades.avsc. Our three fields stand after the origin's,
// so a reader with the origin's schema still can read it. The only file that names avsc.

import { Type } from "avsc";
import schemaJson from "../../schemas/trades.avsc" with { type: "json" };
import { parseObject } from "../base/json.ts";
import { asBuffer, type DecodedMessage, readPlain } from "./codec-fast.ts";
import type { DeadLetter, DeadReason } from "./dead-letter.ts";
import { isIdentity } from "./identity.ts";
import type { FeedEventRow, Message, Trade } from "./trade.ts";
import { TRADES_PER_MESSAGE_MAX } from "./validate.ts";

type AvroTrade = { c: (string | null)[] | null; p: number; s: string; t: number; v: number };
type OriginMessage = { data: AvroTrade[]; type: string };
type AvroMessage = OriginMessage & { session: string; sequence: number; receivedAt: number };

const schema = schemaJson as { fields: { name: string }[] };
const ours = Type.forSchema(schema as never, { omitRecordMethods: true });
const origins = Type.forSchema(
  { ...schema, fields: schema.fields.filter(({ name }) => name === "data" || name === "type") } as never,
  { omitRecordMethods: true },
);

/** A message, or why its bytes are not one of ours. */
export type Decoded = DecodedMessage | Readonly<{ ok: false; reason: DeadReason }>;

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

/** Never throws: the topic may hold anything. Whether each trade can be true is decided by badTrade. */
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

/** A message that decodeMessage does not accept: any symbols, any number of trades, perhaps no identity. */
type Foreign = Readonly<{
  trades: readonly Trade[];
  identity: Readonly<{ session: string; sequence: number; receivedAtMs: number }> | null;
}>;

/** Never throws. Null: it is not a message of trades. */
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
  const hasIdentity = isIdentity(session, sequence, receivedAtMs);
  return { trades, identity: hasIdentity ? { session, sequence, receivedAtMs } : null };
}

function read(bytes: Uint8Array): AvroMessage | null {
  if (!hasDataInBounds(bytes)) return null;
  try {
    return ours.fromBuffer(asBuffer(bytes)) as AvroMessage;
  } catch {
    // Every byte string but a message of ours ends here and becomes a dead letter, which is counted.
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

  /** A zigzag varint, or NaN beyond the end. A double is exact for every count that can be true. */
  function readVarint(): number {
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
      let count = readVarint();
      if (count === 0) return true;
      if (count < 0) {
        count = -count;
        readVarint(); // The block's size in bytes, for readers that skip.
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
    const branch = readVarint();
    return branch === 0 || (branch === 1 && skip(readVarint()));
  };
  const walkTrade = () => {
    const branch = readVarint();
    if (branch !== 1 && !(branch === 0 && walkArray(walkCondition))) return false;
    return skip(8) && skip(readVarint()) && !Number.isNaN(readVarint()) && skip(8);
  };
  return walkArray(walkTrade);
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
    // A newer producer may give a reason that this reader does not know: it is kept.
    reason: reason as DeadReason,
    source,
    payload: Buffer.from(payload, "base64"),
  };
}
