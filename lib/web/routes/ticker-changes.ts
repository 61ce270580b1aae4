// POST /tickers and DELETE /tickers/{symbol}: the routes that change something. Who asks is checked before anything else
// is looked at, and no more of a body is read than a ticker needs.

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { bodyLimit } from "hono/body-limit";
import type { Clock } from "../../base/clock.ts";
import { isTransient } from "../../base/errors.ts";
import type { Logger } from "../../base/logger.ts";
import { SYMBOL_LENGTH_MAX } from "../../model/validate.ts";
import { adminGuard, CHANGES_PER_MINUTE_MAX } from "../admin-guard.ts";
import { RETRY_AFTER } from "../headers.ts";
import { failed, json } from "../schemas.ts";
import { quoted } from "../sentences.ts";
import type { WatchlistCommands } from "../watchlist-commands.ts";

export type TickerChanges = Readonly<{
  control: WatchlistCommands;
  /** ADMIN_TOKEN; undefined: nobody may change anything. */
  adminToken: string | undefined;
}>;

/** `{"symbol": "..."}` with every letter escaped, and blanks. */
const BODY_BYTES_MAX = 4_096;
const EXPECTED = 'send {"symbol": "AAPL"}';
const NOT_WRITTEN = { error: "the change cannot be written right now: try again in a moment" };

const symbol = {
  type: "string",
  minLength: 1,
  maxLength: SYMBOL_LENGTH_MAX,
  description: "As Finnhub writes it",
  example: "BINANCE:BTCUSDT",
} as const;
const security = [{ adminToken: [] }];
const failures = {
  401: failed("The token is missing or wrong"),
  403: failed("No ADMIN_TOKEN is set: nobody may change anything"),
  429: failed(`Over ${CHANGES_PER_MINUTE_MAX} changes a minute`),
  503: failed("The change cannot be written right now"),
};

const addRoute = createRoute({
  method: "post",
  path: "/tickers",
  summary: "Adds a ticker to the watchlist",
  security,
  request: {
    body: {
      // A zod schema would make the library read the body by its own rules: only as application/json, with its own
      // words for a mistake. Ours takes what curl sends.
      content: {
        "application/json": {
          schema: {
            type: "object",
            properties: { symbol },
            required: ["symbol"],
            additionalProperties: false,
          },
        },
      },
      required: true,
    },
  },
  responses: {
    201: json("Added; it streams within 2 s", z.object({ symbol: z.string() }).openapi("TickerCreated")),
    202: json(
      "Added, but whether it exists could not be checked",
      z.object({ symbol: z.string(), reason: z.string() }).openapi("TickerAccepted"),
    ),
    400: failed("A mistake in the body"),
    409: failed("It is on the watchlist already, or the watchlist is full"),
    422: json(
      "Finnhub does not know it; what was perhaps meant",
      z.object({ error: z.string(), suggestions: z.array(z.string()) }).openapi("TickerNotFound"),
    ),
    ...failures,
  },
});

const removeRoute = createRoute({
  method: "delete",
  path: "/tickers/{symbol}",
  summary: "Removes a ticker from the watchlist",
  security,
  request: { params: z.object({ symbol: z.string().openapi({ ...symbol }) }) },
  responses: { 204: { description: "Removed" }, 404: failed("It is not wanted"), ...failures },
});

export function addTickerChanges(
  app: OpenAPIHono,
  deps: Readonly<{ changes: TickerChanges; clock: Clock; logger: Logger }>,
): void {
  const { changes, clock, logger } = deps;
  const { control: commands, adminToken } = changes;
  const guard = adminGuard(adminToken, clock);
  app.openAPIRegistry.registerComponent("securitySchemes", "adminToken", { type: "http", scheme: "bearer" });

  app.openapi({ ...addRoute, middleware: [...guard, limitBody] }, async (context) => {
    const body = readBody(await context.req.text());
    if ("mistake" in body) return context.json({ error: body.mistake }, 400);
    const { symbol } = body;
    const added = await orAway(() => commands.add(symbol), logger);
    if (added === null) return context.json(NOT_WRITTEN, 503, RETRY_AFTER);
    switch (added.kind) {
      case "created":
        logger.info("a ticker was added", { symbol });
        return context.json({ symbol }, 201, { location: `tickers/${encodeURIComponent(symbol)}` });
      case "unchecked":
        logger.info("a ticker was added", { symbol });
        return context.json({ symbol, reason: `added, but not checked: ${added.reason}` }, 202);
      case "bad_symbol":
        return context.json({ error: `${quoted(symbol)} is not a symbol: ${added.fault}` }, 400);
      case "exists":
        return context.json({ error: `${quoted(symbol)} is on the watchlist already` }, 409);
      case "full": {
        const cap = `FINNHUB_MAX_SYMBOLS is ${added.symbolsMax}`;
        return context.json({ error: `the watchlist is full: ${cap}; remove a ticker first` }, 409);
      }
      case "not_found": {
        const suggestions = [...added.suggestions];
        const guess = suggestions.length === 0 ? "" : `: did you mean ${suggestions.join(", ")}?`;
        return context.json({ error: `Finnhub does not know ${quoted(symbol)}${guess}`, suggestions }, 422);
      }
    }
  });

  app.openapi({ ...removeRoute, middleware: guard }, async (context) => {
    const { symbol } = context.req.valid("param");
    const isRemoved = await orAway(() => commands.remove(symbol), logger);
    if (isRemoved === null) return context.json(NOT_WRITTEN, 503, RETRY_AFTER);
    if (!isRemoved) {
      const error = `${quoted(symbol)} is not among the tickers: /tickers lists them`;
      return context.json({ error }, 404);
    }
    logger.info("a ticker was removed", { symbol });
    return context.body(null, 204);
  });
}

/** Null: the log or the store is away for a moment, and as far as can be told nothing was changed. */
async function orAway<T>(change: () => Promise<T>, logger: Logger): Promise<T | null> {
  try {
    return await change();
  } catch (error) {
    if (!isTransient(error)) throw error;
    logger.warn("a ticker was not changed: the record cannot be written right now", { error });
    return null;
  }
}

// --- The body --------------------------------------------------------------------------------------------------

/** What follows the limit is not read. */
const limitBody = bodyLimit({
  maxSize: BODY_BYTES_MAX,
  onError: (context) =>
    context.json({ error: `the body is longer than ${BODY_BYTES_MAX} bytes: ${EXPECTED}` }, 400),
});

function readBody(text: string): { symbol: string } | { mistake: string } {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return { mistake: `the body is not JSON: ${EXPECTED}` };
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    return { mistake: `the body is not a JSON object: ${EXPECTED}` };
  }
  const unknown = Object.keys(body).filter((name) => name !== "symbol");
  if (unknown.length > 0)
    return { mistake: `${quoted(unknown[0]!)} is not a field of a ticker: ${EXPECTED}` };
  if (!("symbol" in body)) return { mistake: `symbol is missing: ${EXPECTED}` };
  if (typeof body.symbol !== "string") return { mistake: `symbol is not a string: ${EXPECTED}` };
  return { symbol: body.symbol };
}
