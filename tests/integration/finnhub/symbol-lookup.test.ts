// Whether a symbol exists, asked of a simulated Finnhub's REST side, or of a server that plays a fault: found, not
// found, or could not check, and never one for another.

import { expect, test } from "bun:test";
import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Clock, systemClock } from "../../../lib/base/clock.ts";
import { type Fields, silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type { SymbolCheckResult } from "../../../lib/contracts/watchlist.ts";
import { CALLS_PER_MINUTE_MAX, CALLS_PER_SECOND_MAX } from "../../../lib/finnhub/call-limit.ts";
import { suggest } from "../../../lib/finnhub/suggestions.ts";
import { createSymbolCheck } from "../../../lib/finnhub/symbol-lookup.ts";
import type { SimulatorOptions } from "../../../lib/simulator/simulator.ts";
import { NOON_MS, temporaryDirectory } from "../../support/builders.ts";
import { handClock, simulate } from "../../support/simulator.ts";

const TOKEN = "secret-token-of-a-test";
const HOUR_MS = 3_600_000;
const never = new AbortController().signal;

type Setup = Readonly<{
  apiUrl: string;
  directory: string;
  clock?: Clock;
  token?: string | undefined;
  warnings?: string[];
}>;

/** A check whose calls are counted by path and query. */
function openCheck({ apiUrl, directory, clock = systemClock, token = TOKEN, warnings = [] }: Setup) {
  const calls: string[] = [];
  const inits: RequestInit[] = [];
  const metrics = createMetrics();
  const warn = (message: string, fields?: Fields) => warnings.push(`${message} ${JSON.stringify(fields)}`);
  const symbols = createSymbolCheck({
    apiUrl,
    token,
    directory,
    clock,
    logger: { ...silentLogger, warn },
    metrics,
    fetch: (url, init) => {
      calls.push(url.slice(apiUrl.length));
      inits.push(init);
      return fetch(url, init);
    },
  });
  return {
    calls,
    inits,
    metrics,
    refresh: () => symbols.refresh(never),
    check: (symbol: string, signal = never) => symbols.check(symbol, signal),
  };
}

async function openMarket(options: SimulatorOptions = {}, clock?: Clock) {
  const simulator = await simulate({ token: TOKEN, tradesPerSecond: 1, ...options });
  const directory = temporaryDirectory();
  const warnings: string[] = [];
  const open = (token = TOKEN) =>
    openCheck({
      apiUrl: simulator.apiUrl,
      directory: directory.path,
      warnings,
      token,
      ...(clock === undefined ? {} : { clock }),
    });
  return {
    ...open(),
    /** As after a restart: nothing in memory. */
    open,
    simulator,
    directory: directory.path,
    warnings,
    async [Symbol.asyncDispose]() {
      await simulator.stop();
      directory[Symbol.dispose]();
    },
  };
}

/** A server with one answer to everything, or one by path. */
function play(answer: (url: URL, request: Request) => Response | Promise<Response>) {
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: (request) => answer(new URL(request.url), request),
  });
  const directory = temporaryDirectory();
  const apiUrl = `http://127.0.0.1:${server.port}`;
  return {
    ...openCheck({ apiUrl, directory: directory.path }),
    apiUrl,
    directory: directory.path,
    async [Symbol.asyncDispose]() {
      await server.stop(true);
      directory[Symbol.dispose]();
    },
  };
}

function suggestionsOf(result: SymbolCheckResult): readonly string[] {
  expect(result.kind).toBe("not_found");
  return result.kind === "not_found" ? result.suggestions : [];
}

function reasonOf(result: SymbolCheckResult): string {
  expect(result.kind).toBe("unknown");
  return result.kind === "unknown" ? result.reason : "";
}

// --- Found and not found ---------------------------------------------------------------------------------------

