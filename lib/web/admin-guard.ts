// Who may change something, and how often: the middleware of each route that changes anything. It answers before a body
// is read, and no answer holds a word of the token.

import type { Context, MiddlewareHandler } from "hono";
import { bearerAuth } from "hono/bearer-auth";
import type { Clock } from "../base/clock.ts";
import { MINUTE_MS } from "../model/trade.ts";

/** Changes made by hand, one at a time, stay far below; Finnhub itself allows 60 calls a minute. */
export const CHANGES_PER_MINUTE_MAX = 60;

/** `adminToken`: ADMIN_TOKEN; undefined = nobody may change anything. The limit counts all routes together. */
export function adminGuard(adminToken: string | undefined, clock: Clock): MiddlewareHandler[] {
  return adminToken === undefined ? [refuseAll] : [requireToken(adminToken), limitChanges(clock)];
}

const refuseAll: MiddlewareHandler = async (context) =>
  context.json({ error: "changes are switched off: set ADMIN_TOKEN and restart to allow them" }, 403);

function requireToken(token: string): MiddlewareHandler {
  return bearerAuth({
    token,
    noAuthenticationHeader: { message: (context: Context) => unauthorized(context, "is missing") },
    invalidAuthenticationHeader: { message: (context: Context) => unauthorized(context, faultOf(context)) },
    invalidToken: { message: (context: Context) => unauthorized(context, "is wrong") },
  });
}

/** Of a header that holds no token as ours can be: it may hold another one, or none. */
function faultOf(context: Context): string {
  return /^Bearer +\S+ *$/i.test(context.req.header("authorization") ?? "") ? "is wrong" : "is missing";
}

function unauthorized(context: Context, fault: string): Response {
  const error = `the token ${fault}: send the header "Authorization: Bearer <ADMIN_TOKEN>"`;
  return context.json({ error }, 401, { "www-authenticate": "Bearer" });
}

function limitChanges(clock: Clock): MiddlewareHandler {
  const changedAtMs: number[] = [];
  return async (context, next) => {
    const nowMs = clock.monotonic();
    while (changedAtMs.length > 0 && changedAtMs[0]! <= nowMs - MINUTE_MS) changedAtMs.shift();
    if (changedAtMs.length < CHANGES_PER_MINUTE_MAX) {
      changedAtMs.push(nowMs);
      return next();
    }
    const seconds = Math.ceil((changedAtMs[0]! + MINUTE_MS - nowMs) / 1_000);
    const error = `too many changes, at most ${CHANGES_PER_MINUTE_MAX} a minute: wait ${seconds} s`;
    return context.json({ error }, 429, { "retry-after": `${seconds}` });
  };
}
