// GET /tickers and GET /tickers/{symbol}: the symbols on the watchlist, their state and their last price.

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Clock } from "../../base/clock.ts";
import type { SymbolOutcome } from "../../ingest/watchlist-sync.ts";
import { countsAtMs } from "../../model/last-trade.ts";
import type { Backfill } from "../live/backfill.ts";
import { noQuery } from "../query.ts";
import { badQuery, failed, json, listing, timeMs } from "../schemas.ts";
import { nearest, quoted } from "../sentences.ts";
import { symbolsOf, type TickerSets, tickerStateOf, unreceivedOf } from "../ticker-states.ts";

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

const unreceived = z
  .object({
    since_timestamp: timeMs,
    reason: z.string().openapi({ description: "Why it is not received; it is asked for again by itself" }),
  })
  .openapi("Unreceived");

const ticker = z
  .object({
    symbol: z.string(),
    state: z.enum(["subscribed", "unsubscribed", "wanted", "rejected"]).openapi({
      description:
        "unsubscribed: wanted, but over the feed's cap or refused by it; wanted: not yet subscribed; " +
        "rejected: proven not to exist",
    }),
    validation: validation.optional(),
    unreceived: unreceived.nullable(),
    last_price: z.number().nullable(),
    last_trade_timestamp: timeMs.nullable(),
    age_ms: z.int().nullable().openapi({
      description: "Since the last trade; one that is dated ahead of its receipt counts as at its receipt",
    }),
  })
  .openapi("Ticker");

type Ticker = z.output<typeof ticker>;

const listRoute = listing(
  "/tickers",
  "The symbols of the feed",
  noQuery,
  z.object({ items: z.array(ticker).readonly() }),
);

const oneRoute = createRoute({
  method: "get",
  path: "/tickers/{symbol}",
  summary: "One symbol of the feed",
  request: {
    params: z.object({
      symbol: z.string().openapi({ param: { name: "symbol", in: "path" }, example: "AAPL" }),
    }),
    query: noQuery,
  },
  responses: { 200: json("The symbol", ticker), 400: badQuery, 404: failed("Not wanted") },
});

type TickersDeps = Readonly<{
  clock: Clock;
  tickers: () => TickerSets;
  backfill: Pick<Backfill, "last">;
}>;

export function addTickers(app: OpenAPIHono, { clock, tickers, backfill }: TickersDeps): void {
  async function tickerOf(symbol: string, sets: TickerSets): Promise<Ticker> {
    const row = await backfill.last(symbol);
    const outcome = sets.outcome?.(symbol);
    const missed = unreceivedOf(symbol, sets);
    return {
      symbol,
      state: tickerStateOf(symbol, sets),
      ...(outcome === undefined ? {} : { validation: validationOf(outcome) }),
      unreceived: missed && { since_timestamp: missed.sinceMs, reason: missed.reason },
      last_price: row?.price ?? null,
      last_trade_timestamp: row?.trade_timestamp ?? null,
      age_ms: row === null ? null : Math.max(0, clock.now() - countsAtMs(row)),
    };
  }

  app.openapi(listRoute, async (context) => {
    const sets = tickers();
    const items = await Promise.all(symbolsOf(sets).map((symbol) => tickerOf(symbol, sets)));
    return context.json({ items }, 200);
  });
  app.openapi(oneRoute, async (context) => {
    const { symbol } = context.req.valid("param");
    const sets = tickers();
    const symbols = symbolsOf(sets);
    if (symbols.includes(symbol)) return context.json(await tickerOf(symbol, sets), 200);
    const meant = nearest(symbol, symbols);
    const guess = meant === undefined ? "/tickers lists them" : `did you mean ${meant}?`;
    return context.json({ error: `${quoted(symbol)} is not among the tickers: ${guess}` }, 404);
  });
}

function validationOf(outcome: SymbolOutcome): z.output<typeof validation> {
  return {
    outcome: outcome.kind,
    reason: outcome.kind === "unknown" ? outcome.reason : null,
    suggestions: outcome.kind === "not_found" ? [...outcome.suggestions] : [],
    checked_timestamp: outcome.kind === "unchecked" ? null : outcome.checkedAtMs,
  };
}
