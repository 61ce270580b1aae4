// Headers that every answer has.

import type { MiddlewareHandler } from "hono";
import { secureHeaders } from "hono/secure-headers";

/** For answers that must not be kept by anybody, which are all but the page's files. */
export const NOT_KEPT = "no-store";
/** The seconds of `retry-after`, where the store, the log or a free place is missing for a moment. */
export const RETRY_AFTER = { "retry-after": "2" };

/** Where the data is from; and no answer is cached that does not say otherwise. */
export function dataHeaders(simulated: boolean): MiddlewareHandler {
  return async (context, next) => {
    await next();
    const { headers } = context.res;
    headers.set("x-data-source", simulated ? "simulated" : "finnhub");
    if (!headers.has("cache-control")) headers.set("cache-control", NOT_KEPT);
  };
}

/** A policy that allows the page its own files and nothing from elsewhere. `inlineScripts`: hashes, as CSP writes them. */
export function pagePolicy(inlineScripts: readonly string[]): MiddlewareHandler {
  return secureHeaders({
    contentSecurityPolicy: {
      defaultSrc: ["'none'"],
      scriptSrc: ["'self'", ...inlineScripts],
      styleSrc: ["'self'"],
      connectSrc: ["'self'"],
      imgSrc: ["'self'", "data:"],
      baseUri: ["'self'"],
      frameAncestors: ["'none'"],
      formAction: ["'none'"],
    },
    xFrameOptions: "DENY",
    // This server speaks plain HTTP; whoever puts TLS before it decides this for their own name.
    strictTransportSecurity: false,
  });
}
