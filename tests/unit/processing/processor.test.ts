// The processor's promises, each with the smallest history that shows it. At EVERY commit the ledger checks
// that all rows below it are stored and counted in their windows; at the end every window is compared with a
// computation from scratch. Time is virtual, and so is everything that goes wrong.

import { expect, test } from "bun:test";
import { AGGREGATES } from "../../../lib/model/aggregates.ts";
import { encodeMessage } from "../../../lib/model/codec.ts";
import type { TradeRow } from "../../../lib/model/trade.ts";
import { windowsPerTrade } from "../../reference.ts";
import { PipelineHarness } from "../../simulation/harness.ts";
import { NOON_MS, trade } from "../../support/builders.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;
const ID = "market/0";
/** Enough for any trade to be stored, when nothing fails. */
const STORED_MS = 50;
/** Enough for two triggers and what they start. */
const WRITTEN_MS = 10_500;

/** A trade so many ms after noon. */
const at = (ms: number, fields: Partial<Parameters<typeof trade>[0]> = {}) =>
  trade({ tradedAtMs: NOON_MS + ms, ...fields });

function averageAt(stage: PipelineHarness, endMs: number) {
  return stage.store.window("average", "AAPL", NOON_MS + endMs);
}

function candleAt(stage: PipelineHarness, startMs: number) {
  return stage.store.window("candle", "AAPL", NOON_MS + startMs);
}

function committedOffset(stage: PipelineHarness): number | undefined {
  return stage.log.partition(ID).committed?.offset;
}

// ---- What comes in ----------------------------------------------------------------------------------------

test("trades become rows, three averages and a candle", () => {
  const stage = new PipelineHarness();
  stage.start();
  stage.send([at(0, { price: 10, volume: 2, conditions: ["1"] }), at(1, { price: 20, volume: 1 })]);
  stage.expectComplete();
  expect(averageAt(stage, 5_000)).toMatchObject({ trade_count: 2, price_volume_multiply: 20, vwap: 40 / 3 });
  expect(candleAt(stage, 0)).toMatchObject({ open: 10, close: 20, high: 20, low: 10, volume: 3 });
  expect(stage.store.windows.size).toBe(windowsPerTrade(AGGREGATES));
});

test("the order in which trades come does not matter", () => {
  for (const order of [
    [0, 7_000, 14_000, 59_999],
    [59_999, 14_000, 7_000, 0],
    [14_000, 59_999, 0, 7_000],
  ]) {
    const stage = new PipelineHarness();
    stage.start();
    for (const [index, ms] of order.entries()) {
      stage.send([at(ms, { price: 10 + ms / 1_000 })]);
      stage.world.run(index === 1 ? WRITTEN_MS : 1);
    }
    stage.expectComplete();
    expect(candleAt(stage, 0)).toMatchObject({ open: 10, close: 69.999, trade_count: 4 });
  }
});

test("a trade that is an hour late amends its windows", () => {
  const stage = new PipelineHarness();
  stage.start();
  stage.send([at(-HOUR_MS, { price: 5 }), at(0)]);
  stage.world.run(HOUR_MS);
  expect(candleAt(stage, -HOUR_MS)).toMatchObject({ trade_count: 1 });
  stage.send([at(-HOUR_MS + 1, { price: 7 })]);
  stage.expectComplete();
  expect(candleAt(stage, -HOUR_MS)).toMatchObject({ trade_count: 2, open: 5, close: 7 });
});

test("prints that are equal in everything are trades of their own, in one message and in several", () => {
  const stage = new PipelineHarness();
  stage.start();
  stage.send([at(5), at(5), at(5)]);
  stage.send([at(5)]);
  stage.expectComplete();
  expect(stage.store.rows.size).toBe(4);
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 4 });
});

test("two sessions with the same sequence are two messages", () => {
  const stage = new PipelineHarness();
  stage.start();
  stage.send([at(5)], { session: "00000001", sequence: 1 });
  stage.send([at(5)], { session: "00000002", sequence: 1 });
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 2 });
});

test.each([
  ["an hour", Date.UTC(2026, 0, 5, 13)],
  ["a day", Date.UTC(2026, 0, 6)],
])("windows across %s are whole, after a restart too", (_, boundaryMs) => {
  const stage = new PipelineHarness({ startMs: boundaryMs - 7_000 });
  const first = stage.start();
  const around = [-6_000, -1, 0, 4_999];
  for (const ms of around) stage.send([trade({ tradedAtMs: boundaryMs + ms })]);
  stage.world.run(WRITTEN_MS);
  stage.restart(first);
  for (const ms of around) stage.send([trade({ tradedAtMs: boundaryMs + ms })]);
  stage.expectComplete();
  // The end 5 s after the boundary: [-10 s, +5 s).
  expect(stage.store.window("average", "AAPL", boundaryMs + 5_000)).toMatchObject({ trade_count: 8 });
});

// ---- Copies -----------------------------------------------------------------------------------------------

test("a message that comes twice is counted once", async () => {
  const stage = new PipelineHarness();
  stage.start();
  const message = stage.send([at(0), at(1)]);
  stage.world.run(STORED_MS);
  stage.resend(message);
  stage.world.run(WRITTEN_MS);
  stage.send([at(2)]);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 3 });
  expect(await stage.counted("resendsTotal")).toBe(1);
});

