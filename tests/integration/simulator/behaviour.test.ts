// Finnhub's habits and bad days, one by one, as a client of the simulator meets them: over real sockets on
// loopback, with a clock that moves when told to.

import { expect, test } from "bun:test";
import { DAY_MS } from "../../../lib/model/trade.ts";
import { type ChaosActions, DAILY_DROP_MS, startChaos } from "../../../lib/simulator/chaos.ts";
import { createDelayLine } from "../../../lib/simulator/delay.ts";
import { SLOW_HANDSHAKE_MS } from "../../../lib/simulator/faults.ts";
import { createMarket } from "../../../lib/simulator/market.ts";
import type { OutFrame, Stage } from "../../../lib/simulator/player.ts";
import { SCENARIO_OPTIONS, withScenario } from "../../../lib/simulator/scenarios.ts";
import { sessionAt } from "../../../lib/simulator/session.ts";
import { tradesOf } from "../../../lib/simulator/tape.ts";
import { createTimers } from "../../../lib/simulator/timers.ts";
import { NOON_MS } from "../../support/builders.ts";
import {
  Client,
  handClock,
  handshakeStatus,
  handshakeText,
  numbersOf,
  simulate,
  tapeOf,
  until,
} from "../../support/simulator.ts";

const PING_TEXT = '{"type":"ping"}';
const MINUTE_MS = 60_000;

// --- Batches

test("in 2023 trades leave once a second, at most 10 in a frame, and the overflow in further frames", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock, batching: "2023", tradesPerSecond: 300 });
  const client = await Client.open(simulator);
  client.subscribe("AAPL", "TSLA");
  await client.fence();
  clock.advance(999);
  await client.fence();
  expect(client.frames).toEqual([]);
  clock.advance(4_001);
  await client.fence();
  const frames = simulator.ledger.entries().filter(({ kind }) => kind === "trade");
  const sizes = Map.groupBy(frames, ({ atMs }) => atMs - NOON_MS);
  expect([...sizes.keys()]).toEqual([1_000, 2_000, 3_000, 4_000, 5_000]);
  for (const [atMs, ofSecond] of sizes) {
    expect(ofSecond.length).toBeGreaterThan(5);
    for (const { tradeCount } of ofSecond.slice(0, -1)) expect(tradeCount).toBe(10);
    expect(ofSecond.at(-1)?.tradeCount).toBeWithin(1, 11);
    const times = ofSecond.flatMap(({ text }) => tradesOf(text).map(({ t }) => NOON_MS + atMs - t));
    // A second's trades and the few milliseconds that a print is old.
    for (const ageMs of times) expect(ageMs).toBeWithin(0, 1_030);
  }
  expect(frames.some(({ text }) => new Set(tradesOf(text).map(({ s }) => s)).size > 1)).toBe(true);
});

test("in 2026 trades leave at once, 1 to 30 in a frame, several symbols in some", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock, tradesPerSecond: 300 });
  const client = await Client.open(simulator);
  client.subscribe("AAPL", "TSLA");
  await client.fence();
  clock.advance(20_000);
  const frames = simulator.ledger.entries().filter(({ kind }) => kind === "trade");
  expect(Math.max(...frames.map(({ tradeCount }) => tradeCount))).toBeWithin(11, 31);
  for (const { text, atMs } of frames) {
    for (const { t } of tradesOf(text)) expect(atMs - t).toBeWithin(0, 50);
  }
  expect(frames.some(({ text }) => new Set(tradesOf(text).map(({ s }) => s)).size > 1)).toBe(true);
});

// --- Hours and halts

test("New York's hours are told by its own clock, in winter and in summer, and not at weekends", () => {
  const at = (text: string) => sessionAt(Date.parse(text));
  expect(at("2026-01-05T08:59:00Z")).toBeNull();
  expect(at("2026-01-05T09:00:00Z")).toBe("pre-market");
  expect(at("2026-01-05T14:29:00Z")).toBe("pre-market");
  expect(at("2026-01-05T14:30:00Z")).toBe("regular");
  expect(at("2026-07-06T13:30:00Z")).toBe("regular");
  expect(at("2026-07-06T13:29:00Z")).toBe("pre-market");
  expect(at("2026-07-06T20:00:00Z")).toBe("post-market");
  expect(at("2026-07-07T00:00:00Z")).toBeNull();
  expect(at("2026-07-04T15:00:00Z")).toBeNull();
});