test("each kind of symbol is found where it is listed", async () => {
  await using market = await openMarket();
  for (const symbol of [
    "AAPL",
    "BRK.B",
    "BINANCE:BTCUSDT",
    "COINBASE:BTC-USD",
    "OANDA:EUR_USD",
    "IC MARKETS:1",
  ]) {
    expect([symbol, await market.check(symbol)]).toEqual([symbol, { kind: "found" }]);
  }
  expect(market.calls).toContain("/search?q=AAPL");
  expect(market.calls).toContain("/crypto/symbol?exchange=Binance");
  expect(market.calls).toContain("/forex/symbol?exchange=ic+markets");
});

test("the token goes in a header and stands in no address", async () => {
  await using market = await openMarket();
  await market.check("AAPL");
  await market.check("OANDA:EUR_USD");
  expect(market.calls.join()).not.toContain(TOKEN);
  for (const { headers, redirect } of market.inits) {
    expect(new Headers(headers).get("x-finnhub-token")).toBe(TOKEN);
    expect(redirect).toBe("manual");
  }
});

test("a near miss is not found, and what was meant is suggested first", async () => {
  await using market = await openMarket();
  const cases: readonly (readonly [string, string])[] = [
    ["APPL", "AAPL"],
    ["aapl", "AAPL"],
    ["MSTF", "MSFT"],
    ["BTCUSDT", "BINANCE:BTCUSDT"],
    ["BTC/USDT", "BINANCE:BTCUSDT"],
    ["EURUSD", "OANDA:EUR_USD"],
    ["binance:btcusdt", "BINANCE:BTCUSDT"],
    ["BINANCE:BTC-USDT", "BINANCE:BTCUSDT"],
    ["BINANCE:BTCUSTD", "BINANCE:BTCUSDT"],
    ["BINNANCE:BTCUSDT", "BINANCE:BTCUSDT"],
    ["COINBASE:BTCUSDT", "BINANCE:BTCUSDT"],
    ["IC MARKETS:EURUSD", "IC MARKETS:1"],
    ["OANDA:EURUSD", "OANDA:EUR_USD"],
    ["FX:EURUSD", "OANDA:EUR_USD"],
    ["BINANCE:AAPL", "AAPL"],
  ];
  for (const [symbol, meant] of cases) {
    expect([symbol, suggestionsOf(await market.check(symbol))[0]]).toEqual([symbol, meant]);
  }
  expect(suggestionsOf(await market.check("QWERTYUIOP"))).toEqual([]);
});

test("a plain symbol that the search does not know is found in the list of US stocks", async () => {
  await using market = await openMarket({ searchOutage: "empty" });
  expect(await market.check("AAPL")).toEqual({ kind: "found" });
  expect(market.calls).toEqual(["/search?q=AAPL", "/stock/symbol?exchange=US"]);
  expect(suggestionsOf(await market.check("APPL"))).toContain("AAPL");
});

test("a suffix is looked for in its exchange's own list", async () => {
  const listing = (symbol: string) => ({ symbol, displaySymbol: symbol });
  await using server = play(({ pathname, searchParams }) => {
    if (pathname === "/search") return Response.json({ count: 0, result: [] });
    if (searchParams.get("exchange") === "L") return Response.json([listing("VOD.L")]);
    return Response.json(searchParams.get("exchange") === "US" ? [listing("AAPL")] : []);
  });
  expect(await server.check("VOD.L")).toEqual({ kind: "found" });
  expect((await server.check("VOX.L")).kind).toBe("not_found");
});

test("an exchange whose symbols begin otherwise than its name is known, and the search may know of more", async () => {
  const symbol = "FOREX:401484347";
  await using server = play(({ pathname, searchParams }) => {
    if (pathname === "/crypto/exchange") return Response.json(["Binance"]);
    if (pathname === "/forex/exchange") return Response.json(["forex.com"]);
    if (pathname === "/forex/symbol" && searchParams.get("exchange") === "forex.com") {
      return Response.json([{ symbol, displaySymbol: "EUR/USD" }]);
    }
    return Response.json({ count: 1, result: [{ symbol: "BINANCEUS:BTCUSD" }] });
  });
  expect(await server.check(symbol)).toEqual({ kind: "found" });
  expect(await server.check("BINANCEUS:BTCUSD")).toEqual({ kind: "found" });
  expect((await server.check("BINANCEUS:ETHUSD")).kind).toBe("not_found");
});