test.each([
  ["overtakes", 900, 0],
  ["follows", 0, 900],
])("a copy that %s the first while that is in flight is counted once", (_, firstMs, secondMs) => {
  const stage = new PipelineHarness();
  stage.store.faults.plan("putTrades", { latencyMs: firstMs }, { latencyMs: secondMs });
  stage.start();
  const message = stage.send([at(0)]);
  stage.world.run(20);
  stage.resend(message);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 1 });
});

test("an older message of the same session is a copy, whatever came between", () => {
  const stage = new PipelineHarness();
  stage.start();
  const first = stage.send([at(0)]);
  const second = stage.send([at(6_000)]);
  stage.send([at(12_000)]);
  stage.world.run(STORED_MS);
  // Both are copies: the second must not look new because the first was met last.
  stage.resend(first);
  stage.resend(second);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 3 });
});

test.each([
  ["committed", WRITTEN_MS],
  ["stored, not committed", STORED_MS],
  ["only appended", 0],
])("a copy after a restart is counted once when the first was %s", (_, beforeMs) => {
  const stage = new PipelineHarness();
  const first = stage.start();
  const message = stage.send([at(0), at(1)]);
  stage.world.run(beforeMs);
  stage.restart(first);
  stage.resend(message);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 2 });
});

// ---- Restart ----------------------------------------------------------------------------------------------

test("a restart at any moment loses nothing and counts nothing twice", () => {
  const momentsMs: number[] = [];
  for (let ms = 0; ms < 40; ms += 0.7) momentsMs.push(ms, 5_000 + ms);
  for (const [seed, momentMs] of momentsMs.entries()) {
    const stage = new PipelineHarness({ seed, limits: { panesMax: 2 } });
    const first = stage.start();
    for (let index = 0; index < 4; index++) stage.send([at(index * 4_000), at(index), at(-20_000 * index)]);
    stage.world.run(momentMs);
    const second = stage.restart(first);
    stage.world.run(momentMs % 3);
    stage.send([at(1_000), at(50_000)]);
    stage.world.run(momentMs);
    stage.restart(second);
    stage.send([at(1_001), at(-1)]);
    stage.expectComplete();
    expect(stage.store.rows.size).toBe(16);
  }
});

test("after a restart a window counts what only the table knows: touched panes and untouched ones", () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  stage.send([at(1_000), at(6_000), at(16_000)]);
  stage.world.run(WRITTEN_MS);
  stage.restart(first);
  stage.store.scans.length = 0;
  stage.send([at(11_000)]);
  stage.expectComplete();
  // Nobody touched the panes at 0 and 5 s since the restart.
  expect(averageAt(stage, 15_000)).toMatchObject({ trade_count: 3 });
  expect(stage.store.scans).toContain(`AAPL ${NOON_MS}`);
});

test("a trade in the pane of the newest committed trade is added to it after a restart", () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  stage.send([at(6_000), at(9_999)]);
  stage.world.run(WRITTEN_MS);
  expect(committedOffset(stage)).toBe(1);
  stage.restart(first);
  stage.send([at(9_000)]);
  stage.expectComplete();
  expect(averageAt(stage, 10_000)).toMatchObject({ trade_count: 3 });
});

test("the bound of a commit also covers an older trade that was the newest", () => {
  const stage = new PipelineHarness();
  let process = stage.start();
  for (const ms of [50_000, 0, 10_000]) {
    stage.send([at(ms)]);
    stage.world.run(WRITTEN_MS);
    process = stage.restart(process);
  }
  stage.send([at(50_001)]);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 4 });
});

test("a pane that began before the commit and was filled after it is whole after a restart", () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  stage.send([at(0)]);
  stage.world.run(WRITTEN_MS);
  stage.send([at(1)]);
  stage.send([at(7_000)]);
  stage.world.run(STORED_MS);
  stage.restart(first);
  stage.expectComplete();
  expect(averageAt(stage, 10_000)).toMatchObject({ trade_count: 3 });
});

test("panes after the bound are answered from memory, without a read", async () => {
  const stage = new PipelineHarness();
  stage.start();
  stage.send([at(0)]);
  stage.world.run(WRITTEN_MS);
  stage.send([at(7_000)]);
  stage.expectComplete();
  expect(await stage.counted("panesReadTotal")).toBe(0);
});

test("a trade dated 20 hours ahead is stored, and windows stay right after a restart", () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  stage.send([at(0), at(20 * HOUR_MS)]);
  stage.world.run(WRITTEN_MS);
  const second = stage.restart(first);
  stage.send([at(1), at(20 * HOUR_MS + 1), at(20 * HOUR_MS - 1)]);
  stage.world.run(WRITTEN_MS);
  stage.restart(second);
  stage.send([at(2), at(20 * HOUR_MS + 2)]);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 3 });
});

// ---- What memory may answer for ---------------------------------------------------------------------------

test("a trade for a pane that was dropped for idleness amends it", () => {
  const stage = new PipelineHarness();
  stage.start();
  stage.send([at(0)]);
  stage.world.run(200_000);
  stage.send([at(1)]);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 2 });
});

