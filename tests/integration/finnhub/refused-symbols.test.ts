// What Finnhub refuses while a connection lives, it is asked again, without a reconnect and without an operator: by the
// feed's own state machine over a real websocket, in time that a test advances.

import { expect, test } from "bun:test";
import { createMetrics } from "../../../lib/base/metrics.ts";
import { openFinnhubFeed } from "../../../lib/finnhub/feed.ts";
import { NOON_MS } from "../../support/builders.ts";
import { handClock, readAll, recordingLogger, serveSockets, turns } from "../../support/feed.ts";

const TOO_MANY = '{"msg":"Subscribing to too many symbols","type":"error"}';
const PING = '{"type":"ping"}';
const EUR = "OANDA:EUR_USD";
const invalid = (symbol: string) => `{"msg":"Invalid symbol ${symbol}","type":"error"}`;
const trade = (symbol: string, price = 1) =>
  JSON.stringify({ data: [{ c: null, p: price, s: symbol, t: NOON_MS, v: 0 }], type: "trade" });

function openFeed(url: string, symbols: readonly string[], symbolsMax = 50) {
  const clock = handClock(NOON_MS);
  const { logger, lines } = recordingLogger();
  const stopping = new AbortController();
  const { signal } = stopping;
  const metrics = createMetrics();
  const feed = openFinnhubFeed({ url, symbols, symbolsMax, clock, logger, metrics, signal });
  return { feed, clock, lines, [Symbol.dispose]: () => stopping.abort() };
}

/** Waits, in turns of the event loop, for what has been sent over the sockets. */
async function until(passes: () => boolean): Promise<void> {
  for (let turn = 0; turn < 20_000; turn++) {
    if (passes()) return;
    await turns(1);
  }
  throw new Error(`not within 20,000 turns: ${passes}`);
}

test("a symbol that is refused for 15 s is asked for again without a reconnect, and then received", async () => {
  await using server = serveSockets();
  using opened = openFeed(server.url, ["AAPL", EUR]);
  const { feed, clock } = opened;
  const read = readAll(feed);
  const connection = await server.connections.nth(1);
  const asked = () => connection.asked("subscribe").filter((symbol) => symbol === EUR).length;
  let answeredCount = 0;
  for (let second = 0; second <= 120; second++) {
    await turns(5);
    if (second % 10 === 0) connection.send(PING);
    await until(() => second === 0 || asked() >= answeredCount);
    if (second === 0) await until(() => asked() === 1);
    while (answeredCount < asked()) {
      answeredCount++;
      if (second >= 15) connection.send(trade(EUR));
      else connection.send(invalid(EUR));
    }
    if (second < 15) await until(() => feed.health().unreceived.length === 1);
    if (second === 14) {
      expect(feed.health().unreceived).toEqual([
        {
          symbol: EUR,
          kind: "refused",
          sinceMs: NOON_MS,
          reason: expect.stringContaining(`Invalid symbol ${EUR}`),
        },
      ]);
    }
    clock.advance(1_000);
  }
  expect(server.connections.all.length).toBe(1);
  expect(asked()).toBe(3);
  expect(feed.health()).toMatchObject({ subscribed: ["AAPL", EUR], unsubscribed: [], unreceived: [] });
  expect(read.items.all.filter(({ kind }) => kind === "trades").length).toBe(1);
  expect(read.events("ticker_rejected").length).toBe(1);
  expect(read.events("ticker_accepted")).toEqual([{ symbol: EUR, fromMs: NOON_MS }]);
});

test("a symbol that stays refused is asked for ever, at most every quarter of an hour, and told once", async () => {
  await using server = serveSockets();
  using opened = openFeed(server.url, ["AAPL", "FX:EURUSD"]);
  const { feed, clock } = opened;
  const read = readAll(feed);
  const connection = await server.connections.nth(1);
  const asked = () => connection.asked("subscribe").filter((symbol) => symbol === "FX:EURUSD").length;
  const gapsMs: number[] = [];
  for (let nth = 1; nth <= 12; nth++) {
    let gapMs = 0;
    while (asked() < nth) {
      connection.send(PING); // Or the watchdog would give the connection up.
      await turns(4);
      clock.advance(5_000);
      gapMs += 5_000;
      if (gapMs > 1_000_000) throw new Error(`not asked a ${nth}th time`);
      await turns(4);
    }
    gapsMs.push(gapMs);
    connection.send(invalid("FX:EURUSD"));
    await until(() => !feed.health().subscribed.includes("FX:EURUSD"));
  }
  expect(Math.max(...gapsMs)).toBe(450_000); // Half of the longest wait: the chance of this clock is 0.
  expect(gapsMs.toSorted((a, b) => a - b)).toEqual(gapsMs);
  expect(read.events("ticker_rejected").length).toBe(1);
  expect(opened.lines.all.filter(({ level }) => level === "warn").length).toBe(1);
  expect(feed.health().unreceived).toMatchObject([{ symbol: "FX:EURUSD", sinceMs: NOON_MS + 5_000 }]);
});

