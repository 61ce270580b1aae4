// GET /events: the live view as server-sent events. What is sent, and to whom, is decided in web/live/stream.ts. And
// POST /events/{place}, by which a client says that it reads.

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { type Clock, withTimeout } from "../../base/clock.ts";
import type { HealthDocument } from "../../health/health.ts";
import { SYMBOL_LENGTH_MAX } from "../../model/validate.ts";
import { NOT_KEPT, RETRY_AFTER } from "../headers.ts";
import type { Backfill } from "../live/backfill.ts";
import { CHOSEN_MAX, type SeenAt } from "../live/protocol.ts";
import { LiveStreams } from "../live/stream.ts";
import type { LiveView } from "../live/view.ts";
import { noQuery, parameter, query, symbol } from "../query.ts";
import { badQuery, failed } from "../schemas.ts";
import { quoted } from "../sentences.ts";
import { symbolsOf, type TickerSets } from "../ticker-states.ts";

/** The first view waits this long for what an earlier run stored, and then goes without it. */
const BACKFILL_MS_MAX = 2_000;
/** No proxy on the way may collect events before it hands them on, as one does that compresses them. */
const STREAM_HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": `${NOT_KEPT}, no-transform`,
  "x-accel-buffering": "no",
};

const also = parameter({
  name: "also",
  accepts: `give a JSON list of at most ${CHOSEN_MAX - 1} symbols, like ["MSFT","OANDA:EUR_USD"]`,
  read: readSymbols,
  documented: {
    type: "string",
    description: "More symbols whose seconds are sent, as `others`; a JSON list.",
    example: '["MSFT"]',
  },
}).optional();

function readSymbols(text: string): readonly string[] | undefined {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(list) || list.length >= CHOSEN_MAX) return undefined;
  const isSymbol = (one: unknown): one is string =>
    typeof one === "string" && one.length >= 1 && one.length <= SYMBOL_LENGTH_MAX;
  return list.every(isSymbol) ? list : undefined;
}

const route = createRoute({
  method: "get",
  path: "/events",
  summary: "The live view as server-sent events: `snapshot`, then `delta` at most every 100 ms",
  request: { query: query({ symbol: symbol.optional(), also }) },
  responses: {
    // Its events have the shapes of web/live/protocol.ts.
    200: { description: "The stream", content: { "text/event-stream": { schema: z.string() } } },
    400: badQuery,
    503: failed("Too many live streams"),
  },
});

const confirmRoute = createRoute({
  method: "post",
  path: "/events/{place}",
  summary:
    "A client of /events says that it reads: its place is kept for 15 s more, though others wait for one",
  request: {
    params: z.object({
      place: z
        .string()
        .openapi({ param: { name: "place", in: "path" }, description: "`place` of the snapshot" }),
    }),
    query: noQuery,
  },
  responses: {
    204: { description: "The place is kept" },
    400: badQuery,
    404: failed("No stream has this place"),
  },
});

type StreamDeps = Readonly<{
  live: LiveView;
  clock: Clock;
  health: () => HealthDocument;
  tickers: () => TickerSets;
  backfill: Pick<Backfill, "refresh">;
  simulated: boolean;
  seenAt?: SeenAt | undefined;
  signal?: AbortSignal | undefined;
}>;

export function addStream(app: OpenAPIHono, deps: StreamDeps): void {
  const { clock, tickers, backfill } = deps;
  const { refresh } = backfill;
  const streams = new LiveStreams({ ...deps, refresh });
  app.openapi(route, async (context) => {
    const { symbol, also = [] } = context.req.valid("query");
    if (context.req.raw.method === "HEAD") return context.body(null, 200, STREAM_HEADERS);
    await withTimeout(clock, BACKFILL_MS_MAX, () => refresh(symbolsOf(tickers())));
    const lastEventId = context.req.header("last-event-id") ?? null;
    const symbols = [...new Set(symbol === undefined ? also : [symbol, ...also])];
    const stream = streams.open({ symbols, lastEventId });
    if (stream === null) {
      const error = "too many live streams: close a page, or try again later";
      return context.json({ error }, 503, RETRY_AFTER);
    }
    // A quiet stream is not idle. Without a socket, as in a test, there is no server.
    serverOf(context.env)?.timeout(context.req.raw, 0);
    return context.body(stream, 200, STREAM_HEADERS);
  });
  app.openapi(confirmRoute, (context) => {
    const { place } = context.req.valid("param");
    if (streams.confirm(place)) return context.body(null, 204);
    return context.json({ error: `no live stream has the place ${quoted(place)}: open /events anew` }, 404);
  });
}

function serverOf(env: unknown): Pick<Bun.Server<undefined>, "timeout"> | undefined {
  return (env as Readonly<{ server?: Bun.Server<undefined> }> | undefined)?.server;
}