test("with session hours stocks rest when New York does and crypto does not; without them nothing rests", async () => {
  const tradesFrom = (fromMs: number, sessionHours: boolean) => {
    const market = createMarket({ seed: 7, sessionHours, tradesPerSecond: 100 });
    for (const symbol of ["AAPL", "BINANCE:BTCUSDT"]) market.start(symbol, fromMs);
    const trades = [];
    for (let atMs = fromMs; atMs < fromMs + 60_000; atMs += 1_000) {
      trades.push(...market.framesUntil(atMs).flatMap((frame) => frame.trades));
    }
    return Map.groupBy(trades, ({ s }) => s);
  };
  const night = Date.UTC(2026, 0, 5, 3);
  const preMarket = Date.UTC(2026, 0, 5, 12);
  const day = Date.UTC(2026, 0, 5, 16);
  expect(tradesFrom(night, true).get("AAPL")).toBeUndefined();
  expect(tradesFrom(night, true).get("BINANCE:BTCUSDT")?.length).toBeGreaterThan(1_000);
  expect(tradesFrom(night, false).get("AAPL")?.length).toBeGreaterThan(500);
  const early = tradesFrom(preMarket, true).get("AAPL") ?? [];
  const regular = tradesFrom(day, true).get("AAPL") ?? [];
  expect(early.length / regular.length).toBeWithin(0.03, 0.25);
  for (const { c } of early) expect(c).toContain("24");
  expect(early.some(({ c }) => c?.join() === "1,24,12")).toBe(true);
  for (const { c } of regular) expect(c).not.toContain("24");
});

test("/stock/market-status tells the session, and that the market is open when it need not keep hours", async () => {
  const clock = handClock(NOON_MS); // 07:00 in New York.
  await using keeping = await simulate({ clock, sessionHours: true });
  await using free = await simulate({ clock });
  const status = async ({ apiUrl }: { apiUrl: string }) =>
    (await fetch(`${apiUrl}/stock/market-status?exchange=US&token=any`)).json();
  expect(await status(keeping)).toMatchObject({ isOpen: false, session: "pre-market" });
  expect(await status(free)).toMatchObject({ isOpen: true, session: "regular" });
});

test("a halted symbol is quiet while the others trade, and trades again when the halt is over", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock, tradesPerSecond: 200 });
  const client = await Client.open(simulator);
  client.subscribe("AAPL", "TSLA");
  await client.fence();
  clock.advance(1_000);
  simulator.faults.halt("AAPL", MINUTE_MS);
  await client.fence();
  const before = client.trades().length;
  clock.advance(MINUTE_MS - 1);
  await client.fence();
  const during = client.trades().slice(before);
  expect(during.length).toBeGreaterThan(1_000);
  expect(new Set(during.map(({ s }) => s))).toEqual(new Set(["TSLA"]));
  clock.advance(2_000);
  await client.fence();
  expect(
    new Set(
      client
        .trades()
        .slice(before + during.length)
        .map(({ s }) => s),
    ),
  ).toContain("AAPL");
});

// --- The upgrade

test("an upgrade is refused with 200 and 524 too, on demand and by the die", async () => {
  await using simulator = await simulate();
  for (const status of [200, 524] as const) simulator.faults.refuseHandshakes(status, 1);
  const statuses = [];
  for (let count = 0; count < 3; count += 1) statuses.push(await handshakeStatus(simulator, "?token=any"));
  expect(statuses).toEqual([200, 524, 101]);
  await using unlucky = await simulate({ faults: { handshake524: 1 } });
  expect(await handshakeStatus(unlucky, "?token=any")).toBe(524);
  await using odd = await simulate({ faults: { handshake200: 1 } });
  expect(await handshakeStatus(odd, "?token=any")).toBe(200);
});

