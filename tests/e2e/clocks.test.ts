// The dates of trades against the clock of the machine: a print from the future, a price that a market can have, and a
// machine whose clock is wrong. `local` as a user starts it, against a small server that plays the feed. A wrong clock needs
// faketime; without it that test is skipped and says so, and with CI=true it fails instead (.ci/run installs it).

import { expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Glob } from "bun";
import { eventually, temporaryDirectory } from "../support/builders.ts";
import { CHROMIUM, launchChromium } from "../support/page.ts";
import { LOCAL, runCommand, startService } from "../support/processes.ts";
import { readTables } from "../support/tables.ts";

/** Debian's faketime: the library alone, because its command would stand between us and the process. */
const FAKETIME = [...new Glob("*/faketime/libfaketime.so.1").scanSync("/usr/lib")].map(
  (path) => `/usr/lib/${path}`,
);
const isSkippingAllowed = process.env.CI !== "true";
const hasFaketime = FAKETIME.length > 0;
if (!hasFaketime)
  console.error(
    `tests/e2e/clocks.test.ts: a test is skipped, there is no libfaketime (apt-get install faketime)`,
  );
const hasChromium = existsSync(CHROMIUM);

const WAIT_MS_MAX = 20_000;
const TEST_MS_MAX = 120_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const PRINTS = 20;

type Wire = Readonly<{ s: string; p: number; t: number; v: number }>;

/** A feed that says what a test says to whoever has subscribed. */
function playFeed() {
  const sockets = new Set<Bun.ServerWebSocket<unknown>>();
  const subscribed = new Set<Bun.ServerWebSocket<unknown>>();
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request, own) => (own.upgrade(request) ? undefined : new Response(null, { status: 400 })),
    websocket: {
      open: (socket) => void sockets.add(socket),
      close(socket) {
        sockets.delete(socket);
        subscribed.delete(socket);
      },
      message: (socket) => void subscribed.add(socket),
    },
  });
  const say = (text: string) => {
    for (const socket of sockets) socket.send(text);
  };
  return {
    url: `ws://127.0.0.1:${server.port}/`,
    say,
    trade: (...trades: readonly Wire[]) =>
      say(JSON.stringify({ data: trades.map((trade) => ({ c: null, ...trade })), type: "trade" })),
    isSubscribed: () => eventually(WAIT_MS_MAX, "subscribed", () => subscribed.size > 0),
    [Symbol.dispose]: () => void server.stop(true),
  };
}

const settingsOf = (directory: string, url: string, ...symbols: readonly string[]) => ({
  DATA_DIR: directory,
  LOG_LEVEL: "warn",
  FINNHUB_API_TOKEN: "a-token-of-the-tests",
  FINNHUB_WS_URL: url,
  FINNHUB_STOCKS_TICKERS: JSON.stringify(symbols),
  FINNHUB_VALIDATE_TICKERS: "0",
});

type Ticker = Readonly<{ last_price: number | null; last_trade_timestamp: number; age_ms: number }>;
async function tickerOf(url: string, symbol: string): Promise<Ticker> {
  return (await (await fetch(`${url}/tickers/${encodeURIComponent(symbol)}`)).json()) as Ticker;
}

const EUR = "OANDA:EUR_USD";

