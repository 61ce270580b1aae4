// The public names, frozen: what an operator, a query, a dashboard or another program may rely on. Each list is taken
// from the thing itself (a whole `local` on a feed of ours, the tables it made, /doc, --help, the text files) and must
// be that of tests/public-names.json, name by name. It needs no server. What only a real Kafka or Cassandra
// shows is not here: what admin's /health calls its parts, the records of wanted tickers, the labels of the metrics of
// Cassandra's store.

import { Database } from "bun:sqlite";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createStop } from "../lib/app/lifecycle.ts";
import { openLocalApp } from "../lib/app/local.ts";
import { systemClock } from "../lib/base/clock.ts";
import { ConfigError, readConfig } from "../lib/base/config.ts";
import {
  LogFullError,
  LogUnavailableError,
  RowRefusedError,
  StoreUnavailableError,
} from "../lib/base/errors.ts";
import { silentLogger } from "../lib/base/logger.ts";
import { createMetrics, type Metrics } from "../lib/base/metrics.ts";
import type { FeedEventType, FeedItem } from "../lib/contracts/feed.ts";
import { encodeLeaseRecord, LEASE_KEY, parseLeaseRecord } from "../lib/contracts/lease.ts";
import type { Delivery, LogReader, LogRecord, SendOutcome } from "../lib/contracts/log.ts";
import { type Frame, parseFrame } from "../lib/finnhub/frame.ts";
import type { DisconnectReason } from "../lib/finnhub/reconnect.ts";
import { createRestClient } from "../lib/finnhub/rest-client.ts";
import {
  brokerPart,
  consumerHealth,
  producerHealth,
  remotePart,
  startingHealth,
  storePart,
  tailPart,
} from "../lib/health/pipeline.ts";
import { createIngest } from "../lib/ingest/ingest.ts";
import { topicNames } from "../lib/kafka/topics.ts";
import { decodeMessage, encodeDeadLetter, encodeEvent, encodeMessage } from "../lib/model/codec.ts";
import type { DeadReason } from "../lib/model/dead-letter.ts";
import { dayOf } from "../lib/model/trade.ts";
import { badTrade } from "../lib/model/validate.ts";
import { openSqliteLog } from "../lib/outbox/log.ts";
import { createProcessor } from "../lib/processing/processor.ts";
import { openSqliteStore } from "../lib/sqlite/store.ts";
import { createHealthApp } from "../lib/web/health-app.ts";
import packageFile from "../package.json" with { type: "json" };
import frozenFile from "./public-names.json" with { type: "json" };
import { eventually, NOON_MS, trade, within } from "./support/builders.ts";

const ROOT = join(import.meta.dir, "..");
const START_MS_MAX = 120_000;
const STEP_MS_MAX = 40_000;
const FROZEN_IN = "tests/public-names.json";
const TOKEN = "a-token-of-a-test";
const REMEDY = `public names do not change; a new one is added to ${FROZEN_IN} and CHANGELOG.md`;

type Fields = Readonly<Record<string, unknown>>;
type Event = Readonly<{ type: string; detail: string }>;

// --- The comparison --------------------------------------------------------------------------------------------

const frozen: Readonly<Record<string, readonly string[]>> = frozenFile;
const compared = new Set<string>();

function sorted(names: Iterable<string>): string[] {
  return [...new Set(names)].sort();
}

/** What differs, a sentence a name; none: the two lists are the same. */
function changes(section: string, were: readonly string[], are: readonly string[]): string[] {
  return [
    ...were.filter((name) => !are.includes(name)).map((name) => `${section}: "${name}" is gone. ${REMEDY}`),
    ...are.filter((name) => !were.includes(name)).map((name) => `${section}: "${name}" is new. ${REMEDY}`),
  ];
}

function expectFrozen(section: string, names: Iterable<string>): void {
  compared.add(section);
  expect(changes(section, frozen[section] ?? [], sorted(names))).toEqual([]);
}

/** `a`, `a.b`, `a[]`, `a[].b`: the name of every field, at any depth. Keys that are data stand as `<key>`. */
function pathsOf(value: unknown, data: readonly string[] = [], prefix = ""): string[] {
  if (Array.isArray(value)) return value.flatMap((one) => pathsOf(one, data, `${prefix}[]`));
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const name = data.includes(key) ? "<key>" : key;
    const path = prefix === "" ? name : `${prefix}.${name}`;
    return [path, ...pathsOf(inner, data, path)];
  });
}

const at = (prefix: string, names: Iterable<string>) => [...names].map((name) => `${prefix} ${name}`);
const keysOf = <Key extends string>(keys: Readonly<Record<Key, true>>) => Object.keys(keys);
const readText = (path: string) => readFileSync(join(ROOT, path), "utf8");
const jsonOf = (bytes: Uint8Array): Fields => JSON.parse(Buffer.from(bytes).toString()) as Fields;

// --- Words that are closed lists: the compiler holds each against its type ----------------------------------------

const deadReasons = keysOf<DeadReason>({
  bad_conditions: true,
  bad_frame: true,
  bad_identity: true,
  bad_price: true,
  bad_symbol: true,
  bad_time: true,
  bad_volume: true,
  frame_too_long: true,
  garbage_frame: true,
  impossible_time: true,
  no_session: true,
  not_a_trade: true,
  refused_by_store: true,
  several_symbols: true,
  undecodable: true,
  unknown_frame: true,
});
const eventTypes = keysOf<FeedEventType>({
  connected: true,
  disconnected: true,
  log_damaged: true,
  log_gap: true,
  session_ended: true,
  session_started: true,
  ticker_accepted: true,
  ticker_rejected: true,
  tickers_over_cap: true,
  trades_in_doubt: true,
  trades_refused: true,
  upstream_error: true,
});
const disconnectReasons = keysOf<DisconnectReason>({
  closed: true,
  connect_timeout: true,
  refused_401: true,
  refused_429: true,
  refused_status: true,
  silent: true,
  stopped: true,
  unreachable: true,
});
const frameTypes = keysOf<Frame["type"] | "binary">({
  binary: true,
  error: true,
  news: true,
  other: true,
  ping: true,
  pr: true,
  refused: true,
  trade: true,
});
const sendFaults = keysOf<Exclude<SendOutcome["kind"], "acknowledged" | "refused">>({
  too_large: true,
  unavailable: true,
});

