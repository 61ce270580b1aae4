// The REST calls that validation needs: the token, the limit, the status. It is told the time, opens no socket and keeps
// no token but for its count of calls (simulator/rest-limit.ts); the bodies come from simulator/rest-answers.ts.

import { RestAnswers, type RestAnswersOptions } from "./rest-answers.ts";
import { RestLimit, type RestLimitOptions } from "./rest-limit.ts";

type RestOptions = RestAnswersOptions & RestLimitOptions & Readonly<{ accepts: (token: string) => boolean }>;

type Rest = (url: URL, headers: Headers, nowMs: number) => Response;

export const API_PATH = "/api/v1";
export const NO_KEY_BODY = { error: "Please use an API key." };
export const BAD_KEY_BODY = { error: "Invalid API key." };
export const LIMIT_BODY = { error: "API limit reached. Please try again later. Remaining Limit: 0" };
const PREMIUM_BODY = { error: "You don't have access to this resource." };
const PREMIUM_PATHS = new Set(["/stock/candle", "/crypto/candle", "/forex/candle", "/stock/tick"]);
/** Bodies for a missing parameter or an unknown path are guesses; clients act on the status. */
const MISSING_STATUS = 422;

export function createRest(options: RestOptions): Rest {
  const answers = new RestAnswers(options);
  const limit = new RestLimit(options);

  return (url, requestHeaders, nowMs) => {
    const token = url.searchParams.get("token") ?? requestHeaders.get("x-finnhub-token") ?? "";
    if (token === "") return Response.json(NO_KEY_BODY, { status: 401 });
    if (!options.accepts(token)) return Response.json(BAD_KEY_BODY, { status: 401 });
    const { isRefused, headers } = limit.count(token, nowMs);
    if (isRefused) return Response.json(LIMIT_BODY, { status: 429, headers });
    const path = url.pathname.slice(API_PATH.length);
    if (PREMIUM_PATHS.has(path)) return Response.json(PREMIUM_BODY, { status: 403, headers });
    if (path === "/search" && options.searchOutage() === "error") {
      return new Response("error code: 504", { status: 504, headers });
    }
    const body = answers.bodyOf(path, url.searchParams, nowMs);
    if (body === null) return Response.json({ error: "Not found." }, { status: 404, headers });
    if (typeof body === "string") {
      return Response.json({ error: `Missing parameter: ${body}` }, { status: MISSING_STATUS, headers });
    }
    return Response.json(body, { headers });
  };
}
