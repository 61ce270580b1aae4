// The part `store`: what warns, and what fails.

import { expect, test } from "bun:test";
import { LOCK_WARNING_MS, type StoreSnapshot, storePart, WAL_BYTES_MAX } from "../../../lib/health/store.ts";
import { NOON_MS } from "../../support/builders.ts";

const free: StoreSnapshot = {
  lockedSinceMs: null,
  lockedBy: "another program",
  refusal: null,
  walBytes: 4_096,
  walHeldSinceMs: null,
  walHeldBy: "another program (python3, process 4711)",
};
const partOf = (fields: Partial<StoreSnapshot>) => storePart({ ...free, ...fields }, NOON_MS);

test("a lock warns from a second on, and says where trades wait", () => {
  expect(partOf({})).toMatchObject({ ok: true, warning: null, walBytes: 4_096, lockedSince: null });
  expect(partOf({ lockedSinceMs: NOON_MS - LOCK_WARNING_MS + 1 }).warning).toBeNull();
  expect(partOf({ lockedSinceMs: NOON_MS - 7_000 })).toMatchObject({
    ok: true,
    warning:
      "another program has held the write lock of market.sqlite for 7 s: what is received waits in outbox.sqlite",
  });
});

test("a reader that holds the write-ahead log warns, and fails when the file is too large", () => {
  const held = { walHeldSinceMs: NOON_MS - 40_000, walBytes: 812 * 1_024 ** 2 };
  const sentence =
    "another program (python3, process 4711) keeps a read transaction open since 2026-01-05T11:59:20Z: market.sqlite-wal has grown to";
  expect(partOf(held)).toMatchObject({ ok: true, warning: `${sentence} 812 MiB` });
  expect(partOf({ ...held, walBytes: WAL_BYTES_MAX + 1 })).toMatchObject({
    ok: false,
    reason: `${sentence} 2048 MiB`,
    warning: null,
  });
});

test("a store that may not be written fails with the sentence", () => {
  expect(partOf({ refusal: "it is gone" })).toMatchObject({ ok: false, reason: "it is gone" });
});