// --- A whole `local`, on a Finnhub that says what a test wants ---------------------------------------------------

/** Time of `local`: it begins at a noon that is over, and can be put forward. */
const DAY_MS = 86_400_000;
const startNoonMs = Math.floor(Date.now() / DAY_MS) * DAY_MS - DAY_MS / 2;
const startMs = performance.now();
let forwardMs = 0;
const nowMs = () => Math.floor(startNoonMs + performance.now() - startMs + forwardMs);
/** After so long the live view looks for the open of a day anew. */
const OPEN_ANEW_MS = 61_000;

/** Refused elements of a trade frame, one of each kind, beside good ones: of now, and of a window that is over. */
const element = (fields: Fields = {}) => ({ s: "AAPL", p: 100, v: 1, t: nowMs(), c: ["1"], ...fields });
const OVER_MS = 60_000;
const BAD_ELEMENTS = [
  7,
  element({ s: "" }),
  element({ p: 0 }),
  element({ v: -1 }),
  element({ t: 0.5 }),
  element({ t: 1 }),
  element({ c: "1" }),
];
/** More than the bad ones: a feed of which half is refused fails /health. */
const GOOD_COUNT = 10;
const tradeFrame = () => {
  const good = Array.from({ length: GOOD_COUNT }, () => element());
  return JSON.stringify({
    type: "trade",
    data: [element({ t: nowMs() - OVER_MS }), ...good, ...BAD_ELEMENTS],
  });
};

/** It sends trades when it is told to. */
function startFinnhub() {
  const lists: Readonly<Record<string, unknown>> = {
    "/stock/symbol": [{ symbol: "AAPL", displaySymbol: "AAPL", description: "APPLE INC" }],
    "/search": { count: 0, result: [] },
  };
  let isRefused = false;
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request, own) {
      if (own.upgrade(request)) return undefined;
      const { pathname } = new URL(request.url);
      return Response.json(lists[pathname] ?? []);
    },
    websocket: {
      message(socket, text) {
        const { type, symbol } = JSON.parse(String(text)) as Fields;
        if (type !== "subscribe") return;
        socket.subscribe("trades");
        const msg = symbol === "AAPL" ? "an error of a test" : "Subscribing to too many symbols";
        socket.send(JSON.stringify({ type: "error", msg }));
      },
    },
  });
  return {
    address: `127.0.0.1:${server.port}`,
    trade() {
      // AAPL is refused once, and trades all the same.
      if (!isRefused) server.publish("trades", JSON.stringify({ type: "error", msg: "Invalid symbol AAPL" }));
      isRefused = true;
      server.publish("trades", tradeFrame());
    },
    stop: () => server.stop(true),
  };
}

type Web = Awaited<ReturnType<typeof openLocalApp>>["web"];

/** Requests that show each kind of answer, and what they answered: status, our headers, the fields of a JSON body. */
async function answersOf(web: Web): Promise<string[]> {
  const authorization = `Bearer ${TOKEN}`;
  const add = (body: string, headers: Record<string, string> = {}) => ({ method: "POST", body, headers });
  const requests: [string, RequestInit?][] = [
    ["/"],
    ["/page.js"],
    ["/worker.js"],
    ["/page.css"],
    ["/page.css", { headers: { "accept-encoding": "gzip" } }],
    ["/page.css", { headers: { "if-none-match": (await web.request("/page.css")).headers.get("etag")! } }],
    ["/events", { method: "HEAD" }],
    ["/trades?symbol=AAPL&limit=1"],
    ["/trades"],
    ["/averages?symbol=AAPL"],
    ["/candles?symbol=AAPL"],
    ["/feed-events?limit=1"],
    ["/tickers"],
    ["/tickers/AAPL"],
    ["/tickers/ELSEWHERE"],
    ["/tickers", { method: "PUT" }],
    ["/tickers", add("{}")],
    ["/tickers", add("{}", { authorization })],
    ["/tickers", add('{"symbol":"AAPL"}', { authorization })],
    ["/tickers", add('{"symbol":"AAPLE"}', { authorization })],
    ["/tickers/ELSEWHERE", { method: "DELETE", headers: { authorization } }],
    ["/health"],
    ["/metrics"],
    ["/nowhere"],
  ];
  const lines: string[] = [];
  const headersOf: { what: string; names: string[] }[] = [];
  for (const [path, init] of requests) {
    const response = await web.request(path, init);
    const { status, headers } = response;
    const text = await response.text();
    const what = `${init?.method ?? "GET"} ${path.split("?")[0]} ${status}`;
    const values = ["cache-control", "x-data-source"].map((name) => `${name}: ${headers.get(name)}`);
    const names = [...headers.keys()].filter((name) => name !== "cache-control" && name !== "x-data-source");
    headersOf.push({ what, names: [...names, ...values] });
    const isJson = headers.get("content-type")?.startsWith("application/json") && path !== "/health";
    const fields = isJson ? pathsOf(JSON.parse(text)) : [];
    lines.push(what, ...at(what, at("field", fields)));
  }
  const common = headersOf
    .map(({ names }) => names)
    .reduce((all, names) => all.filter((one) => names.includes(one)));
  lines.push(...at("every answer", at("header", common)));
  for (const { what, names } of headersOf)
    lines.push(
      ...at(
        what,
        at(
          "header",
          names.filter((name) => !common.includes(name)),
        ),
      ),
    );
  return lines;
}