for (const [name, aheadMs] of [
  ["4 h", 4 * HOUR_MS],
  ["30 s", 30_000],
  ["2 s", 2_000],
  ["26 h", 26 * HOUR_MS],
] as const) {
  test(
    `the last price goes on with the market after a print that is dated ${name} ahead, also after a restart`,
    async () => {
      using directory = temporaryDirectory();
      using feed = playFeed();
      const settings = settingsOf(directory.path, feed.url, EUR);
      {
        await using local = await startService(LOCAL, settings);
        await feed.isSubscribed();
        feed.trade({ s: EUR, p: 1.05, t: Date.now() + aheadMs, v: 0 });
        await eventually(WAIT_MS_MAX, "the print stored or put aside", () => {
          const { trades, deadCount } = readTables(directory.path);
          return trades.length + deadCount === 1;
        });
        for (const price of [1.0824, 1.0825]) {
          await Bun.sleep(60);
          feed.trade({ s: EUR, p: price, t: Date.now() - 50, v: 0 });
          await eventually(WAIT_MS_MAX, `${price} shown`, async () => {
            return (await tickerOf(local.url, EUR)).last_price === price;
          });
        }
        // Its age grows, and health has the same.
        await eventually(WAIT_MS_MAX, "an age", async () => (await tickerOf(local.url, EUR)).age_ms > 200);
        await local.stop();
      }
      await using again = await startService(LOCAL, settings);
      const { last_price, age_ms } = await tickerOf(again.url, EUR);
      console.log(`last price after a print ${name} ahead and a restart: ${last_price}, age ${age_ms} ms`);
      expect(last_price).toBe(1.0825);
      expect(age_ms).toBeGreaterThan(200);
      const { trades, deadCount } = readTables(directory.path);
      expect([trades.length, deadCount]).toEqual(aheadMs > DAY_MS ? [2, 1] : [3, 0]);
    },
    TEST_MS_MAX,
  );
}

test(
  "prices of zero and below are stored and in the low; messages that share a frame are taken once each",
  async () => {
    using directory = temporaryDirectory();
    using feed = playFeed();
    const oil = "OANDA:WTICO_USD";
    await using local = await startService(LOCAL, settingsOf(directory.path, feed.url, oil, "AAPL"));
    await feed.isSubscribed();
    // In the middle of a minute, so that all of it is one candle.
    const atMs = Date.now() - (Date.now() % 60_000) - 30_000;
    feed.trade(...[10.01, -37.63, 0].map((p, index) => ({ s: oil, p, t: atMs + index, v: 0 })));
    const message = (v: number) =>
      JSON.stringify({ data: [{ c: null, p: 100.5, s: "AAPL", t: atMs, v }], type: "trade" });
    feed.say(`${message(20)}\n${message(21)}\n`);
    feed.say(message(22) + message(23));
    feed.say(`${message(24).slice(0, 40)}\n${message(25)}`);
    await eventually(WAIT_MS_MAX, "all stored", () => {
      const { trades, deadCount } = readTables(directory.path);
      return trades.length === 8 && deadCount === 1;
    });
    const { trades } = readTables(directory.path);
    const volumes = trades.filter(({ symbol }) => symbol === "AAPL").map(({ volume }) => volume);
    expect(volumes.sort()).toEqual([20, 21, 22, 23, 25]);
    expect(trades.filter(({ symbol }) => symbol === oil).map(({ price }) => price)).toEqual([
      10.01, -37.63, 0,
    ]);
    await eventually(WAIT_MS_MAX, "the candle", () => readTables(directory.path).candles.length === 2);
    const candle = readTables(directory.path).candles.find(({ symbol }) => symbol === oil)!;
    console.log(`low ${candle.low}, close ${candle.close}; volumes ${volumes.join(", ")}`);
    expect(candle).toMatchObject({ open: 10.01, high: 10.01, low: -37.63, close: 0, trade_count: 3 });
    expect((await tickerOf(local.url, oil)).last_price).toBe(0);
  },
  TEST_MS_MAX,
);

