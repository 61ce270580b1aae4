// The routes that change something: POST /tickers, DELETE /tickers/{symbol}. They ask who is asking before anything
// else is looked at, read no more of a body than a ticker needs, and hold no word of the token in any answer.

import { createHash, timingSafeEqual } from "node:crypto";
import type { OpenAPIHono } from "@hono/zod-openapi";
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { Clock } from "../../base/clock.ts";
import { isTransient } from "../../base/errors.ts";
import type { Logger } from "../../base/logger.ts";
import { SYMBOL_LENGTH_MAX } from "../../model/validate.ts";
import { quoted } from "../query.ts";
import { failure } from "../schemas.ts";
import type { WatchlistCommands } from "../watchlist-commands.ts";

export type TickerChanges = Readonly<{
  control: WatchlistCommands;
  /** ADMIN_TOKEN; undefined: nobody may change anything. */
  adminToken: string | undefined;
}>;

/** `{"symbol": "..."}` with every letter escaped, and blanks. */
const BODY_BYTES_MAX = 4_096;
/** One at a time by hand is far below; 60 is what Finnhub takes of calls a minute. */
const CHANGES_PER_MINUTE_MAX = 60;
const MINUTE_MS = 60_000;
const RETRY_AFTER_SECONDS = "2";

type Status = 200 | 201 | 202 | 400 | 401 | 403 | 404 | 409 | 422 | 429 | 503;

export function addTickerChanges(
  app: OpenAPIHono,
  { control, adminToken }: TickerChanges,
  clock: Clock,
  logger: Logger,
): void {
  const countChange = createChangeLimit(clock);
  const tokenDigest = adminToken === undefined ? null : digestOf(adminToken);

  /** The answer to whoever may not, or not now; null: go on. */
  function refusal(context: Context): Response | null {
    if (tokenDigest === null) {
      return fail(context, 403, "changes are switched off: set ADMIN_TOKEN and restart to allow them");
    }
    const given = /^Bearer +(\S+) *$/i.exec(context.req.header("authorization") ?? "")?.[1];
    // Of equal length whatever was given, so that the time it takes says nothing.
    if (given === undefined || !timingSafeEqual(digestOf(given), tokenDigest)) {
      const what = given === undefined ? "is missing" : "is wrong";
      const hint = 'send the header "Authorization: Bearer <ADMIN_TOKEN>"';
      return fail(context, 401, `the token ${what}: ${hint}`, { "www-authenticate": "Bearer" });
    }
    const waitMs = countChange();
    if (waitMs === 0) return null;
    const seconds = Math.ceil(waitMs / 1_000);
    return fail(
      context,
      429,
      `too many changes, at most ${CHANGES_PER_MINUTE_MAX} a minute: wait ${seconds} s`,
      {
        "retry-after": `${seconds}`,
      },
    );
  }

  /** The log or the store may be away for a moment: nothing was changed then, as far as anybody can tell. */
  async function changing(context: Context, change: () => Promise<Response>): Promise<Response> {
    try {
      return await change();
    } catch (error) {
      if (!isTransient(error)) throw error;
      logger.warn("a ticker was not changed: the record cannot be written just now", { error });
      return fail(context, 503, "the change cannot be written just now: try again in a moment", {
        "retry-after": RETRY_AFTER_SECONDS,
      });
    }
  }

  app.post("/tickers", async (context) => {
    const refused = refusal(context);
    if (refused !== null) return refused;
    const body = readBody(await boundedText(context.req.raw));
    if ("mistake" in body) return fail(context, 400, body.mistake);
    const { symbol } = body;
    return changing(context, async () => {
      const added = await control.add(symbol);
      switch (added.kind) {
        case "created":
        case "unchecked":
          logger.info("a ticker was added", { symbol });
          return added.kind === "created"
            ? context.json({ symbol }, 201, { location: `/tickers/${encodeURIComponent(symbol)}` })
            : context.json({ symbol, reason: `added, but not checked: ${added.reason}` }, 202);
        case "bad_symbol":
          return fail(context, 400, `${quoted(symbol)} is no symbol: ${added.fault}`);
        case "exists":
          return fail(context, 409, `${quoted(symbol)} is there already`);
        case "full":
          return fail(
            context,
            409,
            `the list is full: FINNHUB_MAX_SYMBOLS is ${added.symbolsMax}; remove a ticker first`,
          );
        case "not_found": {
          const { suggestions } = added;
          const guess = suggestions.length === 0 ? "" : `: did you mean ${suggestions.join(", ")}?`;
          return context.json({ error: `Finnhub does not know ${quoted(symbol)}${guess}`, suggestions }, 422);
        }
      }
    });
  });

  app.delete("/tickers/:symbol", async (context) => {
    const refused = refusal(context);
    if (refused !== null) return refused;
    const symbol = context.req.param("symbol");
    return changing(context, async () => {
      if (!(await control.remove(symbol))) {
        return fail(context, 404, `${quoted(symbol)} is not among the tickers: /tickers lists them`);
      }
      logger.info("a ticker was removed", { symbol });
      return context.body(null, 204);
    });
  });

  document(app);
}

