// GET /trades: the trades of a symbol, a page at a time, newest first. Pages continue by a trade's key.

import { type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Clock } from "../../base/clock.ts";
import type { StoreReader } from "../../contracts/store.ts";
import type { TradeRow } from "../../model/trade.ts";
import { walkBack } from "../live/walk-back.ts";
import { endOf, type Page, pageOf, rangeOf } from "../pages.ts";
import { fromNewest as from, limit, PAGE_ITEMS_DEFAULT, parameter, query, symbol, to } from "../query.ts";
import { amount, listing, page, timeMs } from "../schemas.ts";
import { TIME_MS_MAX } from "../time-parameter.ts";

const before = parameter({
  name: "before",
  accepts: "give the `before` of a `next` link unchanged (<trade_timestamp>.<uuid>), or leave it out",
  read(text) {
    const [, atMs, uuid] = /^(\d{1,15})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/.exec(text) ?? [];
    if (atMs === undefined || uuid === undefined || Number(atMs) > TIME_MS_MAX) return undefined;
    return { trade_timestamp: Number(atMs), uuid };
  },
  documented: { type: "string", description: "Continues a page: only trades that sort after this one." },
}).optional();

const tradesQuery = query({ symbol, from, to, limit, before });

const trade = z
  .object({
    symbol: z.string(),
    hour: timeMs,
    trade_timestamp: timeMs,
    uuid: z.string(),
    price: amount,
    volume: amount,
    trade_conditions: z.string().nullable().openapi({ description: "JSON text, or null" }),
    ingest_timestamp: timeMs,
  })
  .openapi("Trade");

const route = listing("/trades", "Trades of a symbol, newest first", tradesQuery, page(trade));

export function addTrades(app: OpenAPIHono, deps: Readonly<{ store: StoreReader; clock: Clock }>): void {
  const { store, clock } = deps;
  app.openapi(route, async (context) =>
    context.json(await listTrades(store, context.req.valid("query"), clock.now()), 200),
  );
}

async function listTrades(
  store: StoreReader,
  asked: z.output<typeof tradesQuery>,
  nowMs: number,
): Promise<Page<TradeRow>> {
  const { symbol, limit = PAGE_ITEMS_DEFAULT, before } = asked;
  if (asked.from === undefined) return listNewest(store, asked, nowMs);
  const { fromMs, toMs } = rangeOf(asked, nowMs);
  // Hours that can hold nothing of this page are left out of the range, so that a store reads fewer of them.
  const range = { fromMs, toMs: before === undefined ? toMs : Math.min(toMs, before.trade_timestamp + 1) };
  const rows = await store.listTrades({ symbol, range, limit: limit + 1, ...(before && { before }) });
  return pageOf("trades", rows, limit, (last) => ({
    symbol,
    from: fromMs,
    to: toMs,
    limit,
    before: `${last.trade_timestamp}.${last.uuid}`,
  }));
}

/** Without `from`: back to the oldest there are, over the pages. */
async function listNewest(
  store: StoreReader,
  asked: z.output<typeof tradesQuery>,
  nowMs: number,
): Promise<Page<TradeRow>> {
  const { symbol, limit = PAGE_ITEMS_DEFAULT, before } = asked;
  const toMs = endOf(asked, nowMs);
  const { rows, untilMs } = await walkBack({
    store,
    symbol,
    toMs: before === undefined ? toMs : Math.min(toMs, before.trade_timestamp + 1),
    nowMs,
    limit: limit + 1,
    read: (range, count) => store.listTrades({ symbol, range, limit: count, ...(before && { before }) }),
  });
  const next = (last: TradeRow) => ({
    symbol,
    to: toMs,
    limit,
    before: `${last.trade_timestamp}.${last.uuid}`,
  });
  return pageOf("trades", rows, limit, next, untilMs === null ? null : { symbol, to: untilMs, limit });
}