test("a trade for a pane that was evicted amends it, and so does one for an untouched older pane", () => {
  const stage = new PipelineHarness({ limits: { panesMax: 2 } });
  stage.start();
  for (const ms of [0, 5_000, 10_000, 15_000, 20_000]) stage.send([at(ms)]);
  stage.world.run(WRITTEN_MS);
  stage.send([at(1)]);
  stage.world.run(WRITTEN_MS);
  stage.send([at(5_001)]);
  stage.world.run(WRITTEN_MS);
  stage.send([at(-3_000)]);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 7 });
  expect(averageAt(stage, 10_000)).toMatchObject({ trade_count: 5 });
});

test("what was read back is read again once a row of the pane has come", () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  stage.send([at(0)]);
  stage.world.run(WRITTEN_MS);
  stage.restart(first);
  for (let count = 2; count < 5; count++) {
    stage.send([at(count)]);
    stage.world.run(WRITTEN_MS);
    expect(candleAt(stage, 0)).toMatchObject({ trade_count: count });
  }
  stage.expectComplete();
});

test("a read that a row overtook is not kept", () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  stage.send([at(0)]);
  stage.world.run(WRITTEN_MS);
  stage.restart(first);
  stage.send([at(1)]);
  // The table answers before the next row comes, and the answer arrives after that row was acknowledged.
  stage.store.faults.plan("scanTrades", { backMs: 3_000 });
  stage.world.run(5_500);
  stage.send([at(2)]);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 3 });
});

test("a read is not lost on rows that come between its pages", () => {
  for (let seed = 0; seed < 20; seed++) {
    const stage = new PipelineHarness({ seed, store: { pageRows: 2 } });
    const first = stage.start();
    stage.send(Array.from({ length: 7 }, (_, index) => at(index * 2)));
    stage.world.run(WRITTEN_MS);
    stage.restart(first);
    stage.send([at(20)]);
    stage.world.run(5_000);
    for (let index = 0; index < 7; index++) {
      stage.send([at(index * 2 + 1)]);
      stage.world.run(1);
    }
    stage.expectComplete();
    expect(candleAt(stage, 0)).toMatchObject({ trade_count: 15 });
  }
});

test("a pane that was dropped while another one was read is read too", () => {
  const stage = new PipelineHarness({ limits: { panesMax: 1 }, triggerMs: null });
  const first = stage.start();
  stage.send([at(0)]);
  stage.world.run(STORED_MS);
  void first.processor.trigger();
  stage.world.run(1_000);
  expect(committedOffset(stage)).toBe(1);
  const { processor } = stage.restart(first);
  stage.send([at(6_000)]);
  stage.world.run(STORED_MS);
  // The pane at 0 is read; meanwhile the one at 5 s is evicted by two newer ones.
  stage.store.faults.plan("scanTrades", { backMs: 500 });
  void processor.trigger();
  stage.world.run(100);
  stage.send([at(61_000)]);
  stage.send([at(66_000)]);
  stage.world.run(1_000);
  stage.expectLawful();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 2 });
});

test("a failed read of a pane writes nothing of its window, and is tried again", () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  stage.send([at(0), at(1), at(2), at(3)]);
  stage.world.run(WRITTEN_MS);
  stage.restart(first);
  stage.send([at(4)]);
  // The first page comes, the second does not.
  stage.store.faults.plan("scanTrades", {}, { fault: "before" });
  stage.world.run(6_000);
  expect(committedOffset(stage)).toBe(1);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 5 });
});

// ---- Commits ----------------------------------------------------------------------------------------------

test("a commit waits for the last row of a message", () => {
  const stage = new PipelineHarness({ store: { rowsPerPutMax: 1 } });
  stage.store.faults.plan("putTrades", {}, { latencyMs: 8_000 }, {});
  stage.start();
  stage.send([at(0), at(1), at(2)]);
  stage.send([at(3)]);
  stage.world.run(6_000);
  expect(stage.store.rows.size).toBe(3);
  expect(committedOffset(stage)).toBe(0);
  stage.expectComplete();
});

test("what is stored while windows are written is committed with the next ones", () => {
  const stage = new PipelineHarness();
  stage.store.faults.plan("putWindows", { latencyMs: 1_000 });
  stage.start();
  stage.send([at(0)]);
  stage.world.run(5_100);
  stage.send([at(1), at(30_000)]);
  stage.world.run(2_000);
  expect(stage.store.rows.size).toBe(3);
  expect(committedOffset(stage)).toBe(1);
  stage.expectComplete();
});

test("with more windows than fit one put, those behind a failed put are written later", () => {
  const stage = new PipelineHarness({ triggerMs: null, log: { batchMax: 400 } });
  const { processor } = stage.start();
  for (let index = 0; index < 300; index++) stage.send([at(index * 60_000)]);
  stage.world.run(1_000);
  expect(stage.store.rows.size).toBe(300);
  stage.store.faults.plan("putWindows", {}, { fault: "before" });
  void processor.trigger();
  stage.world.run(STORED_MS);
  expect(stage.store.windows.size).toBe(500);
  expect(committedOffset(stage)).toBe(0);
  void processor.trigger();
  stage.expectComplete();
  expect(stage.store.windows.size).toBe(300 * windowsPerTrade(AGGREGATES));
});