/** Event types and the fields of their data, until every one of `until` was met. */
async function streamOf(web: Web, until: readonly string[], onEvent: () => void): Promise<string[]> {
  const stop = new AbortController();
  const reader = (await web.request("/events?symbol=AAPL", { signal: stop.signal })).body!.getReader();
  const found = new Set<string>();
  const decoder = new TextDecoder();
  const endMs = performance.now() + STEP_MS_MAX;
  let text = "";
  while (!until.every((name) => found.has(name)) && performance.now() < endMs) {
    const { value, done } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
    const events = text.split("\n\n");
    text = events.pop()!;
    for (const event of events) {
      onEvent();
      const fields = event.split("\n").map((line) => line.split(/: (.*)/s));
      const name = fields.find(([key]) => key === "event")?.[1];
      for (const [key, data] of fields) {
        found.add(name === undefined ? `(field) ${key}` : `(field of ${name}) ${key}`);
        if (key !== "data") continue;
        for (const path of pathsOf(JSON.parse(data!)))
          found.add(path.startsWith("status.") ? path : `${name} ${path}`);
      }
    }
  }
  await reader.cancel();
  return [...found];
}

const home = mkdtempSync(join(tmpdir(), "pipeline-"));
const placeOf = (name: string) => join(home, name);

type Local = Readonly<{
  doc: Fields;
  routes: readonly string[];
  answers: readonly string[];
  stream: readonly string[];
  health: unknown;
  metricsText: string;
  metrics: Metrics;
  events: readonly Event[];
  files: readonly string[];
}>;

async function runLocal(): Promise<Local> {
  const finnhub = startFinnhub();
  const { address } = finnhub;
  const config = readConfig({
    ADMIN_TOKEN: TOKEN,
    DATA_DIR: placeOf("local"),
    FINNHUB_API_TOKEN: "token-of-a-test",
    FINNHUB_API_URL: `http://${address}`,
    FINNHUB_MAX_SYMBOLS: "10",
    FINNHUB_STOCKS_TICKERS: '["AAPL","NOSUCH","TOOMANY"]',
    FINNHUB_WS_URL: `ws://${address}`,
  });
  const metrics = createMetrics();
  const stop = new AbortController();
  const context = {
    config,
    metrics,
    clock: { ...systemClock, now: nowMs },
    logger: silentLogger,
    signal: stop.signal,
  };
  const parts = await openLocalApp(context, { waitFor: (_what, work) => work(() => {}) });
  const { web, jobs } = parts;
  const trigger = async () => jobs.find(({ name }) => name === "aggregates")?.run();
  const running = parts.run(stop.signal);
  const eventsNow = async () => {
    const { items } = (await (await web.request("/feed-events?limit=1000")).json()) as {
      items: Event[];
    };
    return items;
  };
  try {
    // Before the stream: a list that changes under it is told as another snapshot, not as a delta.
    await eventually(STEP_MS_MAX, "the tickers are settled", async () => {
      const types = (await eventsNow()).map(({ type }) => type);
      return ["ticker_rejected", "tickers_over_cap", "upstream_error"].every((type) => types.includes(type));
    });
    const wanted = ["snapshot symbols[].symbol", "delta last", "delta opens", "delta seconds"];
    const inStatus = ["status.latency.tradeCount", "status.health.warnings"];
    const [stream] = await Promise.all([
      streamOf(web, [...wanted, ...inStatus], finnhub.trade),
      eventually(STEP_MS_MAX, "a candle is stored", async () => {
        await trigger();
        const { items } = (await (await web.request("/candles?symbol=AAPL")).json()) as { items: unknown[] };
        return items.length > 0;
      }).then(() => {
        forwardMs += OPEN_ANEW_MS;
      }),
    ]);
    await trigger();
    const answers = await answersOf(web);
    const health = await (await web.request("/health")).json();
    const doc = (await (await web.request("/doc")).json()) as Fields;
    const metricsText = await (await web.request("/metrics")).text();
    stop.abort();
    await within(STEP_MS_MAX, "the end", async () => running);
    await eventually(STEP_MS_MAX, "the end is stored", async () =>
      (await eventsNow()).some(({ type }) => type === "session_ended"),
    );
    const events = await eventsNow();
    const routes = web.routes
      .filter(({ method }) => method !== "ALL")
      .map(({ method, path }) => `${method} ${path}`);
    const files = readdirSync(placeOf("local"));
    return { doc, routes, answers, stream, health, metricsText, metrics, events, files };
  } finally {
    stop.abort();
    await Promise.allSettled([running]);
    await parts[Symbol.asyncDispose]();
    await finnhub.stop();
  }
}

// --- What a run without a fault does not say -----------------------------------------------------------------------

const openLog = (name: string, metrics = createMetrics()) =>
  openSqliteLog({
    directory: placeOf(name),
    topic: "market",
    sync: "normal",
    bytesMax: 2 ** 20,
    clock: systemClock,
    logger: silentLogger,
    metrics,
  });

/** The events among the records of an outbox that is closed. */
function eventsIn(name: string): Event[] {
  using db = new Database(join(placeOf(name), "outbox.sqlite"), { readonly: true });
  return db
    .query<{ value: Uint8Array }, []>("SELECT value FROM records WHERE kind = 'event'")
    .all()
    .map(({ value }) => jsonOf(value) as Event);
}

async function eventsOfDamage() {
  {
    using log = openLog("damaged");
    await log.append([{ kind: "trades", key: "S", value: Buffer.from("damaged-here") }]);
  }
  const path = join(placeOf("damaged"), "outbox.sqlite");
  const bytes = readFileSync(path);
  bytes[bytes.indexOf("damaged-here")]! ^= 1;
  writeFileSync(path, bytes);
  {
    using log = openLog("damaged");
    log.openOutbox();
  }
  return eventsIn("damaged");
}

async function eventsOfDoubt(metrics: Metrics) {
  {
    using log = openLog("doubt", metrics);
    log.openOutbox();
    log.lease.claim("a");
    log.lease.guard(() => false);
    await log.append([{ kind: "trades", key: "S", value: Buffer.from("in doubt") }]);
    await log.lease.quarantineUnconfirmed();
  }
  return eventsIn("doubt");
}

