import { describe, expect, test } from "bun:test";
import type { Socket } from "node:net";
import { silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type { Feed } from "../../../lib/contracts/feed.ts";
import { FINNHUB_LIMITS, type FinnhubOptions, openFinnhubFeed } from "../../../lib/finnhub/feed.ts";
import { NOON_MS, seeded } from "../../support/builders.ts";
import {
  acceptance,
  counted,
  handClock,
  readAll,
  recordingLogger,
  refusal,
  serveRaw,
  serveSockets,
  textFrame,
  turns,
  watched,
} from "../../support/feed.ts";

const TOKEN = "c0ffee-secret-token";
const PING = '{"type":"ping"}';
const TOO_MANY = '{"msg":"Subscribing to too many symbols","type":"error"}';

/** A feed with all a test wants to look at; stopped at the end of the scope. */
function openFeed(url: string, options: Partial<FinnhubOptions> = {}) {
  const clock = handClock(NOON_MS);
  const metrics = createMetrics();
  const { logger, lines } = recordingLogger();
  const stopping = new AbortController();
  const feed = openFinnhubFeed({
    url,
    token: TOKEN,
    symbols: ["AAPL"],
    symbolsMax: 50,
    clock,
    logger,
    metrics,
    signal: stopping.signal,
    ...options,
  });
  const stop = () => stopping.abort();
  return { feed, clock, metrics, lines, stop, [Symbol.dispose]: stop };
}

/** The wait that the nth failure announced. */
async function waitMs(lines: ReturnType<typeof openFeed>["lines"], nth: number): Promise<number> {
  const line = await lines.nth(nth, ({ fields }) => fields.waitMs !== undefined);
  return line.fields.waitMs as number;
}

function tradeFrame(...fields: Readonly<Record<string, unknown>>[]): string {
  const data = fields.map((each) => ({ c: null, p: 1, s: "AAPL", t: NOON_MS, v: 1, ...each }));
  return JSON.stringify({ data, type: "trade" });
}

function pricesOf(items: ReturnType<typeof readAll>["items"]["all"]): number[] {
  return items.flatMap((item) => (item.kind === "trades" ? item.trades.map(({ price }) => price) : []));
}

const symbolsTo = (count: number) => Array.from({ length: count }, (_, index) => `S${index + 1}`);

describe("subscribing", () => {
  test("asks for each wanted ticker once, in order, up to the cap, after each connect", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url, { symbols: ["B", "A", "B", "IC MARKETS:1", "D"], symbolsMax: 3 });
    const read = readAll(opened.feed);
    const first = await server.connections.nth(1);
    await first.messages.nth(3);
    expect(first.messages.all[0]).toBe('{"type":"subscribe","symbol":"B"}');
    first.drop();
    await read.event("disconnected");
    opened.clock.advance(0);
    const second = await server.connections.nth(2);
    await second.messages.nth(3);
    second.send(PING);
    await read.event("connected", 2);
    for (const connection of [first, second]) {
      expect(connection.asked("subscribe")).toEqual(["B", "A", "IC MARKETS:1"]);
    }
    expect(opened.feed.health()).toMatchObject({
      state: "connected",
      subscribed: ["B", "A", "IC MARKETS:1"],
      unsubscribed: ["D"],
    });
    expect(read.events("tickers_over_cap")).toEqual([{ symbols: ["D"], symbolCount: 1 }]);
  });

  test("hands the token over in the query and offers no compression", async () => {
    await using server = serveSockets();
    using _ = openFeed(server.url, { token: "a b&c=ü-token" });
    const { url, headers } = await server.connections.nth(1);
    expect(new URL(url).searchParams.get("token")).toBe("a b&c=ü-token");
    expect(headers.get("sec-websocket-extensions")).toBeNull();
  });

  test("sends the difference when the wanted set changes", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url, { symbols: ["A", "B", "C"], symbolsMax: 3 });
    const connection = await server.connections.nth(1);
    await connection.messages.nth(3);
    opened.feed.subscribe(["D", "C", "C", "A", "E"]);
    await connection.messages.nth(5);
    expect(connection.messages.all.slice(3)).toEqual([
      '{"type":"unsubscribe","symbol":"B"}',
      '{"type":"subscribe","symbol":"D"}',
    ]);
    expect(opened.feed.health().unsubscribed).toEqual(["E"]);
    opened.feed.subscribe([]);
    await connection.messages.nth(8);
    expect(connection.asked("unsubscribe")).toEqual(["B", "A", "C", "D"]);
    expect(opened.feed.health()).toMatchObject({ subscribed: [], unsubscribed: [] });
  });

  test("remembers what is wanted while there is no connection", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url);
    opened.feed.subscribe(["X"]);
    const connection = await server.connections.nth(1);
    await connection.messages.nth(1);
    expect(connection.asked("subscribe")).toEqual(["X"]);
  });

  test("several 'too many' after one burst take one ticker each, the last ones, and are told once", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url, { symbols: symbolsTo(54), symbolsMax: 54 });
    const read = readAll(opened.feed);
    const connection = await server.connections.nth(1);
    await connection.messages.nth(54);
    for (let refused = 52; refused <= 54; refused++) connection.send(TOO_MANY);
    await connection.messages.nth(57);
    expect(opened.feed.health().subscribed).toEqual(symbolsTo(51));
    expect(opened.feed.health().unsubscribed).toEqual(["S52", "S53", "S54"]);
    const told = await read.items.nth(
      1,
      (item) => item.kind === "event" && item.type === "tickers_over_cap" && item.detail.symbolCount === 3,
    );
    expect(told).toMatchObject({ detail: { symbols: ["S52", "S53", "S54"] } });
    // A place that becomes free is taken by the next in order.
    opened.feed.subscribe(symbolsTo(54).slice(1));
    await connection.messages.nth(59);
    expect(connection.messages.all.slice(57)).toEqual([
      '{"type":"unsubscribe","symbol":"S1"}',
      '{"type":"subscribe","symbol":"S52"}',
    ]);
  });

  test("the 51st that is refused goes, and only it", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url, { symbols: symbolsTo(50), symbolsMax: 60 });
    const read = readAll(opened.feed);
    const connection = await server.connections.nth(1);
    await connection.messages.nth(50);
    opened.feed.subscribe(["NEW", ...symbolsTo(50)]);
    await connection.messages.nth(51);
    connection.send(TOO_MANY);
    // NEW was asked for last, but it is wanted most: S50 makes room for it.
    await connection.messages.nth(54);
    expect(connection.messages.all.slice(51).map((text) => JSON.parse(text))).toEqual([
      { type: "unsubscribe", symbol: "NEW" },
      { type: "unsubscribe", symbol: "S50" },
      { type: "subscribe", symbol: "NEW" },
    ]);
    expect(await read.event("tickers_over_cap")).toMatchObject({ symbols: ["S50"] });
  });

  test("no flood of 'too many' takes the last ticker", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url, { symbols: ["A", "B", "C"] });
    const read = readAll(opened.feed);
    const connection = await server.connections.nth(1);
    for (let index = 0; index < 100; index++) connection.send(TOO_MANY);
    connection.send(tradeFrame({ p: 7 }));
    await read.items.nth(1, ({ kind }) => kind === "trades");
    expect(opened.feed.health().subscribed).toEqual(["A"]);
    expect(read.events("upstream_error").length).toBe(10);
  });

  test("a cap that was lowered is tried again by the next connection, and not told anew when it is the same", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url, { symbols: ["A", "B", "C"] });
    const read = readAll(opened.feed);
    for (const nth of [1, 2]) {
      const connection = await server.connections.nth(nth);
      await connection.messages.nth(3);
      expect(connection.asked("subscribe")).toEqual(["A", "B", "C"]);
      connection.send(TOO_MANY);
      await connection.messages.nth(4);
      connection.send(PING);
      connection.drop();
      await read.event("disconnected", nth);
      opened.clock.advance(0);
    }
    const third = await server.connections.nth(3);
    await third.messages.nth(3);
    third.send(PING);
    await read.event("tickers_over_cap", 2);
    expect(read.events("tickers_over_cap").map(({ symbols }) => symbols)).toEqual([["C"], []]);
  });

  test("a ticker that is rejected by name makes room for the next one", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url, { symbols: ["FX:EURUSD", "A", "B"], symbolsMax: 2 });
    const read = readAll(opened.feed);
    const connection = await server.connections.nth(1);
    await connection.messages.nth(2);
    connection.send('{"msg":"Invalid symbol FX:EURUSD","type":"error"}');
    await connection.messages.nth(3);
    expect(connection.asked("subscribe")).toEqual(["FX:EURUSD", "A", "B"]);
    expect(await read.event("ticker_rejected")).toEqual({
      symbol: "FX:EURUSD",
      message: "Invalid symbol FX:EURUSD",
    });
    expect(opened.feed.health()).toMatchObject({ subscribed: ["A", "B"], unsubscribed: ["FX:EURUSD"] });
    // Of one that was never asked for it is only an error.
    connection.send('{"msg":"Invalid symbol NEVER","type":"error"}');
    expect(await read.event("upstream_error")).toMatchObject({ message: "Invalid symbol NEVER" });
  });
});

