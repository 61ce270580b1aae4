// The operator's replays, on a real log, a real store and the real loop: whatever is replayed, and however often, a
// trade is in the tables once, under the UUID it would have had, and the aggregates say so.

import { expect, test } from "bun:test";
import { Type } from "avsc";
import { type Clock, systemClock } from "../../../lib/base/clock.ts";
import { RowRefusedError } from "../../../lib/base/errors.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import { redriveAll, redriveDeadLetter } from "../../../lib/commands/redrive.ts";
import { type ReplayRecord, replayRows, replayWindows } from "../../../lib/commands/replay.ts";
import type { LogEntry } from "../../../lib/contracts/log.ts";
import { AGGREGATES } from "../../../lib/model/aggregates.ts";
import { decodeMessage, encodeDeadLetter, encodeMessage } from "../../../lib/model/codec.ts";
import { type DeadLetter, WHOLE_MESSAGE } from "../../../lib/model/dead-letter.ts";
import { derivedSession, tradeUuids } from "../../../lib/model/identity.ts";
import { DAY_MS, type Message, type Trade, type TradeRow } from "../../../lib/model/trade.ts";
import { openSqliteLog } from "../../../lib/outbox/log.ts";
import { createProcessor } from "../../../lib/processing/processor.ts";
import { openSqliteStore } from "../../../lib/sqlite/store.ts";
import schemaJson from "../../../schemas/trades.avsc" with { type: "json" };
import { averagesOf, candlesOf, windowsPerTrade } from "../../reference.ts";
import { eventually, NOON_MS, temporaryDirectory, trade } from "../../support/builders.ts";
import { readTables } from "../../support/tables.ts";

const SESSION = "0badcafe";
const RECEIVED_MS = NOON_MS + 90;
const RETENTION_DAYS = 30;
const parts = { logger: silentLogger, retentionDays: RETENTION_DAYS, signal: new AbortController().signal };

const message = (sequence: number, trades: readonly Trade[], receivedAtMs = RECEIVED_MS): Message => ({
  session: SESSION,
  sequence,
  receivedAtMs,
  trades,
});
const entryOf = (value: Message): LogEntry => ({
  kind: "trades",
  key: value.trades[0]!.symbol,
  value: encodeMessage(value),
});

const schema = schemaJson as { fields: { name: string }[] };
/** As the origin's producer writes it: its own schema, with nothing after `type`. */
const originType = Type.forSchema({ ...schema, fields: schema.fields.slice(0, 2) } as never);
const originMessage = (trades: readonly Trade[]): Uint8Array =>
  originType.toBuffer({
    data: trades.map(({ conditions: c, price: p, symbol: s, tradedAtMs: t, volume: v }) => ({
      c,
      p,
      s,
      t,
      v,
    })),
    type: "trade",
  });

function letterOf(
  fields: Partial<Omit<DeadLetter, "payload">> & { payload: Uint8Array | string },
): DeadLetter {
  const { payload } = fields;
  return {
    session: SESSION,
    sequence: 7,
    item: WHOLE_MESSAGE,
    receivedAtMs: RECEIVED_MS,
    reason: "bad_price",
    source: "feed",
    ...fields,
    payload: typeof payload === "string" ? Buffer.from(payload) : payload,
  };
}

async function* each<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items;
}

/** The embedded log and store in one directory; `process` runs the loop until all that is in the log is committed. */
function openStage(nowMs = NOON_MS + 1_000) {
  const directory = temporaryDirectory();
  const clock: Clock = { ...systemClock, now: () => nowMs };
  const metrics = createMetrics();
  const store = openSqliteStore({ directory: directory.path, sync: "normal" });
  const log = openSqliteLog({
    directory: directory.path,
    topic: "market",
    sync: "normal",
    bytesMax: 1e9,
    clock,
    metrics,
  });
  return {
    store,
    log,
    clock,
    async process() {
      const reader = log.openReader(store.commits);
      const processor = createProcessor({ log: reader, store, clock, logger: silentLogger, metrics });
      const stop = new AbortController();
      const running = processor.run(stop.signal);
      while (log.health().unreadCount > 0) await Bun.sleep(1);
      stop.abort();
      await running;
      // What is stored is committed, and what is committed is deleted.
      await eventually(5_000, "all of it committed", async () => log.health().recordCount === 0);
    },
    redriveAll: () => redriveAll({ ...parts, log, partitions: ["market/0"], clock }, store.scanDead()),
    tables: () => readTables(directory.path),
    [Symbol.dispose]() {
      log[Symbol.dispose]();
      store[Symbol.dispose]();
      directory[Symbol.dispose]();
    },
  };
}
type PipelineHarness = ReturnType<typeof openStage>;