test.each(["before", "partly", "after", "late"] as const)(
  "windows whose write failed (%s) are written by the next trigger, and nothing commits before",
  (fault) => {
    const stage = new PipelineHarness();
    stage.store.faults.plan("putWindows", { fault });
    stage.start();
    stage.send([at(0)]);
    stage.world.run(6_000);
    expect(committedOffset(stage)).toBe(0);
    stage.world.run(5_000);
    expect(committedOffset(stage)).toBe(1);
    stage.expectComplete();
  },
);

test("a partition whose windows cannot be written does not hold up the others", () => {
  const stage = new PipelineHarness({ log: { partitionCount: 2 } });
  const [slow, other] = ["AAPL", "AAPM"];
  expect(stage.log.partitionOf(slow)).not.toBe(stage.log.partitionOf(other));
  stage.store.refuses = () => false;
  stage.start();
  stage.send([at(0)]);
  stage.world.run(STORED_MS);
  stage.store.faults.plan("putWindows", { latencyMs: 60_000 });
  stage.world.run(6_000);
  stage.send([at(0, { symbol: other })]);
  stage.world.run(WRITTEN_MS);
  expect(stage.log.partition(stage.log.partitionOf(other)).committed?.offset).toBe(1);
  expect(stage.log.partition(stage.log.partitionOf(slow)).committed?.offset).toBe(0);
  stage.expectComplete();
});

test("two triggers that overlap flush once: none commits past what is not written", () => {
  const stage = new PipelineHarness({ triggerMs: null });
  const { processor } = stage.start();
  stage.send([at(0)]);
  stage.world.run(STORED_MS);
  stage.store.faults.plan("putWindows", { fault: "before", latencyMs: 1_000 });
  void processor.trigger();
  stage.world.run(100);
  void processor.trigger();
  stage.world.run(100);
  expect(committedOffset(stage)).toBe(0);
  stage.world.run(2_000);
  expect(committedOffset(stage)).toBe(0);
  void processor.trigger();
  stage.expectComplete();
});

test.each(["before", "after", "late"] as const)("a commit that failed (%s) is tried again", (fault) => {
  const stage = new PipelineHarness();
  stage.start();
  stage.world.run(STORED_MS);
  stage.log.faults.plan("commit", { fault });
  stage.send([at(0)]);
  stage.world.run(1);
  stage.expectComplete();
  expect(stage.log.faults.counts).toEqual({ [`commit ${fault}`]: 1 });
});

// ---- What cannot be taken ---------------------------------------------------------------------------------

const message = { session: "0badcafe", sequence: 7, receivedAtMs: NOON_MS, trades: [at(0)] };
/** No such value can come out of Stage.send: what stands here was written by others. */
const poison: Readonly<Record<string, Uint8Array>> = {
  "is no message": Buffer.from("hello"),
  "is empty": new Uint8Array(),
  "is cut off": encodeMessage(message).subarray(0, 20),
  "has no session": encodeMessage({ ...message, session: "" }),
  "has another kind of session": encodeMessage({ ...message, session: "NOT-HEX!" }),
  "has a sequence below 0": encodeMessage({ ...message, sequence: -1 }),
  "has a sequence of 33 bits": encodeMessage({ ...message, sequence: 2 ** 32 }),
  "has no trades": encodeMessage({ ...message, trades: [] }),
  "carries two symbols": encodeMessage({ ...message, trades: [at(0), at(0, { symbol: "MSFT" })] }),
  "carries 1,025 trades": encodeMessage({ ...message, trades: Array.from({ length: 1_025 }, () => at(0)) }),
};

test.each(Object.entries(poison))("a record that %s goes to the dead and blocks nothing", (_, bytes) => {
  const stage = new PipelineHarness();
  stage.start();
  stage.send([at(0)]);
  stage.sendPoison("AAPL", bytes);
  stage.send([at(1)]);
  stage.expectComplete();
  expect(stage.store.deadLetters.size).toBe(1);
  expect(stage.ledger.payloads()).toEqual([Buffer.from(bytes).toString("hex")]);
  expect(stage.store.rows.size).toBe(2);
});

test("a commit waits for a dead letter as for a row", () => {
  const stage = new PipelineHarness();
  stage.store.faults.plan("putDead", { fault: "before", latencyMs: 4_000 }, { latencyMs: 5_000 });
  stage.start();
  stage.sendPoison("AAPL", Buffer.from("hello"));
  stage.send([at(0)]);
  stage.world.run(5_500);
  expect(stage.store.rows.size).toBe(1);
  expect(committedOffset(stage)).toBe(0);
  stage.expectComplete();
});

