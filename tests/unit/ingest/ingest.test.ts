// The first loop's promises: what a tick brought becomes messages with an identity, in order, repeated byte
// for byte until the log has them; and what a full log refuses is counted and told.

import { expect, test } from "bun:test";
import { LogFullError } from "../../../lib/base/errors.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type { Feed, FeedItem } from "../../../lib/contracts/feed.ts";
import type { LogEntry } from "../../../lib/contracts/log.ts";
import { createIngest } from "../../../lib/ingest/ingest.ts";
import { decodeDeadLetter, decodeEvent, decodeMessage } from "../../../lib/model/codec.ts";
import type { Trade } from "../../../lib/model/trade.ts";
import { FakeLog } from "../../simulation/fake-log.ts";
import { World } from "../../simulation/world.ts";
import { NOON_MS, trade } from "../../support/builders.ts";

const trades = (...list: readonly Trade[]): FeedItem => ({
  kind: "trades",
  receivedAtMs: NOON_MS,
  trades: list,
});
const of = (symbol: string, price = 1) => trade({ symbol, price });

/** A feed that a test pushes ticks into, and what ingest made of them. */
function stage() {
  const world = new World(1, NOON_MS);
  const machine = world.machine();
  const log = new FakeLog(world);
  const metrics = createMetrics();
  /** Every attempt, as the log saw it. */
  const attempts: (readonly LogEntry[])[] = [];
  const ticks: (readonly FeedItem[])[] = [];
  let isOver = false;
  let wake = () => {};
  const feed: Feed = {
    async *batches() {
      for (;;) {
        const tick = ticks.shift();
        if (tick !== undefined) yield tick;
        else if (isOver) return;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    },
    subscribe: () => {},
    health: () => {
      throw new Error("ingest asks no feed for its health");
    },
  };
  const writer = log.writer(machine);
  const ingest = createIngest({
    feed,
    log: {
      append(entries) {
        attempts.push(entries.map((entry) => ({ ...entry, value: entry.value.slice() })));
        return writer.append(entries);
      },
    },
    clock: machine.clock,
    logger: silentLogger,
    metrics,
  });
  let ended: unknown = "running";
  ingest.run().then(
    () => {
      ended = "ended";
    },
    (error: unknown) => {
      ended = error;
    },
  );
  world.run(100);
  return {
    world,
    log,
    attempts,
    ingest,
    ended: () => ended,
    async lost(): Promise<number> {
      const { values } = await metrics.tradesLostTotal.get();
      return values.reduce((sum, { value }) => sum + value, 0);
    },
    tick(...items: readonly FeedItem[]) {
      ticks.push(items);
      wake();
      world.run(100);
    },
    end() {
      isOver = true;
      wake();
      world.run(100);
    },
    records: () => log.partition("market/0").records,
    messages() {
      return this.records().flatMap(({ kind, value }) => {
        const decoded = kind === "trades" ? decodeMessage(value) : null;
        return decoded?.ok ? [decoded.message] : [];
      });
    },
    events() {
      return this.records().flatMap(({ kind, value }) => {
        const row = kind === "event" ? decodeEvent(value) : null;
        return row === null ? [] : [{ ...row, detail: JSON.parse(row.detail) as Record<string, unknown> }];
      });
    },
    sequences() {
      return this.records().map(({ kind, value }) => {
        if (kind === "event") return decodeEvent(value)!.sequence;
        if (kind === "dead") return decodeDeadLetter(value)!.sequence;
        const decoded = decodeMessage(value);
        return decoded.ok ? decoded.message.sequence : Number.NaN;
      });
    },
  };
}

test("one message a symbol and tick, in the order of the first trades, however many frames", () => {
  const it = stage();
  it.tick(trades(of("B", 1), of("A", 2), of("B", 3)), trades(of("A", 4)));
  it.tick(trades(of("A", 5)));
  expect(it.messages().map((m) => m.trades.map(({ symbol, price }) => `${symbol}${price}`))).toEqual([
    ["B1", "B3"],
    ["A2", "A4"],
    ["A5"],
  ]);
});

test("one append a tick: trades, events and dead letters together, each under its key", () => {
  const it = stage();
  const before = it.attempts.length;
  it.tick(
    trades(of("A")),
    { kind: "dead", receivedAtMs: NOON_MS, reason: "garbage_frame", payload: "€?" },
    { kind: "event", receivedAtMs: NOON_MS, type: "connected", detail: { attempt: 1 } },
  );
  expect(it.attempts.length).toBe(before + 1);
  const { session } = it.ingest.health();
  expect(
    it.attempts
      .at(-1)!
      .map(({ kind, key }) => [kind, key])
      .sort(),
  ).toEqual([
    ["dead", session],
    ["event", session],
    ["trades", "A"],
  ]);
  const deadLetter = decodeDeadLetter(it.records().find(({ kind }) => kind === "dead")!.value);
  expect(deadLetter).toMatchObject({ session, item: -1, reason: "garbage_frame", source: "feed" });
  expect(Buffer.from(deadLetter!.payload).toString()).toBe("€?");
  expect(it.events().at(-1)).toMatchObject({ session, type: "connected", detail: { attempt: 1 } });
});

test.each([
  [1_024, [1_024]],
  [1_025, [1_024, 1]],
  [2_048, [1_024, 1_024]],
  [2_500, [1_024, 1_024, 452]],
])("%d trades of one symbol in one tick are split at 1,024", (count, sizes) => {
  const it = stage();
  it.tick(trades(...Array.from({ length: count }, (_, index) => of("A", index + 1))));
  expect(it.messages().map((message) => message.trades.length)).toEqual([...sizes]);
  expect(it.messages().flatMap((message) => message.trades.map(({ price }) => price))).toEqual(
    Array.from({ length: count }, (_, index) => index + 1),
  );
});

test("the sequence rises by one a record, events and dead letters too, in the order of the log", () => {
  const it = stage();
  it.tick(trades(of("A"), of("B")), { kind: "event", receivedAtMs: NOON_MS, type: "connected", detail: {} });
  it.tick({ kind: "dead", receivedAtMs: NOON_MS, reason: "bad_frame", payload: "" }, trades(of("A")));
  it.end();
  expect(it.sequences()).toEqual([1, 2, 3, 4, 5, 6, 7]);
  const { session } = it.ingest.health();
  expect(session).toMatch(/^[0-9a-f]{8}$/);
  expect(it.messages().every((message) => message.session === session)).toBe(true);
});

test("two runs are two sessions", () => {
  const world = new World(2, NOON_MS);
  const feed: Feed = { async *batches() {}, subscribe: () => {}, health: stage().ingest.health as never };
  const sessions = [1, 2].map(() => {
    const { clock } = world.machine();
    const log = new FakeLog(world).writer(world.machine());
    const metrics = createMetrics();
    return createIngest({ feed, log, clock, logger: silentLogger, metrics }).health().session;
  });
  expect(sessions[0]).not.toBe(sessions[1]);
});

test("a run begins with session_started and ends, when the feed does, with session_ended", () => {
  const it = stage();
  it.tick(trades(of("A")));
  it.end();
  expect(it.ended()).toBe("ended");
  expect(it.events().map(({ type }) => type)).toEqual(["session_started", "session_ended"]);
  expect(it.records().map(({ kind }) => kind)).toEqual(["event", "trades", "event"]);
});

test.each(["before", "after", "partly", "late"] as const)(
  "a log that does not answer (%s) gets the same bytes again, until it has them",
  (fault) => {
    const it = stage();
    it.log.faults.plan("append", { fault }, { fault }, { fault });
    it.tick(trades(of("A", 1), of("B", 2)));
    expect(it.ingest.health().problem).not.toBeNull();
    it.tick(trades(of("A", 3)));
    it.world.run(60_000);
    const [, first, second, third, fourth, next] = it.attempts;
    expect([second, third, fourth]).toEqual([first, first, first]);
    // Never overtaken by what came later.
    expect(next).toHaveLength(1);
    const last = it.messages().filter(({ sequence }) => sequence === 4);
    expect(last).toHaveLength(1);
    expect(it.ingest.health()).toMatchObject({ problem: null, tradesLost: 0 });
  },
);

test("a feed that ends while the log does not answer ends only when everything is appended", () => {
  const it = stage();
  it.log.faults.down(30_000);
  it.tick(trades(of("A")));
  it.end();
  it.world.run(20_000);
  expect(it.ended()).toBe("running");
  it.world.run(20_000);
  expect(it.ended()).toBe("ended");
  expect(new Set(it.messages().map(({ sequence }) => sequence))).toEqual(new Set([2]));
});

test("what a full log refuses is counted, told when it begins, and told whole when it is over", async () => {
  const it = stage();
  it.tick(trades(of("A")));
  it.log.isFull = true;
  const fromMs = it.world.nowMs;
  it.tick(trades(of("A"), of("A"), of("B")));
  it.tick(trades(of("A")));
  expect(it.ingest.health().tradesLost).toBe(4);
  expect(it.ingest.health().refusingSinceMs).toBeWithin(fromMs, fromMs + 100);
  expect(await it.lost()).toBe(4);
  expect(it.events().filter(({ type }) => type === "trades_refused")).toMatchObject([
    { detail: { toMs: null } },
  ]);
  it.log.isFull = false;
  const toMs = it.world.nowMs;
  it.tick(trades(of("A", 9)));
  expect(it.ingest.health()).toMatchObject({ tradesLost: 4, refusingSinceMs: null });
  const [begun, over] = it.events().filter(({ type }) => type === "trades_refused");
  expect(over!.detail).toMatchObject({ tradeCount: 4, messageCount: 3, toMs });
  expect(over!.detail.fromMs).toBe(begun!.detail.fromMs);
  expect(it.messages().map((message) => message.trades.map(({ price }) => price))).toEqual([[1], [9]]);
  // Told once.
  it.tick(trades(of("A")));
  expect(it.events().filter(({ type }) => type === "trades_refused")).toHaveLength(2);
  const sequences = it.sequences();
  expect(sequences).toEqual([...new Set(sequences)].sort((one, other) => one - other));
});

test("events of a tick whose trades are refused are kept", () => {
  const it = stage();
  it.log.isFull = true;
  it.tick(trades(of("A")), { kind: "event", receivedAtMs: NOON_MS, type: "disconnected", detail: {} });
  it.tick({ kind: "event", receivedAtMs: NOON_MS, type: "connected", detail: {} });
  it.end();
  expect(it.events().map(({ type }) => type)).toEqual(
    expect.arrayContaining([
      "session_started",
      "disconnected",
      "trades_refused",
      "connected",
      "session_ended",
    ]),
  );
  expect(it.messages()).toEqual([]);
});

test("a log without room even for events loses no more than them, and the loop goes on", () => {
  const it = stage();
  it.log.isFull = true;
  const refuse = (): never => {
    throw new LogFullError("no room at all");
  };
  it.log.onAppend = refuse;
  it.tick(trades(of("A")));
  it.log.onAppend = () => {};
  it.log.isFull = false;
  it.tick(trades(of("A", 2)));
  expect(it.ended()).toBe("running");
  expect(it.messages().at(-1)?.trades[0]?.price).toBe(2);
  expect(it.events().at(-1)).toMatchObject({ type: "trades_refused", detail: { tradeCount: 1 } });
});

test("an error that is no failure of the log ends the run", () => {
  const it = stage();
  it.log.onAppend = () => {
    throw new RangeError("a bug");
  };
  it.tick(trades(of("A")));
  expect(it.ended()).toBeInstanceOf(RangeError);
});

test("an event that finds room in a full log does not end the gap, and a stop tells the gap whole", () => {
  const it = stage();
  it.log.isFull = true;
  it.tick(trades(of("A")));
  it.tick({ kind: "event", receivedAtMs: NOON_MS, type: "connected", detail: {} });
  expect(it.ingest.health().refusingSinceMs).not.toBeNull();
  it.tick(trades(of("A"), of("B")));
  it.end();
  const gaps = it.events().filter(({ type }) => type === "trades_refused");
  expect(gaps).toMatchObject([{ detail: { toMs: null } }, { detail: { tradeCount: 3, messageCount: 3 } }]);
});