/** Exactly these trades are stored, and the aggregates are those of what is stored. */
function expectTables(stage: PipelineHarness, trades: readonly Trade[]): void {
  const { trades: rows, averages, candles } = stage.tables();
  const plain = rows.map((row) => ({ ...row, atMs: row.trade_timestamp }));
  const prices = (all: readonly { symbol: string; price: number }[]) =>
    all.map(({ symbol, price }) => `${symbol} ${price}`).sort();
  expect(prices(rows)).toEqual(prices(trades));
  expect<unknown>(averages).toEqual(averagesOf(plain));
  expect<unknown>(candles).toEqual(candlesOf(plain));
}

/** Distinct prices, so that a trade can be told from another. */
const priced = (from: number, count: number, fields: Partial<Trade> = {}) =>
  Array.from({ length: count }, (_, index) => trade({ price: from + index, ...fields }));

// ---- Dead letters -----------------------------------------------------------------------------------------------

test("the origin's message of two symbols, replayed twice, is in the tables once, under the derived identity", async () => {
  using stage = openStage();
  const ours = priced(1, 2);
  const origins = [
    trade({ price: 10, conditions: ["1", "12"] }),
    trade({ symbol: "MSFT", price: 20 }),
    trade({ price: 11, conditions: null }),
  ];
  await stage.log.append([entryOf(message(1, ours))]);
  await stage.log.append([{ kind: "trades", key: "", value: originMessage(origins) }]);
  await stage.process();
  expectTables(stage, ours);
  expect(stage.tables().deadCount).toBe(1);

  const once = await stage.redriveAll();
  expect(once).toEqual({ letters: 1, taken: 1, messages: 2, trades: 3, expired: 0, unfit: {} });
  await stage.process();
  expectTables(stage, [...ours, ...origins]);
  const { trades: rows } = stage.tables();
  // The offset of the origin's message is 2; the log's clock gave it its time.
  const uuidOf = (symbol: string) => tradeUuids(derivedSession("market/0", symbol), 2, stage.clock.now());
  for (const [price, symbol, index] of [
    [10, "AAPL", 0],
    [11, "AAPL", 1],
    [20, "MSFT", 0],
  ] as const) {
    const row = rows.find((one) => one.price === price);
    expect(row).toMatchObject({ symbol, uuid: uuidOf(symbol)(index), ingest_timestamp: stage.clock.now() });
  }

  expect(await stage.redriveAll()).toEqual(once);
  await stage.process();
  expect(stage.tables().trades).toEqual(rows);
  expectTables(stage, [...ours, ...origins]);
  expect(stage.tables().deadCount).toBe(1);
});

test("the first record of a topic, at offset 0, can be replayed like any other", () => {
  const deadLetter = letterOf({
    session: derivedSession("market/3", ""),
    sequence: 0,
    source: "processor",
    reason: "no_session",
    payload: originMessage(priced(1, 1)),
  });
  const places = new Map([[derivedSession("market/3", ""), "market/3"]]);
  const { messages, rejected } = redriveDeadLetter(deadLetter, places, NOON_MS);
  expect(rejected).toEqual([]);
  expect(messages).toEqual([
    {
      session: derivedSession("market/3", "AAPL"),
      sequence: 0,
      receivedAtMs: RECEIVED_MS,
      trades: priced(1, 1),
    },
  ]);
  expect(decodeMessage(encodeMessage(messages[0]!)).ok).toBe(true);
});