test("trades at impossible times go to the dead alone, and what is just possible is stored", () => {
  const stage = new PipelineHarness();
  stage.start();
  stage.send([
    at(0),
    at(DAY_MS),
    at(DAY_MS + 1),
    trade({ tradedAtMs: Date.UTC(2000, 0, 1) }),
    trade({ tradedAtMs: Date.UTC(2000, 0, 1) - 1 }),
  ]);
  stage.expectComplete();
  expect(stage.store.rows.size).toBe(3);
  const deadLetters = [...stage.store.deadLetters.values()];
  expect(deadLetters.map(({ item, reason }) => [item, reason])).toEqual([
    [2, "impossible_time"],
    [4, "impossible_time"],
  ]);
});

test("an impossible time does not become the bound: memory still answers", async () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  stage.send([at(0), at(3 * DAY_MS)]);
  stage.world.run(WRITTEN_MS);
  stage.restart(first);
  stage.send([at(60_000)]);
  stage.expectComplete();
  expect(stage.store.deadLetters.size).toBe(1);
});

test("a row that the store refuses goes to the dead alone; its neighbours are stored", async () => {
  const stage = new PipelineHarness({ store: { rowsPerPutMax: 10 } });
  stage.store.refuses = ({ price }: TradeRow) => price === 13;
  stage.start();
  stage.send([at(0), at(1, { price: 13 }), at(2)]);
  stage.send([at(3)]);
  stage.expectComplete();
  expect(stage.store.rows.size).toBe(3);
  expect([...stage.store.deadLetters.values()].map(({ item, reason }) => [item, reason])).toEqual([
    [1, "refused_by_store"],
  ]);
  expect(await stage.counted("deadLettersTotal", "refused_by_store")).toBe(1);
});

test("a commit waits until the refused row is among the dead", () => {
  const stage = new PipelineHarness();
  stage.store.refuses = ({ price }: TradeRow) => price === 13;
  stage.store.faults.plan("putDead", { latencyMs: 8_000 });
  stage.start();
  stage.send([at(0), at(1, { price: 13 })]);
  stage.world.run(6_000);
  expect(committedOffset(stage)).toBe(0);
  stage.expectComplete();
});

test("a row that is refused after an attempt had stored it is counted where it lies", () => {
  const stage = new PipelineHarness();
  stage.store.faults.plan("putTrades", { fault: "after" });
  stage.start();
  stage.send([at(0), at(1, { price: 13 })]);
  stage.world.runUntil(() => stage.store.rows.size === 2, 1_000);
  // From here on, say because its time to live has run out.
  stage.store.refuses = ({ price }: TradeRow) => price === 13;
  stage.settle();
  stage.expectLawful();
  expect(stage.store.deadLetters.size).toBe(1);
  expect(stage.store.rows.size).toBe(2);
  stage.expectWindows();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 2 });
});

test("an aggregate or a dead letter that the store refuses for good is counted and blocks nothing", async () => {
  const stage = new PipelineHarness();
  stage.store.refusesWindow = ({ kind }) => kind === "candle";
  stage.store.refusesDeadLetter = () => true;
  stage.start();
  stage.send([at(0), at(DAY_MS + 1)]);
  stage.world.run(WRITTEN_MS);
  expect(committedOffset(stage)).toBe(1);
  expect(stage.store.windows.size).toBe(windowsPerTrade(AGGREGATES) - 1);
  expect(await stage.counted("refusedForGoodTotal", "window")).toBe(1);
  expect(await stage.counted("refusedForGoodTotal", "dead")).toBe(1);
});

test("feed events and dead letters of the feed are stored before they are passed", () => {
  const stage = new PipelineHarness();
  stage.store.faults.plan("putEvents", { fault: "before", latencyMs: 6_000 });
  stage.start();
  stage.sendEvent({
    day: "2026-01-05",
    event_timestamp: NOON_MS,
    session: "0badcafe",
    sequence: 1,
    type: "connected",
    detail: "{}",
  });
  stage.sendLetter({
    session: "0badcafe",
    sequence: 2,
    item: -1,
    receivedAtMs: NOON_MS,
    reason: "garbage_frame",
    source: "feed",
    payload: Buffer.from("?"),
  });
  stage.sendPoison("0badcafe", Buffer.from("no event"), "event");
  stage.sendPoison("0badcafe", Buffer.from("no letter"), "dead");
  stage.world.run(5_500);
  expect(committedOffset(stage)).toBe(0);
  stage.settle();
  stage.expectLawful();
  expect(stage.store.events.size).toBe(1);
  expect([...stage.store.deadLetters.values()].map(({ reason }) => reason).sort()).toEqual([
    "garbage_frame",
    "undecodable",
    "undecodable",
  ]);
});

// ---- Where reading starts ---------------------------------------------------------------------------------

test.each(["", "hello", "null", "[]", "{}", '{"maxTradeMs":"1"}', '{"maxTradeMs":true}'])(
  "a commit with the metadata %p proves nothing: all is read again, and memory answers for nothing",
  (metadata) => {
    const stage = new PipelineHarness();
    const first = stage.start();
    stage.send([at(0), at(6_000)]);
    stage.world.run(WRITTEN_MS);
    stage.log.partition(ID).committed = { offset: 1, metadata };
    stage.ledger.mayRewind = true;
    stage.restart(first);
    stage.send([at(1)]);
    stage.expectComplete();
    expect(candleAt(stage, 0)).toMatchObject({ trade_count: 3 });
  },
);