test("a slow upgrade is answered after its time, and a client that left meanwhile holds no session", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock });
  simulator.faults.slowHandshakes(65_000, 2);
  let answer = "";
  const data = (_: unknown, bytes: Buffer) => {
    answer += bytes.toString();
  };
  const knock = async () => {
    const socket = await Bun.connect({ hostname: "127.0.0.1", port: simulator.port, socket: { data } });
    socket.write(handshakeText("?token=token"));
    await until(() => clock.hasTimerIn(65_000), "the knock");
    return socket;
  };
  const patient = await knock();
  clock.advance(64_999);
  await fetch(`${simulator.apiUrl}/nowhere?token=any`);
  expect(answer).toBe("");
  clock.advance(1);
  await until(() => answer.startsWith("HTTP/1.1 101"), "the late answer");
  patient.end();
  await until(() => simulator.clients().length === 0, "the end of the patient client");
  const leaver = await knock();
  leaver.terminate();
  await fetch(`${simulator.apiUrl}/nowhere?token=any`);
  await fetch(`${simulator.apiUrl}/nowhere?token=any`);
  clock.advance(65_000);
  expect(await handshakeStatus(simulator, "?token=token")).toBe(101);
});

test("who knocked and left ends nobody's connection", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock, secondConnection: "kick-old" });
  const client = await Client.open(simulator);
  simulator.faults.slowHandshakes(SLOW_HANDSHAKE_MS, 1);
  const leaver = await Bun.connect({ hostname: "127.0.0.1", port: simulator.port, socket: { data() {} } });
  leaver.write(handshakeText("?token=token"));
  await until(() => clock.hasTimerIn(SLOW_HANDSHAKE_MS), "the knock");
  leaver.terminate();
  for (let count = 0; count < 3; count += 1) await fetch(`${simulator.apiUrl}/nowhere?token=any`);
  clock.advance(SLOW_HANDSHAKE_MS);
  await client.fence();
  expect(simulator.clients().map(({ connection }) => connection)).toEqual([1]);
});

test("a second connection on a token ends the first one, or both, as asked for", async () => {
  for (const secondConnection of ["kick-old", "kick-both"] as const) {
    await using simulator = await simulate({ secondConnection });
    const first = await Client.open(simulator);
    const second = await Client.open(simulator).catch(() => null);
    await first.closed();
    expect(first.closeCode).toBe(1006);
    const isBoth = secondConnection === "kick-both";
    if (isBoth) await until(() => simulator.clients().length === 0, "the end of both");
    else expect(second?.closeCode).toBeNull();
    expect(simulator.clients().map(({ connection }) => connection)).toEqual(isBoth ? [] : [2]);
    expect(simulator.ledger.connections().map(({ closeReason }) => closeReason)).toEqual([
      "kicked",
      isBoth ? "kicked" : null,
    ]);
    // Neither of the two holds the token any longer.
    if (isBoth) expect(await handshakeStatus(simulator, "?token=token")).toBe(101);
  }
});

// --- Silence

test("a stalled connection gets pings but no trades, and trades again when the stall is over", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock, tradesPerSecond: 100 });
  const client = await Client.open(simulator);
  client.subscribe("AAPL");
  await client.fence();
  clock.advance(1_000);
  expect(simulator.faults.stall(true, 90_000)).toBe(1);
  await client.fence();
  const before = client.frames.length;
  clock.advance(89_999);
  await client.fence();
  expect(client.frames.slice(before)).toEqual([PING_TEXT]);
  const unsent = simulator.ledger.entries().filter(({ sent }) => !sent);
  expect(unsent.length).toBeGreaterThan(100);
  expect(new Set(unsent.map(({ reason }) => reason))).toEqual(new Set(["stalled"]));
  clock.advance(2_000);
  await client.fence();
  expect(client.trades().length).toBeGreaterThan(before);
  expect(client.closeCode).toBeNull();
});