test("one trade that the store refused comes in under its own index, and its neighbours stay once", async () => {
  using stage = openStage();
  const trades = priced(1, 4);
  let isStrict = true;
  const { putTrades } = stage.store;
  // A store that refuses one row for good, until somebody mends it.
  stage.store.putTrades = async (rows) => {
    if (isStrict && rows.some(({ price }) => price === 3)) throw new RowRefusedError("not this one");
    await putTrades(rows);
  };
  await stage.log.append([entryOf(message(5, trades))]);
  await stage.process();
  expectTables(
    stage,
    trades.filter(({ price }) => price !== 3),
  );

  // Still refused: the same letter again, and nothing else.
  await stage.redriveAll();
  await stage.process();
  expect(stage.tables().deadCount).toBe(1);
  isStrict = false;
  for (let turn = 0; turn < 2; turn++) {
    expect(await stage.redriveAll()).toMatchObject({ taken: 1, messages: 1, trades: 1, unfit: {} });
    await stage.process();
    expectTables(stage, trades);
  }
  const refused = stage.tables().trades.find(({ price }) => price === 3);
  expect(refused?.uuid).toBe(tradeUuids(SESSION, 5, RECEIVED_MS)(2));
  // A hole is no trade and no letter.
  expect(stage.tables().deadCount).toBe(1);
});

test("a frame that the feed refused is parsed again and keeps its letter's identity", async () => {
  using stage = openStage();
  const frame = JSON.stringify({
    data: [{ s: "AAPL", p: 3, v: 1, t: NOON_MS, c: ["1"] }],
    type: "trade",
  });
  const deadLetter = letterOf({ payload: frame, reason: "bad_conditions" });
  await stage.log.append([{ kind: "dead", key: SESSION, value: encodeDeadLetter(deadLetter) }]);
  await stage.process();
  for (let turn = 0; turn < 2; turn++) {
    expect(await stage.redriveAll()).toMatchObject({ letters: 1, taken: 1, trades: 1 });
    await stage.process();
    expectTables(stage, [trade({ price: 3 })]);
  }
  expect(stage.tables().trades[0]?.uuid).toBe(tradeUuids(SESSION, 7, RECEIVED_MS)(0));
});

test("what an earlier version refused for its price, or for a frame of several messages, comes in", async () => {
  using stage = openStage();
  const element = (p: number, v: number) => ({ c: null, p, s: "AAPL", t: NOON_MS, v });
  const frame = (...data: readonly unknown[]) => JSON.stringify({ data, type: "trade" });
  // As they were written: a refused element in a frame of its own, a refused frame whole.
  const payloads = [
    frame(element(-37.63, 1)),
    frame(element(0, 2)),
    `${frame(element(20, 20))}\n${frame(element(21, 21))}\n`,
    frame(element(22, 22)) + frame(element(23, 23), element(24, 24)),
    `${frame(element(25, 25)).slice(0, 30)}\n${frame(element(26, 26), { ...element(27, 27), s: "MSFT" })}`,
  ];
  await stage.log.append(
    payloads.map((payload, index) => {
      const reason = index < 2 ? "bad_price" : "garbage_frame";
      const deadLetter = letterOf({ sequence: 7 + index, payload, reason });
      return { kind: "dead", key: SESSION, value: encodeDeadLetter(deadLetter) };
    }),
  );
  await stage.process();
  const prices = [-37.63, 0, 20, 21, 22, 23, 24, 26];
  const counts = { letters: 5, taken: 5, messages: 8, trades: 9, expired: 0, unfit: { garbage_frame: 1 } };
  for (let turn = 0; turn < 2; turn++) {
    expect(await stage.redriveAll()).toEqual(counts);
    await stage.process();
    expectTables(stage, [...prices.map((price) => trade({ price })), trade({ symbol: "MSFT", price: 27 })]);
  }
  const { trades: rows, deadCount } = stage.tables();
  expect(rows.map(({ price, volume }) => [price, volume])).toContainEqual([24, 24]);
  // The first message of a frame has the letter's own identity, as if it had been alone.
  const uuid = tradeUuids(SESSION, 9, RECEIVED_MS)(0);
  expect(rows.find(({ price }) => price === 20)?.uuid).toBe(uuid);
  expect(new Set(rows.map((row) => row.uuid)).size).toBe(9);
  expect(deadCount).toBe(5);
});