test("suggestions are few, in order, and none for a text without letters", () => {
  const choices = ["AAPL", "AAPB", "AAPC", "AAPD", "AAPE", "AAPF", "ZZZZ"].map((one) => [one, one] as const);
  expect(suggest("AAPX", choices)).toEqual(["AAPB", "AAPC", "AAPD", "AAPE", "AAPF"]);
  expect(suggest("aapl", choices)[0]).toBe("AAPL");
  expect(suggest(":-/", choices)).toEqual([]);
  expect(suggest("AB", [["AC", "AC"]])).toEqual([]);
});

// --- Could not check -------------------------------------------------------------------------------------------

test("a wrong token, and none, prove nothing", async () => {
  await using market = await openMarket();
  const wrong = market.open("another-secret");
  expect(reasonOf(await wrong.check("AAPL"))).toBe("Finnhub refuses the token (HTTP 401)");
  expect(reasonOf(await wrong.check("BINANCE:NOPE"))).toBe("Finnhub refuses the token (HTTP 401)");
  const { apiUrl } = market.simulator;
  const none = createSymbolCheck({
    apiUrl,
    token: undefined,
    directory: market.directory,
    clock: systemClock,
    logger: silentLogger,
    metrics: createMetrics(),
  });
  expect(reasonOf(await none.check("AAPL", never))).toContain("FINNHUB_API_TOKEN");
});

test("faults of the server, odd answers and silence prove nothing, and are counted by their kind", async () => {
  const html = "<!DOCTYPE html><title>524</title>a timeout occurred";
  const cases: readonly (readonly [string, () => Response, string])[] = [
    ["HTTP 524", () => new Response(html, { status: 524 }), "server_error"],
    ["HTTP 500", () => Response.json({ error: TOKEN }, { status: 500 }), "server_error"],
    ["HTTP 503", () => new Response("", { status: 503 }), "server_error"],
    ["HTTP 302", () => Response.redirect("http://127.0.0.1:9/", 302), "refused"],
    ["HTTP 403", () => Response.json({ error: "no access" }, { status: 403 }), "refused"],
    ["is not JSON", () => new Response(html), "bad_answer"],
    ["is not JSON", () => new Response(""), "bad_answer"],
    ["unknown form|not a list|empty", () => Response.json({}), "ok"],
    ["unknown form|not a list|empty", () => Response.json(null), "ok"],
    ["unknown form|not a list|empty", () => Response.json([]), "ok"],
    ["unknown form|no symbol", () => Response.json([{ nothing: 1 }, 7, null]), "ok"],
  ];
  for (const [words, answer, outcome] of cases) {
    await using server = play(answer);
    for (const symbol of ["AAPL", "BINANCE:BTCUSDT", "NOPE:X"]) {
      const reason = reasonOf(await server.check(symbol));
      expect(reason).toMatch(new RegExp(words));
      expect(reason).not.toContain(TOKEN);
    }
    const counted = await server.metrics.finnhubCallsTotal.get();
    const outcomes = counted.values.filter(({ value }) => value > 0).map(({ labels }) => labels.outcome);
    expect([words, outcomes]).toEqual([words, [outcome]]);
    expect(readdirSync(server.directory)).toEqual([]);
  }
});

test("an outage of the search proves nothing of what the list does not show", async () => {
  await using market = await openMarket({ searchOutage: "error" });
  expect(await market.check("AAPL")).toEqual({ kind: "found" });
  expect(reasonOf(await market.check("NOPE"))).toBe("Finnhub has a fault of its own (HTTP 504)");
  market.simulator.faults.breakSearch(null);
  expect((await market.check("NOPE")).kind).toBe("not_found");
});

