// The shape of each answer, for /doc and for the type checker: rows in the column names of the tables, times in ms.
// Nothing is checked with these while it runs; what is answered comes from our own store.

import { z } from "@hono/zod-openapi";

const timeMs = z.int().openapi({ description: "ms since 1970", example: 1_767_614_400_000 });
const amount = z.number();
const vwap = z.number().nullable().openapi({ description: "sum(p*v)/sum(v); null: no volume was traded" });

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

const candle = z
  .object({
    symbol: z.string(),
    day: z.string().openapi({ description: "YYYY-MM-DD, UTC" }),
    window_start: timeMs,
    open: amount,
    high: amount,
    low: amount,
    close: amount,
    volume: amount,
    price_volume_sum: amount,
    vwap,
    trade_count: z.int(),
  })
  .openapi("Candle");

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

const validation = z
  .object({
    outcome: z.enum(["found", "not_found", "unknown", "unchecked"]).openapi({
      description: "Whether the source knows it. unknown: it was asked and could not say",
    }),
    reason: z.string().nullable().openapi({ description: "Why it is unknown" }),
    suggestions: z.array(z.string()).openapi({ description: "What was perhaps meant" }),
    checked_timestamp: timeMs.nullable(),
  })
  .openapi("Validation");
export type Validation = z.output<typeof validation>;

export const ticker = z
  .object({
    symbol: z.string(),
    state: z.enum(["subscribed", "unsubscribed", "wanted", "rejected"]).openapi({
      description:
        "unsubscribed: wanted, but over the feed's cap or refused by it; wanted: not yet asked for; " +
        "rejected: proven not to exist",
    }),
    validation: validation.optional(),
    last_price: z.number().nullable(),
    last_trade_timestamp: timeMs.nullable(),
    age_ms: z.int().nullable(),
  })
  .openapi("Ticker");
export type Ticker = z.output<typeof ticker>;

const part = z.looseObject({
  ok: z.boolean(),
  reason: z.string().nullable(),
  lastProgressAt: timeMs.nullable(),
  ageMs: z.number().nullable(),
});
export const health = z
  .object({
    status: z.enum(["ok", "failing"]),
    reason: z.string().nullable(),
    simulated: z.boolean(),
    parts: z.record(z.string(), part),
  })
  .openapi("Health");

export const failure = z
  .object({ error: z.string(), problems: z.array(z.string()).optional() })
  .openapi("Failure");

function page<Item extends z.ZodType>(item: Item) {
  return z.object({
    items: z.array(item).readonly(),
    next: z.string().nullable().openapi({ description: "The URL of the next page; null: this is the last" }),
  });
}
export const tradesPage = page(trade);
export const averagesPage = page(average);
export const candlesPage = page(candle);
export const eventsPage = page(feedEvent);
export const tickersList = z.object({ items: z.array(ticker).readonly() });
export const metricsText = z.string();
/** Events in the words of web/live/protocol.ts. */
export const liveText = z.string();
