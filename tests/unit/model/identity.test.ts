// A trade's UUID is a pure function of where it was received, and nothing else.

import { expect, test } from "bun:test";
import fc from "fast-check";
import {
  derivedSequence,
  derivedSession,
  identityOf,
  isIdentity,
  newSession,
  SEQUENCE_MAX,
  tradeUuids,
} from "../../../lib/model/identity.ts";
import { NOON_MS, seeded } from "../../support/builders.ts";

const session = fc.stringMatching(/^[0-9a-f]{8}$/);
const sequence = fc.integer({ min: 0, max: SEQUENCE_MAX });
const receivedAtMs = fc.integer({ min: 0, max: 2 ** 48 - 1 });
const index = fc.integer({ min: 0, max: 1023 });

test("the UUID is version 7, variant 10, and begins with the receipt time", () => {
  fc.assert(
    fc.property(session, sequence, receivedAtMs, index, (s, n, at, i) => {
      const uuid = tradeUuids(s, n, at)(i);
      expect(uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
      expect(Number.parseInt(uuid.replaceAll("-", "").slice(0, 12), 16)).toBe(at);
    }),
  );
});

test("the bits after the time are 32 of sequence, 10 of index, 32 of session, in that order", () => {
  fc.assert(
    fc.property(session, sequence, receivedAtMs, index, (s, n, at, i) => {
      const all = BigInt(`0x${tradeUuids(s, n, at)(i).replaceAll("-", "")}`);
      const randA = (all >> 64n) & 0xfffn;
      const randB = all & ((1n << 62n) - 1n);
      const bits = (randA << 62n) | randB;
      expect(bits).toBe((BigInt(n) << 42n) | (BigInt(i) << 32n) | BigInt(`0x${s}`));
    }),
  );
});

test("equal parts give an equal UUID, and the parts can be read back", () => {
  fc.assert(
    fc.property(session, sequence, receivedAtMs, index, (s, n, at, i) => {
      expect(tradeUuids(s, n, at)(i)).toBe(tradeUuids(s, n, at)(i));
      expect(identityOf(tradeUuids(s, n, at)(i))).toEqual({ session: s, sequence: n, index: i });
    }),
  );
});

test("a session's UUIDs sort by arrival: by receipt, then sequence, then index", () => {
  const random = seeded(1);
  let at = NOON_MS;
  let previous = "";
  for (let n = 1; n < 20_000; n += 1 + random(300)) {
    at += random(3);
    const uuidOf = tradeUuids("ffffffff", n, at);
    for (const i of [0, 1, 2, 63, 64, 1023]) {
      const uuid = uuidOf(i);
      expect(uuid > previous).toBe(true);
      previous = uuid;
    }
  }
});

test("10 million pairs of sequence and index give 10 million UUIDs", () => {
  // One message after the other at one receipt time: the worst case, only sequence and index differ. The digits
  // that can differ are packed into a number below 2^42, exact in a double.
  const seen = new Float64Array(10_000_000);
  let count = 0;
  for (let n = 1; count < seen.length; n++) {
    const uuidOf = tradeUuids("0badcafe", n, NOON_MS);
    for (let i = 0; i < 1024 && count < seen.length; i++) {
      const uuid = uuidOf(i);
      seen[count++] =
        (Number.parseInt(uuid.slice(15, 18), 16) * 2 ** 14 +
          (Number.parseInt(uuid.slice(19, 23), 16) & 0x3fff)) *
          2 ** 16 +
        Number.parseInt(uuid.slice(24, 28), 16);
    }
  }
  seen.sort();
  let equal = 0;
  for (let i = 1; i < seen.length; i++) if (seen[i] === seen[i - 1]) equal++;
  expect(equal).toBe(0);
}, 60_000);

test("what cannot be an identity is refused, not bent", () => {
  expect(isIdentity("0badcafe", 1, 0)).toBe(true);
  for (const bad of ["", "0BADCAFE", "0badcaf", "0badcafe0"]) expect(isIdentity(bad, 1, 0)).toBe(false);
  for (const bad of [-1, 1.5, SEQUENCE_MAX + 1, Number.NaN])
    expect(isIdentity("0badcafe", bad, 0)).toBe(false);
  for (const bad of [-1, 0.5, 2 ** 48]) expect(isIdentity("0badcafe", 1, bad)).toBe(false);
  expect(() => tradeUuids("0badcafe", -1, 0)).toThrow("not an identity");
  expect(() => tradeUuids("0badcafe", 1, 0)(1024)).toThrow("not the index");
});

test("a session is 8 hex digits over the whole range", () => {
  expect(newSession(() => 0)).toBe("00000000");
  expect(newSession(() => 1 - 2 ** -53)).toBe("ffffffff");
});

test("a derived identity depends on the place of the record alone", () => {
  // First 32 bits of SHA-256("market/3/AAPL"), computed with sha256sum.
  expect(derivedSession("market/3", "AAPL")).toBe("be703c71");
  expect(derivedSequence(2 ** 32 + 5)).toBe(5);
});
