// The limits of one partition's memory, which no short history reaches: above each of them work costs more, and is
// never wrong. (What memory may answer for is shown in processor.test.ts, through the whole processor.)

import { expect, test } from "bun:test";
import { AGGREGATES } from "../../../lib/model/aggregates.ts";
import { newPane, PANE_MS } from "../../../lib/model/panes.ts";
import { tradeRow } from "../../../lib/model/trade.ts";
import { panesOfWindow } from "../../../lib/model/windows.ts";
import { PartitionState, type PendingRow, SESSIONS_MAX } from "../../../lib/processing/partition-state.ts";
import { windowsPerTrade } from "../../reference.ts";
import { NOON_MS, trade } from "../../support/builders.ts";

const nothing = { maxTradeMs: Number.NEGATIVE_INFINITY, receivedSinceMs: null };
const candle = { kind: "candle", symbol: "AAPL", startMs: NOON_MS } as const;

function pending(partition: PartitionState, tradedAtMs: number): PendingRow {
  const nextOffset = partition.tracker.watermark + 1;
  const row = tradeRow(trade({ tradedAtMs }), `00000000-0000-7000-8000-${nextOffset}`, NOON_MS);
  return { row, inFlight: partition.tracker.open(nextOffset, NOON_MS, 1), isResend: false };
}

test("above the limit of sessions a new one counts as a copy; the known ones stay known", () => {
  const partition = new PartitionState(0, nothing);
  const session = (index: number) => index.toString(16).padStart(8, "0");
  for (let index = 0; index < SESSIONS_MAX; index++) partition.observeMessage(session(index), 1);
  expect(partition.observeMessage(session(SESSIONS_MAX), 1)).toBe(true);
  expect(partition.observeMessage(session(SESSIONS_MAX), 2)).toBe(true);
  expect(partition.observeMessage(session(7), 2)).toBe(false);
  expect(partition.observeMessage(session(7), 2)).toBe(true);
});

test("an old sequence does not lower the highest that was seen", () => {
  const partition = new PartitionState(0, nothing);
  expect([5, 3, 4, 5, 6].map((sequence) => partition.observeMessage("0badcafe", sequence))).toEqual([
    false,
    true,
    true,
    true,
    false,
  ]);
});

test("reads that were dropped because there are too many are needed again, those under way too", () => {
  const partition = new PartitionState(0, { maxTradeMs: NOON_MS + 60_000, receivedSinceMs: null });
  const readNow = (startMs: number) =>
    partition.endRead("AAPL", startMs, partition.beginRead("AAPL", startMs), newPane());
  for (const startMs of panesOfWindow(candle)) readNow(startMs);
  expect(partition.panesOf(candle, new Map())).toMatchObject({ missing: [] });
  const underWay = partition.beginRead("AAPL", NOON_MS);
  // Others, until the limit is reached.
  for (let index = 0; index < 10_001; index++) readNow(NOON_MS - (index + 1) * PANE_MS);
  partition.endRead("AAPL", NOON_MS, underWay, newPane());
  expect(partition.panesOf(candle, new Map()).missing).toEqual([...panesOfWindow(candle)]);
});

test("a pane that is being read counts as missing until the answer is there", () => {
  const partition = new PartitionState(0, { maxTradeMs: NOON_MS, receivedSinceMs: null });
  const read = partition.beginRead("AAPL", NOON_MS);
  expect(partition.panesOf(candle, new Map()).missing).toEqual([NOON_MS]);
  partition.endRead("AAPL", NOON_MS, read, newPane());
  expect(partition.panesOf(candle, new Map()).missing).toEqual([]);
});

test("what a flush has read itself serves that flush, even when a row has overtaken it", () => {
  const partition = new PartitionState(0, { maxTradeMs: NOON_MS, receivedSinceMs: null });
  const read = partition.beginRead("AAPL", NOON_MS);
  partition.acknowledgeRow(pending(partition, NOON_MS), NOON_MS);
  partition.endRead("AAPL", NOON_MS, read, newPane());
  expect(partition.panesOf(candle, new Map()).missing).toEqual([NOON_MS]);
  expect(partition.panesOf(candle, new Map([[`${NOON_MS} AAPL`, newPane()]])).missing).toEqual([]);
  expect(partition.unwrittenCount).toBe(windowsPerTrade(AGGREGATES));
});

test("the number of panes never exceeds its limit, and the oldest are evicted first", () => {
  const partition = new PartitionState(0, nothing, 3);
  for (let index = 0; index < 20; index++) {
    partition.acknowledgeRow(pending(partition, NOON_MS + index * PANE_MS), NOON_MS);
    expect(partition.paneCount).toBeLessThanOrEqual(3);
  }
  const last = { kind: "average", symbol: "AAPL", startMs: NOON_MS + 17 * PANE_MS } as const;
  expect(partition.panesOf(last, new Map())).toMatchObject({ missing: [] });
  expect(partition.panesOf({ ...last, startMs: NOON_MS + 16 * PANE_MS }, new Map()).missing).toHaveLength(1);
});

test("panes become idle by the time of their last row, not of their creation", () => {
  const partition = new PartitionState(0, nothing);
  partition.acknowledgeRow(pending(partition, NOON_MS), NOON_MS);
  partition.acknowledgeRow(pending(partition, NOON_MS + 1), NOON_MS + 100_000);
  partition.dropIdle(NOON_MS + 280_000);
  expect(partition.paneCount).toBe(1);
  partition.dropIdle(NOON_MS + 280_001);
  expect(partition.paneCount).toBe(0);
  expect(partition.panesOf(candle, new Map()).missing).toEqual([NOON_MS]);
});