test("the first start ever, on a log with a history, reads all of it without reading the table", async () => {
  const stage = new PipelineHarness();
  for (let index = 0; index < 20; index++) stage.send([at(index * 1_000)]);
  stage.start();
  stage.expectComplete();
  expect(await stage.counted("panesReadTotal")).toBe(0);
});

test("a start without a commit over a table that has rows does not count them as absent", () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  stage.send([at(0)]);
  stage.world.run(WRITTEN_MS);
  stage.log.partition(ID).committed = null;
  stage.log.dropBelow(ID, 1);
  stage.restart(first);
  stage.send([at(1)]);
  stage.world.run(WRITTEN_MS);
  stage.expectWindows();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 2 });
});

test("a commit below the log's beginning is a gap: it is told, and reading goes on at the beginning", () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  stage.send([at(0)]);
  stage.world.run(WRITTEN_MS);
  first.machine.kill();
  for (const ms of [1, 2, 3]) stage.send([at(ms)]);
  stage.log.dropBelow(ID, 3);
  stage.ledger.problems.length = 0;
  stage.log.onCommit = () => {};
  const second = stage.start();
  stage.world.run(WRITTEN_MS);
  expect([...stage.store.events.values()]).toMatchObject([{ type: "log_gap" }]);
  expect(JSON.parse([...stage.store.events.values()][0]!.detail)).toMatchObject({
    committedOffset: 1,
    beginOffset: 3,
  });
  expect(committedOffset(stage)).toBe(4);
  stage.restart(second);
  stage.send([at(4)]);
  stage.settle();
  stage.expectWindows();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 3 });
  expect(stage.store.events.size).toBe(1);
});

test("a commit beyond the log's end is no place to wait at: what is appended there next is read", () => {
  const stage = new PipelineHarness();
  const first = stage.start();
  for (const ms of [0, 1, 2]) stage.send([at(ms)]);
  stage.world.run(WRITTEN_MS);
  expect(committedOffset(stage)).toBe(3);
  first.machine.kill();
  stage.log.loseFrom(ID, 1);
  stage.ledger.mayRewind = true;
  const rows = stage.store.rows.size;
  stage.start();
  stage.world.run(WRITTEN_MS);
  // The log grows beyond the old commit before the next restart.
  stage.log.onCommit = () => {};
  for (const ms of [3, 4, 5]) stage.send([at(ms)]);
  stage.settle();
  stage.expectWindows();
  expect(stage.store.rows.size).toBe(rows + 3);
});

test("a new position is committed before it is read: the old one cannot come true later", () => {
  const stage = new PipelineHarness({ triggerMs: null });
  const first = stage.start();
  for (const ms of [0, 1, 2]) stage.send([at(ms)]);
  stage.world.run(STORED_MS);
  void first.processor.trigger();
  stage.world.run(1_000);
  expect(committedOffset(stage)).toBe(3);
  first.machine.kill();
  stage.log.loseFrom(ID, 1);
  stage.log.onCommit = () => {};
  const second = stage.start();
  stage.world.run(STORED_MS);
  expect(committedOffset(stage)).toBe(0);
  for (const ms of [60_003, 60_004, 60_005]) stage.send([at(ms)]);
  stage.restart(second);
  stage.world.run(STORED_MS);
  expect(stage.store.rows.size).toBe(6);
});

test("rows whose records were lost with the end of the log get their windows all the same", () => {
  const stage = new PipelineHarness({ store: { hasScanReceived: true }, triggerMs: null });
  const first = stage.start();
  stage.send([at(0)]);
  stage.world.run(STORED_MS);
  void first.processor.trigger();
  stage.world.run(1_000);
  expect(committedOffset(stage)).toBe(1);
  // Stored, with no window written; then the power fails, and the log's end with it.
  stage.send([at(1), at(30_000)]);
  stage.world.run(STORED_MS);
  expect(stage.store.rows.size).toBe(3);
  first.machine.kill();
  stage.log.loseFrom(ID, 1);
  const second = stage.start();
  stage.world.run(STORED_MS);
  void second.processor.trigger();
  stage.world.run(1_000);
  stage.expectWindows();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 3 });
});

test("the rows that are looked for after a lost end are those received since the last record passed", () => {
  const stage = new PipelineHarness({ store: { hasScanReceived: true } });
  const first = stage.start();
  stage.send([at(0)]);
  stage.world.run(HOUR_MS * 3);
  stage.send([at(60_000)]);
  stage.world.run(WRITTEN_MS);
  stage.restart(first);
  stage.store.scans.length = 0;
  stage.world.run(WRITTEN_MS);
  // A candle's panes of the last minute received, none of three hours before.
  expect(stage.store.scans.length).toBeGreaterThan(0);
  expect(stage.store.scans).not.toContain(`AAPL ${NOON_MS}`);
  stage.expectWindows();
});

