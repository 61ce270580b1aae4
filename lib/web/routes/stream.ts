// GET /events: the live view as server-sent events. What is sent, and to whom, is decided in web/live/stream.ts.

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { type Clock, withTimeout } from "../../base/clock.ts";
import type { HealthDocument } from "../../health/health.ts";
import { NOT_KEPT, RETRY_AFTER } from "../headers.ts";
import type { Backfill } from "../live/backfill.ts";
import type { SeenAt } from "../live/protocol.ts";
import { LiveStreams } from "../live/stream.ts";
import type { LiveView } from "../live/view.ts";
import { query, symbol } from "../query.ts";
import { badQuery, failed } from "../schemas.ts";
import { symbolsOf, type TickerSets } from "../ticker-states.ts";

/** The first view waits this long for what an earlier run stored, and then goes without it. */
const BACKFILL_MS_MAX = 2_000;
/** No proxy on the way may collect events before it hands them on, as one does that compresses them. */
const STREAM_HEADERS = {
  "content-type": "text/event-stream",
  "cache-control": `${NOT_KEPT}, no-transform`,
  "x-accel-buffering": "no",
};

const route = createRoute({
  method: "get",
  path: "/events",
  summary: "The live view as server-sent events: `snapshot`, then `delta` at most every 100 ms",
  request: { query: query({ symbol: symbol.optional() }) },
  responses: {
    // Its events have the shapes of web/live/protocol.ts.
    200: { description: "The stream", content: { "text/event-stream": { schema: z.string() } } },
    400: badQuery,
    503: failed("Too many live streams"),
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
    const { symbol = null } = context.req.valid("query");
    if (context.req.raw.method === "HEAD") return context.body(null, 200, STREAM_HEADERS);
    await withTimeout(clock, BACKFILL_MS_MAX, () => refresh(symbolsOf(tickers())));
    const lastEventId = context.req.header("last-event-id") ?? null;
    const stream = streams.open({ symbol, lastEventId });
    if (stream === null) {
      const error = "too many live streams: close a page, or try again later";
      return context.json({ error }, 503, RETRY_AFTER);
    }
    // A quiet stream is not idle. Without a socket, as in a test, there is no server.
    serverOf(context.env)?.timeout(context.req.raw, 0);
    return context.body(stream, 200, STREAM_HEADERS);
  });
}

function serverOf(env: unknown): Pick<Bun.Server<undefined>, "timeout"> | undefined {
  return (env as Readonly<{ server?: Bun.Server<undefined> }> | undefined)?.server;
}