/** Of a log that is full and then takes what it is given again. */
async function eventsOfRefusal(metrics: Metrics) {
  const events: Event[] = [];
  let isFull = true;
  const trades: FeedItem = { kind: "trades", receivedAtMs: NOON_MS, trades: [trade()] };
  const dead: FeedItem = { kind: "dead", receivedAtMs: NOON_MS, reason: "garbage_frame", payload: "?" };
  const publisher = createIngest({
    feed: {
      async *batches() {
        yield [trades, dead];
        isFull = false;
        yield [trades];
      },
      subscribe() {},
      health: () => ({
        state: "closed",
        stateSinceMs: 0,
        disconnectedSinceMs: 0,
        lastFrameAtMs: null,
        lastTradeAtMs: null,
        lastProblem: null,
        subscribed: [],
        unsubscribed: [],
        unreceived: [],
        intake: { minutes: 10, taken: 0, refused: 0, symbols: [] },
      }),
    },
    log: {
      async append(entries) {
        if (isFull && entries.some(({ kind }) => kind !== "event")) throw new LogFullError("it is full");
        for (const { kind, value } of entries) if (kind === "event") events.push(jsonOf(value) as Event);
      },
    },
    clock: systemClock,
    logger: silentLogger,
    metrics,
  });
  await publisher.run();
  return events;
}

/** Of a log that dropped what was not yet read, and a store that is away or refuses all but rows. */
async function eventsOfGap(metrics: Metrics, fault: "is away each other time" | "refuses") {
  using store = openSqliteStore({ directory: placeOf(`gap ${fault}`), sync: "normal" });
  const event = { day: dayOf(NOON_MS), event_timestamp: NOON_MS, session: "0000000a", sequence: 1 };
  const identity = { session: "0000000a", receivedAtMs: NOON_MS };
  const record = (offset: number, kind: LogRecord["kind"], value: Uint8Array): LogRecord => ({
    kind,
    offset,
    timestampMs: NOON_MS,
    value,
  });
  const records = [
    record(5, "trades", encodeMessage({ ...identity, sequence: 2, trades: [trade()] })),
    record(6, "trades", Buffer.from("no message")),
    record(7, "event", encodeEvent({ ...event, type: "session_started", detail: "{}" })),
  ];
  const callCounts = new Map<string, number>();
  const faulty = <Args extends unknown[], T>(name: string, work: (...args: Args) => Promise<T>) => {
    return async (...args: Args): Promise<T> => {
      const count = (callCounts.get(name) ?? 0) + 1;
      callCounts.set(name, count);
      if (fault === "refuses" && name !== "position") throw new RowRefusedError("no");
      if (fault === "is away each other time" && count % 2 === 1) {
        throw name === "position" ? new LogUnavailableError("away") : new StoreUnavailableError("away");
      }
      return work(...args);
    };
  };
  const committed = { offset: 1, metadata: "" };
  const isRefusing = fault === "refuses";
  const log: LogReader = {
    async *deliveries(signal): AsyncGenerator<Delivery> {
      yield { type: "assigned", epoch: 1, partitions: ["market/0"] };
      const batch = { partition: "market/0", fromOffset: 5, nextOffset: 8, records };
      yield { type: "batch", epoch: 1, ...batch };
      if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
    },
    position: faulty("position", async () => ({
      committed: isRefusing ? null : committed,
      beginOffset: 5,
      endOffset: 8,
    })),
    seek() {},
    async commit() {},
  };
  const processor = createProcessor({
    log,
    store: {
      groupOf: (row) => store.groupOf(row),
      rowsPerPutMax: store.rowsPerPutMax,
      putsInFlightMax: store.putsInFlightMax,
      scanTrades: (symbol, range) => store.scanTrades(symbol, range),
      isEmpty: () => store.isEmpty(),
      putTrades: isRefusing
        ? (rows) => store.putTrades(rows)
        : faulty("putTrades", (rows) => store.putTrades(rows)),
      putEvents: faulty("putEvents", (rows) => store.putEvents(rows)),
      putDead: faulty("putDead", (letters) => store.putDead(letters)),
      putWindows: faulty("putWindows", (windows) => store.putWindows(windows)),
      putWindowAt: (stored) => store.putWindowAt(stored),
      scanWindows: (kind, symbol, range) => store.scanWindows(kind, symbol, range),
    },
    clock: systemClock,
    logger: silentLogger,
    metrics,
  });
  const stop = new AbortController();
  const running = processor.run(stop.signal);
  const isWritten = async () => {
    await processor.trigger();
    const { windowsUnwritten, lastCommitAtMs } = processor.health();
    return windowsUnwritten === 0 && lastCommitAtMs !== null;
  };
  await eventually(STEP_MS_MAX, `a commit where the store ${fault}`, isWritten);
  stop.abort();
  await within(STEP_MS_MAX, "the processor ends", () => running);
  const range = { fromMs: NOON_MS - 1, toMs: Date.now() + 1_000 };
  return await store.listEvents({ range, limit: 100 });
}

/** Every way in which a call to Finnhub's REST side ends. */
async function callAll(metrics: Metrics) {
  const answers: (() => Response)[] = [
    () => Response.json([]),
    () => new Response("", { status: 401 }),
    () => new Response("", { status: 429, headers: { "x-ratelimit-reset": "0" } }),
    () => new Response("", { status: 404 }),
    () => new Response("", { status: 500 }),
    () => new Response("no JSON"),
    () => {
      throw new TypeError("unreachable");
    },
  ];
  for (const answer of answers) {
    const fetchOne = async () => answer();
    const calls = createRestClient({
      apiUrl: "http://x",
      token: "t",
      clock: systemClock,
      metrics,
      fetch: fetchOne,
    });
    await calls.get("/x", {}).catch(() => {});
  }
}

let local: Local;
let events: readonly Event[];
/** Where faults were met. */
const faultMetrics = createMetrics();