test("a batch that begins elsewhere is sought back, and partitions may move meanwhile", () => {
  for (let seed = 0; seed < 40; seed++) {
    const stage = new PipelineHarness({ seed, log: { partitionCount: 2 } });
    stage.log.misplacedRate = 0.5;
    const processes = [stage.start(), stage.start("wait")];
    for (let index = 0; index < 12; index++) {
      stage.send([at(index * 3_000), at(index)]);
      stage.send([at(index * 3_000, { symbol: "AAPM" })]);
      stage.world.run(stage.world.between(0, 6));
      if (index % 2 === 0) stage.deal(index % 4 === 0 ? processes : [processes[0]!]);
    }
    stage.log.misplacedRate = 0;
    stage.expectComplete();
  }
});

test("a batch that begins elsewhere, seen after the partitions were reassigned, is only dropped", () => {
  const stage = new PipelineHarness({ log: { partitionCount: 2 }, store: { putsInFlightMax: 1 } });
  const process = stage.start();
  stage.world.run(STORED_MS);
  stage.store.faults.plan("putTrades", { latencyMs: 1_000 });
  for (let index = 0; index < 10; index++) stage.send([at(index)]);
  stage.world.run(STORED_MS);
  // The processor waits for a place in the store; behind it is a misplaced batch of the other partition ...
  for (let index = 0; index < 10; index++) stage.send([at(index, { symbol: "AAPM" })]);
  stage.log.misplacedRate = 1;
  stage.world.run(STORED_MS);
  // ... and then the partitions are reassigned.
  stage.deal([process]);
  stage.world.run(STORED_MS);
  stage.log.misplacedRate = 0;
  stage.expectComplete();
});

// ---- Limits, failures, the end ----------------------------------------------------------------------------

test("beyond the limit of unwritten windows reading pauses, and goes on when they are written", () => {
  const stage = new PipelineHarness({ limits: { windowsUnwrittenMax: 6 }, log: { batchMax: 1 } });
  const { processor } = stage.start();
  stage.world.run(STORED_MS);
  stage.store.faults.down(60_000, "putWindows");
  for (let index = 0; index < 30; index++) stage.send([at(index * 60_000)]);
  stage.world.run(40_000);
  // Each trade changes so many windows; those of the puts in flight come on top.
  expect(processor.health().windowsUnwritten).toBeGreaterThan(6);
  expect(processor.health().windowsUnwritten).toBeLessThan(6 + windowsPerTrade(AGGREGATES) * 5);
  expect(stage.store.rows.size).toBeLessThan(10);
  stage.expectComplete();
  expect(stage.store.rows.size).toBe(30);
});

test("with a limit of unwritten windows and no trigger at all, reading writes them itself", () => {
  const stage = new PipelineHarness({
    limits: { windowsUnwrittenMax: 6 },
    log: { batchMax: 1 },
    triggerMs: null,
  });
  stage.start();
  for (let index = 0; index < 30; index++) stage.send([at(index * 60_000)]);
  stage.world.run(5_000);
  expect(stage.store.rows.size).toBe(30);
  stage.expectLawful();
});

test("the store may be down for minutes: then all settles, and health says since when", () => {
  const stage = new PipelineHarness();
  const { processor } = stage.start();
  stage.send([at(0)]);
  stage.world.run(WRITTEN_MS);
  const downAtMs = stage.world.nowMs;
  stage.store.faults.down(300_000);
  for (let index = 0; index < 30; index++) {
    stage.send([at(index * 1_000)]);
    stage.world.run(9_000);
  }
  expect(processor.health().problem?.sinceMs).toBeWithin(downAtMs, downAtMs + 6_000);
  stage.expectComplete(60_000);
  expect(processor.health()).toMatchObject({ problem: null, rowsInFlight: 0, windowsUnwritten: 0 });
});

test("a store that is down when the partitions are assigned delays the start, and no more", () => {
  const stage = new PipelineHarness({ store: { hasScanReceived: true } });
  stage.store.faults.down(60_000);
  stage.send([at(0)]);
  const first = stage.start();
  stage.world.run(30_000);
  expect(stage.store.rows.size).toBe(0);
  stage.settle();
  stage.store.faults.down(60_000);
  stage.log.faults.down(30_000);
  stage.restart(first);
  stage.send([at(1)]);
  stage.expectComplete();
});

test("a stop stores, writes and commits everything that was delivered", () => {
  for (const runMs of [3, 10, 30, 60]) {
    const stage = new PipelineHarness({ triggerMs: null, seed: runMs });
    const process = stage.start();
    for (let index = 0; index < 10; index++) stage.send([at(index * 2_000)]);
    stage.world.run(runMs);
    stage.store.faults.plan("putTrades", { latencyMs: 900 }, { latencyMs: 900 });
    stage.send([at(1)]);
    stage.world.run(5);
    process.stop();
    stage.world.runUntil(() => process.state === "ended", 2_000);
    expect(process.processor.health()).toMatchObject({ rowsInFlight: 0, windowsUnwritten: 0 });
    stage.expectLawful();
    stage.expectWindows();
    expect(committedOffset(stage) ?? 0).toBe(stage.store.rows.size);
    if (runMs === 60) expect(stage.store.rows.size).toBeGreaterThanOrEqual(10);
  }
});

