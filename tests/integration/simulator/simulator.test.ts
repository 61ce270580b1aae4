// The simulator as its clients meet it: over real sockets on loopback. Timers are real and short, or a clock of
// the test's own that moves only when told to.

import { expect, test } from "bun:test";
import { systemClock } from "../../../lib/base/clock.ts";
import { SetupError } from "../../../lib/base/errors.ts";
import type { Simulator } from "../../../lib/simulator/simulator.ts";
import { parseTape, tradesOf } from "../../../lib/simulator/tape.ts";
import { NOON_MS } from "../../support/builders.ts";
import {
  Client,
  handClock,
  handshakeStatus,
  handshakeText,
  numbersOf,
  numbersTo,
  simulate,
  tapeOf,
  until,
  WAIT_MS_MAX,
} from "../../support/simulator.ts";

test("a missing or wrong token is refused with 401, a token in use with 429, and freed when its client leaves", async () => {
  await using simulator = await simulate({ token: ["good", "other"] });
  expect(await handshakeStatus(simulator, "")).toBe(401);
  expect(await handshakeStatus(simulator, "?token=")).toBe(401);
  expect(await handshakeStatus(simulator, "?token=bad")).toBe(401);
  const client = await Client.open(simulator, "good");
  expect(await handshakeStatus(simulator, "?token=good")).toBe(429);
  expect(await handshakeStatus(simulator, "?token=other")).toBe(101);
  await client.close(simulator);
  expect(await handshakeStatus(simulator, "?token=good")).toBe(101);
});

test("refused handshakes come on demand, as many as asked for", async () => {
  await using simulator = await simulate();
  simulator.faults.refuseHandshakes(429, 1);
  simulator.faults.refuseHandshakes(401, 1);
  const statuses = [];
  for (let count = 0; count < 3; count += 1) statuses.push(await handshakeStatus(simulator, "?token=any"));
  expect(statuses).toEqual([429, 401, 101]);
});

test("nothing is acknowledged: no welcome, no answer to subscriptions, nonsense or unknown symbols", async () => {
  await using simulator = await simulate();
  const client = await Client.open(simulator);
  client.subscribe("NOSUCHSTOCK", "FOREX:401484347", "NOSUCHSTOCK");
  client.unsubscribe("NOSUCHSTOCK");
  for (const text of ["{", "[]", "null", '"x"', '{"type":"subscribe"}', '{"type":"subscribe","symbol":7}']) {
    client.say(text);
  }
  client.say('{"type":"subscribe-news","symbol":"AAPL"}');
  await client.fence();
  expect(client.frames).toEqual([]);
  expect(simulator.clients()).toEqual([{ connection: 1, symbols: ["FOREX:401484347"] }]);
});

test("one symbol above the cap is still taken, the next gets the error, and leaving one makes room", async () => {
  for (const symbolsOverMax of [0, 1] as const) {
    await using simulator = await simulate({ symbolsMax: 2, symbolsOverMax, clock: handClock(NOON_MS) });
    const client = await Client.open(simulator);
    const accepted = ["AAPL", "MSFT", "TSLA"].slice(0, 2 + symbolsOverMax);
    client.subscribe(...accepted, "AAPL");
    await client.fence();
    expect(client.frames).toEqual([]);
    client.subscribe("NVDA");
    await client.fence();
    expect(client.frames).toEqual(['{"msg":"Subscribing to too many symbols","type":"error"}']);
    client.unsubscribe("AAPL");
    client.subscribe("NVDA");
    await client.fence();
    expect(client.frames.length).toBe(1);
    expect(simulator.clients()[0]?.symbols).toEqual([...accepted.slice(1), "NVDA"]);
  }
});