for (const slowMs of [14 * DAY_MS, 26 * 3_600_000, NOON_MS - Date.UTC(2015, 0, 1)]) {
  test(`what a clock ${slowMs} ms slow put aside comes in once it is right, whatever the retention`, async () => {
    using stage = openStage();
    const frame = (t: number) =>
      JSON.stringify({ data: [{ c: null, p: 5, s: "AAPL", t, v: 1 }], type: "trade" });
    const fields = { receivedAtMs: RECEIVED_MS - slowMs, reason: "impossible_time" } as const;
    const letters = Array.from({ length: 20 }, (_, index) =>
      letterOf({ ...fields, sequence: index + 1, payload: frame(NOON_MS) }),
    );
    // No clock explains this one.
    letters.push(letterOf({ ...fields, sequence: 30, payload: frame(NOON_MS + 26 * 3_600_000) }));
    await stage.log.append(
      letters.map((one) => ({ kind: "dead", key: SESSION, value: encodeDeadLetter(one) })),
    );
    await stage.process();
    for (let turn = 0; turn < 2; turn++) {
      expect(await stage.redriveAll()).toMatchObject({
        taken: 20,
        trades: 20,
        unfit: { impossible_time: 1 },
      });
      await stage.process();
      expectTables(stage, Array<Trade>(20).fill(trade({ price: 5 })));
      // The processor took what was sent: it refused nothing again.
      expect(stage.tables().deadCount).toBe(21);
    }
    expect(stage.tables().trades[0]).toMatchObject({
      uuid: tradeUuids(SESSION, 1, RECEIVED_MS - slowMs)(0),
      ingest_timestamp: RECEIVED_MS - slowMs,
    });
  });
}

test("a replay of the log judges a record as the processor did: by its receipt or its append", async () => {
  using stage = openStage();
  const slow = message(1, priced(1, 2), RECEIVED_MS - 14 * DAY_MS);
  const records = (timestampMs: number) =>
    each([{ partition: "market/0", offset: 1, timestampMs, value: encodeMessage(slow) }]);
  const ever = { fromMs: 0, toMs: NOON_MS + DAY_MS };
  expect(await replayRows({ ...parts, ...stage }, records(slow.receivedAtMs), ever)).toMatchObject({
    rows: 0,
    unfit: 2,
  });
  expect(await replayRows({ ...parts, ...stage }, records(RECEIVED_MS), ever)).toMatchObject({
    rows: 2,
    unfit: 0,
  });
  expectTables(stage, priced(1, 2));
});

test("what cannot be true stays dead, and is counted by reason", async () => {
  const impossible = message(8, [trade({ tradedAtMs: NOON_MS + 3 * DAY_MS })]);
  const deadLetters = [
    letterOf({ item: 0, source: "processor", reason: "impossible_time", payload: encodeMessage(impossible) }),
    letterOf({ payload: "not JSON", reason: "garbage_frame" }),
    letterOf({ payload: '{"type":"trade","data":[{"s":"A","p":1e31,"v":1,"t":1,"c":null}]}' }),
    letterOf({ source: "processor", reason: "undecodable", payload: Uint8Array.of(1, 2, 3) }),
    letterOf({ payload: '{"type":"later","data":[{"s":"A","p":1,"t":1}]}', reason: "unknown_frame" }),
  ];
  const log = { append: () => Promise.reject(new Error("nothing is sent")) };
  expect(
    await redriveAll(
      { ...parts, log, partitions: [], clock: { ...systemClock, now: () => NOON_MS } },
      each(deadLetters),
    ),
  ).toEqual({
    letters: 5,
    taken: 0,
    messages: 0,
    trades: 0,
    expired: 0,
    unfit: { impossible_time: 1, garbage_frame: 1, bad_price: 1, undecodable: 1, unknown_frame: 1 },
  });
});

test("a letter older than the retention is not taken, to the millisecond", async () => {
  const deadLetter = letterOf({
    item: 1,
    source: "processor",
    payload: encodeMessage(message(7, priced(1, 1))),
  });
  const of = async (nowMs: number) => {
    const clock = { ...systemClock, now: () => nowMs };
    const log = { append: async () => {} };
    const { expired, trades } = await redriveAll(
      { ...parts, log, partitions: [], clock },
      each([deadLetter]),
    );
    return { expired, trades };
  };
  expect(await of(RECEIVED_MS + RETENTION_DAYS * DAY_MS - 1)).toEqual({ expired: 0, trades: 1 });
  expect(await of(RECEIVED_MS + RETENTION_DAYS * DAY_MS)).toEqual({ expired: 1, trades: 0 });
});

