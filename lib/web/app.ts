// The Hono app as a value: what a browser or a program may ask of this pipeline. Everything it answers is read
// from the parts it is handed; nothing under web* writes rows, and no answer holds a stack trace or a secret.

import { createRoute, OpenAPIHono, type RouteConfig, type z } from "@hono/zod-openapi";
import { prettyJSON } from "hono/pretty-json";
import { secureHeaders } from "hono/secure-headers";
import type { Clock } from "../base/clock.ts";
import { StoreUnavailableError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { StoreReader } from "../contracts/store.ts";
import type { HealthDocument } from "../health/health.ts";
import type { SymbolOutcome } from "../ingest/watchlist-sync.ts";
import { type Backfill, createBackfill } from "./live/backfill.ts";
import type { SeenAt } from "./live/protocol.ts";
import { createLiveStreams } from "./live/stream.ts";
import type { LiveView } from "./live/view.ts";
import { listAverages, listCandles, listEvents, listTrades } from "./pages.ts";
import * as queries from "./query.ts";
import { pageFiles } from "./routes/page.ts";
import { addTickerChanges, type TickerChanges } from "./routes/tickers.ts";
import * as schemas from "./schemas.ts";

/** The wanted symbols in their order, and what the feed says of them (a FeedHealth has the other two). */
export type TickerSets = Readonly<{
  wanted: readonly string[];
  subscribed: readonly string[];
  unsubscribed: readonly string[];
  /** What is known of whether it exists; absent where nobody asks. */
  outcome?: (symbol: string) => SymbolOutcome;
}>;

export type WebDeps = Readonly<{
  store: StoreReader;
  live: LiveView;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  health: () => HealthDocument;
  tickers: () => TickerSets;
  /** Absent: this binary takes no changes, and has no routes for them. */
  changes?: TickerChanges;
  simulated: boolean;
  /** Where the live view hears of trades; without it: the store. */
  seenAt?: SeenAt;
  /** Called before /metrics is answered: for gauges that nobody sets in passing. */
  refreshGauges?: () => void;
  /** Ends what would not end by itself: the live streams. */
  signal?: AbortSignal;
}>;

export type Web = OpenAPIHono;

const JSON_CACHE = "no-store";
/** Asked for again each time, so that a new version's page never runs an old version's script. */
const PAGE_CACHE = "no-cache";
const RETRY_AFTER_SECONDS = "2";

export function createWeb(deps: WebDeps): Web {
  const app = new OpenAPIHono({
    defaultHook: (result, context) => {
      if (result.success) return;
      const problems = queries.problemsOf(result.error);
      return context.json({ error: problems[0] ?? "the query cannot be read", problems }, 400);
    },
  });
  guardAnswers(app, deps);
  addHistory(app, deps);
  const seeds = createBackfill(deps.store, deps.live, deps.clock, deps.logger);
  addTickers(app, deps, seeds);
  if (deps.changes !== undefined) addTickerChanges(app, deps.changes, deps.clock, deps.logger);
  addLive(app, deps, seeds);
  addState(app, deps);
  addPage(app);
  app.doc31("/doc", {
    openapi: "3.1.0",
    info: {
      title: "Finnhub Realtime Pipeline",
      version: "1",
      description: "Trades, running averages and candles in the column names of the tables; times in ms.",
    },
  });
  answerMisses(app);
  return app;
}

// --- What holds for every answer -------------------------------------------------------------------------------

function guardAnswers(app: Web, { logger, simulated }: WebDeps): void {
  app.use(
    secureHeaders({
      contentSecurityPolicy: {
        defaultSrc: ["'none'"],
        scriptSrc: ["'self'"],
        styleSrc: ["'self'"],
        connectSrc: ["'self'"],
        imgSrc: ["'self'", "data:"],
        baseUri: ["'none'"],
        frameAncestors: ["'none'"],
        formAction: ["'none'"],
      },
      xFrameOptions: "DENY",
      // We speak plain HTTP; who puts TLS before it decides this for his own name.
      strictTransportSecurity: false,
    }),
  );
  app.use(async (context, next) => {
    await next();
    const { headers } = context.res;
    headers.set("x-data-source", simulated ? "simulated" : "finnhub");
    if (!headers.has("cache-control")) headers.set("cache-control", JSON_CACHE);
  });
  app.onError((error, context) => {
    const { method, path } = context.req;
    if (error instanceof queries.QueryError) {
      return context.json({ error: error.message, problems: [error.message] }, 400);
    }
    if (error instanceof StoreUnavailableError) {
      logger.warn("a request was not answered: the store cannot be read just now", { method, path, error });
      return context.json({ error: "the store cannot be read just now: ask again in a moment" }, 503, {
        "retry-after": RETRY_AFTER_SECONDS,
      });
    }
    logger.error("a request met a fault that nothing handled", { method, path, error });
    return context.json({ error: "this is a fault of ours; the log says more" }, 500);
  });
}

/** An unknown path gets the list of the known ones; a known one that does not take the method says what it takes. */
function answerMisses(app: Web): void {
  const routes = app.routes.filter(({ method }) => method !== "ALL");
  app.notFound((context) => {
    const { method, path } = context.req;
    const methods = routes.filter((route) => isPathOf(route.path, path)).map((route) => route.method);
    if (methods.length > 0) {
      const allow = [...new Set(methods.flatMap((one) => (one === "GET" ? ["GET", "HEAD"] : [one])))].join(
        ", ",
      );
      return context.json({ error: `${method} is not possible here: ${path} takes ${allow}` }, 405, {
        allow,
      });
    }
    const paths = [...new Set(routes.map((route) => route.path))];
    const meant = queries.nearest(path, paths);
    const guess = meant === undefined ? "" : ` Did you mean ${meant}?`;
    const error = `there is nothing at ${queries.quoted(path)}.${guess} There is ${paths.join(", ")}`;
    return context.json({ error }, 404);
  });
}

function isPathOf(pattern: string, path: string): boolean {
  const wanted = pattern.split("/");
  const given = path.split("/");
  return (
    wanted.length === given.length &&
    wanted.every((part, index) => (part.startsWith(":") ? given[index] !== "" : part === given[index]))
  );
}

// --- History ---------------------------------------------------------------------------------------------------

function addHistory(app: Web, { store, clock }: WebDeps): void {
  app.openapi(
    listing("/trades", "Trades of a symbol, newest first", queries.tradesQuery, schemas.tradesPage),
    async (context) => context.json(await listTrades(store, context.req.valid("query"), clock.now()), 200),
  );
  app.openapi(
    listing(
      "/averages",
      "15-second running averages of a symbol, newest first; only windows that are over",
      queries.averagesQuery,
      schemas.averagesPage,
    ),
    async (context) => context.json(await listAverages(store, context.req.valid("query"), clock.now()), 200),
  );
  app.openapi(
    listing(
      "/candles",
      "Candles of a symbol, newest first, the open one included; `from` and `to` speak of window_start",
      queries.candlesQuery,
      schemas.candlesPage,
    ),
    async (context) => context.json(await listCandles(store, context.req.valid("query"), clock), 200),
  );
  app.openapi(
    listing(
      "/feed-events",
      "What the feed met: connections lost and made, refusals; newest first",
      queries.eventsQuery,
      schemas.eventsPage,
    ),
    async (context) => context.json(await listEvents(store, context.req.valid("query"), clock.now()), 200),
  );
}

// --- Tickers ---------------------------------------------------------------------------------------------------

function addTickers(app: Web, { clock, tickers }: WebDeps, seeds: Backfill): void {
  async function tickerOf(symbol: string, sets: TickerSets): Promise<schemas.Ticker> {
    const row = await seeds.last(symbol);
    const outcome = sets.outcome?.(symbol);
    return {
      symbol,
      state: stateOf(symbol, sets),
      ...(outcome === undefined ? {} : { validation: validationOf(outcome) }),
      last_price: row?.price ?? null,
      last_trade_timestamp: row?.trade_timestamp ?? null,
      age_ms: row === null ? null : Math.max(0, clock.now() - row.trade_timestamp),
    };
  }

  app.openapi(
    listing("/tickers", "The symbols of the feed", queries.noQuery, schemas.tickersList),
    async (context) => {
      const sets = tickers();
      const items = await Promise.all(symbolsOf(sets).map((symbol) => tickerOf(symbol, sets)));
      return context.json({ items }, 200);
    },
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/tickers/{symbol}",
      summary: "One symbol of the feed",
      request: { params: queries.tickerParams, query: queries.noQuery },
      responses: {
        200: json("The symbol", schemas.ticker),
        400: refused,
        404: json("Not wanted", schemas.failure),
      },
    }),
    async (context) => {
      const { symbol } = context.req.valid("param");
      const sets = tickers();
      const symbols = symbolsOf(sets);
      if (symbols.includes(symbol)) return context.json(await tickerOf(symbol, sets), 200);
      const meant = queries.nearest(symbol, symbols);
      const guess = meant === undefined ? "/tickers lists them" : `did you mean ${meant}?`;
      return context.json({ error: `${queries.quoted(symbol)} is not among the tickers: ${guess}` }, 404);
    },
  );
}