test.skipIf(!hasFaketime && isSkippingAllowed)(
  "with a clock 14 days slow health fails and says so, and once it is set every trade comes in",
  async () => {
    using directory = temporaryDirectory();
    using feed = playFeed();
    // Shorter than the clock is slow: what was put aside must not be taken for old.
    const settings = { ...settingsOf(directory.path, feed.url, "AAPL"), RETENTION_DAYS: "7" };
    {
      await using local = await startService(LOCAL, {
        ...settings,
        LD_PRELOAD: FAKETIME[0]!,
        FAKETIME: "-14d",
      });
      await feed.isSubscribed();
      for (let number = 1; number <= PRINTS; number++)
        feed.trade({ s: "AAPL", p: 100 + number, t: Date.now(), v: 1 });
      await eventually(WAIT_MS_MAX, "all put aside", () => readTables(directory.path).deadCount === PRINTS);
      const { code, status, parts } = await local.health();
      const { reason } = parts.clock as unknown as { reason: string };
      console.log(reason);
      expect([code, status]).toEqual([503, "failing"]);
      expect(reason).toMatch(
        /^this machine's clock is about 14 days behind the market's.*timedatectl, chrony.*replay --dead/,
      );
      await local.stop();
    }
    const json = async (...args: readonly string[]) => {
      const { code, out, err } = await runCommand(LOCAL, args, settings);
      expect([code, err]).toEqual([0, ""]);
      return JSON.parse(out.trimEnd().split("\n").at(-1)!) as Record<string, unknown>;
    };
    {
      // A run in between, with the right clock: nothing of it is dropped as too old.
      await using local = await startService(LOCAL, settings);
      await local.stop();
    }
    for (const _ of ["once", "and again, which changes nothing"]) {
      const redriven = await json("replay", "--dead", "--json");
      console.log(`replay --dead took ${String(redriven.trades)} of ${PRINTS}`);
      expect(redriven).toMatchObject({ letters: PRINTS, taken: PRINTS, trades: PRINTS, expired: 0 });
      const { trades, candles, deadCount } = readTables(directory.path);
      expect(trades.map(({ price }) => price).sort()).toEqual(
        Array.from({ length: PRINTS }, (_, index) => 101 + index),
      );
      expect(candles.reduce((sum, { trade_count }) => sum + trade_count, 0)).toBe(PRINTS);
      expect(deadCount).toBe(PRINTS);
    }
    expect(await json("verify", "--json")).toMatchObject({ differences: 0 });
  },
  TEST_MS_MAX,
);

test.skipIf(!hasFaketime && isSkippingAllowed)(
  "a clock that is set back by three hours while local runs stops nothing, and health tells of it",
  async () => {
    using directory = temporaryDirectory();
    using feed = playFeed();
    const file = join(directory.path, "faketime");
    writeFileSync(file, "+3h");
    await using local = await startService(LOCAL, {
      ...settingsOf(directory.path, feed.url, "AAPL"),
      LD_PRELOAD: FAKETIME[0]!,
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_CACHE_DURATION: "1",
      // As a machine's clock is set: the monotonic one goes on.
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
    });
    await feed.isSubscribed();
    const warning = async () => {
      const { code, parts } = await local.health();
      return [code, (parts.clock as unknown as { warning: string | null }).warning ?? ""] as const;
    };
    for (let number = 1; number <= 6; number++) feed.trade({ s: "AAPL", p: number, t: Date.now(), v: 1 });
    await eventually(WAIT_MS_MAX, "the first averages", () => readTables(directory.path).averages.length > 0);
    expect(await warning()).toEqual([
      200,
      expect.stringContaining("before its receipt: is this machine's clock ahead"),
    ]);
    writeFileSync(file, "+0");
    await eventually(WAIT_MS_MAX, "the step told", async () =>
      (await warning())[1].includes("was set back by"),
    );
    const setAtMs = Date.now();
    const countOf = () =>
      readTables(directory.path).candles.reduce((sum, { trade_count }) => sum + trade_count, 0);
    feed.trade({ s: "AAPL", p: 7, t: Date.now(), v: 1 });
    await eventually(WAIT_MS_MAX, "aggregates go on", () => countOf() === 7);
    console.log(`set back by 3 h: ${(await warning())[1]}; aggregates ${Date.now() - setAtMs} ms later`);
    expect((await warning())[0]).toBe(200);
    expect((await tickerOf(local.url, "AAPL")).last_price).toBe(7);
  },
  TEST_MS_MAX,
);