test("only subscribed symbols stream, in the present, and the ledger holds every frame that was received", async () => {
  await using simulator = await simulate();
  const client = await Client.open(simulator);
  client.subscribe("AAPL", "BINANCE:BTCUSDT");
  await until(() => new Set(client.trades().map((trade) => trade.s)).size === 2, "trades of both symbols");
  for (const trade of client.trades()) expect(systemClock.now() - trade.t).toBeWithin(0, WAIT_MS_MAX);
  client.unsubscribe("AAPL");
  await client.fence();
  const before = client.frames.length;
  await until(() => client.frames.length > before + 2, "more trades");
  const after = client.frames.slice(before).flatMap((text) => tradesOf(text));
  expect(new Set(after.map((trade) => trade.s))).toEqual(new Set(["BINANCE:BTCUSDT"]));
  expect(simulator.ledger.counts().framesUnsent).toBe(0);
  const sent = simulator.ledger.entries().filter((entry) => entry.sent && entry.kind === "trade");
  expect(sent.map((entry) => entry.text).slice(0, client.frames.length)).toEqual(client.frames);
});

test("pings come on a timer of their own, also while trades flow", async () => {
  await using simulator = await simulate({ pingIntervalMs: 10, tradesPerSecond: 500 });
  const client = await Client.open(simulator);
  client.subscribe("AAPL");
  const pings = () => client.frames.filter((text) => text === '{"type":"ping"}').length;
  await until(() => pings() >= 3 && client.trades().length > 20, "pings among trades");
});

test("the ping timer is not tied to a connection", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock });
  clock.advance(59_000);
  const client = await Client.open(simulator);
  clock.advance(1_000);
  await client.fence();
  expect(client.frames).toEqual(['{"type":"ping"}']);
});

test("a recorded tape at max arrives byte for byte, once, pings too, and then only pings flow", async () => {
  const recorded = tapeOf(3_000);
  const ping = { atMs: recorded.frames[5]?.atMs ?? 0, text: '{"type": "ping"}', symbols: [], tradeCount: 0 };
  const tape = { ...recorded, frames: recorded.frames.toSpliced(5, 0, ping) };
  await using simulator = await simulate({ tape, speed: "max", times: "recorded", pingIntervalMs: 20 });
  const client = await Client.open(simulator);
  client.subscribe("A", "B");
  await simulator.tapeEnded;
  await client.fence();
  const untimed = client.frames.filter((text) => text !== '{"type":"ping"}');
  expect(untimed).toEqual(tape.frames.map((frame) => frame.text));
  expect(simulator.ledger.counts().tradesSent).toBe(3_000);
  const last = simulator.ledger.entries().findLast((entry) => entry.kind === "trade")?.index ?? 0;
  await until(() => (simulator.ledger.connections()[0]?.takenIndex ?? -1) >= last, "the client's last pong");
  const before = client.frames.length;
  await until(() => client.frames.length > before + 1, "pings after the end");
  expect(new Set(client.frames.slice(before))).toEqual(new Set(['{"type":"ping"}']));
});

test("a tape at max waits until every symbol is subscribed, and goes on where a lost connection left it", async () => {
  await using simulator = await simulate({ tape: tapeOf(2_000), speed: "max" });
  const first = await Client.open(simulator);
  first.subscribe("A");
  await first.fence();
  expect(first.frames).toEqual([]);
  simulator.faults.planFrames({}, 700);
  simulator.faults.planFrames({ reset: true });
  first.subscribe("B");
  await first.closed();
  expect(first.closeCode).toBe(1006);
  const second = await Client.open(simulator);
  second.subscribe("B");
  await second.fence();
  expect(second.frames).toEqual([]);
  second.subscribe("A");
  await simulator.tapeEnded;
  await until(() => second.trades().length === 2_000 - 701, "the rest of the tape");
  // What was in flight at the reset was sent, and may be lost; nothing else is, and nothing comes twice.
  expect(numbersOf(first)).toEqual(numbersTo(first.frames.length));
  expect(numbersOf(second)).toEqual(numbersTo(2_000).slice(701));
  expect(simulator.ledger.connections().map((one) => one.closeReason)).toEqual(["reset", null]);
  const sentTo = (connection: number) =>
    simulator.ledger.entries().filter((entry) => entry.connection === connection && entry.tradeCount > 0)
      .length;
  expect([sentTo(1), sentTo(2)]).toEqual([701, 1_299]);
});