/** UUID of each trade, by symbol and price, of all messages together. */
function uuidsOf(messages: readonly Message[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const { session, sequence, receivedAtMs, trades } of messages) {
    const uuidOf = tradeUuids(session, sequence, receivedAtMs);
    for (const [index, { symbol, price }] of trades.entries())
      if (price > 0) found.set(`${symbol} ${price}`, uuidOf(index));
  }
  return found;
}

test("whatever is good in a letter today, every trade of it has the same UUID", () => {
  const trades = [...priced(1, 3), ...priced(1, 3, { symbol: "MSFT" }), ...priced(4, 2)];
  const frame = (all: readonly Trade[]) =>
    JSON.stringify({
      type: "trade",
      data: all.map(({ symbol: s, price: p, volume: v, tradedAtMs: t, conditions: c }) => ({
        s,
        p,
        v,
        t,
        c,
      })),
    });
  const deadLetters = (all: readonly Trade[]) => [
    letterOf({ source: "processor", reason: "no_session", payload: originMessage(all) }),
    letterOf({ source: "processor", reason: "several_symbols", payload: encodeMessage(message(7, all)) }),
    letterOf({ reason: "bad_frame", payload: frame(all) }),
    letterOf({ reason: "bad_frame", payload: frame(all.filter(({ symbol }) => symbol === "AAPL")) }),
  ];
  const whole = deadLetters(trades).map((deadLetter) =>
    uuidsOf(redriveDeadLetter(deadLetter, new Map(), NOON_MS).messages),
  );
  for (let bad = 0; bad < trades.length; bad++) {
    const worse = trades.with(bad, { ...trades[bad]!, price: 1e31 });
    for (const [index, deadLetter] of deadLetters(worse).entries()) {
      const { messages, rejected } = redriveDeadLetter(deadLetter, new Map(), NOON_MS);
      for (const [name, uuid] of uuidsOf(messages)) expect(whole[index]!.get(name)).toBe(uuid);
      expect(uuidsOf(messages).size + rejected.length).toBe(whole[index]!.size);
      expect(rejected.every((reason) => reason === "bad_price")).toBe(true);
    }
  }
});

test("the parts of one letter share no UUID, however many trades it holds", () => {
  const trades = [...priced(1, 2_500), ...priced(1, 1_100, { symbol: "MSFT" })];
  for (const deadLetter of [
    letterOf({ source: "processor", reason: "no_session", payload: originMessage(trades) }),
    letterOf({ source: "processor", reason: "no_session", payload: originMessage(trades.slice(0, 2_500)) }),
  ]) {
    const { messages, rejected } = redriveDeadLetter(deadLetter, new Map(), NOON_MS);
    const uuids = uuidsOf(messages);
    expect(rejected).toEqual([]);
    expect(messages.every((one) => one.trades.length <= 1_024)).toBe(true);
    expect(new Set(uuids.values()).size).toBe(uuids.size);
    expect(uuids.size).toBe(messages.reduce((sum, one) => sum + one.trades.length, 0));
    expect(redriveDeadLetter(deadLetter, new Map(), NOON_MS)).toEqual({ messages, rejected });
  }
});

test("a copy of a message of several symbols is the same letter", async () => {
  using stage = openStage();
  const mixed = [...priced(1, 2), ...priced(5, 1, { symbol: "MSFT" })];
  const entry = { ...entryOf(message(9, mixed)), key: "" };
  await stage.log.append([entry, entry]);
  await stage.process();
  expect(stage.tables().deadCount).toBe(1);
  for (let turn = 0; turn < 2; turn++) {
    await stage.redriveAll();
    await stage.process();
    expectTables(stage, mixed);
  }
});

// ---- A range ----------------------------------------------------------------------------------------------------

async function recordsOf(messages: readonly (Message | Uint8Array)[]): Promise<AsyncGenerator<ReplayRecord>> {
  return each(
    messages.map((one, offset) => ({
      partition: "market/0",
      offset,
      timestampMs: RECEIVED_MS,
      value: one instanceof Uint8Array ? one : encodeMessage(one),
    })),
  );
}