test("an exchange whose list is empty proves nothing", async () => {
  await using server = play(({ pathname }) =>
    Response.json(
      pathname === "/crypto/exchange" ? ["Binance"] : pathname === "/forex/exchange" ? ["oanda"] : [],
    ),
  );
  expect(reasonOf(await server.check("BINANCE:BTCUSDT"))).toContain("empty");
});

test("where every list is empty nothing is proven, although the search finds nothing in good order", async () => {
  await using server = play(({ pathname }) =>
    Response.json(pathname === "/search" ? { count: 0, result: [] } : []),
  );
  for (const symbol of ["AAPL", "VOD.L", "BINANCE:BTCUSDT", "NOPE:X"]) {
    expect(reasonOf(await server.check(symbol))).toMatch(/^Finnhub's list of .* is empty just now$/);
  }
});

test("a server that is not there proves nothing, and no address is told", async () => {
  await using server = play(() => Response.json([]));
  const gone = openCheck({ apiUrl: "http://127.0.0.1:9/api", directory: server.directory });
  const reason = reasonOf(await gone.check("AAPL"));
  expect(reason).toStartWith("Finnhub cannot be reached");
  expect(reason).not.toContain("127.0.0.1");
});

test("who asks waits no longer than he wants, and the answer that comes later is kept", async () => {
  const { promise: answered, resolve: answer } = Promise.withResolvers<Response>();
  await using server = play(({ pathname }) =>
    pathname === "/search"
      ? Response.json({ count: 0, result: [] })
      : answered.then((one) => one.clone() as Response),
  );
  const patience = new AbortController();
  const checking = server.check("AAPL", patience.signal);
  patience.abort();
  expect(reasonOf(await checking)).toBe("there was no time to ask Finnhub");
  answer(Response.json([{ symbol: "AAPL" }]));
  expect(await server.check("AAPL")).toEqual({ kind: "found" });
  expect(server.calls.filter((path) => path.startsWith("/stock/symbol"))).toHaveLength(1);
});

test("a call that is not answered ends after its time", async () => {
  const { promise: silence, resolve: end } = Promise.withResolvers<Response>();
  await using server = play(() => silence);
  const clock = handClock(NOON_MS);
  const { check, calls } = openCheck({ apiUrl: server.apiUrl, directory: server.directory, clock });
  const checking = check("AAPL");
  while (calls.length < 1) await Bun.sleep(0);
  clock.advance(20_000);
  while (calls.length < 2) await Bun.sleep(0);
  clock.advance(20_000);
  expect(reasonOf(await checking)).toBe("Finnhub did not answer within 20 s");
  end(new Response());
});

test("a body without an end is cut off", async () => {
  const chunk = new Uint8Array(4 * 1_024 * 1_024).fill(32);
  let sentBytes = 0;
  await using server = play(
    () =>
      new Response(
        new ReadableStream({
          pull(controller) {
            sentBytes += chunk.byteLength;
            controller.enqueue(chunk);
          },
        }),
      ),
  );
  expect(reasonOf(await server.check("OANDA:EUR_USD"))).toContain("is larger than");
  expect(sentBytes).toBeLessThan(512 * 1_024 * 1_024);
});

// --- Limits ----------------------------------------------------------------------------------------------------

test("no more calls than the limits allow: what is over them is not sent, and comes later", async () => {
  const clock = handClock(NOON_MS);
  await using server = play(({ searchParams }) => {
    const symbol = searchParams.get("q") ?? "";
    return Response.json({ count: 1, result: [{ symbol }] });
  });
  const { check, calls } = openCheck({ apiUrl: server.apiUrl, directory: server.directory, clock });
  const symbols = Array.from({ length: 2 * CALLS_PER_MINUTE_MAX }, (_, index) => `S${index}`);
  const checkNext = async (count: number) => {
    for (let made = 0; made < count; made++) expect((await check(symbols.shift()!)).kind).toBe("found");
  };
  await checkNext(CALLS_PER_SECOND_MAX);
  clock.advance(1_000);
  await checkNext(CALLS_PER_SECOND_MAX);
  clock.advance(1_000);
  await checkNext(CALLS_PER_MINUTE_MAX - 2 * CALLS_PER_SECOND_MAX);
  expect(reasonOf(await check("OVER"))).toBe("the limit of calls to Finnhub is reached; free again in 58 s");
  expect(calls).toHaveLength(CALLS_PER_MINUTE_MAX);
  clock.advance(58_000);
  await checkNext(CALLS_PER_SECOND_MAX);
});

test("over the limit of a second a call waits for the next one", async () => {
  await using server = play(({ searchParams }) =>
    Response.json({ count: 1, result: [{ symbol: searchParams.get("q") }] }),
  );
  const startedAtMs = performance.now();
  const asking = Array.from({ length: CALLS_PER_SECOND_MAX + 5 }, (_, index) => server.check(`S${index}`));
  for (const result of await Promise.all(asking)) expect(result.kind).toBe("found");
  expect(performance.now() - startedAtMs).toBeGreaterThan(900);
});

test("after a 429 nothing is asked until the reset that Finnhub names", async () => {
  const clock = handClock(NOON_MS);
  await using market = await openMarket({ restCallsPerMinuteMax: 2, clock }, clock);
  expect((await market.check("AAPL")).kind).toBe("found");
  expect((await market.check("MSFT")).kind).toBe("found"); // The last one: remaining is 0.
  expect(reasonOf(await market.check("TSLA"))).toContain("free again in 60 s");
  expect(market.calls).toHaveLength(2);
  clock.advance(58_000);
  expect(reasonOf(await market.check("TSLA"))).toContain("free again in 2 s");
  clock.advance(2_000);
  expect((await market.check("TSLA")).kind).toBe("found");
});

test("a 429 by surprise blocks for its retry-after, its reset, or a minute", async () => {
  const cases: readonly (readonly [Record<string, string>, number])[] = [
    [{ "retry-after": "120" }, 120],
    [{ "retry-after": new Date(NOON_MS + 40_000).toUTCString() }, 40],
    [{ "retry-after": "999999" }, 900],
    [{ "x-ratelimit-reset": `${NOON_MS / 1_000 + 7}` }, 7],
    [{ "x-ratelimit-reset": `${NOON_MS / 1_000 + 100_000}` }, 60],
    [{ "x-ratelimit-reset": "0", "x-ratelimit-remaining": "0" }, 1],
    [{}, 60],
  ];
  for (const [headers, seconds] of cases) {
    const clock = handClock(NOON_MS);
    let isLimited = true;
    await using server = play(({ searchParams }) =>
      isLimited
        ? Response.json({ error: "API limit reached." }, { status: 429, headers })
        : Response.json({ count: 1, result: [{ symbol: searchParams.get("q") }] }),
    );
    const { check, calls } = openCheck({ apiUrl: server.apiUrl, directory: server.directory, clock });
    expect((await check("OANDA:EUR_USD")).kind).toBe("unknown");
    expect(calls).toHaveLength(1);
    isLimited = false;
    clock.advance(Math.max(0, seconds * 1_000 - 1_200));
    if (seconds > 2) {
      expect(reasonOf(await check("AAPL"))).toContain("the limit of calls");
      expect(calls).toHaveLength(1);
    }
    clock.advance(1_200);
    expect([headers, (await check("AAPL")).kind]).toEqual([headers, "found"]);
  }
});

// --- The lists on disk -----------------------------------------------------------------------------------------

test("after a restart the lists on disk answer without a call", async () => {
  await using market = await openMarket({ searchOutage: "empty" });
  for (const symbol of ["AAPL", "BINANCE:BTCUSDT", "IC MARKETS:1"]) await market.check(symbol);
  const restarted = market.open();
  for (const symbol of ["AAPL", "MSFT", "BINANCE:ETHUSDT", "IC MARKETS:2"]) {
    expect([symbol, await restarted.check(symbol)]).toEqual([symbol, { kind: "found" }]);
  }
  expect((await restarted.check("BINANCE:NOPE")).kind).toBe("not_found");
  expect(restarted.calls.filter((path) => !path.startsWith("/forex/"))).toEqual([]);
  expect(readFileSync(join(market.directory, readdirSync(market.directory)[0]!), "utf8")).not.toContain(
    TOKEN,
  );
});

test("a damaged file counts as none: it is said, asked for again and replaced", async () => {
  const damages: readonly (readonly [string, (path: string) => void])[] = [
    ["cut off", (path) => truncateSync(path, 200)],
    ["emptied", (path) => truncateSync(path, 0)],
    [
      "a letter changed",
      (path) => writeFileSync(path, readFileSync(path, "utf8").replace("BTCUSDT", "BTXUSDT")),
    ],
    ["something else", (path) => writeFileSync(path, '{"fetchedAtMs":1}\n[]')],
    ["no text", (path) => writeFileSync(path, new Uint8Array([0, 255, 10, 254]))],
  ];
  for (const [name, damage] of damages) {
    await using market = await openMarket();
    await market.check("BINANCE:BTCUSDT");
    const path = join(market.directory, "crypto-symbol-binance.json");
    damage(path);
    const restarted = market.open();
    expect([name, (await restarted.check("BINANCE:BTCUSDT")).kind]).toEqual([name, "found"]);
    expect(restarted.calls).toEqual(["/crypto/symbol?exchange=Binance"]);
    expect(market.warnings.join()).toContain("is not usable");
    const again = market.open();
    expect((await again.check("BINANCE:BTCUSDT")).kind).toBe("found");
    expect(again.calls).toEqual([]);
  }
});

test("a list an hour old proves what it shows, but not what it does not show", async () => {
  const clock = handClock(NOON_MS);
  await using market = await openMarket({ clock }, clock);
  await market.check("BINANCE:BTCUSDT");
  const path = "/crypto/symbol?exchange=Binance";
  const count = () => market.calls.filter((one) => one === path).length;
  expect((await market.check("BINANCE:NOPE")).kind).toBe("not_found");
  expect(count()).toBe(1);
  clock.advance(2 * HOUR_MS);
  expect((await market.check("BINANCE:ETHUSDT")).kind).toBe("found");
  expect(count()).toBe(1);
  expect((await market.check("BINANCE:NOPE")).kind).toBe("not_found");
  expect(count()).toBe(2);
  await market.simulator.stop();
  clock.advance(2 * HOUR_MS);
  expect((await market.check("BINANCE:ETHUSDT")).kind).toBe("found");
  expect((await market.check("BINANCE:NOPE")).kind).toBe("unknown");
});

test("a list of over a week ago, or from a clock that ran ahead, proves nothing", async () => {
  for (const stepMs of [8 * 24 * HOUR_MS, -HOUR_MS]) {
    const clock = handClock(NOON_MS);
    const time = { ...clock, now: () => clock.now() + offsetMs };
    let offsetMs = 0;
    await using market = await openMarket({ clock }, time);
    await market.check("BINANCE:BTCUSDT");
    await market.simulator.stop();
    offsetMs = stepMs;
    expect([stepMs, (await market.check("BINANCE:BTCUSDT")).kind]).toEqual([stepMs, "unknown"]);
  }
});

test("the daily refresh asks for each list in use once, and an outage leaves the old ones", async () => {
  const clock = handClock(NOON_MS);
  await using market = await openMarket({ clock }, clock);
  await market.check("BINANCE:BTCUSDT");
  market.calls.length = 0;
  await market.refresh();
  expect(market.calls).toEqual([]);
  clock.advance(24 * HOUR_MS);
  await market.refresh();
  expect(market.calls.sort()).toEqual(["/crypto/exchange?", "/crypto/symbol?exchange=Binance"]);
  await market.simulator.stop();
  clock.advance(24 * HOUR_MS);
  await market.refresh();
  expect(market.warnings.join()).toContain("were not refreshed");
  expect((await market.check("BINANCE:BTCUSDT")).kind).toBe("found");
});