beforeAll(async () => {
  const ran = runLocal();
  const others: Promise<readonly Event[]>[] = [
    eventsOfDamage(),
    eventsOfDoubt(faultMetrics),
    eventsOfRefusal(faultMetrics),
    eventsOfGap(faultMetrics, "is away each other time"),
    eventsOfGap(faultMetrics, "refuses"),
  ];
  await callAll(faultMetrics);
  local = await ran;
  events = [...local.events, ...(await Promise.all(others)).flat()];
}, START_MS_MAX);
afterAll(() => rmSync(home, { recursive: true, force: true }));

// --- Settings, commands, exit codes ----------------------------------------------------------------------------

/** The mistake that an impossible value makes, without the value: what the setting takes. */
function takenBy(name: string): string {
  try {
    readConfig({ [name]: "\u0001" });
    return "any text";
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const own = error.mistakes.find((one) => one.startsWith(`${name}: `)) ?? "";
    return own.includes(" beside it") ? "any text" : own.slice(name.length + 2).replace(/; found .*/s, "");
  }
}

/** Whether NAME_FILE is read as the secret's place. */
function isReadFromFile(name: string): boolean {
  let isRead = false;
  try {
    readConfig({ [`${name}_FILE`]: "/secret" }, (path) => {
      isRead ||= path === "/secret"; // An .env is looked at too.
      return "value";
    });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
  }
  return isRead;
}

test("the settings have their names, defaults and ways to be read", () => {
  const lines = readText("sample.env")
    .split("\n")
    .filter((line) => /^\w+=/.test(line));
  expectFrozen(
    "settings",
    lines.flatMap((line) => {
      const name = line.split("=")[0]!;
      return [`${line} (${takenBy(name)})`, ...(isReadFromFile(name) ? [`${name}_FILE`] : [])];
    }),
  );
});

const BINARIES = ["admin", "local", "processor", "producer"] as const;