describe("receiving", () => {
  test("one batch holds everything that one read of the socket brought, in order", async () => {
    const frames = Array.from({ length: 20 }, (_, index) =>
      textFrame(tradeFrame({ p: index + 1 }, { p: index + 1.5 })),
    );
    await using server = await serveRaw((socket, request) => {
      socket.write(Buffer.concat([Buffer.from(acceptance(request)), ...frames]));
    });
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    await read.items.nth(20, ({ kind }) => kind === "trades");
    const batches = read.batches.filter((batch) => batch.some(({ kind }) => kind === "trades"));
    expect(batches.length).toBe(1);
    expect(pricesOf(batches[0]! as never)).toEqual(Array.from({ length: 40 }, (_, index) => 1 + index / 2));
  });

  test("a bad frame or element is a dead item and costs nobody else", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    const connection = await server.connections.nth(1);
    connection.send("garbage");
    connection.send(tradeFrame({ p: 1 }, { p: -1e31 }, { p: 2 }));
    connection.send('{"type":"trade","data":7}');
    connection.send('{"type":"surprise"}');
    connection.send(PING);
    connection.sendBytes(Buffer.from(tradeFrame({ p: 3 })));
    connection.sendBytes(new Uint8Array([0xff, 0x00]));
    connection.send(tradeFrame({ p: 4 }));
    await read.items.nth(3, ({ kind }) => kind === "trades");
    expect(pricesOf(read.items.all)).toEqual([1, 2, 3, 4]);
    expect(
      read.items.all.flatMap((item) => (item.kind === "dead" ? [[item.reason, item.payload]] : [])),
    ).toEqual([
      ["garbage_frame", "garbage"],
      ["bad_price", tradeFrame({ p: -1e31 })],
      ["bad_frame", '{"type":"trade","data":7}'],
      ["garbage_frame", '{"base64":"/wA="}'],
    ]);
    const { framesTotal, itemsRefusedTotal, tradesReceivedTotal } = opened.metrics;
    expect(await counted(framesTotal)).toBe(8);
    for (const [type, count] of [
      ["trade", 2],
      ["refused", 2],
      ["other", 1],
      ["ping", 1],
      ["binary", 2],
    ] as const) {
      expect(await counted(framesTotal, type)).toBe(count);
    }
    expect(await counted(itemsRefusedTotal, "garbage_frame")).toBe(2);
    expect(await counted(tradesReceivedTotal)).toBe(4);
    expect(opened.feed.health()).toMatchObject({ lastFrameAtMs: NOON_MS, lastTradeAtMs: NOON_MS });
  });

  test("health tells how much of what came lately was refused, of which symbols and why", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    const connection = await server.connections.nth(1);
    connection.send(tradeFrame({ s: "A", p: -1e31 }, { s: "B", p: 1 }));
    connection.send(tradeFrame({ s: "A", p: 2 }, { s: "A", t: 1 }, { s: "A", t: 1 }));
    connection.send("garbage");
    await read.items.nth(1, (item) => item.kind === "dead" && item.reason === "garbage_frame");
    const symbols = [{ symbol: "A", taken: 1, refused: 3, reason: "impossible_time" }];
    expect(opened.feed.health().intake).toEqual({ minutes: 10, taken: 2, refused: 4, symbols });
    opened.clock.advance(10 * 60_000);
    expect(opened.feed.health().intake).toMatchObject({ taken: 0, refused: 0, symbols: [] });
  });

  test("suspected copies are counted and handed on", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    const connection = await server.connections.nth(1);
    connection.send(tradeFrame({ p: 1 }, { p: 1 }, { p: 2 }));
    await read.items.nth(1, ({ kind }) => kind === "trades");
    opened.clock.advance(97);
    connection.send(tradeFrame({ p: 2 }));
    await read.items.nth(2, ({ kind }) => kind === "trades");
    opened.clock.advance(201);
    connection.send(tradeFrame({ p: 2 }));
    await read.items.nth(3, ({ kind }) => kind === "trades");
    expect(pricesOf(read.items.all)).toEqual([1, 1, 2, 2, 2]);
    expect(await counted(opened.metrics.duplicatesSuspectedTotal)).toBe(2);
  });

  test("a trade dated ahead of its receipt is counted and handed on", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    const connection = await server.connections.nth(1);
    connection.send(tradeFrame({ t: NOON_MS + 60_000 }, { t: NOON_MS + 60_001 }, { t: NOON_MS - 40 }));
    await read.items.nth(1, ({ kind }) => kind === "trades");
    expect(pricesOf(read.items.all).length).toBe(3);
    expect(await counted(opened.metrics.tradesAheadTotal)).toBe(1);
  });

  test("nobody asks: the socket is read no further, the watchdog waits, and nothing is lost", async () => {
    const frameCount = 3_000;
    const pad = "x".repeat(10_000);
    await using server = serveSockets();
    using opened = openFeed(server.url, { limits: { queueWeightMax: 100 } });
    const connection = await server.connections.nth(1);
    for (let index = 0; index < frameCount; index++) connection.send(tradeFrame({ p: index + 1, pad }));
    while ((await counted(opened.metrics.pausesTotal)) === 0) await turns(1);
    await turns(20);
    const takenCount = await counted(opened.metrics.framesTotal);
    await turns(50);
    expect(await counted(opened.metrics.framesTotal)).toBe(takenCount);
    expect(takenCount).toBeLessThan(frameCount / 2);
    opened.clock.advance(10 * FINNHUB_LIMITS.silentMsMax);
    expect(opened.feed.health().state).toBe("connected");

    const read = readAll(opened.feed);
    await read.items.nth(frameCount, ({ kind }) => kind === "trades");
    expect(pricesOf(read.items.all)).toEqual(Array.from({ length: frameCount }, (_, index) => index + 1));
    expect(await counted(opened.metrics.disconnectsTotal)).toBe(0);
    // From here on the silence is theirs again.
    opened.clock.advance(2 * FINNHUB_LIMITS.silentMsMax);
    expect(await read.event("disconnected")).toMatchObject({ reason: "silent" });
  });

  test("the silence of a pause is ours: the watchdog begins anew after it", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url, { limits: { queueWeightMax: 3 } });
    const connection = await server.connections.nth(1);
    connection.send(tradeFrame({}, {}, {}, {}));
    while ((await counted(opened.metrics.pausesTotal)) === 0) await turns(1);
    opened.clock.advance(200_000);
    const read = readAll(opened.feed);
    await read.items.nth(1, ({ kind }) => kind === "trades");
    opened.clock.advance(149_999);
    expect(opened.feed.health().state).toBe("connected");
    opened.clock.advance(1);
    expect(await read.event("disconnected")).toMatchObject({ reason: "silent", fromMs: NOON_MS });
  });

  test("a connection made while the queue is full is not read either", async () => {
    const frames = [1, 2, 3, 4, 5].map((p) => textFrame(tradeFrame({ p })));
    const sockets = watched<Socket>();
    await using server = await serveRaw((socket, request, nth) => {
      socket.write(Buffer.concat([Buffer.from(acceptance(request)), ...(nth === 1 ? frames : [])]));
      sockets.push(socket);
    });
    using opened = openFeed(server.url, { limits: { queueWeightMax: 3 } });
    while ((await counted(opened.metrics.pausesTotal)) === 0) await turns(1);
    (await sockets.nth(1)).resetAndDestroy();
    await opened.lines.nth(1, ({ fields }) => fields.reason === "closed");
    opened.clock.advance(0);
    while ((await counted(opened.metrics.connectsTotal)) === 1) await turns(1);
    (await sockets.nth(2)).write(textFrame(tradeFrame({ p: 6 })));
    await turns(20);
    expect(await counted(opened.metrics.framesTotal)).toBe(5);
    const read = readAll(opened.feed);
    await read.items.nth(6, ({ kind }) => kind === "trades");
    expect(pricesOf(read.items.all)).toEqual([1, 2, 3, 4, 5, 6]);
  });
});