test("what was received in the range is stored with its windows, as often as it is asked for", async () => {
  using stage = openStage();
  const before = priced(1, 2);
  const within = priced(10, 3, { tradedAtMs: NOON_MS + 4_000 });
  const messages = [
    message(1, before, NOON_MS + 99),
    message(2, within, NOON_MS + 100),
    originMessage(priced(30, 1)),
    message(3, priced(20, 2), NOON_MS + 199),
    message(4, priced(40, 1), NOON_MS + 200),
  ];
  const range = { fromMs: NOON_MS + 100, toMs: NOON_MS + 200 };
  for (let turn = 0; turn < 2; turn++) {
    expect(await replayRows({ ...parts, ...stage }, await recordsOf(messages), range)).toMatchObject({
      records: 5,
      messages: 2,
      rows: 5,
      expired: 0,
      unfit: 0,
      refused: 0,
    });
    expectTables(stage, [...within, ...priced(20, 2)]);
  }
});

test("replayed windows count what the table holds beside the replayed rows", async () => {
  using stage = openStage();
  const ever = { fromMs: 0, toMs: NOON_MS + DAY_MS };
  const all: Trade[] = [];
  // In the same pane, in the panes before and behind it, and a minute's length away.
  for (const [index, ms] of [30_000, 30_001, 25_000, 35_000, 0, 59_999].entries()) {
    const one = trade({ price: index + 1, tradedAtMs: NOON_MS + ms });
    all.push(one);
    await replayRows({ ...parts, ...stage }, await recordsOf([message(index + 1, [one])]), ever);
    expectTables(stage, all);
  }
});

test("what is expired, cannot be true or is refused is not written, but counted", async () => {
  const nowMs = NOON_MS + RETENTION_DAYS * DAY_MS;
  using stage = openStage(nowMs);
  const { putTrades } = stage.store;
  stage.store.putTrades = async (rows) => {
    if (rows.some(({ price }) => price === 66)) throw new RowRefusedError("not this one");
    await putTrades(rows);
  };
  const messages = [
    message(1, priced(1, 2), NOON_MS),
    message(
      2,
      [...priced(3, 1), trade({ price: 0, volume: 0, tradedAtMs: 0 }), trade({ price: 1e31 })],
      NOON_MS + 1,
    ),
    message(3, [...priced(65, 3)], NOON_MS + 2),
  ];
  const ever = { fromMs: 0, toMs: nowMs };
  expect(await replayRows({ ...parts, ...stage }, await recordsOf(messages), ever)).toMatchObject({
    messages: 3,
    rows: 3,
    expired: 2,
    unfit: 1,
    refused: 1,
  });
  expectTables(stage, [...priced(3, 1), ...priced(65, 1), ...priced(67, 1)]);
  expect(stage.tables().deadCount).toBe(1);
});

test("rows that the store alone still has get their windows again", async () => {
  using stage = openStage();
  await stage.log.append([entryOf(message(1, priced(1, 3)))]);
  await stage.process();
  const { trades: rows } = stage.tables();
  using other = openStage();
  await other.store.putTrades(rows);
  const pages = () => each<readonly TradeRow[]>([rows]);
  const nothing = { fromMs: RECEIVED_MS + 1, toMs: NOON_MS + DAY_MS };
  expect((await replayWindows({ ...parts, ...other }, pages(), nothing)).windows).toBe(0);
  const range = { fromMs: RECEIVED_MS, toMs: RECEIVED_MS + 1 };
  expect((await replayWindows({ ...parts, ...other }, pages(), range)).windows).toBe(
    windowsPerTrade(AGGREGATES),
  );
  expectTables(other, priced(1, 3));
});

test("a long replay computes its windows in slices, and forgets none at their edges", async () => {
  using stage = openStage();
  const trades = priced(1, 20_600).map((one, index) => ({ ...one, tradedAtMs: NOON_MS - index * 5_000 }));
  const messages = Array.from({ length: 206 }, (_, index) =>
    message(index + 1, trades.slice(index * 100, index * 100 + 100)),
  );
  const ever = { fromMs: 0, toMs: NOON_MS + DAY_MS };
  await replayRows({ ...parts, ...stage }, await recordsOf(messages), ever);
  expectTables(stage, trades);
}, 30_000);