function stateOf(symbol: string, sets: TickerSets): schemas.Ticker["state"] {
  if (sets.subscribed.includes(symbol)) return "subscribed";
  if (sets.outcome?.(symbol).kind === "not_found") return "rejected";
  return sets.unsubscribed.includes(symbol) ? "unsubscribed" : "wanted";
}

function validationOf(outcome: SymbolOutcome): schemas.Validation {
  return {
    outcome: outcome.kind,
    reason: outcome.kind === "unknown" ? outcome.reason : null,
    suggestions: outcome.kind === "not_found" ? [...outcome.suggestions] : [],
    checked_timestamp: outcome.kind === "unchecked" ? null : outcome.checkedAtMs,
  };
}

function symbolsOf({ wanted, subscribed, unsubscribed }: TickerSets): string[] {
  return [...new Set([...wanted, ...subscribed, ...unsubscribed])];
}

// --- The live stream ---------------------------------------------------------------------------------------------

/** The first view waits this long for what an earlier run stored, and then goes without. */
const SEED_MS_MAX = 2_000;

function addLive(
  app: Web,
  { live, clock, health, tickers, simulated, seenAt, signal }: WebDeps,
  seeds: Backfill,
): void {
  const { refresh } = seeds;
  const streams = createLiveStreams({
    live,
    clock,
    health,
    tickers,
    refresh,
    simulated,
    seenAt,
    signal,
  });
  app.openapi(
    createRoute({
      method: "get",
      path: "/events",
      summary: "The live view as server-sent events: `snapshot`, then `delta` at most every 100 ms",
      request: { query: queries.liveQuery },
      responses: {
        200: { description: "The stream", content: { "text/event-stream": { schema: schemas.liveText } } },
        400: refused,
        503: json("There are as many streams as there may be", schemas.failure),
      },
    }),
    async (context) => {
      const { symbol = null } = context.req.valid("query");
      if (context.req.raw.method === "HEAD") return context.body(null, 200, STREAM_HEADERS);
      const patience = new AbortController();
      const seeded = refresh(symbolsOf(tickers())).finally(() => patience.abort());
      await Promise.race([seeded, clock.sleep(SEED_MS_MAX, patience.signal)]);
      const lastEventId = context.req.header("last-event-id") ?? null;
      const stream = streams.open({ symbol, lastEventId });
      if (stream === null) {
        const error = "there are as many live streams as there may be: close a page, or try again later";
        return context.json({ error }, 503, { "retry-after": RETRY_AFTER_SECONDS });
      }
      // A quiet stream is no idle one. Without a socket, as in a test, there is no server.
      serverOf(context.env)?.timeout(context.req.raw, 0);
      return context.body(stream, 200, STREAM_HEADERS);
    },
  );
}