describe("a connection that is lost", () => {
  test("without any frame for 150 s is given up; pings alone keep it", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    opened.clock.chance = 0.5;
    const connection = await server.connections.nth(1);
    await read.event("connected");
    for (let minute = 1; minute <= 10; minute++) {
      opened.clock.advance(60_000);
      connection.send(PING);
      while (opened.feed.health().lastFrameAtMs !== NOON_MS + minute * 60_000) await turns(1);
    }
    const lastPingMs = NOON_MS + 600_000;
    opened.clock.advance(149_999);
    expect(opened.feed.health().state).toBe("connected");
    opened.clock.advance(1);
    expect(opened.feed.health()).toMatchObject({
      state: "waiting",
      stateSinceMs: lastPingMs + 150_000,
      disconnectedSinceMs: lastPingMs + 150_000,
      lastProblem: "silent: no frame for 150000 ms",
      subscribed: [],
    });
    expect(await read.event("disconnected")).toMatchObject({ reason: "silent", fromMs: lastPingMs });
    expect(await connection.closed.promise).toBe(1006);

    opened.clock.advance(250);
    await server.connections.nth(2);
    expect(await read.event("connected", 2)).toEqual({
      attempt: 1,
      symbolCount: 1,
      fromMs: lastPingMs,
      outMs: 150_250,
    });
    // What the old socket had to say on its end made no third connection.
    opened.clock.advance(100_000);
    await turns(20);
    expect(server.connections.all.length).toBe(2);
    expect(await counted(opened.metrics.disconnectsTotal)).toBe(1);
  });

  test.each([
    [
      "a close frame",
      (c: { close(code: number, reason: string): unknown }) => c.close(1001, "bye"),
      "close code 1001 bye",
    ],
    ["no word", (c: { drop(): unknown }) => c.drop(), "close code 1006"],
  ])("with %s is data, and made anew", async (_, end, detail) => {
    await using server = serveSockets();
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    const connection = await server.connections.nth(1);
    await read.event("connected");
    opened.clock.advance(5_000);
    connection.send(tradeFrame({ p: 1 }));
    end(connection);
    expect(await read.event("disconnected")).toMatchObject({
      reason: "closed",
      fromMs: NOON_MS + 5_000,
      detail: expect.stringContaining(detail),
    });
    expect(pricesOf(read.items.all)).toEqual([1]);
    opened.clock.advance(0);
    await read.event("connected", 2);
    expect(await counted(opened.metrics.connectsTotal)).toBe(2);
    expect(await counted(opened.metrics.disconnectsTotal, "closed")).toBe(1);
  });

  test("by a reset is data too", async () => {
    await using server = await serveRaw((socket, request) => {
      socket.write(acceptance(request), () => socket.resetAndDestroy());
    });
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    expect(await read.event("disconnected")).toMatchObject({ reason: "closed" });
  });

  test("is tried again after ever longer, and as before only after it was stable", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    opened.clock.chance = 0.5;
    const waitsMs: number[] = [];
    for (let nth = 1; nth <= 10; nth++) {
      const connection = await server.connections.nth(nth);
      await read.event("connected", nth);
      // The ninth stands for a minute; the others are dropped when they have hardly begun.
      opened.clock.advance(nth === 9 ? FINNHUB_LIMITS.stableMsMin : FINNHUB_LIMITS.stableMsMin - 1);
      connection.drop();
      waitsMs.push(await waitMs(opened.lines, nth));
      opened.clock.advance(waitsMs.at(-1)!);
    }
    expect(waitsMs).toEqual([250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 250, 500]);
  });
});