function fail(
  context: Context,
  status: Status,
  error: string,
  headers: Record<string, string> = {},
): Response {
  return context.json({ error }, status, headers);
}

function digestOf(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** Counts a change: 0, or in how many ms there is room for one. */
function createChangeLimit(clock: Clock): () => number {
  const changedAtMs: number[] = [];
  return () => {
    const nowMs = clock.monotonic();
    while (changedAtMs.length > 0 && changedAtMs[0]! <= nowMs - MINUTE_MS) changedAtMs.shift();
    if (changedAtMs.length >= CHANGES_PER_MINUTE_MAX) return changedAtMs[0]! + MINUTE_MS - nowMs;
    changedAtMs.push(nowMs);
    return 0;
  };
}

// --- The body --------------------------------------------------------------------------------------------------

/** Null: too long. What follows the limit is not read. */
async function boundedText(request: Request): Promise<string | null> {
  const decoder = new TextDecoder();
  let text = "";
  let byteCount = 0;
  for await (const chunk of request.body ?? []) {
    byteCount += chunk.byteLength;
    if (byteCount > BODY_BYTES_MAX) return null;
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

const EXPECTED = 'send {"symbol": "AAPL"}';

function readBody(text: string | null): { symbol: string } | { mistake: string } {
  if (text === null) return { mistake: `the body is longer than ${BODY_BYTES_MAX} bytes: ${EXPECTED}` };
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return { mistake: `the body is no JSON: ${EXPECTED}` };
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    return { mistake: `the body is no object: ${EXPECTED}` };
  }
  const unknown = Object.keys(body).filter((name) => name !== "symbol");
  if (unknown.length > 0) return { mistake: `${quoted(unknown[0]!)} is no field of a ticker: ${EXPECTED}` };
  if (!("symbol" in body)) return { mistake: `symbol is missing: ${EXPECTED}` };
  if (typeof body.symbol !== "string") return { mistake: `symbol is no text: ${EXPECTED}` };
  return { symbol: body.symbol };
}

// --- Words for /doc: written beside the routes, because a body is looked at only after the token ------------------

const accepted = z.object({ symbol: z.string(), reason: z.string() }).openapi("TickerAccepted");
const created = z.object({ symbol: z.string() }).openapi("TickerCreated");
const notFound = z.object({ error: z.string(), suggestions: z.array(z.string()) }).openapi("TickerNotFound");

function document(app: OpenAPIHono): void {
  const { openAPIRegistry: registry } = app;
  const answer = (description: string, schema: z.ZodType = failure) => ({
    description,
    content: { "application/json": { schema } },
  });
  registry.registerComponent("securitySchemes", "adminToken", { type: "http", scheme: "bearer" });
  const forAll = {
    401: answer("The token is missing or wrong"),
    403: answer("No ADMIN_TOKEN is set: nobody may change anything"),
    429: answer(`Over ${CHANGES_PER_MINUTE_MAX} changes a minute`),
    503: answer("The change cannot be written just now"),
  };
  const symbol = z
    .string()
    .min(1)
    .max(SYMBOL_LENGTH_MAX)
    .openapi({ description: "As Finnhub writes it", example: "BINANCE:BTCUSDT" });
  registry.registerPath({
    method: "post",
    path: "/tickers",
    summary: "Adds a ticker to the wanted set",
    security: [{ adminToken: [] }],
    request: {
      body: { content: { "application/json": { schema: z.strictObject({ symbol }) } }, required: true },
    },
    responses: {
      201: answer("Added; it streams within 2 s", created),
      202: answer("Added, but whether it exists could not be checked", accepted),
      400: answer("A mistake in the body"),
      409: answer("It is there already, or the list is full"),
      422: answer("Finnhub does not know it; what was perhaps meant", notFound),
      ...forAll,
    },
  });
  registry.registerPath({
    method: "delete",
    path: "/tickers/{symbol}",
    summary: "Removes a ticker from the wanted set",
    security: [{ adminToken: [] }],
    request: { params: z.object({ symbol }) },
    responses: { 204: { description: "Removed" }, 404: answer("It is not wanted"), ...forAll },
  });
}
