// Changing tickers as a program meets it: every answer of POST and DELETE /tickers by its status, on a real watchlist,
// and what GET /tickers and /doc then say.

import { expect, test } from "bun:test";
import { systemClock } from "../../../lib/base/clock.ts";
import { StoreUnavailableError } from "../../../lib/base/errors.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type { SymbolCheckResult } from "../../../lib/contracts/watchlist.ts";
import { healthDocument } from "../../../lib/health/health.ts";
import { openSqliteStore } from "../../../lib/sqlite/store.ts";
import { createWeb } from "../../../lib/web/app.ts";
import { createLiveView } from "../../../lib/web/live/view.ts";
import { serveWeb } from "../../../lib/web/server.ts";
import { createWatchlistCommands, type WatchlistCommands } from "../../../lib/web/watchlist-commands.ts";
import { NOON_MS, temporaryDirectory } from "../../support/builders.ts";
import { handClock } from "../../support/simulator.ts";

const TOKEN = "a-token.of~a+test/1==";
const BEARER = { authorization: `Bearer ${TOKEN}` };
const UNKNOWN: SymbolCheckResult = { kind: "unknown", reason: "Finnhub has a fault of its own (HTTP 524)" };

function openWeb(fields: { adminToken?: string | undefined; control?: WatchlistCommands } = {}) {
  const directory = temporaryDirectory();
  const store = openSqliteStore({ directory: directory.path, sync: "normal" });
  const clock = handClock(NOON_MS);
  const results: Record<string, SymbolCheckResult> = {
    APPL: { kind: "not_found", suggestions: ["AAPL", "APPN"] },
    NOPE: { kind: "not_found", suggestions: [] },
    MAYBE: UNKNOWN,
  };
  const check = { check: async (symbol: string) => results[symbol] ?? ({ kind: "found" } as const) };
  const { watchlist } = store;
  const control = createWatchlistCommands({ wanted: watchlist, check, symbolsMax: 3, clock });
  const symbols = () => watchlist.list().flatMap((one) => (one.wanted ? one.symbol : []));
  const app = createWeb({
    store,
    live: createLiveView(),
    clock,
    logger: silentLogger,
    metrics: createMetrics(),
    health: () => healthDocument(false, {}),
    tickers: () => ({
      wanted: symbols(),
      subscribed: [],
      unsubscribed: [],
      outcome: (symbol) => ({ ...(results[symbol] ?? { kind: "found" }), checkedAtMs: NOON_MS }),
    }),
    changes: { control, adminToken: TOKEN, ...fields },
    simulated: false,
  });
  async function send(method: string, path: string, body?: string, headers: Record<string, string> = BEARER) {
    const response = await app.request(path, { method, headers, ...(body === undefined ? {} : { body }) });
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      body: text === "" ? null : (JSON.parse(text) as Record<string, unknown>),
    };
  }
  return {
    app,
    clock,
    symbols,
    send,
    add: (symbol: unknown, headers?: Record<string, string>) =>
      send("POST", "/tickers", JSON.stringify({ symbol }), headers),
    remove: (symbol: string, headers?: Record<string, string>) =>
      send("DELETE", `/tickers/${encodeURIComponent(symbol)}`, undefined, headers),
    [Symbol.dispose]() {
      store[Symbol.dispose]();
      directory[Symbol.dispose]();
    },
  };
}

test("201: a ticker that Finnhub knows is wanted; 204: removed, it is not", async () => {
  using web = openWeb();
  const added = await web.add("IC MARKETS:1");
  expect(added).toMatchObject({ status: 201, body: { symbol: "IC MARKETS:1" } });
  expect(added.headers.get("location")).toBe("tickers/IC%20MARKETS%3A1");
  expect((await web.app.request(added.headers.get("location") ?? "")).status).toBe(200);
  expect(web.symbols()).toEqual(["IC MARKETS:1"]);
  expect(await web.remove("IC MARKETS:1")).toMatchObject({ status: 204, body: null });
  expect(web.symbols()).toEqual([]);
});

test("202: a ticker that could not be checked is added all the same, and the reason is given", async () => {
  using web = openWeb();
  expect(await web.add("MAYBE")).toMatchObject({
    status: 202,
    body: { symbol: "MAYBE", reason: "added, but not checked: Finnhub has a fault of its own (HTTP 524)" },
  });
  expect(web.symbols()).toEqual(["MAYBE"]);
});

