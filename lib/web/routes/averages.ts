// GET /averages: the 15-second running averages of a symbol, a page at a time, newest first. Pages continue by time.

import { type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Clock } from "../../base/clock.ts";
import type { StoreReader, TimeRange } from "../../contracts/store.ts";
import type { AverageRow } from "../../model/aggregates.ts";
import { walkBack } from "../live/walk-back.ts";
import { endOf, type Page, pageOf, rangeOf } from "../pages.ts";
import { fromNewest as from, limit, PAGE_ITEMS_DEFAULT, query, symbol, to } from "../query.ts";
import { amount, listing, page, timeMs, vwap } from "../schemas.ts";

const averagesQuery = query({ symbol, from, to, limit });

const average = z
  .object({
    symbol: z.string(),
    hour: timeMs,
    window_end: timeMs,
    price_volume_multiply: amount.openapi({ description: "the average of price*volume" }),
    average_price: amount,
    vwap,
    volume: amount,
    trade_count: z.int(),
  })
  .openapi("Average");

export const averagesPage = page(average);

const route = listing(
  "/averages",
  "15-second running averages of a symbol, newest first; only windows that are over",
  averagesQuery,
  averagesPage,
);

export function addAverages(app: OpenAPIHono, deps: Readonly<{ store: StoreReader; clock: Clock }>): void {
  const { store, clock } = deps;
  app.openapi(route, async (context) =>
    context.json(await listAverages(store, context.req.valid("query"), clock.now()), 200),
  );
}

/** Only windows that are over: an average that still grows would be half the truth. */
async function listAverages(
  store: StoreReader,
  asked: z.output<typeof averagesQuery>,
  nowMs: number,
): Promise<Page<AverageRow>> {
  const { symbol, limit = PAGE_ITEMS_DEFAULT } = asked;
  if (asked.from === undefined) {
    const read = (range: TimeRange, count: number) => store.listAverages({ symbol, range, limit: count });
    const toMs = Math.min(endOf(asked, nowMs), nowMs + 1);
    const { rows, untilMs } = await walkBack({ store, symbol, toMs, nowMs, limit: limit + 1, read });
    const next = (last: AverageRow) => ({ symbol, to: last.window_end, limit });
    return pageOf("averages", rows, limit, next, untilMs === null ? null : { symbol, to: untilMs, limit });
  }
  const { fromMs, toMs } = rangeOf(asked, nowMs);
  const range = { fromMs, toMs: Math.min(toMs, nowMs + 1) };
  const rows = await store.listAverages({ symbol, range, limit: limit + 1 });
  return pageOf("averages", rows, limit, (last) => ({ symbol, from: fromMs, to: last.window_end, limit }));
}