test("a client that subscribes to only some of a tape gets those after a grace, and the ledger has the rest", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ tape: tapeOf(6), speed: "max", clock });
  const client = await Client.open(simulator);
  client.subscribe("A");
  await client.fence();
  clock.advance(1_999);
  await client.fence();
  expect(client.frames).toEqual([]);
  clock.advance(1);
  await client.fence();
  expect(numbersOf(client)).toEqual([1, 3, 5]);
  const unsent = simulator.ledger.entries().filter((entry) => !entry.sent);
  expect(unsent.map((entry) => [entry.reason, tradesOf(entry.text)[0]?.p])).toEqual([
    ["not subscribed", 2],
    ["not subscribed", 4],
    ["not subscribed", 6],
  ]);
});

test("a client that does not read holds a tape at max, and loses the next one nothing but what it was sent", async () => {
  await using simulator = await simulate({ tape: tapeOf(2_000), speed: "max" });
  const deaf = await Bun.connect({ hostname: "127.0.0.1", port: simulator.port, socket: { data() {} } });
  deaf.write(handshakeText("?token=token"));
  await until(() => simulator.clients().length === 1, "the deaf client");
  for (const symbol of ["A", "B"]) deaf.write(maskedText(JSON.stringify({ type: "subscribe", symbol })));
  await until(() => simulator.ledger.counts().framesSent >= 256, "the window");
  expect(simulator.ledger.counts().framesSent).toBe(256);
  expect(simulator.ledger.connections()[0]?.takenIndex).toBe(-1);
  deaf.end();
  await until(() => simulator.clients().length === 0, "the end of the deaf client");
  const client = await Client.open(simulator);
  client.subscribe("A", "B");
  await simulator.tapeEnded;
  await client.fence();
  expect(numbersOf(client)).toEqual(numbersTo(2_000).slice(256));
});

/** Frames of 64 KB, so that socket buffers fill before the window of unread frames does. */
function heavyTapeOf(count: number) {
  const c = JSON.stringify(["1".repeat(65_536)]);
  const line = (at: number) =>
    JSON.stringify({ at, frame: `{"data":[{"c":${c},"p":1,"s":"A","t":${at},"v":1}],"type":"trade"}` });
  return parseTape(
    Array.from({ length: count }, (_, index) => line(NOON_MS + index)).join("\n"),
    "heavy tape",
  );
}

async function pausedClient(simulator: Simulator) {
  const socket = await Bun.connect({ hostname: "127.0.0.1", port: simulator.port, socket: { data() {} } });
  socket.write(handshakeText("?token=token"));
  await until(() => simulator.clients().length === 1, "the paused client");
  socket.pause();
  socket.write(maskedText('{"type":"subscribe","symbol":"A"}'));
  return socket;
}

test("a full socket holds a tape at max until it drains", async () => {
  await using simulator = await simulate({ tape: heavyTapeOf(200), speed: "max" });
  const socket = await pausedClient(simulator);
  await until(() => simulator.ledger.counts().framesSent > 0, "the first frames");
  expect(simulator.ledger.counts().framesSent).toBeLessThan(200);
  socket.resume();
  await simulator.tapeEnded;
  expect(simulator.ledger.counts()).toMatchObject({ framesSent: 200, framesUnsent: 0 });
  socket.end();
});

test("a client that never reads a market is cut off, and the ledger says which trades it did not get", async () => {
  await using simulator = await simulate({ tape: heavyTapeOf(450), speed: 1_000_000 });
  const socket = await pausedClient(simulator);
  await simulator.tapeEnded;
  expect(simulator.ledger.connections()[0]?.closeReason).toBe("client too slow");
  const reasons = simulator.ledger.entries().map((entry) => entry.reason);
  expect(new Set(reasons)).toEqual(new Set([null, "client too slow", "no client"]));
  expect(reasons.filter((reason) => reason === "client too slow").length).toBe(1);
  expect(reasons.length).toBe(450);
  socket.end();
});