async function say(command: readonly string[], settings: Record<string, string> = {}) {
  const child = Bun.spawn([process.execPath, "--no-env-file", ...command], {
    cwd: ROOT,
    env: { PATH: process.env.PATH ?? "", ...settings },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, code] = await Promise.all([child.stdout.text(), child.exited]);
  return { out, code };
}

test(
  "each binary has its commands, and each command its options",
  async () => {
    const optionsIn = (help: string) =>
      [...help.matchAll(/^ {2}(--[a-z-]+(?: <\w+>)?)/gm)].map(([, flags]) => flags!);
    const lists = await Promise.all(
      BINARIES.map(async (name) => {
        const { out } = await say([`${name}.ts`, "--help"]);
        const commands = [...out.matchAll(/^ {2}([a-z-]+)( \[options\])? /gm)];
        const inner = await Promise.all(
          commands.map(async ([, verb, options]) => {
            if (options === undefined) return [`${name} ${verb}`];
            const { out: help } = await say([`${name}.ts`, verb!, "--help"]);
            return [`${name} ${verb}`, ...at(`${name} ${verb}`, optionsIn(help))];
          }),
        );
        return [name, ...at(name, optionsIn(out)), ...inner.flat()];
      }),
    );
    expectFrozen("commands", lists.flat());
  },
  START_MS_MAX,
);

test(
  "--check-config prints these names, the exit codes are these, and --json of a verb has these fields",
  async () => {
    const stored = (name: string) => {
      cpSync(placeOf("local"), placeOf(name), { recursive: true });
      return { DATA_DIR: placeOf(name), FINNHUB_WS_URL: "ws://127.0.0.1:9" };
    };
    // After the start it meets a fault that nothing handles.
    const fault = placeOf("fault.ts");
    const look = 'if (process.listenerCount("uncaughtException") > 0) throw new Error("a fault of a test")';
    writeFileSync(fault, `setInterval(() => { ${look}; }, 10);\n`);
    const free = { ADMIN_PORT: "0", KAFKA_PORT: "1", CASSANDRA_PORT: "1" };
    const [checked, version, unknown, faulty, verified, replayed, dead] = await Promise.all([
      say(["local.ts", "--check-config"], {}),
      say(["local.ts", "--version"]),
      say(["local.ts", "destroy"]),
      say(["--preload", fault, "admin.ts"], free),
      say(["local.ts", "verify", "--json"], stored("a")),
      say(["local.ts", "replay", "--from", "2026-01-05", "--json"], stored("b")),
      say(["local.ts", "replay", "--dead", "--json"], stored("c")),
    ]);
    expectFrozen(
      "--check-config",
      checked.out
        .split("\n")
        .map((line) => (/^\w+=/.test(line) ? line.split("=")[0]! : line))
        .filter((line) => line !== ""),
    );
    const left: number[] = [];
    const stop = createStop(systemClock, silentLogger, (code) => left.push(code));
    stop.request("once");
    stop.request("twice");
    expectFrozen("exit codes", [
      `${version.code} done`,
      `${unknown.code} the operator must change something`,
      `${faulty.code} a fault that nothing handled`,
      `${left[0]} stopped before everything was finished`,
    ]);
    const last = ({ out }: { out: string }): unknown => JSON.parse(out.trimEnd().split("\n").at(-1)!);
    expectFrozen("JSON of verbs", [
      ...at("verify", pathsOf(last(verified))),
      ...at("replay", pathsOf(last(replayed))),
      ...at("replay --dead", pathsOf(last(dead), deadReasons)),
    ]);
  },
  START_MS_MAX,
);

// --- Tables ------------------------------------------------------------------------------------------------------

test("the tables of Cassandra have their columns, types and keys", () => {
  const text = readdirSync(join(ROOT, "cql"))
    .map((file) => readText(`cql/${file}`).replace(/--.*$/gm, ""))
    .join("\n");
  const tables = [...text.matchAll(/CREATE TABLE IF NOT EXISTS \{keyspace\}\.(\w+) \(([^;]*?)\n\)/g)];
  expectFrozen(
    "Cassandra's tables",
    tables.flatMap(([, table, body]) => [
      table!,
      ...body!
        .split("\n")
        .map((line) => line.trim().replace(/,$/, ""))
        .filter((line) => line !== "")
        .map((line) => `${table}.${line}`),
    ]),
  );
  expectFrozen("files of cql", readdirSync(join(ROOT, "cql")));
});

test("both files of SQLite have their tables, columns, types and keys, as they are made", () => {
  const columns = (file: string) => {
    using db = new Database(join(placeOf("local"), file), { readonly: true });
    type Column = { name: string; type: string; notnull: number; pk: number };
    const tables = db
      .query<{ type: string; name: string }, []>(
        "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'",
      )
      .all();
    return tables.flatMap(({ type, name }) => [
      `${file} ${type} ${name}`,
      ...db
        .query<Column, []>(`PRAGMA ${type === "table" ? "table" : "index"}_info(${name})`)
        .all()
        .map((one) => {
          const key = one.pk > 0 ? ` key ${one.pk}` : "";
          const kind = type === "table" ? ` ${one.type}${one.notnull ? " not null" : ""}${key}` : "";
          return `${file} ${name}.${one.name}${kind}`;
        }),
    ]);
  };
  const files = local.files.filter((name) => name.endsWith(".sqlite"));
  expectFrozen(
    "files of DATA_DIR",
    local.files.filter((name) => !/-(?:wal|shm)$/.test(name)),
  );
  expectFrozen("SQLite's tables", files.flatMap(columns));
});

// --- Kafka -------------------------------------------------------------------------------------------------------

test("the topics, the Avro record and the JSON records of Kafka have their names", () => {
  const { trades, event, dead, tickers } = topicNames("<topic>");
  expectFrozen("topics", [
    `trades ${trades}`,
    `event ${event}`,
    `dead ${dead}`,
    `tickers ${tickers}`,
    `${LEASE_KEY} (key) of ${tickers}`,
  ]);
  type Avro =
    | string
    | { name?: string; type: unknown; fields?: { name: string; type: Avro }[]; items?: Avro };
  const fieldsOf = (record: Avro, prefix: string): string[] => {
    if (typeof record === "string") return [];
    if (Array.isArray(record)) return [];
    const inner = record.fields ?? [];
    const nested = typeof record.type === "object" ? fieldsOf(record.type as Avro, prefix) : [];
    const items = record.items === undefined ? [] : fieldsOf(record.items, `${prefix}[]`);
    return [
      ...nested,
      ...items,
      ...inner.flatMap((field) => [
        `${prefix}.${field.name} ${JSON.stringify(field.type)}`,
        ...fieldsOf(field as Avro, `${prefix}.${field.name}`),
      ]),
    ];
  };
  const avro = JSON.parse(readText("schemas/trades.avsc")) as Avro & { namespace: string; name: string };
  const { namespace, name } = avro;
  expectFrozen("Avro", [`${namespace}.${name}`, ...fieldsOf(avro, name)]);
  const bytes = encodeMessage({ session: "0000000a", sequence: 1, receivedAtMs: NOON_MS, trades: [trade()] });
  expect(decodeMessage(bytes).ok).toBe(true);
  const identity = { session: "0000000a", sequence: 1 };
  const ofEvents = encodeEvent({
    ...identity,
    day: dayOf(NOON_MS),
    event_timestamp: NOON_MS,
    type: "connected",
    detail: "{}",
  });
  const ofDead = encodeDeadLetter({
    ...identity,
    item: -1,
    receivedAtMs: NOON_MS,
    reason: "garbage_frame",
    source: "feed",
    payload: new Uint8Array(1),
  });
  expectFrozen("JSON records", [
    ...at(".events", pathsOf(jsonOf(ofEvents))),
    ...at(".dead", pathsOf(jsonOf(ofDead))),
  ]);
});

test("the records of the hold have their words, written as they are read", () => {
  const texts = [
    '{"holder":"h","session":"s","host":"m","pid":7,"sinceMs":1,"atMs":2,"type":"claim","after":3,"seen":4}',
    '{"holder":"h","session":"s","host":"m","pid":7,"sinceMs":1,"atMs":2,"type":"alive","term":3,"number":4}',
    '{"holder":"h","session":"s","host":"m","pid":7,"sinceMs":1,"atMs":2,"type":"released","term":3}',
  ];
  const names = texts.flatMap((text) => {
    const record = parseLeaseRecord(Buffer.from(text));
    if (record === null) return [`unreadable: ${text}`];
    const written = jsonOf(encodeLeaseRecord(record));
    return at(String(written.type), Object.keys(written));
  });
  expectFrozen("records of the hold", names);
});

// --- Events and reasons ------------------------------------------------------------------------------------------

test("feed events have their types, and each the keys of its detail", () => {
  expectFrozen("feed events", [
    ...eventTypes,
    ...events.flatMap(({ type, detail }) => [type, ...at(type, pathsOf(JSON.parse(detail)))]),
  ]);
  expect(sorted(events.map(({ type }) => type))).toEqual(sorted(eventTypes));
});

test("dead letters, bad trades and disconnects have their reasons", () => {
  expectFrozen("reasons of dead letters", deadReasons);
  expectFrozen("reasons of disconnects", disconnectReasons);
  const frame = parseFrame(tradeFrame(), nowMs());
  const refused = frame.type === "trade" ? frame.refused.map(({ reason }) => reason) : [];
  expectFrozen("reasons of bad trades", [
    ...refused,
    badTrade(trade({ price: Number.NaN }), NOON_MS) ?? "none",
    badTrade(trade({ tradedAtMs: 1 }), NOON_MS) ?? "none",
  ]);
});

// --- Metrics -----------------------------------------------------------------------------------------------------

test("metrics have their names, types and labels, and labels their values", async () => {
  const types = [...local.metricsText.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(
    ([, name, type]) => `${name} ${type}`,
  );
  type Labelled = { name: string; labelNames: string[] };
  const all = local.metrics.registry.getMetricsAsArray() as unknown as Labelled[];
  expectFrozen("metrics", [
    ...types,
    ...all.flatMap(({ name, labelNames }) => labelNames.map((label) => `${name} label ${label}`)),
  ]);
  const found = await Promise.all(
    [local.metrics, faultMetrics].map(async ({ registry }) =>
      (await registry.getMetricsAsJSON()).flatMap(({ name, type, values }) =>
        String(type) === "histogram"
          ? []
          : values.flatMap(({ labels }) =>
              Object.entries(labels).map(([label, value]) => `${name} ${label}=${value}`),
            ),
      ),
    ),
  );
  expectFrozen("values of labels", [
    ...found.flat(),
    ...at(
      "pipeline_feed_frames_total",
      frameTypes.map((type) => `type=${type}`),
    ),
    ...at(
      "pipeline_feed_items_refused_total",
      deadReasons.map((reason) => `reason=${reason}`),
    ),
    ...at(
      "pipeline_processor_dead_letters_total",
      deadReasons.map((reason) => `reason=${reason}`),
    ),
    ...at(
      "pipeline_feed_disconnects_total",
      disconnectReasons.map((reason) => `reason=${reason}`),
    ),
    ...at(
      "pipeline_forward_sends_failed_total",
      sendFaults.map((reason) => `reason=${reason}`),
    ),
  ]);
});

// --- HTTP --------------------------------------------------------------------------------------------------------

type Schema = {
  $ref?: string;
  type?: string | string[];
  enum?: string[];
  items?: Schema;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema | boolean;
};
type Operation = {
  parameters?: { name: string; in: string; required?: boolean; schema: Schema }[];
  requestBody?: { content: Record<string, { schema: Schema }> };
  responses: Record<string, { content?: Record<string, { schema: Schema }> }>;
};

/** A line a field: its path, its type, its words where they are a closed list. */
function fieldsOfSchema(schema: Schema, prefix: string): string[] {
  if (schema.$ref !== undefined) return [`${prefix}: ${schema.$ref.split("/").at(-1)}`];
  if (schema.items !== undefined) return fieldsOfSchema(schema.items, `${prefix}[]`);
  const inner = Object.entries(schema.properties ?? {}).flatMap(([name, field]) =>
    fieldsOfSchema(field, prefix === "" ? name : `${prefix}.${name}`).map((line, index) =>
      index === 0 && !schema.required?.includes(name) ? `${line} (optional)` : line,
    ),
  );
  const { additionalProperties: rest } = schema;
  const others = typeof rest === "object" ? fieldsOfSchema(rest, `${prefix}.<key>`) : [];
  const words = schema.enum === undefined ? "" : ` ${schema.enum.join("|")}`;
  const own =
    inner.length > 0 || others.length > 0
      ? []
      : [`${prefix}: ${[schema.type ?? "anything"].flat().join("|")}${words}`];
  return [...own, ...inner, ...others];
}

test("every route has its methods, parameters, status codes and fields", () => {
  const { paths, components } = local.doc as {
    paths: Record<string, Record<string, Operation>>;
    components: { schemas: Record<string, Schema>; securitySchemes: Fields };
  };
  const inDoc = Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).flatMap(([method, { parameters = [], requestBody, responses }]) => {
      const what = `${method.toUpperCase()} ${path}`;
      return [
        what,
        ...parameters.map(({ in: place, name, required, schema }) => {
          const words = schema.enum === undefined ? "" : ` ${schema.enum.join("|")}`;
          return `${what} ${place} ${name}${required ? "" : " (optional)"}${words}`;
        }),
        ...Object.entries(requestBody?.content ?? {}).flatMap(([type, { schema }]) =>
          at(`${what} body ${type}`, fieldsOfSchema(schema, "")),
        ),
        ...Object.entries(responses).flatMap(([status, { content = {} }]) => [
          `${what} ${status}`,
          ...Object.entries(content).flatMap(([type, { schema }]) =>
            at(`${what} ${status} ${type}`, fieldsOfSchema(schema, "")),
          ),
        ]),
      ];
    }),
  );
  const named = Object.entries(components.schemas).flatMap(([name, schema]) =>
    at(name, fieldsOfSchema(schema, "")),
  );
  expectFrozen("routes of /doc", [
    ...inDoc,
    ...at("securityScheme", Object.keys(components.securitySchemes)),
  ]);
  expectFrozen("answers of /doc", named);
  const probe = createHealthApp({
    health: () => startingHealth(true, new Map(), 0, 0),
    metrics: createMetrics(),
    simulated: true,
  });
  const ofProbe = probe.routes
    .filter(({ method }) => method !== "ALL")
    .map(({ method, path }) => `before the start, and of producer and processor: ${method} ${path}`);
  expectFrozen("routes", [...local.routes, ...ofProbe]);
});

