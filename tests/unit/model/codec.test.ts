// The topic's bytes: a round trip for ours, and the origin's readers keep reading.

import { expect, test } from "bun:test";
import { Type } from "avsc";
import fc from "fast-check";
import {
  decodeDeadLetter,
  decodeEvent,
  decodeMessage,
  encodeDeadLetter,
  encodeEvent,
  encodeMessage,
} from "../../../lib/model/codec.ts";
import type { DeadLetter } from "../../../lib/model/dead-letter.ts";
import type { FeedEventRow, Message } from "../../../lib/model/trade.ts";
import schema from "../../../schemas/trades.avsc" with { type: "json" };
import { NOON_MS, trade } from "../../support/builders.ts";

// The origin's schema, written down again: what an existing Spark or fastavro reader holds.
const origins = Type.forSchema({
  type: "record",
  name: "message",
  namespace: "FinnhubProducer",
  fields: [
    {
      name: "data",
      type: {
        type: "array",
        items: {
          type: "record",
          name: "data",
          fields: [
            { name: "c", type: [{ type: "array", items: ["null", "string"] }, "null"] },
            { name: "p", type: "double" },
            { name: "s", type: "string" },
            { name: "t", type: "long" },
            { name: "v", type: "double" },
          ],
        },
      },
    },
    { name: "type", type: "string" },
  ],
});

/** Several seconds on a machine that others load. */
const PROPERTY_MS_MAX = 60_000;

const symbol = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 });
const conditions = fc.option(
  fc.array(fc.option(fc.string({ unit: "grapheme", maxLength: 4 })), { maxLength: 5 }),
);
const amount = fc.oneof(
  fc.constantFrom(0, 1e-8, 0.00008, 1e15, Number.MIN_VALUE, 0.1 + 0.2),
  fc.double({ min: 0, max: 1e15, noNaN: true }),
);
const message: fc.Arbitrary<Message> = symbol.chain((name) =>
  fc.record({
    session: fc.stringMatching(/^[0-9a-f]{8}$/),
    sequence: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    receivedAtMs: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
    trades: fc.array(
      fc.record({
        symbol: fc.constant(name),
        price: amount,
        volume: amount,
        tradedAtMs: fc.integer({ min: 946_684_800_000, max: 4_102_444_800_000 }),
        conditions,
      }),
      { minLength: 1, maxLength: 30 },
    ),
  }),
);

test(
  "what was encoded is decoded, whatever the shape of conditions, sizes and symbol",
  () => {
    fc.assert(
      fc.property(message, (original) => {
        const decoded = decodeMessage(encodeMessage(original));
        expect(decoded).toEqual({ ok: true, message: original, symbol: original.trades[0]!.symbol });
      }),
      { numRuns: 500 },
    );
  },
  PROPERTY_MS_MAX,
);

test("the origin's schema reads our bytes and sees the same trades", () => {
  fc.assert(
    fc.property(message, (original) => {
      // `true`: like every schemaless reader but avsc's strictest, it leaves what follows its last field.
      const seen = origins.fromBuffer(Buffer.from(encodeMessage(original)), undefined, true) as Record<
        string,
        unknown
      >;
      expect(JSON.parse(JSON.stringify(seen))).toEqual({
        data: original.trades.map(({ conditions: c, price: p, symbol: s, tradedAtMs: t, volume: v }) => ({
          c,
          p,
          s,
          t,
          v,
        })),
        type: "trade",
      });
    }),
  );
});

test("a message of 1,024 trades makes the round trip", () => {
  const original = {
    session: "0badcafe",
    sequence: 1,
    receivedAtMs: NOON_MS,
    trades: Array.from({ length: 1024 }, (_, i) => trade({ price: i + 0.5, conditions: ["1", null, "12"] })),
  };
  expect(decodeMessage(encodeMessage(original))).toEqual({ ok: true, message: original, symbol: "AAPL" });
});

test("a message of the origin's producer is told from bytes that are no message", () => {
  const bytes = origins.toBuffer({ data: [{ c: null, p: 1, s: "AAPL", t: NOON_MS, v: 1 }], type: "trade" });
  expect(decodeMessage(bytes)).toEqual({ ok: false, reason: "no_session" });
  expect(decodeMessage(new Uint8Array([1, 2, 3]))).toEqual({ ok: false, reason: "undecodable" });
  expect(decodeMessage(new Uint8Array(0))).toEqual({ ok: false, reason: "undecodable" });
});

test("no bytes at all make the decoder throw", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => typeof decodeMessage(bytes).ok === "boolean"),
  );
  const valid = encodeMessage({
    session: "0badcafe",
    sequence: 1,
    receivedAtMs: NOON_MS,
    trades: [trade(), trade()],
  });
  for (let length = 0; length < valid.length; length++) {
    expect(decodeMessage(valid.slice(0, length)).ok).toBe(false);
  }
  for (let bit = 0; bit < valid.length * 8; bit++) {
    const damaged = valid.slice();
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    decodeMessage(damaged);
  }
});

type AvscTrade = { c: (string | null)[] | null; p: number; s: string; t: number; v: number };
type AvscMessage = { data: AvscTrade[]; session: string; sequence: number; receivedAt: number };

/** avsc's own reading of our schema, in our words; null where it throws. */
const ours = Type.forSchema(schema as never);
function byAvsc(bytes: Uint8Array): Message | null {
  try {
    const { data, session, sequence, receivedAt } = ours.fromBuffer(Buffer.from(bytes)) as AvscMessage;
    const trades = data.map(({ c, p, s, t, v }) => ({
      symbol: s,
      price: p,
      volume: v,
      tradedAtMs: t,
      conditions: c,
    }));
    return { session, sequence, receivedAtMs: receivedAt, trades };
  } catch {
    return null;
  }
}