/** A short masked text frame; the mask is zero. */
function maskedText(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  expect(bytes.length).toBeLessThan(126);
  return new Uint8Array([0x81, 0x80 | bytes.length, 0, 0, 0, 0, ...bytes]);
}

test("a tape at a factor keeps its gaps, divided, in times and trade times, and goes on without a client", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ tape: tapeOf(8, 1_000), speed: 10, clock });
  clock.advance(5_000);
  const first = await Client.open(simulator);
  first.subscribe("A");
  await first.fence();
  // Not begun: half of it is not subscribed yet.
  clock.advance(1_500);
  first.subscribe("B");
  await first.fence();
  clock.advance(250);
  await first.fence();
  const beganMs = NOON_MS + 6_500;
  expect(first.trades().map((trade) => trade.t - beganMs)).toEqual([-4, 96, 196]);
  await first.close(simulator);
  clock.advance(200);
  const second = await Client.open(simulator);
  second.subscribe("B");
  await second.fence();
  clock.advance(250);
  await simulator.tapeEnded;
  await second.fence();
  expect(numbersOf(second)).toEqual([6, 8]);
  expect(
    simulator.ledger
      .entries()
      .filter((entry) => entry.tradeCount > 0)
      .map((entry) => [entry.atMs - beganMs, entry.reason]),
  ).toEqual([
    [0, null],
    [100, null],
    [200, null],
    [300, "no client"],
    [400, "no client"],
    [500, null],
    [600, "not subscribed"],
    [700, null],
  ]);
});

test("in the present no trade of a tape lies ahead of now, and each keeps its lag at max", async () => {
  const clock = handClock(NOON_MS);
  const { frames, symbols } = tapeOf(10);
  const ping = { atMs: NOON_MS, text: '{"type":"ping"}', symbols: [], tradeCount: 0 };
  await using simulator = await simulate({
    tape: { frames: [...frames, ping], symbols },
    speed: "max",
    clock,
  });
  const client = await Client.open(simulator);
  client.subscribe("A", "B");
  await simulator.tapeEnded;
  await client.fence();
  // The tape's ping stays away: it belongs to the recording's time.
  expect(client.frames.length).toBe(10);
  await until(() => simulator.ledger.connections()[0]?.takenIndex === 9, "the pong after the tape's end");
  expect(client.trades().map((trade) => trade.t)).toEqual(Array(10).fill(NOON_MS - 40));
});

test("the market goes on when its client is gone, and the ledger says that nobody got it", async () => {
  await using simulator = await simulate({ tradesPerSecond: 500 });
  const client = await Client.open(simulator);
  client.subscribe("AAPL");
  await until(() => client.trades().length > 5, "trades");
  await client.close(simulator);
  const missed = () => simulator.ledger.entries().filter((entry) => entry.reason === "no client").length;
  await until(() => missed() > 5, "trades that nobody got");
  const [interval] = simulator.ledger.connections();
  expect(interval?.closeReason).toBe("client");
  for (const entry of simulator.ledger.entries()) {
    expect(entry.sent).toBe(entry.atMs <= (interval?.closedAtMs ?? 0) && entry.reason === null);
  }
});

test("symbols of a client that left stop when the next one does not want them", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock });
  const first = await Client.open(simulator);
  first.subscribe("AAPL");
  await first.fence();
  await first.close(simulator);
  const second = await Client.open(simulator);
  second.subscribe("TSLA");
  await second.fence();
  clock.advance(2_000);
  const unsent = simulator.ledger.counts().framesUnsent;
  expect(unsent).toBeGreaterThan(0);
  clock.advance(60_000);
  expect(simulator.ledger.counts().framesUnsent).toBe(unsent);
});

test("a tape at max plays only to the clients that have subscribed to it", async () => {
  await using simulator = await simulate({ tape: tapeOf(10), speed: "max" });
  const other = await Client.open(simulator, "other");
  other.subscribe("A");
  await other.fence();
  const client = await Client.open(simulator);
  client.subscribe("A", "B");
  await simulator.tapeEnded;
  await client.fence();
  await other.fence();
  expect(numbersOf(client)).toEqual(numbersTo(10));
  expect(other.frames).toEqual([]);
});