test.skipIf(!hasFaketime && isSkippingAllowed)(
  "a clock that is 40 days ahead drops nothing when the hourly retention runs",
  async () => {
    using directory = temporaryDirectory();
    using feed = playFeed();
    const settings = settingsOf(directory.path, feed.url, "AAPL");
    {
      await using local = await startService(LOCAL, settings);
      await feed.isSubscribed();
      feed.trade({ s: "AAPL", p: 1, t: Date.now() - 2 * HOUR_MS, v: 1 });
      await eventually(WAIT_MS_MAX, "stored", () => readTables(directory.path).trades.length === 1);
      await local.stop();
    }
    // Retention runs seven minutes after each full hour: there it is half a minute before.
    const aheadMs = 40 * DAY_MS + ((6.5 * 60_000 - (Date.now() % HOUR_MS) + HOUR_MS) % HOUR_MS);
    const faked = { LD_PRELOAD: FAKETIME[0]!, FAKETIME: `+${Math.round(aheadMs / 1_000)}` };
    await using local = await startService(LOCAL, { ...settings, ...faked });
    await feed.isSubscribed();
    const isBefore = (Date.now() + aheadMs) % HOUR_MS < 7 * 60_000;
    feed.trade({ s: "AAPL", p: 2, t: Date.now(), v: 1 });
    await eventually(
      60_000,
      "retention has run",
      () => (Date.now() + aheadMs) % HOUR_MS > 7 * 60_000 + 4_000,
    );
    const { trades, candles } = readTables(directory.path);
    console.log(
      `40 days ahead, retention ran (${isBefore}): ${trades.length} trades, ${candles.length} candles`,
    );
    expect([isBefore, trades.map(({ price }) => price), candles.length]).toEqual([true, [1, 2], 2]);
    expect((await local.health()).code).toBe(200);
  },
  TEST_MS_MAX,
);

test.skipIf(!hasChromium && isSkippingAllowed)(
  "the page goes on after a print from the future, and shows a price of 3.7e-10 that moves",
  async () => {
    using directory = temporaryDirectory();
    using feed = playFeed();
    await using local = await startService(LOCAL, settingsOf(directory.path, feed.url, EUR, "KISHU"));
    await feed.isSubscribed();
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      const faults: string[] = [];
      page.on("pageerror", (error) => faults.push(String(error)));
      feed.trade({ s: EUR, p: 1.05, t: Date.now() + 4 * HOUR_MS, v: 0 });
      // And one that is dated to the end of this minute, so that it is in the open candle.
      const intoMinute = () => Date.now() % 60_000;
      await eventually(60_000, "the first half of a minute", () => intoMinute() < 20_000);
      feed.trade({ s: EUR, p: 1.06, t: Date.now() - intoMinute() + 59_000, v: 0 });
      feed.trade({ s: "KISHU", p: 3.7e-10, t: Date.now(), v: 1e16 });
      await page.goto(`${local.url}/#${encodeURIComponent(EUR)}`);
      const shownIn = (id: string) => page.locator(id).getAttribute("data-value");
      const cell = (symbol: string) => page.locator(`[data-symbol="${symbol}"] .last`);
      await eventually(
        WAIT_MS_MAX,
        "the table",
        async () => (await cell("KISHU").textContent()) === "0.00000000037",
      );
      for (let price = 10_824; price <= 10_832; price++) {
        feed.trade({ s: EUR, p: price / 10_000, t: Date.now() - 50, v: 0 });
        await Bun.sleep(1_000);
      }
      feed.trade({ s: "KISHU", p: 0.00000000038, t: Date.now(), v: 1e16 });
      await eventually(
        WAIT_MS_MAX,
        "the last price",
        async () => (await shownIn("#chosen-price")) === "1.0832",
      );
      await eventually(
        WAIT_MS_MAX,
        "the chart's close",
        async () => (await shownIn("#read-close")) === "1.0832",
      );
      const startMs = Number(await page.locator("#read-close").getAttribute("data-start"));
      console.log(
        `page: last 1.0832, candle of ${new Date(startMs).toISOString()}, now ${new Date().toISOString()}`,
      );
      expect(startMs).toBeLessThanOrEqual(Date.now());
      expect(Date.now() - startMs).toBeLessThan(70_000);
      await eventually(
        WAIT_MS_MAX,
        "it moves",
        async () => (await cell("KISHU").textContent()) === "0.00000000038",
      );
      await cell("KISHU").click();
      await eventually(
        WAIT_MS_MAX,
        "the headline",
        async () => (await page.locator("#chosen-price").textContent()) === "0.00000000038",
      );
      await eventually(WAIT_MS_MAX, "its candle", async () => (await shownIn("#read-close")) === "3.8e-10");
      expect(faults).toEqual([]);
    } finally {
      await browser.close();
    }
  },
  TEST_MS_MAX,
);
