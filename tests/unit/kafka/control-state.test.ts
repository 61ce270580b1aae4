// The tickers' topic as a fold: the watchlist and the lease, also when the topic is read again or recreated.

import { expect, test } from "bun:test";
import { encodeLeaseRecord, LEASE_KEY, type LeaseRecord } from "../../../lib/contracts/lease.ts";
import { ControlState, encodeWatchlistEntry } from "../../../lib/kafka/control-state.ts";
import { NOON_MS } from "../../support/builders.ts";

function open() {
  let recreatedCount = 0;
  const state = new ControlState(() => {
    recreatedCount += 1;
  });
  const bytes = (text: string) => new TextEncoder().encode(text);
  return {
    state,
    recreatedCount: () => recreatedCount,
    apply: (offset: number, key: string | null, value: string | Uint8Array | null, timestampMs = NOON_MS) =>
      state.apply({ offset, key, value: typeof value === "string" ? bytes(value) : value, timestampMs }).kind,
    symbols: () => state.watchlist().map(({ symbol }) => symbol),
  };
}

const claim: LeaseRecord = {
  type: "claim",
  after: 0,
  seen: 0,
  holder: "outbox",
  session: "a",
  host: "host",
  pid: 7,
  sinceMs: NOON_MS,
  atMs: NOON_MS,
};

test("the oldest change comes first; changes of one moment come in the order of their offsets", () => {
  const { apply, symbols } = open();
  const changedAt = (changedAtMs: number) => `{"wanted":true,"changedAtMs":${changedAtMs}}`;
  for (const [offset, [symbol, atMs]] of (
    [
      ["B", 2],
      ["C", 1],
      ["A", 2],
    ] as const
  ).entries()) {
    expect(apply(offset, symbol, changedAt(atMs))).toBe("watchlist");
  }
  expect(symbols()).toEqual(["C", "B", "A"]);
  apply(3, "C", changedAt(3));
  expect(symbols()).toEqual(["B", "A", "C"]);
});

test("an entry comes back as it was written, and one written by hand counts as an operator's of long ago", () => {
  const { apply, state } = open();
  const entry = { symbol: "AAPL", wanted: false, changedAtMs: NOON_MS, by: "setting" } as const;
  apply(0, "AAPL", encodeWatchlistEntry(entry));
  apply(1, "MSFT", '{"wanted":true}');
  expect(state.watchlist()).toEqual([
    { symbol: "MSFT", wanted: true, changedAtMs: 0, by: "operator" },
    entry,
  ]);
});

test("what cannot be read changes nothing, and neither does another key of the pipeline's own", () => {
  const { apply, state } = open();
  const values = ["", "{", "null", '{"wanted":1}', '{"wanted":true,"changedAtMs":-1}', null];
  for (const [offset, value] of values.entries()) expect(apply(offset, "B", value)).toBe("unreadable");
  expect(apply(10, " C", '{"wanted":true}')).toBe("unreadable");
  expect(apply(11, null, '{"wanted":true}')).toBe("unreadable");
  expect(apply(12, LEASE_KEY, '{"type":"alive"}')).toBe("unreadable");
  expect(apply(13, "#other", '{"wanted":true}')).toBe("reserved");
  expect([state.watchlist(), state.lease, state.lastOffset]).toEqual([[], null, 13]);
});

test("a topic that is read again from its beginning changes nothing", () => {
  const { apply, state, symbols, recreatedCount } = open();
  const records = [
    ["A", '{"wanted":true}'],
    [LEASE_KEY, encodeLeaseRecord(claim)],
  ] as const;
  for (const [offset, [key, value]] of records.entries()) apply(offset, key, value);
  const { lease } = state;
  for (const [offset, [key, value]] of records.entries())
    expect(apply(offset, key, value)).toBe("read_before");
  expect([symbols(), state.lease, recreatedCount()]).toEqual([["A"], lease, 0]);
});

test("a topic that was recreated frees the lease and keeps the watchlist", () => {
  const { apply, state, symbols, recreatedCount } = open();
  apply(0, "A", '{"wanted":true}');
  apply(1, LEASE_KEY, encodeLeaseRecord(claim));
  expect(state.lease).toMatchObject({ session: "a", isReleased: false });
  expect(apply(0, "B", '{"wanted":true}', NOON_MS + 1)).toBe("watchlist");
  expect([symbols(), state.lease, state.lastOffset, recreatedCount()]).toEqual([["A", "B"], null, 0, 1]);
});
