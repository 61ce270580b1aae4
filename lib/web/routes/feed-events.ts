// GET /feed-events: what the feed met, a page at a time, newest first. Pages continue by an event's key.

import { type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Clock } from "../../base/clock.ts";
import type { StoreReader, TimeRange } from "../../contracts/store.ts";
import type { FeedEventRow } from "../../model/trade.ts";
import { type Page, pageOf, rangeOf } from "../pages.ts";
import { from, limit, PAGE_ITEMS_DEFAULT, parameter, query, to } from "../query.ts";
import { listing, page, timeMs } from "../schemas.ts";
import { TIME_MS_MAX } from "../time-parameter.ts";

type Cursor = Pick<FeedEventRow, "event_timestamp" | "session" | "sequence">;

const before = parameter({
  name: "before",
  accepts:
    "give the `before` of a `next` link unchanged (<event_timestamp>.<session>.<sequence>), or leave it out",
  read(text): Cursor | undefined {
    const [, atMs, session, sequence] = /^(\d{1,15})\.([0-9a-f]{1,32})\.(\d{1,15})$/.exec(text) ?? [];
    if (atMs === undefined || session === undefined || Number(atMs) > TIME_MS_MAX) return undefined;
    return { event_timestamp: Number(atMs), session, sequence: Number(sequence) };
  },
  documented: { type: "string", description: "Continues a page: only events that sort after this one." },
}).optional();

const eventsQuery = query({ from, to, limit, before });

const feedEvent = z
  .object({
    day: z.string(),
    event_timestamp: timeMs,
    session: z.string(),
    sequence: z.int(),
    type: z.string(),
    detail: z.string().openapi({ description: "JSON text" }),
  })
  .openapi("FeedEvent");

const route = listing(
  "/feed-events",
  "What the feed met: connections lost and made, refusals; newest first",
  eventsQuery,
  page(feedEvent),
);

export function addFeedEvents(app: OpenAPIHono, deps: Readonly<{ store: StoreReader; clock: Clock }>): void {
  const { store, clock } = deps;
  app.openapi(route, async (context) =>
    context.json(await listEvents(store, context.req.valid("query"), clock.now()), 200),
  );
}

async function listEvents(
  store: StoreReader,
  asked: z.output<typeof eventsQuery>,
  nowMs: number,
): Promise<Page<FeedEventRow>> {
  const { limit = PAGE_ITEMS_DEFAULT, before } = asked;
  const { fromMs, toMs } = rangeOf(asked, nowMs);
  const range = { fromMs, toMs: before === undefined ? toMs : Math.min(toMs, before.event_timestamp + 1) };
  const rows = await eventsAfter(store, range, before, limit + 1);
  return pageOf("feed-events", rows, limit, (last) => ({
    from: fromMs,
    to: toMs,
    limit,
    before: `${last.event_timestamp}.${last.session}.${last.sequence}`,
  }));
}

/**
 * The store continues events by time alone, and several may share a millisecond: it is asked for more until enough lie
 * beyond the cursor. That ends, at the latest, with all events of one millisecond and a page.
 */
async function eventsAfter(
  store: StoreReader,
  range: TimeRange,
  before: Cursor | undefined,
  countWanted: number,
): Promise<readonly FeedEventRow[]> {
  if (before === undefined) return store.listEvents({ range, limit: countWanted });
  for (let limit = countWanted * 2; ; limit *= 2) {
    const rows = await store.listEvents({ range, limit });
    const rest = rows.filter((row) => isAfter(row, before));
    if (rest.length >= countWanted || rows.length < limit) return rest.slice(0, countWanted);
  }
}

/** In the order of feed_events: newest first, then session and sequence descending. */
function isAfter(row: FeedEventRow, cursor: Cursor): boolean {
  if (row.event_timestamp !== cursor.event_timestamp) return row.event_timestamp < cursor.event_timestamp;
  if (row.session !== cursor.session) return row.session < cursor.session;
  return row.sequence < cursor.sequence;
}