test("answers have their status codes, headers and fields, and say whether the data is simulated", async () => {
  const probe = createHealthApp({
    health: () => startingHealth(true, new Map(), 0, 0),
    metrics: createMetrics(),
    simulated: true,
  });
  const { status, headers } = await probe.request("/health");
  const ofProbe = ["x-data-source", "cache-control"].map(
    (name) => `GET /health ${status} of a start, simulated: ${name}: ${headers.get(name)}`,
  );
  expectFrozen("answers", [...local.answers, ...ofProbe]);
});

test("the live stream has its events and their fields", () => {
  expectFrozen("live stream", local.stream);
});

// --- Health ------------------------------------------------------------------------------------------------------

test("the health of each binary has its parts and their fields", () => {
  const at0 = { startedAtMs: 0, simulated: false };
  const processor = {
    lastBatchAtMs: 1,
    lastRowStoredAtMs: 1,
    lastTriggerAtMs: 1,
    lastCommitAtMs: 1,
    rowsInFlight: 0,
    windowsUnwritten: 0,
    problem: { message: "a problem", sinceMs: 1 },
  };
  const ofProducer = producerHealth(
    {
      ...at0,
      feed: {
        state: "connected",
        stateSinceMs: 0,
        lastFrameAtMs: null,
        lastTradeAtMs: null,
        lastProblem: null,
        subscribed: [],
        unsubscribed: [],
        unreceived: [],
        intake: { minutes: 10, taken: 0, refused: 0, symbols: [] },
        disconnectedSinceMs: null,
      },
      symbols: [{ symbol: "AAPL", lastTradeAtMs: null }],
      outbox: { recordCount: 0, bytes: 0, bytesMax: 1, oldestAtMs: null },
      publish: { lastAppendAtMs: null, refusingSinceMs: null, tradesLost: 0, problem: null },
      forward: {
        problem: null,
        lastAckAtMs: null,
        unacknowledgedSinceMs: null,
        failing: [{ partition: "market/0", sinceMs: 0, reason: "a reason" }],
        deadCount: 0,
      },
      lease: { unconfirmedSinceMs: null },
      ahead: null,
    },
    1,
  );
  const ofProcessor = consumerHealth({ ...at0, processor: { ...processor, epoch: 1, partitions: [] } }, 1);
  const remote = { name: "producer", url: "http://x", answeredAtMs: 1, problem: null };
  const lag = { partition: "market/0", committed: 1, end: 1, lag: 0, movedAtMs: 1 };
  expectFrozen("health", [
    ...at("local", pathsOf(local.health, ["AAPL", "NOSUCH", "TOOMANY"])),
    ...at("producer", pathsOf(ofProducer, ["AAPL"])),
    ...at("processor", pathsOf(ofProcessor)),
    ...at("a start", pathsOf(startingHealth(true, new Map([["Kafka", null]]), 0, 1))),
    ...at("admin: a process", pathsOf(remotePart({ ...remote, document: null }, 0, 1))),
    ...at("admin: the broker", pathsOf(brokerPart({ askedAtMs: 1, problem: null, lags: [lag] }, 0, 1))),
    ...at("admin: the store", pathsOf(storePart({ okAtMs: 1, problem: null }, 0, 1))),
    ...at("admin: the live view", pathsOf(tailPart({ lastRecordAtMs: 1, deafSinceMs: null }, 1))),
  ]);
});

