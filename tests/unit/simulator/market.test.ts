// The simulated market and the tape, as values: seeds and times in, frames out.

import { expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { SetupError } from "../../../lib/base/errors.ts";
import { isImpossibleTime } from "../../../lib/model/validate.ts";
import { FaultPlanner } from "../../../lib/simulator/faults.ts";
import { frameText, type WireTrade } from "../../../lib/simulator/frames.ts";
import { LISTINGS, treatmentOf } from "../../../lib/simulator/listings.ts";
import { createMarket, type Market } from "../../../lib/simulator/market.ts";
import { parseTape, readTape, retimed, split } from "../../../lib/simulator/tape.ts";
import { NOON_MS, temporaryDirectory } from "../../support/builders.ts";

const MIXED = ["AAPL", "BINANCE:BTCUSDT", "OANDA:EUR_USD", "NVDA"];
const FIFTY = LISTINGS.slice(0, 50).map((one) => one.symbol);

function marketOf(
  symbols: readonly string[],
  options: Partial<Parameters<typeof createMarket>[0]> = {},
): Market {
  const market = createMarket({ seed: 7, ...options });
  for (const symbol of symbols) expect(market.start(symbol, NOON_MS)).toBe(true);
  return market;
}

function tradesOf(market: Market, seconds: number): WireTrade[] {
  return framesOf(market, seconds).flatMap((frame) => frame.trades);
}

/** Asked every 100 ms, as a timer would. */
function framesOf(market: Market, seconds: number) {
  return Array.from({ length: seconds * 10 }, (_, step) =>
    market.framesUntil(NOON_MS + (step + 1) * 100),
  ).flat();
}

test("the same seed, times and symbols make the same frames, however often the market is asked", () => {
  const often = framesOf(marketOf(MIXED), 30);
  const sparse = marketOf(MIXED);
  const seldom = Array.from({ length: 10 }, (_, step) =>
    sparse.framesUntil(NOON_MS + (step + 1) * 3_000),
  ).flat();
  expect(often.length).toBeGreaterThan(100);
  expect(often).toEqual(seldom);
  expect(framesOf(marketOf(MIXED, { seed: 8 }), 30)).not.toEqual(often);
});

test("every symbol of a fresh subscription prints within half a second", () => {
  const traded = new Set(tradesOf(marketOf(FIFTY), 0.5).map((trade) => trade.s));
  expect(traded.size).toBe(50);
});

test("a handful of symbols makes several trades a second, and each keeps moving", () => {
  for (const symbol of ["AAPL", "BINANCE:BTCUSDT", "ZZTOP", "HITBTC:FOOBAR"]) {
    expect(new Set(tradesOf(marketOf([symbol]), 120).map((trade) => trade.p)).size).toBeGreaterThan(5);
  }
  expect(tradesOf(marketOf(["AAPL", "BINANCE:BTCUSDT", "BINANCE:ETHUSDT"]), 60).length).toBeGreaterThan(
    60 * 5,
  );
});

test("a frame holds 1 to 30 trades, some hold several symbols, and none is dated after it is due", () => {
  const frames = framesOf(marketOf(FIFTY, { tradesPerSecond: 2_000 }), 5);
  for (const { atMs, trades } of frames) {
    expect(trades.length).toBeWithin(1, 31);
    for (const trade of trades) {
      expect(trade.t).toBeLessThan(atMs);
      expect(trade.t).toBeGreaterThan(atMs - 30);
      expect(isImpossibleTime(trade.t, atMs)).toBe(false);
    }
  }
  expect(frames.some(({ trades }) => new Set(trades.map((trade) => trade.s)).size > 1)).toBe(true);
  expect(frames.some(({ trades }) => trades.length === 30)).toBe(true);
});

test("8 to 25 % of the prints of a busy symbol are equal to another, in one millisecond", () => {
  for (const symbol of ["AAPL", "BINANCE:BTCUSDT", "SPY"]) {
    const trades = tradesOf(marketOf([symbol], { tradesPerSecond: 50 }), 120);
    const distinct = new Set(trades.map((trade) => JSON.stringify(trade))).size;
    expect(1 - distinct / trades.length).toBeWithin(0.08, 0.25);
    // And many that differ share their millisecond.
    expect(new Set(trades.map((trade) => trade.t)).size).toBeLessThan(distinct * 0.7);
  }
});

test("some trades are late, by a few milliseconds, even within their frame", () => {
  // A quiet symbol, so that no frame holds two bursts.
  const backMs = framesOf(marketOf(["AIG"]), 2_000).flatMap(({ trades }) =>
    trades.slice(1).map((trade, index) => (trades[index]?.t ?? 0) - trade.t),
  );
  expect(backMs.some((ms) => ms > 0)).toBe(true);
  expect(Math.max(...backMs)).toBeLessThan(10);
});

test("a trade's shape is its asset class's: conditions for stocks, null for crypto, no volume for forex", () => {
  const trades = tradesOf(
    marketOf(["AAPL", "BINANCE:BTCUSDT", "OANDA:EUR_USD", "OANDA:GBP_USD", "IC MARKETS:1"]),
    120,
  );
  const of = (prefix: string) => trades.filter((trade) => trade.s.startsWith(prefix));
  for (const trade of of("BINANCE:")) {
    expect(trade.c).toBeNull();
    expect(trade.v).toBeGreaterThan(0);
  }
  expect(new Set(of("AAPL").map((trade) => JSON.stringify(trade.c)))).toEqual(
    new Set(["[]", '["1"]', '["1","8"]', '["1","12"]', '["1","8","12"]']),
  );
  const forex = trades.filter((trade) => /^(OANDA|IC MARKETS):/.test(trade.s));
  for (const trade of forex) expect(trade.v).toBe(0);
  expect(forex.some((trade) => trade.c === null)).toBe(true);
  expect(forex.some((trade) => !("c" in trade))).toBe(true);
  for (const trade of trades) expect(trade.p).toBeGreaterThan(0);
});

test("a frame's keys stand in alphabetical order", () => {
  expect(frameText([{ c: ["1", "12"], p: 164.0601, s: "AAPL", t: 1680286537580, v: 5 }])).toBe(
    '{"data":[{"c":["1","12"],"p":164.0601,"s":"AAPL","t":1680286537580,"v":5}],"type":"trade"}',
  );
  const [frame] = framesOf(marketOf(MIXED), 1);
  expect(frameText(frame?.trades ?? [])).toMatch(
    /^\{"data":\[\{("c":.*?,)?"p":[^,]+,"s":"[^"]+","t":\d{13},"v":[^,]+\}/,
  );
});

test("the total rate can be asked for, up to 5,000 trades a second and more", () => {
  for (const tradesPerSecond of [20, 5_000, 10_000]) {
    const seconds = 100_000 / tradesPerSecond > 20 ? 600 : 10;
    const count = tradesOf(marketOf(FIFTY, { tradesPerSecond }), seconds).length;
    expect(count / seconds / tradesPerSecond).toBeWithin(0.9, 1.1);
  }
});

test("a speed factor multiplies the rate", () => {
  const count = (speed: number) => tradesOf(marketOf(["AAPL", "TSLA"], { speed }), 200).length;
  expect(count(10) / count(1)).toBeWithin(8.5, 11.5);
});

test("a market that ran for days is still near its base price", () => {
  const market = marketOf(["AAPL"], { tradesPerSecond: 400 });
  const prices = tradesOf(market, 1_000).map((trade) => trade.p);
  const base = market.instrument("AAPL")?.basePrice ?? 0;
  const ratios = prices.map((price) => price / base).sort((a, b) => a - b);
  expect(ratios[0]).toBeGreaterThan(0.8);
  expect(ratios.at(-1)).toBeLessThan(1.25);
});

test("a jump of the clock is skipped, not made up for, and the market goes on after it", () => {
  for (const jumpMs of [8 * 3_600_000, -8 * 3_600_000]) {
    const market = marketOf(MIXED);
    framesOf(market, 5);
    const laterMs = NOON_MS + 5_000 + jumpMs;
    expect(market.framesUntil(laterMs).length).toBeLessThan(10);
    const next = market.framesUntil(laterMs + 3_000);
    expect(next.length).toBeGreaterThan(10);
    for (const { trades } of next)
      for (const { t } of trades) expect(t).toBeWithin(laterMs - 50, laterMs + 3_000);
  }
});

test("a stopped symbol is quiet and keeps its price", () => {
  const market = marketOf(["AAPL", "TSLA"]);
  framesOf(market, 20);
  const price = market.price("AAPL");
  market.stop("AAPL");
  const trades = market.framesUntil(NOON_MS + 23_000).flatMap((frame) => frame.trades);
  expect(new Set(trades.map((trade) => trade.s))).toEqual(new Set(["TSLA"]));
  expect(market.price("AAPL")).toBe(price);
  market.start("AAPL", NOON_MS + 23_000);
  const again = market.framesUntil(NOON_MS + 24_000).flatMap((frame) => frame.trades);
  expect(again.find((trade) => trade.s === "AAPL")?.p).toBeCloseTo(price ?? 0, -0.5);
});

test("any plausible symbol trades; others are silent, and FX: is invalid", () => {
  for (const symbol of ["AAPL", "BRK.B", "VOD.L", "X"]) expect(treatmentOf(symbol)).toBe("stock");
  for (const symbol of ["BINANCE:BTCUSDT", "COINBASE:NEW-USD"]) expect(treatmentOf(symbol)).toBe("crypto");
  for (const symbol of ["OANDA:EUR_USD", "IC MARKETS:1", "FXPRO:99"])
    expect(treatmentOf(symbol)).toBe("forex");
  for (const symbol of [
    "FOREX:401484347",
    "FXCM:EUR/USD",
    "aapl",
    "NOSUCHSTOCK",
    "",
    "NYSE:IBM",
    "A".repeat(200),
  ]) {
    expect(treatmentOf(symbol)).toBe("silent");
  }
  expect(treatmentOf("FX:EURUSD")).toBe("invalid");
  const market = createMarket({ seed: 1 });
  expect(market.start("NOSUCHSTOCK", NOON_MS)).toBe(false);
  expect(market.nextAtMs()).toBeNull();
  expect(market.price("BINANCE:ETHBTC")).toBeCloseTo(0.049, 2);
  expect(market.price("OANDA:EUR_USD")).toBeCloseTo(1.085, 3);
  expect(market.price("IC MARKETS:1")).toBeCloseTo(1.085, 3);
});

const line = (at: unknown, frame: unknown) => JSON.stringify({ at, frame });
const TRADE_TEXT = '{"data":[{"c":null,"p":1.50,"s":"A","t":1000,"v":9e-05}],"type":"trade"}';

test("a tape is read as recorded, with its pings, its odd frames and its symbols", async () => {
  using directory = temporaryDirectory();
  const texts = [TRADE_TEXT, '{"type":"ping"}', "no json", '{"data":[{"s":"B","t":3}],"type":"trade"}'];
  const path = `${directory.path}/tape.ndjson.gz`;
  await Bun.write(path, gzipSync(texts.map((text, index) => line(1_000 + index, text)).join("\n")));
  const tape = await readTape(path);
  expect(tape.frames.map((frame) => frame.text)).toEqual(texts);
  expect(tape.frames.map((frame) => frame.tradeCount)).toEqual([1, 0, 0, 1]);
  expect([...tape.symbols]).toEqual(["A", "B"]);
});

test("a tape that cannot be played is refused with its line", async () => {
  const refused = (text: string) => {
    try {
      parseTape(text, "x.gz");
    } catch (error) {
      expect(error).toBeInstanceOf(SetupError);
      return String(error);
    }
    return "accepted";
  };
  expect(refused(`${line(1, TRADE_TEXT)}\n{"at":`)).toContain(
    "x.gz is malformed: line 2 is not a JSON object",
  );
  expect(refused(`\n${line("1", TRADE_TEXT)}`)).toContain('line 2 has no number "at"');
  expect(refused(line(1, { type: "ping" }))).toContain('line 1 has no text "frame"');
  expect(refused(line(1, '{"type":"ping"}'))).toContain("holds no trade");
  using directory = temporaryDirectory();
  const path = `${directory.path}/tape.gz`;
  await expect(readTape(path)).rejects.toThrow("does not exist");
  await Bun.write(path, new Uint8Array([0x1f, 0x8b, 1, 2, 3]));
  await expect(readTape(path)).rejects.toThrow("cannot be unpacked");
});

test("retiming changes the times and no other byte", () => {
  expect(retimed(TRADE_TEXT, (ms) => ms + 5)).toBe(TRADE_TEXT.replace("1000", "1005"));
});

test("a frame splits into what is wanted and what is not, losing no trade", () => {
  const text =
    '{"data":[{"p":1,"s":"A","t":1,"v":1},{"p":2,"s":"B","t":1,"v":1},{"p":3,"s":"A","t":1,"v":1}],"type":"trade"}';
  const { taken, left } = split(text, (symbol) => symbol === "A");
  expect(taken?.text).toBe(
    '{"data":[{"p":1,"s":"A","t":1,"v":1},{"p":3,"s":"A","t":1,"v":1}],"type":"trade"}',
  );
  expect(left).toEqual({ text: '{"data":[{"p":2,"s":"B","t":1,"v":1}],"type":"trade"}', tradeCount: 1 });
  expect(split(text, () => false).taken).toBeNull();
});

test("faults come at their rates, the same for the same seed, and what was asked for comes first", () => {
  const rates = { reset: 0.1, garbage: 0.2, duplicateInFrame: 0.3, duplicateLater: 0.3, holdBack: 0.3 };
  const plans = (seed: number) => {
    const planner = new FaultPlanner(rates, seed);
    return Array.from({ length: 2_000 }, () => planner.nextFrame());
  };
  const once = plans(3);
  expect(once).toEqual(plans(3));
  expect(once).not.toEqual(plans(4));
  expect(once.filter((plan) => plan.reset).length / 2_000).toBeCloseTo(0.1, 1);
  expect(new Set(once.map((plan) => plan.copies))).toEqual(new Set([1, 2, 3]));
  expect(new Set(once.map((plan) => plan.againAfterMs.length))).toEqual(new Set([0, 1, 2]));
  for (const delayMs of once.flatMap((plan) => plan.againAfterMs)) expect(delayMs).toBeWithin(18, 101);

  const planner = new FaultPlanner({ handshake429: 1 }, 1);
  planner.planFrames({ copies: 3 }, 2);
  planner.planHandshakes(401, 1);
  expect([1, 2, 3].map(() => planner.nextFrame().copies)).toEqual([3, 3, 1]);
  expect([1, 2].map(() => planner.nextHandshake())).toEqual([401, 429]);
});