test(
  "whatever is taken is what avsc reads, also of bytes that were changed, cut off or put in",
  () => {
    const byte = fc.nat(255);
    const change = fc.record({ kind: fc.constantFrom("set", "drop", "insert"), at: fc.nat(), byte });
    let takenCount = 0;
    fc.assert(
      fc.property(message, fc.array(change, { maxLength: 3 }), (original, changes) => {
        const bytes = [...encodeMessage(original)];
        for (const { kind, at, byte } of changes) {
          const place = at % bytes.length;
          bytes.splice(place, kind === "insert" ? 0 : 1, ...(kind === "drop" ? [] : [byte]));
        }
        const decoded = decodeMessage(Uint8Array.from(bytes));
        if (!decoded.ok) return;
        takenCount += 1;
        expect(decoded.message).toEqual(byAvsc(Uint8Array.from(bytes))!);
      }),
      { numRuns: 1_000 },
    );
    expect(takenCount).toBeGreaterThan(300);
  },
  PROPERTY_MS_MAX,
);

test("forms that we do not write, but Avro allows, are read as avsc reads them", () => {
  const trade = { c: ["1", null], p: 1.5, s: "AAPL", t: NOON_MS, v: 2 };
  const plain = ours.toBuffer({
    data: [trade, trade],
    type: "trade",
    session: "0badcafe",
    sequence: 1,
    receivedAt: NOON_MS,
  });
  const whole = decodeMessage(plain);
  expect(whole.ok).toBe(true);
  const one = plain.subarray(1, 1 + sizeOfTrade(plain));
  const rest = plain.subarray(1 + 2 * one.length);
  const long = Type.forSchema("long");
  const forms = {
    "two blocks": [long.toBuffer(1), one, long.toBuffer(1), one, rest],
    // A count below zero says that the block's size in bytes follows.
    "a block with its size": [long.toBuffer(-2), long.toBuffer(2 * one.length), one, one, rest],
    "a count of more bytes than it needs": [[0x84, 0x80, 0], one, one, rest],
  };
  for (const [name, parts] of Object.entries(forms)) {
    const bytes = Buffer.concat(parts.map((part) => Buffer.from(part)));
    expect([name, decodeMessage(bytes)]).toEqual([name, whole]);
  }
  expect(decodeMessage(Buffer.concat([plain, Buffer.from([0])])).ok).toBe(false);
});

function sizeOfTrade(plain: Buffer): number {
  const alone = decodeMessage(plain);
  if (!alone.ok) throw new Error("not a message");
  const { session, sequence, receivedAtMs, trades } = alone.message;
  const of = (count: number) =>
    encodeMessage({ session, sequence, receivedAtMs, trades: trades.slice(0, count) }).length;
  return of(2) - of(1);
}

test("several symbols in one message, or an identity that is none, are named as such", () => {
  const base = { session: "0badcafe", sequence: 1, receivedAtMs: NOON_MS, trades: [trade()] };
  const mixed = encodeMessage({ ...base, trades: [trade(), trade({ symbol: "MSFT" })] });
  expect(decodeMessage(mixed)).toEqual({ ok: false, reason: "several_symbols" });
  expect(decodeMessage(encodeMessage({ ...base, session: "xyz" }))).toEqual({
    ok: false,
    reason: "bad_identity",
  });
  expect(decodeMessage(encodeMessage({ ...base, sequence: -1 }))).toEqual({
    ok: false,
    reason: "bad_identity",
  });
  const many = Array.from({ length: 1_025 }, () => trade());
  expect(decodeMessage(encodeMessage({ ...base, trades: many }))).toEqual({
    ok: false,
    reason: "bad_identity",
  });
  const news = Buffer.from(encodeMessage(base));
  news.write("bread", news.indexOf("trade"));
  expect(decodeMessage(news)).toEqual({ ok: false, reason: "undecodable" });
  expect(decodeMessage(encodeMessage({ ...base, trades: [] }))).toEqual({ ok: false, reason: "undecodable" });
});

test("feed events and dead letters make the round trip, and anything else is neither an event nor a dead letter", () => {
  const event: FeedEventRow = {
    day: "2026-01-05",
    event_timestamp: NOON_MS,
    session: "0badcafe",
    sequence: 7,
    type: "connected",
    detail: '{"attempt":1}',
  };
  expect(decodeEvent(encodeEvent(event))).toEqual(event);
  const deadLetter: DeadLetter = {
    session: "0badcafe",
    sequence: 8,
    item: -1,
    receivedAtMs: NOON_MS,
    reason: "garbage_frame",
    source: "feed",
    payload: Buffer.from([0, 255, 128]),
  };
  expect(decodeDeadLetter(encodeDeadLetter(deadLetter))).toEqual(deadLetter);
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array(),
        fc.json().map((text) => Buffer.from(text)),
      ),
      (bytes) => {
        expect(decodeEvent(bytes)).toBeNull();
        expect(decodeDeadLetter(bytes)).toBeNull();
      },
    ),
  );
});

test("a record that claims more trades than it has bytes is refused at once", () => {
  const claims = Buffer.alloc(64);
  // 2^40 trades, as a zigzag varint; then nothing but zeros.
  Buffer.from([0x80, 0x80, 0x80, 0x80, 0x80, 0x40]).copy(claims);
  expect(decodeMessage(claims)).toEqual({ ok: false, reason: "undecodable" });
  // One trade whose conditions claim as many.
  expect(decodeMessage(Buffer.concat([Buffer.from([2, 0]), claims]))).toEqual({
    ok: false,
    reason: "undecodable",
  });
});