const STREAM_HEADERS = { "content-type": "text/event-stream", "x-accel-buffering": "no" };

function serverOf(env: unknown): Pick<Bun.Server<undefined>, "timeout"> | undefined {
  return (env as Readonly<{ server?: Bun.Server<undefined> }> | undefined)?.server;
}

// --- Health and metrics ----------------------------------------------------------------------------------------

function addState(app: Web, { health, metrics, refreshGauges }: WebDeps): void {
  app.use("/health", prettyJSON()); // `?pretty`: for whoever has only curl.
  app.openapi(
    createRoute({
      method: "get",
      path: "/health",
      summary: "Whether everything moves that should",
      responses: { 200: json("All is well", schemas.health), 503: json("Something fails", schemas.health) },
    }),
    (context) => {
      const document = health();
      return context.json(document, document.status === "ok" ? 200 : 503);
    },
  );
  app.openapi(
    createRoute({
      method: "get",
      path: "/metrics",
      summary: "Counters and gauges in the text format of Prometheus",
      responses: {
        200: { description: "The metrics", content: { "text/plain": { schema: schemas.metricsText } } },
      },
    }),
    async (context) => {
      refreshGauges?.();
      const { registry } = metrics;
      return context.text(await registry.metrics(), 200, { "content-type": registry.contentType });
    },
  );
}

// --- The page --------------------------------------------------------------------------------------------------

function addPage(app: Web): void {
  for (const { path, type, text, etag, gzipped } of pageFiles) {
    app.get(path, (context) => {
      const headers = { "content-type": type, "cache-control": PAGE_CACHE, etag, vary: "accept-encoding" };
      if (names(context.req.header("if-none-match"), etag)) return context.body(null, 304, headers);
      if (!names(context.req.header("accept-encoding"), "gzip")) return context.body(text, 200, headers);
      return context.body(gzipped(), 200, { ...headers, "content-encoding": "gzip" });
    });
  }
}

/** Whether a header's list has the word, and not with a quality of 0. */
function names(header: string | undefined, word: string): boolean {
  return (header ?? "").split(",").some((item) => {
    const [name = "", quality = ""] = item.split(";").map((part) => part.trim());
    return name === word && !/^q=0(\.0*)?$/.test(quality);
  });
}

// --- Words for /doc --------------------------------------------------------------------------------------------

function json<Schema extends z.ZodType>(description: string, schema: Schema) {
  return { description, content: { "application/json": { schema } } };
}

const refused = json("A mistake in the query: a sentence each", schemas.failure);

function listing<Path extends string, Query extends z.ZodObject, Answer extends z.ZodType>(
  path: Path,
  summary: string,
  query: Query,
  answer: Answer,
) {
  return createRoute({
    method: "get",
    path,
    summary,
    request: { query },
    responses: {
      200: json("The page", answer),
      400: refused,
      503: json("The store cannot be read just now", schemas.failure),
    },
  } satisfies RouteConfig);
}