test("faults on demand: extra frames, copies in the frame and later, frames that overtake, a cut", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ tape: tapeOf(4), speed: 1, clock });
  const { faults, ledger } = simulator;
  const client = await Client.open(simulator);
  faults.planFrames({ copies: 3 });
  faults.planFrames({ holdBackMs: 15 });
  faults.planFrames({ againAfterMs: [18], extras: ["garbage", "news"] });
  client.subscribe("A", "B");
  await client.fence();
  clock.advance(100);
  await client.fence();
  expect(numbersOf(client)).toEqual([1, 1, 1, 3, 2, 4, 3]);
  expect(client.trades().length).toBe(ledger.counts().tradesSent);
  expect(ledger.entries().flatMap((entry) => entry.fault ?? [])).toEqual([
    "duplicate",
    "injected",
    "injected",
    "held back",
    "duplicate",
  ]);
  const before = client.frames.length;
  expect(faults.sendExtra("error") + faults.sendExtra("pr") + faults.send("%")).toBe(3);
  await client.fence();
  expect(client.frames.slice(before).map((text) => text.slice(-12))).toEqual([
    'type":"error"}'.slice(-12),
    '"type":"pr"}',
    "%",
  ]);
  expect(faults.resetConnections()).toBe(1);
  await client.closed();
  expect(client.closeCode).toBe(1006);
});

test("whatever the seeded faults, every connection receives what the ledger says, up to what a cut lost", async () => {
  const faults = {
    reset: 0.003,
    garbage: 0.01,
    error: 0.01,
    duplicateInFrame: 0.05,
    duplicateLater: 0.02,
    holdBack: 0.05,
  };
  await using simulator = await simulate({ tape: tapeOf(2_000), speed: "max", times: "recorded", faults });
  const clients: Client[] = [];
  let ended = false;
  void simulator.tapeEnded.then(() => {
    ended = true;
  });
  while (!ended) {
    const client = await Client.open(simulator);
    clients.push(client);
    client.subscribe("A", "B");
    await until(() => ended || client.closeCode !== null, "a cut or the end");
  }
  expect(clients.length).toBeGreaterThan(2);
  for (const [index, client] of clients.entries()) {
    const sent = simulator.ledger.entries().filter((entry) => entry.connection === index + 1);
    const { takenIndex } = simulator.ledger.connections()[index] ?? { takenIndex: Number.NaN };
    expect(client.frames).toEqual(sent.slice(0, client.frames.length).map((entry) => entry.text));
    expect(client.frames.length).toBeGreaterThanOrEqual(
      sent.filter((entry) => entry.index <= takenIndex).length,
    );
  }
  const all = () =>
    new Set(simulator.ledger.entries().flatMap((entry) => tradesOf(entry.text).map((trade) => trade.p)));
  await until(() => all().size === 2_000, "the last frame that was held back");
});

test("the ledger of a long run is bounded, or only counts", async () => {
  for (const [ledger, kept] of [
    [100, [100, 124]],
    [false, [0, 0]],
  ] as const) {
    await using simulator = await simulate({ tape: tapeOf(1_000), speed: "max", ledger });
    const client = await Client.open(simulator);
    client.subscribe("A", "B");
    await simulator.tapeEnded;
    expect(simulator.ledger.counts()).toMatchObject({ framesSent: 1_000, tradesSent: 1_000 });
    expect(simulator.ledger.entries().length).toBeWithin(kept[0], kept[1] + 1);
    if (ledger !== false) expect(simulator.ledger.entries().at(-1)?.index).toBe(999);
  }
});