test("without pings a stalled connection gets nothing at all, and its successor everything", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock, tradesPerSecond: 100 });
  const client = await Client.open(simulator);
  client.subscribe("AAPL");
  await client.fence();
  clock.advance(1_000);
  await client.fence();
  const before = client.frames.length;
  expect(before).toBeGreaterThan(0);
  simulator.faults.stall(false);
  clock.advance(10 * MINUTE_MS);
  client.subscribe("FX:UNHEARD");
  const other = await Client.open(simulator, "other");
  other.subscribe("AAPL");
  await other.fence();
  clock.advance(1_000);
  await other.fence();
  expect(client.frames.length).toBe(before);
  expect(client.closeCode).toBeNull();
  expect(other.trades().length).toBeGreaterThan(0);
});

test("a tape at max loses nothing to a stall: it waits for the stall's end", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ tape: tapeOf(10), speed: "max", clock });
  const client = await Client.open(simulator);
  client.subscribe("A");
  await client.fence();
  simulator.faults.stall(true, 5_000);
  client.subscribe("B");
  await client.fence();
  expect(client.trades()).toEqual([]);
  clock.advance(5_000);
  await simulator.tapeEnded;
  await client.fence();
  expect(numbersOf(client).length).toBe(10);
});

test("at 08:59:03 UTC each day every connection is cut without a close frame, or goes silent", async () => {
  const clock = handClock(NOON_MS);
  const untilDropMs = DAY_MS - (NOON_MS % DAY_MS) + DAILY_DROP_MS;
  expect(new Date(NOON_MS + untilDropMs).toISOString()).toEndWith("T08:59:03.000Z");
  await using resetting = await simulate({ clock, dailyDrop: "reset" });
  await using stalling = await simulate({ clock, dailyDrop: "stall" });
  const client = await Client.open(resetting);
  const silent = await Client.open(stalling);
  clock.advance(untilDropMs - 1);
  expect(resetting.clients().length).toBe(1);
  clock.advance(1);
  await client.closed();
  expect(client.closeCode).toBe(1006);
  await silentFence(silent, stalling.port);
  const pings = silent.frames.length;
  clock.advance(10 * MINUTE_MS);
  await silentFence(silent, stalling.port);
  expect(silent.frames.length).toBe(pings);
  expect(silent.closeCode).toBeNull();
  const again = await Client.open(resetting);
  clock.advance(DAY_MS - 10 * MINUTE_MS - 1);
  expect(resetting.clients().length).toBe(1);
  clock.advance(1);
  await again.closed();
});

/** What was sent to a client that hears no answers has arrived: a few exchanges with its server later. */
async function silentFence(_client: Client, port: number): Promise<void> {
  for (let count = 0; count < 3; count += 1) await fetch(`http://127.0.0.1:${port}/nowhere`);
}

// --- Delay

test("delayed by minutes, every trade arrives late, in order, and pings do not", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock, delayMs: 3 * MINUTE_MS, tradesPerSecond: 20 });
  const client = await Client.open(simulator);
  client.subscribe("AAPL");
  await client.fence();
  clock.advance(3 * MINUTE_MS - 10);
  await client.fence();
  expect(client.trades()).toEqual([]);
  expect(client.frames).toEqual([PING_TEXT, PING_TEXT]);
  clock.advance(MINUTE_MS);
  await client.fence();
  const frames = simulator.ledger.entries().filter(({ kind }) => kind === "trade");
  expect(frames.length).toBeGreaterThan(100);
  for (const { text, atMs } of frames) {
    for (const { t } of tradesOf(text)) expect(atMs - t).toBeWithin(3 * MINUTE_MS, 3 * MINUTE_MS + 50);
  }
  simulator.faults.delay(0);
  await client.fence();
  const newest = client.trades().at(-1)?.t ?? 0;
  expect(clock.now() - newest).toBeLessThan(2_000);
  await expect(simulate({ delayMs: -1 })).rejects.toThrow("cannot delay trades by -1 ms");
});