test("with every place taken it is asked for beside the others, and none of them is lost for it", async () => {
  await using server = serveSockets();
  using opened = openFeed(server.url, ["BAD", "A", "B", "C"], 2);
  const { feed, clock } = opened;
  readAll(feed);
  const connection = await server.connections.nth(1);
  await connection.messages.nth(2);
  connection.send(invalid("BAD"));
  await until(() => connection.asked("subscribe").includes("B"));
  clock.advance(5_000);
  await until(() => connection.asked("subscribe").length === 4);
  connection.send(invalid("BAD"));
  await until(() => !feed.health().subscribed.includes("BAD"));
  expect(connection.asked("unsubscribe")).toEqual([]);
  // Taken at last: it has its place by its order, and the last one gives way.
  clock.advance(10_000);
  await until(() => connection.asked("subscribe").length === 5);
  clock.advance(10_000);
  expect(feed.health().subscribed.toSorted()).toEqual(["A", "BAD"]);
  await until(() => connection.asked("unsubscribe").length === 1);
  expect(connection.asked("unsubscribe")).toEqual(["B"]);
});

test("beside the others it may be one too many: then it competes for a place, and the cap stays", async () => {
  await using server = serveSockets();
  using opened = openFeed(server.url, ["BAD", "A", "B"], 2);
  const { feed, clock } = opened;
  readAll(feed);
  const connection = await server.connections.nth(1);
  await connection.messages.nth(2);
  connection.send(invalid("BAD"));
  await until(() => connection.asked("subscribe").includes("B"));
  clock.advance(5_000);
  await until(() => connection.asked("subscribe").length === 4);
  connection.send(TOO_MANY);
  await until(() => connection.asked("subscribe").length === 5);
  expect(connection.asked("unsubscribe")).toEqual(["BAD", "B"]);
  expect(feed.health().subscribed.toSorted()).toEqual(["A", "BAD"]);
});

test("a cap that was lowered at a bad moment comes back up without a reconnect", async () => {
  await using server = serveSockets();
  using opened = openFeed(server.url, ["A", "B", "C", "D"]);
  const { feed, clock } = opened;
  const read = readAll(feed);
  const connection = await server.connections.nth(1);
  await connection.messages.nth(4);
  for (let round = 0; round < 2; round++) {
    connection.send(TOO_MANY);
    connection.send(TOO_MANY);
    await until(() => feed.health().subscribed.length === 2);
    await until(() => feed.health().unreceived.length === 2);
    expect(feed.health().unreceived).toMatchObject([
      { symbol: "C", sinceMs: NOON_MS, reason: expect.stringContaining("over the cap") },
      { symbol: "D", sinceMs: NOON_MS },
    ]);
    clock.advance(5_000 * 2 ** round);
    await until(() => feed.health().subscribed.length === 4);
  }
  clock.advance(10_000);
  await read.event("tickers_over_cap", 2);
  expect(read.events("tickers_over_cap").map(({ symbolCount }) => symbolCount)).toEqual([2, 0]);
  expect(feed.health()).toMatchObject({ subscribed: ["A", "B", "C", "D"], unreceived: [] });
  expect(server.connections.all.length).toBe(1);
});

test("the last ticker of all that is too many is asked for again too", async () => {
  await using server = serveSockets();
  using opened = openFeed(server.url, ["A"]);
  const { feed, clock } = opened;
  readAll(feed);
  const connection = await server.connections.nth(1);
  await connection.messages.nth(1);
  connection.send(TOO_MANY);
  await until(() => feed.health().unreceived.length === 1);
  clock.advance(5_000);
  await connection.messages.nth(2);
  connection.send(trade("A"));
  await until(() => feed.health().unreceived.length === 0);
  expect(connection.asked("subscribe")).toEqual(["A", "A"]);
});

test("a trade of a refused ticker is proof, and nothing is sent for it", async () => {
  await using server = serveSockets();
  using opened = openFeed(server.url, ["A", "B"]);
  readAll(opened.feed);
  const connection = await server.connections.nth(1);
  await connection.messages.nth(2);
  connection.send(invalid("B"));
  await until(() => opened.feed.health().unreceived.length === 1);
  connection.send(trade("B"));
  await until(() => opened.feed.health().unreceived.length === 0);
  expect(opened.feed.health().subscribed).toEqual(["A", "B"]);
  opened.clock.advance(900_000);
  expect(connection.asked("subscribe")).toEqual(["A", "B"]);
});

test("a reconnect asks at once, and remembers since when it was refused", async () => {
  await using server = serveSockets();
  using opened = openFeed(server.url, ["A", "B"]);
  const read = readAll(opened.feed);
  const first = await server.connections.nth(1);
  await first.messages.nth(2);
  first.send(invalid("B"));
  await until(() => opened.feed.health().unreceived.length === 1);
  opened.clock.advance(2_000);
  first.drop();
  await read.event("disconnected");
  opened.clock.advance(0);
  const second = await server.connections.nth(2);
  await second.messages.nth(2);
  second.send(invalid("B"));
  await until(() => !opened.feed.health().subscribed.includes("B"));
  expect(opened.feed.health().unreceived).toMatchObject([{ symbol: "B", sinceMs: NOON_MS }]);
  expect(read.events("ticker_rejected").length).toBe(1);
});