test("400: a body or a symbol that cannot be meant, with a sentence for each", async () => {
  using web = openWeb();
  const bodies: readonly (readonly [string | undefined, string])[] = [
    [undefined, "the body is not JSON"],
    ["", "the body is not JSON"],
    ["symbol=AAPL", "the body is not JSON"],
    ['["AAPL"]', "the body is not a JSON object"],
    ["null", "the body is not a JSON object"],
    ["{}", "symbol is missing"],
    ['{"ticker":"AAPL"}', '"ticker" is not a field of a ticker'],
    ['{"symbol":"AAPL","force":true}', '"force" is not a field of a ticker'],
    ['{"symbol":7}', "symbol is not a string"],
    ['{"symbol":""}', "it is empty"],
    ['{"symbol":" AAPL"}', "it begins or ends with a blank"],
    ['{"symbol":"#producer"}', "it begins with #"],
    ['{"symbol":"A\\u0000"}', "it contains an invalid character"],
    [JSON.stringify({ symbol: "A".repeat(129) }), "it is longer than 128 characters"],
    [JSON.stringify({ symbol: "A".repeat(5_000) }), "the body is longer than 4096 bytes"],
  ];
  for (const [body, words] of bodies) {
    const answer = await web.send("POST", "/tickers", body);
    expect([body, answer.status]).toEqual([body, 400]);
    expect(answer.body?.error).toContain(words);
  }
  expect(web.symbols()).toEqual([]);
});

test("a body without an end is not read to its end", async () => {
  using web = openWeb();
  let pulledCount = 0;
  const body = new ReadableStream({
    pull(controller) {
      pulledCount += 1;
      controller.enqueue(new Uint8Array(1_000).fill(32));
    },
  });
  const answer = await web.app.request("/tickers", { method: "POST", headers: BEARER, body });
  expect(answer.status).toBe(400);
  expect(pulledCount).toBeLessThan(20);
});

test("401: without the token nothing is read, and no answer tells how near a guess was", async () => {
  using web = openWeb();
  const wrong = [
    "Bearer wrong",
    `Bearer ${TOKEN}x`,
    `Bearer ${TOKEN.slice(0, -1)}`,
    `Bearer ${TOKEN.toUpperCase()}`,
    `Bearer ${TOKEN} ${TOKEN}`,
    "Bearer ümlaut",
  ];
  const missing = ["", "Bearer", "Bearer ", TOKEN, `Basic ${btoa(`admin:${TOKEN}`)}`, `Token ${TOKEN}`];
  const bodies = new Set<unknown>();
  for (const authorization of [...wrong, ...missing]) {
    for (const answer of [
      await web.add("AAPL", { authorization }),
      await web.send("POST", "/tickers", "no json", { authorization }),
      await web.remove("AAPL", { authorization }),
    ]) {
      expect([authorization, answer.status]).toEqual([authorization, 401]);
      expect(answer.headers.get("www-authenticate")).toBe("Bearer");
      bodies.add(answer.body?.error);
    }
  }
  expect(bodies.size).toBe(2);
  expect((await web.add("AAPL", {})).status).toBe(401);
  expect((await web.add("AAPL", { authorization: `bearer  ${TOKEN} ` })).status).toBe(201);
});

test("403: without ADMIN_TOKEN nobody may change anything, whatever is sent", async () => {
  using web = openWeb({ adminToken: undefined });
  for (const headers of [BEARER, {}, { authorization: "Bearer undefined" }]) {
    expect((await web.add("AAPL", headers)).status).toBe(403);
    expect((await web.remove("AAPL", headers)).status).toBe(403);
  }
  expect((await web.add("AAPL")).body?.error).toContain("ADMIN_TOKEN");
  expect(web.symbols()).toEqual([]);
});

test("404: what is not on the watchlist cannot be removed", async () => {
  using web = openWeb();
  expect(await web.remove("AAPL")).toMatchObject({
    status: 404,
    body: { error: '"AAPL" is not among the tickers: /tickers lists them' },
  });
});

test("409: on the watchlist already, or the watchlist is full", async () => {
  using web = openWeb();
  for (const symbol of ["A", "B", "C"]) expect((await web.add(symbol)).status).toBe(201);
  expect(await web.add("A")).toMatchObject({
    status: 409,
    body: { error: '"A" is on the watchlist already' },
  });
  const full = await web.add("D");
  expect(full.status).toBe(409);
  expect(full.body?.error).toContain("FINNHUB_MAX_SYMBOLS is 3");
});

