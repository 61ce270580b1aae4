// The REST calls that validation needs, answered from the simulator's own listings. Pure but for its count of
// calls: it is told the time, opens no socket and keeps no token beyond the minute in which it was used.

import { CRYPTO_EXCHANGES, FOREX_EXCHANGES, type Instrument, instrumentOf, LISTINGS } from "./listings.ts";
import type { Session } from "./session.ts";

export type RestOptions = Readonly<{
  accepts: (token: string) => boolean;
  /** The last price of a symbol; null: unknown. */
  price: (symbol: string) => number | null;
  instruments: readonly Instrument[];
  callsPerMinuteMax: number;
  /** On top of every plan's limit: 30, says Finnhub. */
  callsPerSecondMax: number;
  /** How /search is out of order just now; null = it works. */
  searchOutage: () => SearchOutage | null;
  /** Of the US exchange; null = closed. */
  session: (nowMs: number) => Session | null;
  /** Whether /search finds a crypto symbol by its exact name. Very probably Finnhub's does. */
  searchKnowsCrypto: boolean;
  /** The same for forex, for which there is no evidence. */
  searchKnowsForex: boolean;
}>;

/** `empty`: it finds nothing, whatever it is asked, as on 2025-05-21 (#552). `error`: 504 (#490). */
export type SearchOutage = "empty" | "error";

export type Rest = (url: URL, headers: Headers, nowMs: number) => Response;

export const API_PATH = "/api/v1";
export const NO_KEY_BODY = { error: "Please use an API key." };
export const BAD_KEY_BODY = { error: "Invalid API key." };
export const LIMIT_BODY = { error: "API limit reached. Please try again later. Remaining Limit: 0" };
const PREMIUM_BODY = { error: "You don't have access to this resource." };
const PREMIUM_PATHS = new Set(["/stock/candle", "/crypto/candle", "/forex/candle", "/stock/tick"]);
/** Whoever sends ever new tokens must not fill the memory. */
const TOKENS_COUNTED_MAX = 1_000;
const SEARCH_RESULTS_MAX = 20;
/** Bodies for a missing parameter or an unknown path are guesses; clients act on the status. */
const MISSING_STATUS = 422;

type RestClient = { minute: number; inMinute: number; second: number; inSecond: number };