test("REST answers what validation asks, by query or header token", async () => {
  await using simulator = await simulate({ token: "good" });
  const get = async (path: string, headers: Record<string, string> = { "X-Finnhub-Token": "good" }) => {
    const response = await fetch(simulator.apiUrl + path, { headers });
    return { status: response.status, body: (await response.json()) as unknown };
  };
  expect(await get("/search?q=AAPL&token=good", {})).toEqual({
    status: 200,
    body: {
      count: 1,
      result: [{ description: "APPLE INC", displaySymbol: "AAPL", symbol: "AAPL", type: "Common Stock" }],
    },
  });
  expect(await get("/search?q=BINANCE:BTCUSDT")).toMatchObject({ body: { count: 1 } });
  expect(await get("/search?q=OANDA:EUR_USD")).toMatchObject({ body: { count: 0, result: [] } });
  expect(await get("/search?q=NOSUCHSTOCK")).toMatchObject({ body: { count: 0, result: [] } });
  expect(await get("/stock/symbol?exchange=US")).toMatchObject({
    body: expect.arrayContaining([expect.objectContaining({ symbol: "MSFT" })]),
  });
  expect(await get("/crypto/exchange")).toMatchObject({ body: expect.arrayContaining(["Binance"]) });
  expect(await get("/crypto/symbol?exchange=binance")).toMatchObject({
    body: expect.arrayContaining([
      { description: "Binance LTCUSDT", displaySymbol: "LTC/USDT", symbol: "BINANCE:LTCUSDT" },
    ]),
  });
  expect(await get("/forex/exchange")).toMatchObject({ body: expect.arrayContaining(["ic markets"]) });
  expect(await get("/forex/symbol?exchange=ic%20markets")).toMatchObject({
    body: expect.arrayContaining([
      {
        description: "IC MARKETS Euro vs US Dollar EURUSD",
        displaySymbol: "EUR/USD",
        symbol: "IC MARKETS:1",
      },
    ]),
  });
  expect(await get("/quote?symbol=AAPL")).toMatchObject({ body: { c: 232, pc: 232 } });
  expect(await get("/quote?symbol=NOSUCHSTOCK")).toMatchObject({ body: { c: 0, t: 0 } });
  expect(await get("/stock/market-status?exchange=US")).toMatchObject({ body: { isOpen: true } });
  expect(await get("/stock/candle?symbol=AAPL")).toEqual({
    status: 403,
    body: { error: "You don't have access to this resource." },
  });
  expect(await get("/search", {})).toEqual({ status: 401, body: { error: "Please use an API key." } });
  expect(await get("/search?q=A&token=bad", {})).toEqual({
    status: 401,
    body: { error: "Invalid API key." },
  });
  expect((await get("/nowhere")).status).toBe(404);
  expect((await get("/search")).status).toBe(422);
});

test("REST calls beyond a minute's limit, or 30 a second, get 429 until the next one begins", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock });
  const call = () => fetch(`${simulator.apiUrl}/forex/exchange?token=any`);
  const statuses = async (count: number) => {
    const all = [];
    for (let left = count; left > 0; left -= 1) all.push((await call()).status);
    return all.filter((status) => status === 200).length;
  };
  expect(await statuses(31)).toBe(30);
  clock.advance(1_000);
  expect(await statuses(31)).toBe(30);
  clock.advance(1_000);
  const refused = await call();
  expect(refused.status).toBe(429);
  expect(await refused.text()).toBe(
    '{"error":"API limit reached. Please try again later. Remaining Limit: 0"}',
  );
  expect(refused.headers.get("x-ratelimit-remaining")).toBe("0");
  expect(refused.headers.get("x-ratelimit-reset")).toBe(String(NOON_MS / 1_000 + 60));
  clock.advance(58_000);
  expect(await statuses(1)).toBe(1);
});

test("what cannot be started is refused in a sentence", async () => {
  await using simulator = await simulate();
  await expect(simulate({ port: simulator.port })).rejects.toThrow(SetupError);
  await expect(simulate({ speed: 0 })).rejects.toThrow("a simulator speed of 0 is not possible");
  await expect(simulate({ tradesPerSecond: Number.NaN })).rejects.toThrow(SetupError);
});