describe("a connection that cannot be made", () => {
  test("within 10 s is given up, and its socket too", async () => {
    await using server = await serveRaw(() => {});
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    await server.requests.nth(1);
    opened.clock.advance(9_999);
    expect(opened.feed.health().state).toBe("connecting");
    opened.clock.advance(1);
    await server.closes.nth(1);
    expect(await read.event("disconnected")).toMatchObject({ reason: "connect_timeout", fromMs: NOON_MS });
    opened.clock.advance(0);
    await server.requests.nth(2);
    expect(await counted(opened.metrics.disconnectsTotal)).toBe(1);
  });

  test("because of the token: loud each time, and slow", async () => {
    await using server = await serveRaw((socket) => socket.end(refusal(401)));
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    const waitsMs: number[] = [];
    for (let nth = 1; nth <= 5; nth++) {
      waitsMs.push(await waitMs(opened.lines, nth));
      opened.clock.advance(waitsMs.at(-1)! - 1);
      expect(server.requests.all.length).toBe(nth);
      opened.clock.advance(1);
    }
    expect(waitsMs).toEqual([120_000, 240_000, 480_000, 900_000, 900_000]);
    expect(opened.lines.all.filter(({ level }) => level === "error").length).toBe(5);
    expect(read.events("disconnected")).toEqual([{ reason: "refused_401", fromMs: NOON_MS, detail: "" }]);
    expect(opened.feed.health().lastProblem).toBe("refused_401");
    expect(await counted(opened.metrics.disconnectsTotal, "refused_401")).toBe(5);
  });

  test("because the session is still held (429): the next attempt is over a minute away", async () => {
    await using server = await serveRaw((socket, _, nth) => {
      if (nth > 3) return;
      socket.end(refusal(429));
    });
    using opened = openFeed(server.url);
    const random = seeded(7);
    for (let nth = 1; nth <= 3; nth++) {
      opened.clock.chance = random(1_000) / 1_000;
      const ms = await waitMs(opened.lines, nth);
      expect(ms).toBeGreaterThanOrEqual(75_000);
      expect(ms).toBeLessThan(94_000);
      opened.clock.advance(ms);
    }
    expect(opened.feed.health().lastProblem).toBe("refused_429");
  });

  test.each([
    ["200", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "refused_status", "HTTP 200"],
    ["302", "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "refused_status", "HTTP 302"],
    ["524", "HTTP/1.1 524 \r\nContent-Length: 0\r\n\r\n", "refused_status", "HTTP 524"],
    ["garbage", "hello\r\n\r\n", "unreachable", "HPE_INVALID_CONSTANT"],
    ["nothing", "", "unreachable", "ECONNRESET"],
    [
      "a 101 for somebody else",
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n",
      "unreachable",
      "Mismatch websocket accept header",
    ],
  ])("because the answer is %s: named, and tried again soon", async (_, answer, reason, detail) => {
    await using server = await serveRaw((socket) => socket.end(answer));
    using opened = openFeed(server.url);
    opened.clock.chance = 0.999;
    const read = readAll(opened.feed);
    expect(await read.event("disconnected")).toEqual({ reason, fromMs: NOON_MS, detail });
    expect(await waitMs(opened.lines, 1)).toBeLessThanOrEqual(500);
    opened.clock.advance(500);
    await server.requests.nth(2);
  });

  test("for hours is one event, and one more when the reason changes", async () => {
    await using server = await serveRaw((socket, request, nth) => {
      if (nth <= 30) socket.end(refusal(524));
      else if (nth <= 40) socket.end();
      else socket.write(acceptance(request));
    });
    using opened = openFeed(server.url);
    opened.clock.chance = 0.999;
    const read = readAll(opened.feed);
    let totalMs = 0;
    for (let nth = 1; nth <= 40; nth++) {
      const ms = await waitMs(opened.lines, nth);
      expect(ms).toBeLessThanOrEqual(FINNHUB_LIMITS.retryMsMax);
      totalMs += ms;
      opened.clock.advance(ms);
    }
    expect(await read.event("connected")).toEqual({
      attempt: 41,
      symbolCount: 1,
      fromMs: NOON_MS,
      outMs: totalMs,
    });
    expect(read.events("disconnected").map(({ reason, fromMs }) => [reason, fromMs])).toEqual([
      ["refused_status", NOON_MS],
      ["unreachable", NOON_MS],
    ]);
    expect(await counted(opened.metrics.disconnectsTotal)).toBe(40);
  });

  test("because nobody listens is called unreachable", async () => {
    let url = "";
    {
      await using server = serveSockets();
      url = server.url;
    }
    using opened = openFeed(url);
    const read = readAll(opened.feed);
    expect(await read.event("disconnected")).toMatchObject({ reason: "unreachable", detail: "ECONNREFUSED" });
  });
});

describe("stopping", () => {
  test("hands over what was received, closes in good order and ends", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url);
    const connection = await server.connections.nth(1);
    connection.send(tradeFrame({ p: 1 }));
    connection.send(tradeFrame({ p: 2 }));
    while (opened.feed.health().lastTradeAtMs === null) await turns(1);
    await turns(5);
    opened.stop();
    const read = readAll(opened.feed);
    await read.ended;
    expect(pricesOf(read.items.all)).toEqual([1, 2]);
    expect(read.events("disconnected")).toEqual([{ reason: "stopped", fromMs: NOON_MS, detail: "" }]);
    expect(await connection.closed.promise).toBe(1000);
    expect(opened.feed.health()).toMatchObject({ state: "closed", subscribed: [] });
    expect(await counted(opened.metrics.tradesReceivedTotal)).toBe(2);
    opened.clock.advance(3_600_000);
    await turns(20);
    expect(server.connections.all.length).toBe(1);
  });

  test("in the middle of a tick counts and hands over what the tick brought so far", async () => {
    await using server = await serveRaw((socket, request) => {
      const frames = [tradeFrame({ p: 1 }), '{"type":"stop!"}', tradeFrame({ p: 2 })].map(textFrame);
      socket.write(Buffer.concat([Buffer.from(acceptance(request)), ...frames]));
    });
    const stopping = new AbortController();
    const warn = () => stopping.abort();
    using opened = openFeed(server.url, { signal: stopping.signal, logger: { ...silentLogger, warn } });
    const read = readAll(opened.feed);
    await read.ended;
    expect(pricesOf(read.items.all)).toEqual([1]);
    expect(await counted(opened.metrics.tradesReceivedTotal)).toBe(1);
  });

  test("wakes who waits, between two attempts and in the middle of one", async () => {
    await using refusing = await serveRaw((socket) => socket.end(refusal(524)));
    await using mute = await serveRaw(() => {});
    for (const [server, state] of [
      [refusing, "waiting"],
      [mute, "connecting"],
    ] as const) {
      using opened = openFeed(server.url);
      const read = readAll(opened.feed);
      await server.requests.nth(1);
      while (opened.feed.health().state !== state) await turns(1);
      opened.stop();
      await read.ended;
      await server.closes.nth(1);
      opened.clock.advance(3_600_000);
      await turns(20);
      expect(server.requests.all.length).toBe(1);
    }
  });

  test("before the start connects to nothing", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url, { signal: AbortSignal.abort() });
    await readAll(opened.feed).ended;
    await turns(20);
    expect(server.connections.all.length).toBe(0);
    expect(opened.feed.health().state).toBe("closed");
  });

  test("happens when the one who iterates walks away", async () => {
    await using server = serveSockets();
    using opened = openFeed(server.url);
    for await (const _ of opened.feed.batches()) break;
    const connection = await server.connections.nth(1);
    expect(await connection.closed.promise).toBe(1000);
    expect(opened.feed.health().state).toBe("closed");
  });
});