test("a stop waits for what another trigger has taken meanwhile", () => {
  const stage = new PipelineHarness({ triggerMs: null, log: { partitionCount: 2 } });
  const process = stage.start();
  stage.send([at(0)]);
  stage.world.run(STORED_MS);
  // One partition's windows are being written when the stop comes ...
  stage.store.faults.plan("putWindows", { latencyMs: 100 });
  void process.processor.trigger();
  stage.send([at(0, { symbol: "AAPM" })]);
  stage.world.run(STORED_MS);
  process.stop();
  stage.world.run(10);
  // ... and while the stop waits for them, cron takes those of the other one.
  stage.store.faults.plan("putWindows", { latencyMs: 5_000 });
  void process.processor.trigger();
  stage.world.runUntil(() => process.state === "ended", 10_000);
  for (const id of stage.log.ids) {
    expect(stage.log.partition(id).committed?.offset).toBe(stage.log.endOffset(id));
  }
  stage.expectLawful();
  stage.expectWindows();
});

test("a stop writes what could not be written at once", () => {
  const stage = new PipelineHarness({ triggerMs: null });
  const process = stage.start();
  stage.send([at(0)]);
  stage.world.run(STORED_MS);
  stage.store.faults.plan("putWindows", { fault: "before" });
  process.stop();
  stage.world.runUntil(() => process.state === "ended", 60_000);
  stage.expectLawful();
  stage.expectWindows();
  expect(committedOffset(stage)).toBe(1);
});

test("a stop while reading is paused, asleep in a retry or waiting for partitions ends", () => {
  const paused = new PipelineHarness({ limits: { windowsUnwrittenMax: 0 }, log: { batchMax: 1 } });
  const process = paused.start();
  paused.send([at(0)]);
  paused.send([at(60_000)]);
  paused.world.run(8);
  paused.store.faults.down(10_000);
  paused.world.run(1_000);
  process.stop();
  paused.world.runUntil(() => process.state === "ended", 60_000);
  paused.expectLawful();

  const waiting = new PipelineHarness();
  waiting.store.faults.down(600_000);
  waiting.log.faults.down(600_000);
  const other = waiting.start();
  waiting.world.run(10_000);
  other.stop();
  waiting.world.runUntil(() => other.state === "ended", 10_000);
  waiting.expectLawful();
});

// ---- Several processors -----------------------------------------------------------------------------------

test("a processor that slept through a reassignment wakes with stale memory and does no harm", () => {
  for (let seed = 0; seed < 60; seed++) {
    const stage = new PipelineHarness({ seed });
    const sleeper = stage.start();
    stage.send([at(0), at(7_000)]);
    stage.world.run(seed % 3 === 0 ? WRITTEN_MS : seed % 3 === 1 ? STORED_MS : 5_000 + seed / 5);
    stage.send([at(1)]);
    stage.world.run(seed / 10);
    sleeper.machine.sleep();
    const other = stage.start();
    stage.send([at(2), at(8_000)]);
    stage.world.run(seed % 2 === 0 ? WRITTEN_MS : STORED_MS);
    sleeper.machine.wake();
    stage.world.run(WRITTEN_MS);
    stage.send([at(3)]);
    stage.world.run(WRITTEN_MS);
    stage.deal([sleeper]);
    stage.world.run(STORED_MS);
    stage.send([at(4), at(9_000)]);
    stage.expectComplete();
    expect(candleAt(stage, 0)).toMatchObject({ trade_count: 8 });
    expect(other.state).toBe("running");
  }
});

test("a write that a sleeper sent long ago does not replace a fuller window", () => {
  const stage = new PipelineHarness();
  const sleeper = stage.start();
  stage.send([at(0)]);
  stage.store.faults.plan("putWindows", { latencyMs: 30_000 });
  stage.world.run(5_100);
  sleeper.machine.sleep();
  stage.start();
  stage.send([at(1)]);
  stage.world.run(WRITTEN_MS);
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 2 });
  stage.world.run(30_000);
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 2 });
  sleeper.machine.wake();
  stage.expectComplete();
});

test("completions of an older epoch say nothing about the new one", () => {
  const stage = new PipelineHarness();
  const process = stage.start();
  stage.world.run(STORED_MS);
  stage.store.faults.plan("putTrades", { latencyMs: 50 }, { latencyMs: 20_000 });
  stage.send([at(0)]);
  stage.world.run(20);
  // The same processor gets the same partition again: the put of the older epoch is still in flight.
  stage.deal([process]);
  stage.world.run(WRITTEN_MS);
  expect(stage.store.rows.size).toBe(1);
  expect(committedOffset(stage)).toBe(0);
  stage.expectComplete();
  expect(candleAt(stage, 0)).toMatchObject({ trade_count: 1 });
});

test("partitions that move to and fro at any moment stay whole", () => {
  for (let seed = 0; seed < 30; seed++) {
    const stage = new PipelineHarness({ seed, log: { partitionCount: 3 }, limits: { panesMax: 3 } });
    const processes = [stage.start(), stage.start("wait")];
    for (let index = 0; index < 15; index++) {
      for (const symbol of ["AAPL", "AAPM", "AAPN"]) stage.send([at(index * 2_500, { symbol })]);
      stage.world.run(stage.world.between(0, 900));
      stage.deal(stage.world.chance(0.5) ? processes : processes.toReversed());
    }
    stage.expectComplete();
  }
});