test("frames that are held back are bounded: the oldest leave early, none is lost", () => {
  const clock = handClock(NOON_MS);
  const left: string[] = [];
  const stage: Stage = {
    clock,
    later: (durationMs, callback) => clock.after(durationMs, callback),
    deliver: ({ text }) => void left.push(text),
    audience: () => "ready",
    flush() {},
  };
  const line = createDelayLine(stage, MINUTE_MS, 3);
  const frame = (text: string): OutFrame => ({ text, symbols: [], tradeCount: 1 });
  for (const text of ["1", "2", "3", "4", "5"]) {
    line.stage.deliver(frame(text));
    clock.advance(1_000);
  }
  expect(left).toEqual(["1", "2"]);
  clock.advance(MINUTE_MS - 3_000);
  expect(left).toEqual(["1", "2", "3"]);
  clock.advance(1_000);
  expect(left).toEqual(["1", "2", "3", "4"]);
  line.set(0);
  expect(left).toEqual(["1", "2", "3", "4", "5"]);
  line.stage.deliver(frame("6"));
  expect(left.at(-1)).toBe("6");
});

// --- REST

test("/search finds nothing during an outage, or fails, while the lists still answer", async () => {
  await using simulator = await simulate({ searchOutage: "empty" });
  const search = () => fetch(`${simulator.apiUrl}/search?q=AAPL&token=any`);
  expect(await (await search()).json()).toEqual({ count: 0, result: [] });
  simulator.faults.breakSearch("error");
  const failed = await search();
  expect([failed.status, await failed.text()]).toEqual([504, "error code: 504"]);
  expect((await fetch(`${simulator.apiUrl}/stock/symbol?exchange=US&token=any`)).status).toBe(200);
  simulator.faults.breakSearch(null);
  expect(await (await search()).json()).toMatchObject({ count: 1 });
});

test("every list counts against one limit, which the headers tell with its reset in unix seconds", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock, restCallsPerMinuteMax: 7, restCallsPerSecondMax: 5 });
  const call = async (path: string) => {
    const { status, headers } = await fetch(`${simulator.apiUrl}${path}token=any`);
    return [status, ...["limit", "remaining", "reset"].map((name) => headers.get(`x-ratelimit-${name}`))];
  };
  const paths = [
    "/crypto/exchange?",
    "/crypto/symbol?exchange=binance&",
    "/forex/exchange?",
    "/forex/symbol?exchange=oanda&",
    "/stock/symbol?exchange=US&",
  ];
  const second = NOON_MS / 1_000;
  for (const [index, path] of paths.entries()) {
    expect(await call(path)).toEqual([200, "7", `${6 - index}`, `${second + 1}`]);
  }
  // The second's limit: the minute has some left.
  expect(await call("/search?q=A&")).toEqual([429, "7", "2", `${second + 1}`]);
  clock.advance(1_000);
  expect((await call("/quote?symbol=AAPL&"))[0]).toBe(200);
  // Refused for its plan, it is a call all the same.
  expect(await call("/stock/candle?")).toEqual([403, "7", "0", `${second + 60}`]);
  expect(await call("/search?q=A&")).toEqual([429, "7", "0", `${second + 60}`]);
});

// --- Scenarios and chaos

test("nothing that was due later happens once the simulator has stopped", () => {
  const clock = handClock(NOON_MS);
  const timers = createTimers(clock);
  const said: string[] = [];
  timers.later(1_000, () => void said.push("before"));
  timers.later(2_000, () => void said.push("after"));
  clock.advance(1_000);
  timers.stop();
  timers.later(0, () => void said.push("late"));
  clock.advance(2_000);
  expect(said).toEqual(["before"]);
});

test("a scenario is a set of options, and an option given beside it wins", () => {
  expect(withScenario({ seed: 3, scenario: "bad-day", batching: "2026", pace: undefined })).toMatchObject({
    ...SCENARIO_OPTIONS["bad-day"],
    seed: 3,
    batching: "2026",
  });
  expect(withScenario({ seed: 3 })).toEqual({ seed: 3 });
});