// --- Around the program --------------------------------------------------------------------------------------------

/** What stands under a heading of a YAML file that we wrote, one level deep. */
function namesUnder(yaml: string, heading: string): string[] {
  const body = new RegExp(`^${heading}:\\n((?:(?: .*|#.*)?\\n)*)`, "m").exec(`${yaml}\n`)?.[1] ?? "";
  return [...body.matchAll(/^ {2}([\w-]+):/gm)].map(([, name]) => name!);
}

test("compose, systemd, npm and Grafana have their names", () => {
  const compose = readText("compose.yaml");
  const sources = readText("grafana/provisioning/datasources/datasources.yaml");
  const providers = readText("grafana/provisioning/dashboards/dashboards.yaml");
  type Named = { uid: string; title: string; templating?: { list?: { name: string }[] } };
  const dashboards = readdirSync(join(ROOT, "grafana/dashboards")).map((file) => {
    const { uid, title, templating } = JSON.parse(readText(`grafana/dashboards/${file}`)) as Named;
    const variables = templating?.list?.map(({ name }) => name) ?? [];
    return [
      `${file} ${uid} ${title}`,
      ...at(
        file,
        variables.map((name) => `variable ${name}`),
      ),
    ];
  });
  expectFrozen("compose", [
    ...[...compose.matchAll(/^name: (\S+)$/gm)].map(([, name]) => `name ${name}`),
    ...at("service", namesUnder(compose, "services")),
    ...at("volume", namesUnder(compose, "volumes")),
    ...[...compose.matchAll(/^ {4}profiles:\n {6}- (\w+)$/gm)].map(([, name]) => `profile ${name}`),
    ...[...compose.matchAll(/"([\d.]+:\d+:\d+)"/g)].map(([, port]) => `port ${port}`),
    ...at(
      "variable",
      [...compose.matchAll(/\$\{(\w+)/g)].map(([, name]) => name!),
    ),
  ]);
  expectFrozen(
    "systemd",
    readdirSync(join(ROOT, "deploy/systemd")).flatMap((file) => [
      file,
      ...readText(`deploy/systemd/${file}`)
        .split("\n")
        .filter((line) =>
          /^(?:ExecStart|EnvironmentFile|StateDirectory|RestartPreventExitStatus)=/.test(line),
        )
        .map((line) => `${file} ${line}`),
    ]),
  );
  expectFrozen("npm scripts", Object.keys(packageFile.scripts));
  expectFrozen("Grafana", [
    ...dashboards.flat(),
    ...[...sources.matchAll(/^ {2}- name: (\S+)\n {4}uid: (\S+)\n {4}type: (\S+)$/gm)].map(
      ([, name, uid, type]) => `data source ${name} ${uid} ${type}`,
    ),
    ...[...sources.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => `variable ${name}`),
    ...[...providers.matchAll(/^ {2}- name: (\S+)$/gm)].map(([, name]) => `provider ${name}`),
  ]);
});

// --- The list itself -----------------------------------------------------------------------------------------------

test("the frozen list is sorted, has each name once, and no section that nothing is compared with", () => {
  const sections = Object.keys(frozen);
  expect(sections).toEqual(sorted(sections));
  for (const [section, names] of Object.entries(frozen)) {
    expect({ section, names }).toEqual({ section, names: sorted(names) });
  }
  expect(sections).toEqual(sorted(compared));
});

test("a name that is gone and one that is new are both told, with what to do", () => {
  expect(changes("settings", ["A", "B"], ["B", "C"])).toEqual([
    `settings: "A" is gone. ${REMEDY}`,
    `settings: "C" is new. ${REMEDY}`,
  ]);
  expect(changes("settings", ["A"], ["A"])).toEqual([]);
  expect(pathsOf({ a: { AAPL: 1 }, b: [{ c: null }] }, ["AAPL"])).toEqual(["a", "a.<key>", "b", "b[].c"]);
});