export function createRest(options: RestOptions): Rest {
  const listings = [
    ...new Map([...LISTINGS, ...options.instruments].map((one) => [one.symbol, one])).values(),
  ];
  const callsOf = new Map<string, RestClient>();

  /** Fixed windows: all a client sees of the limit is how much is left and when it begins anew. */
  function count(token: string, nowMs: number) {
    const second = Math.floor(nowMs / 1_000);
    const minute = Math.floor(second / 60);
    const calls = callsOf.get(token) ?? { minute, inMinute: 0, second, inSecond: 0 };
    callsOf.delete(token);
    callsOf.set(token, calls);
    if (callsOf.size > TOKENS_COUNTED_MAX) {
      for (const oldest of callsOf.keys()) {
        callsOf.delete(oldest);
        break;
      }
    }
    if (calls.minute !== minute) Object.assign(calls, { minute, inMinute: 0 });
    if (calls.second !== second) Object.assign(calls, { second, inSecond: 0 });
    const refused =
      calls.inMinute >= options.callsPerMinuteMax || calls.inSecond >= options.callsPerSecondMax;
    if (!refused) {
      calls.inMinute += 1;
      calls.inSecond += 1;
    }
    const headers = {
      "x-ratelimit-limit": `${options.callsPerMinuteMax}`,
      "x-ratelimit-remaining": `${options.callsPerMinuteMax - calls.inMinute}`,
      "x-ratelimit-reset": `${calls.inMinute >= options.callsPerMinuteMax ? (minute + 1) * 60 : second + 1}`,
    };
    return { refused, headers };
  }

  function search(query: string) {
    if (options.searchOutage() === "empty") return { count: 0, result: [] };
    const wanted = query.trim().toUpperCase();
    const exact = listings.filter((one) => one.symbol.toUpperCase() === wanted && isSearched(one));
    // By part of a name only stocks are found; crypto and forex want their exact symbol.
    const similar = listings.filter(
      (one) =>
        one.assetClass === "stock" &&
        one.symbol !== exact[0]?.symbol &&
        (one.symbol.startsWith(wanted) || one.description.includes(wanted)),
    );
    const result = [...exact, ...similar].slice(0, SEARCH_RESULTS_MAX).map((one) => ({
      description: one.description,
      displaySymbol: one.displaySymbol,
      symbol: one.symbol,
      type: one.assetClass === "stock" ? "Common Stock" : one.assetClass === "crypto" ? "Crypto" : "Forex",
    }));
    return { count: result.length, result };
  }

  function isSearched(one: Instrument): boolean {
    if (one.assetClass === "crypto") return options.searchKnowsCrypto;
    return one.assetClass === "stock" || options.searchKnowsForex;
  }

  function pairs(assetClass: "crypto" | "forex", exchange: string) {
    const prefix = `${exchange.toUpperCase()}:`;
    return listings
      .filter((one) => one.assetClass === assetClass && one.symbol.startsWith(prefix))
      .map(({ description, displaySymbol, symbol }) => ({ description, displaySymbol, symbol }));
  }

  function stocks() {
    return listings
      .filter((one) => one.assetClass === "stock")
      .map(({ description, displaySymbol, symbol }) => ({
        currency: "USD",
        description,
        displaySymbol,
        figi: "",
        mic: "XNGS",
        symbol,
        type: "Common Stock",
      }));
  }

  function quote(symbol: string, nowMs: number) {
    const c = options.price(symbol);
    const previous = instrumentOf(symbol)?.basePrice ?? c;
    // Finnhub answers an unknown symbol with zeros, not with an error.
    if (c === null || previous === null) return { c: 0, d: null, dp: null, h: 0, l: 0, o: 0, pc: 0, t: 0 };
    return {
      c,
      d: c - previous,
      dp: ((c - previous) / previous) * 100,
      h: Math.max(c, previous),
      l: Math.min(c, previous),
      o: previous,
      pc: previous,
      t: Math.floor(nowMs / 1_000),
    };
  }

  /** Null: no such path. A text: the parameter that is missing. */
  function answer(path: string, parameters: URLSearchParams, nowMs: number): object | string | null {
    const withParameter = (name: string, make: (value: string) => object) => {
      const value = parameters.get(name);
      return value === null || value === "" ? name : make(value);
    };
    switch (path) {
      case "/search":
        return withParameter("q", search);
      case "/stock/symbol":
        return withParameter("exchange", (exchange) => (exchange === "US" ? stocks() : []));
      case "/crypto/exchange":
        return CRYPTO_EXCHANGES;
      case "/crypto/symbol":
        return withParameter("exchange", (exchange) => pairs("crypto", exchange));
      case "/forex/exchange":
        return FOREX_EXCHANGES;
      case "/forex/symbol":
        return withParameter("exchange", (exchange) => pairs("forex", exchange));
      case "/quote":
        return withParameter("symbol", (symbol) => quote(symbol, nowMs));
      case "/stock/market-status":
        return withParameter("exchange", (exchange) => ({
          exchange,
          holiday: null,
          isOpen: options.session(nowMs) === "regular",
          session: options.session(nowMs),
          timezone: "America/New_York",
          t: Math.floor(nowMs / 1_000),
        }));
      default:
        return null;
    }
  }

  return (url, requestHeaders, nowMs) => {
    const token = url.searchParams.get("token") ?? requestHeaders.get("x-finnhub-token") ?? "";
    if (token === "") return Response.json(NO_KEY_BODY, { status: 401 });
    if (!options.accepts(token)) return Response.json(BAD_KEY_BODY, { status: 401 });
    const { refused, headers } = count(token, nowMs);
    if (refused) return Response.json(LIMIT_BODY, { status: 429, headers });
    const path = url.pathname.slice(API_PATH.length);
    if (PREMIUM_PATHS.has(path)) return Response.json(PREMIUM_BODY, { status: 403, headers });
    if (path === "/search" && options.searchOutage() === "error") {
      return new Response("error code: 504", { status: 504, headers });
    }
    const body = answer(path, url.searchParams, nowMs);
    if (body === null) return Response.json({ error: "Not found." }, { status: 404, headers });
    if (typeof body === "string") {
      return Response.json({ error: `Missing parameter: ${body}` }, { status: MISSING_STATUS, headers });
    }
    return Response.json(body, { headers });
  };
}