test("a calm market trades less than an ordinary one, and the bell more, ebbing away", () => {
  const perMinute = (pace: ((elapsedMs: number) => number) | undefined) => {
    const market = createMarket({ seed: 7, pace });
    for (const symbol of ["AAPL", "TSLA", "SPY"]) market.start(symbol, NOON_MS);
    return Array.from({ length: 8 }, (_, minute) => {
      let count = 0;
      for (let second = 0; second < 60; second += 1) {
        const frames = market.framesUntil(NOON_MS + (minute * 60 + second) * 1_000);
        count += frames.reduce((sum, { trades }) => sum + trades.length, 0);
      }
      return count;
    });
  };
  const sum = (counts: readonly number[]) => counts.reduce((total, count) => total + count, 0);
  const ordinary = perMinute(undefined);
  const calm = perMinute(SCENARIO_OPTIONS.calm.pace);
  const bell = perMinute(SCENARIO_OPTIONS.bell.pace);
  expect(sum(calm) / sum(ordinary)).toBeWithin(0.15, 0.4);
  expect(bell[0]! / (sum(ordinary) / 8)).toBeWithin(15, 40);
  expect(bell[0]! / bell[7]!).toBeWithin(5, 15);
});

test("disturbances come one after the other, of every kind, the same for the same seed", () => {
  const run = (seed: number) => {
    const clock = handClock(NOON_MS);
    const said: string[] = [];
    const say =
      (name: string) =>
      (...words: unknown[]) =>
        void said.push([clock.monotonic(), name, ...words].join(" "));
    const actions: ChaosActions = {
      reset: say("reset"),
      stall: say("stall"),
      halt: say("halt"),
      delay: say("delay"),
      breakSearch: say("search"),
    };
    startChaos({ clock, later: (ms, callback) => clock.after(ms, callback), actions }, seed, 45_000);
    clock.advance(3_600_000);
    return said;
  };
  const said = run(1);
  expect(said).toEqual(run(1));
  expect(said).not.toEqual(run(2));
  const kinds = new Set(
    said.map((line) =>
      line
        .split(" ")
        .slice(1, 3)
        .join(" ")
        .replace(/halt .*/, "halt"),
    ),
  );
  for (const kind of [
    "reset ",
    "reset 429",
    "reset slow",
    "stall true",
    "stall false",
    "halt",
    "delay 180000",
    "delay 0",
  ]) {
    expect(kinds).toContain(kind);
  }
  expect(kinds).toContain("search true");
  // Some eighty in an hour, those that end counted twice.
  expect(said.length).toBeWithin(60, 150);
});

test("a bad day meets its client with all of it, and never falls over", async () => {
  const clock = handClock(NOON_MS);
  await using simulator = await simulate({ clock, scenario: "bad-day", faults: { garbage: 0.2 } });
  let refusedCount = 0;
  let slowCount = 0;
  for (let visit = 0; visit < 60; visit += 1) {
    const client = await Client.attempt(simulator, `visit${visit}`, () => {
      if (!clock.hasTimerIn(SLOW_HANDSHAKE_MS)) return;
      slowCount += 1;
      clock.advance(SLOW_HANDSHAKE_MS);
    });
    if (!client.isOpen) {
      refusedCount += 1;
      continue;
    }
    client.subscribe("AAPL", "BINANCE:BTCUSDT");
    await until(() => simulator.clients().some(({ symbols }) => symbols.length === 2), "both subscriptions");
    clock.advance(MINUTE_MS);
    // Who was cut knows it after its next look at the socket.
    if (simulator.clients().length > 0) await client.leave();
    else await client.closed();
    await until(() => simulator.clients().length === 0, "the server's notice");
  }
  expect(refusedCount).toBeGreaterThan(0);
  expect(slowCount).toBeGreaterThan(0);
  expect(simulator.ledger.connections().map(({ closeReason }) => closeReason)).toContain("reset");
  const entries = simulator.ledger.entries();
  expect(entries.some(({ reason }) => reason === "stalled")).toBe(true);
  expect(entries.some(({ kind }) => kind === "garbage")).toBe(true);
  expect(entries.some(({ text, atMs }) => tradesOf(text).some(({ t }) => atMs - t > MINUTE_MS))).toBe(true);
});
