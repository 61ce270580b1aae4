// The owner row: the changes of it as functions, and the names that it has on disk.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { DamageError } from "../../../lib/outbox/errors.ts";
import {
  afterAnotherOwner,
  isLastOwner,
  newOwner,
  placeOfClaim,
  prepareOwnerWrite,
  readOwner,
  withClaim,
} from "../../../lib/outbox/owner.ts";
import sql from "../../../sql/log.sql" with { type: "text" };

const owner = newOwner(() => 0.5);

test("a new owner has a holder, and nothing else yet", () => {
  expect(owner.holder).toHaveLength(16);
  expect(owner).toMatchObject({ role: null, sessions: [], unconfirmedFrom: null, symbols: null });
  expect(isLastOwner(owner, "here")).toBe(false);
});

test("the last claim decides whose the lease was last, until it is released or another owner was seen", () => {
  const claimed = withClaim(withClaim(owner, { session: "a", place: "there" }), {
    session: "b",
    place: "here",
  });
  expect(placeOfClaim(claimed, "a", "here")).toBe("elsewhere");
  expect(placeOfClaim(claimed, "b", "here")).toBe("here");
  expect(placeOfClaim(claimed, "c", "here")).toBeNull();
  expect(isLastOwner(claimed, "here")).toBe(true);
  expect(isLastOwner(claimed, "there")).toBe(false);
  expect(isLastOwner({ ...claimed, isReleased: true }, "here")).toBe(false);
  expect(
    isLastOwner(withClaim({ ...claimed, isReleased: true }, { session: "b", place: "here" }), "here"),
  ).toBe(true);
  const after = afterAnotherOwner({ ...claimed, unconfirmedFrom: 7, symbols: ["AAPL"] });
  expect(placeOfClaim(after, "b", "here")).toBeNull();
  expect(after).toEqual({ ...owner, symbols: ["AAPL"] });
});

test("a repeated claim is kept once, and of many the newest sixteen", () => {
  let claimed = owner;
  for (let number = 0; number < 20; number++)
    claimed = withClaim(claimed, { session: String(number), place: "here" });
  claimed = withClaim(claimed, { session: "10", place: "here" });
  const expected = Array.from({ length: 16 }, (_, index) => String(index + 4)).filter((one) => one !== "10");
  expect(claimed.sessions.map(({ session }) => session)).toEqual([...expected, "10"]);
});

test("the row is read back as it was written, with the names that it has always had on disk", () => {
  using db = new Database(":memory:");
  db.run(sql);
  expect(readOwner(db)).toBeNull();
  const written = withClaim({ ...owner, role: "producer", unconfirmedFrom: 7 }, { session: "a", place: "p" });
  prepareOwnerWrite(db)(owner);
  prepareOwnerWrite(db)(written);
  expect(readOwner(db)).toEqual(written);
  const [{ words }] = db.query("SELECT words FROM keeper").all() as [{ words: string }];
  expect(JSON.parse(words)).toEqual({
    role: "producer",
    holder: owner.holder,
    sessions: [{ session: "a", place: "p" }],
    isReleased: false,
    doubtFrom: 7,
    symbols: null,
  });
  db.run("UPDATE keeper SET words = replace(words, 'producer', 'local')");
  expect(() => readOwner(db)).toThrow(DamageError);
});