test("422: what Finnhub does not know is not added, and what was meant is suggested", async () => {
  using web = openWeb();
  expect(await web.add("APPL")).toMatchObject({
    status: 422,
    body: {
      error: 'Finnhub does not know "APPL": did you mean AAPL, APPN?',
      suggestions: ["AAPL", "APPN"],
    },
  });
  expect(await web.add("NOPE")).toMatchObject({
    status: 422,
    body: { error: 'Finnhub does not know "NOPE"', suggestions: [] },
  });
  expect(web.symbols()).toEqual([]);
});

test("429: over 60 changes a minute, until the minute is over; refused changes do not count", async () => {
  using web = openWeb();
  for (let made = 0; made < 100; made++) await web.add("A", { authorization: "Bearer wrong" });
  for (let made = 0; made < 30; made++) {
    expect((await web.add("A")).status).toBe(201);
    expect((await web.remove("A")).status).toBe(204);
  }
  const over = await web.add("A");
  expect(over.status).toBe(429);
  expect(over.headers.get("retry-after")).toBe("60");
  web.clock.advance(59_999);
  expect((await web.remove("A")).status).toBe(429);
  web.clock.advance(1);
  expect((await web.add("A")).status).toBe(201);
  web.clock.advance(1_000);
  expect((await web.remove("A")).status).toBe(204);
});

test("503: an entry that cannot be written right now changes nothing, and the answer says when to try again", async () => {
  const fail = () => Promise.reject(new StoreUnavailableError("a test's disk is full"));
  using web = openWeb({ control: { add: fail, remove: fail } });
  for (const answer of [await web.add("AAPL"), await web.remove("AAPL")]) {
    expect(answer.status).toBe(503);
    expect(answer.headers.get("retry-after")).toBe("2");
    expect(JSON.stringify(answer.body)).not.toContain("a test's disk");
  }
});

test("GET /tickers shows what the check found out", async () => {
  using web = openWeb();
  await web.add("AAPL");
  await web.add("MAYBE");
  const { body } = await web.send("GET", "/tickers");
  const none = { reason: null, suggestions: [], checked_timestamp: NOON_MS };
  expect(body?.items).toMatchObject([
    { symbol: "AAPL", state: "wanted", validation: { outcome: "found", ...none } },
    {
      symbol: "MAYBE",
      state: "wanted",
      validation: { outcome: "unknown", ...none, reason: "Finnhub has a fault of its own (HTTP 524)" },
    },
  ]);
});

test("/doc tells of both routes, every status and the bearer; a wrong method tells which ones there are", async () => {
  using web = openWeb();
  const { body } = await web.send("GET", "/doc");
  const { paths, components } = body as {
    paths: Record<string, Record<string, { responses: object; security: object }>>;
    components: { securitySchemes: object };
  };
  const statuses = (path: string, method: string) => Object.keys(paths[path]?.[method]?.responses ?? {});
  expect(statuses("/tickers", "post")).toEqual("201 202 400 401 403 409 422 429 503".split(" "));
  expect(statuses("/tickers/{symbol}", "delete")).toEqual("204 401 403 404 429 503".split(" "));
  expect(statuses("/tickers", "get")).toContain("200");
  expect(components.securitySchemes).toEqual({ adminToken: { type: "http", scheme: "bearer" } });
  const put = await web.send("PUT", "/tickers");
  expect(put.status).toBe(405);
  expect(put.headers.get("allow")).toBe("GET, HEAD, POST");
});

test("over a real socket a change is answered, and a client that hangs up in the middle changes nothing", async () => {
  using web = openWeb();
  await using server = serveWeb({ app: web.app, hostname: "127.0.0.1", port: 0, clock: systemClock });
  const socket = await Bun.connect({ hostname: "127.0.0.1", port: server.port, socket: { data() {} } });
  const head = ["POST /tickers HTTP/1.1", "Host: a", `Authorization: Bearer ${TOKEN}`, "Content-Length: 999"];
  socket.write(`${head.join("\r\n")}\r\n\r\n{"symbol":"AAPL"}`);
  socket.end();
  const body = JSON.stringify({ symbol: "MSFT" });
  const answer = await fetch(`${server.url}/tickers`, { method: "POST", headers: BEARER, body });
  expect(answer.status).toBe(201);
  expect(web.symbols()).toEqual(["MSFT"]);
});