describe("the token", () => {
  test("is in no line, event, error, metric or health, whatever happens", async () => {
    await using server = await serveRaw((socket, request, nth) => {
      if (nth === 1) return void socket.end(refusal(401));
      if (nth === 2) return void socket.end(refusal(524));
      if (nth === 3) return void socket.end("HTTP/1.1 101 Switching Protocols\r\n\r\n");
      if (nth === 4) return void socket.resetAndDestroy();
      const close = Buffer.concat([Buffer.from([0x88, 2 + TOKEN.length, 0x03, 0xe8]), Buffer.from(TOKEN)]);
      socket.write(acceptance(request));
      socket.write(
        Buffer.concat([
          textFrame(`{"type":"error","msg":"bad key ${TOKEN}"}`),
          textFrame(`{"type":"${TOKEN}"}`),
          textFrame(`garbage ${TOKEN}`),
          close,
        ]),
      );
    });
    using opened = openFeed(server.url);
    const read = readAll(opened.feed);
    const seen: unknown[] = [];
    for (let nth = 1; nth <= 5; nth++) {
      const ms = await waitMs(opened.lines, nth);
      seen.push(opened.feed.health());
      opened.clock.advance(ms);
    }
    await read.event("upstream_error");
    await server.requests.nth(5);
    expect(await opened.metrics.registry.metrics()).not.toContain(TOKEN);
    const told = JSON.stringify([seen, opened.lines.all, read.items.all]);
    expect(told).toContain("bad key ***");
    expect(told).toContain("garbage ***");
    expect(told).not.toContain(TOKEN);
    expect(told).not.toContain("token=");
  });

  test.each(["https://ws.finnhub.io/?token=c0ffee", "c0ffee", ""])(
    "is not quoted when the address is none: %j",
    (url) => {
      let message = "";
      try {
        openFeed(url);
      } catch (error) {
        message = String(error);
      }
      expect(message).toContain("SetupError");
      expect(message).not.toContain("c0ffee");
    },
  );
});

test("a feed is iterated once", async () => {
  await using server = serveSockets();
  using opened = openFeed(server.url);
  const feed: Feed = opened.feed;
  readAll(feed);
  await expect(feed.batches()[Symbol.asyncIterator]().next()).rejects.toThrow("iterated once");
});
