// The bodies of the simulator's REST answers, from its own listings. Pure: it is told the time, the prices and how the
// search is just now.

import { CRYPTO_EXCHANGES, FOREX_EXCHANGES, type Instrument, instrumentOf, LISTINGS } from "./listings.ts";
import type { Session } from "./session.ts";

export type RestAnswersOptions = Readonly<{
  /** The last price of a symbol; null: unknown. */
  price: (symbol: string) => number | null;
  /** Those that replace or extend the listings. */
  instruments: readonly Instrument[];
  /** How /search is out of order just now; null = it works. */
  searchOutage: () => SearchOutage | null;
  /** The session of the US exchange; null = closed. */
  session: (nowMs: number) => Session | null;
  /** Whether /search finds a crypto symbol by its exact name. Very probably Finnhub's does. */
  searchKnowsCrypto: boolean;
  /** The same for forex, for which there is no evidence. */
  searchKnowsForex: boolean;
}>;

/** `empty`: it finds nothing, whatever the query, as on 2025-05-21 (#552). `error`: 504 (#490). */
export type SearchOutage = "empty" | "error";

const SEARCH_RESULTS_MAX = 20;
const SEARCH_TYPES = { stock: "Common Stock", crypto: "Crypto", forex: "Forex" } as const;

export class RestAnswers {
  readonly #options: RestAnswersOptions;
  readonly #listings: readonly Instrument[];

  constructor(options: RestAnswersOptions) {
    this.#options = options;
    const bySymbol = new Map([...LISTINGS, ...options.instruments].map((one) => [one.symbol, one]));
    this.#listings = [...bySymbol.values()];
  }

  /** The body; null: no such path. A text: the parameter that is missing. */
  bodyOf(path: string, parameters: URLSearchParams, nowMs: number): object | string | null {
    const withParameter = (name: string, make: (value: string) => object) => {
      const value = parameters.get(name);
      return value === null || value === "" ? name : make(value);
    };
    switch (path) {
      case "/search":
        return withParameter("q", (query) => this.#search(query));
      case "/stock/symbol":
        return withParameter("exchange", (exchange) => (exchange === "US" ? this.#stocks() : []));
      case "/crypto/exchange":
        return CRYPTO_EXCHANGES;
      case "/crypto/symbol":
        return withParameter("exchange", (exchange) => this.#pairs("crypto", exchange));
      case "/forex/exchange":
        return FOREX_EXCHANGES;
      case "/forex/symbol":
        return withParameter("exchange", (exchange) => this.#pairs("forex", exchange));
      case "/quote":
        return withParameter("symbol", (symbol) => this.#quote(symbol, nowMs));
      case "/stock/market-status":
        return withParameter("exchange", (exchange) => this.#marketStatus(exchange, nowMs));
      default:
        return null;
    }
  }

  #search(query: string) {
    if (this.#options.searchOutage() === "empty") return { count: 0, result: [] };
    const wanted = query.trim().toUpperCase();
    const exact = this.#listings.filter(
      (one) => one.symbol.toUpperCase() === wanted && this.#isSearched(one),
    );
    // By part of a name only stocks are found; crypto and forex want their exact symbol.
    const similar = this.#listings.filter(
      (one) =>
        one.assetClass === "stock" &&
        one.symbol !== exact[0]?.symbol &&
        (one.symbol.startsWith(wanted) || one.description.includes(wanted)),
    );
    const result = [...exact, ...similar].slice(0, SEARCH_RESULTS_MAX).map((one) => ({
      description: one.description,
      displaySymbol: one.displaySymbol,
      symbol: one.symbol,
      type: SEARCH_TYPES[one.assetClass],
    }));
    return { count: result.length, result };
  }

  #isSearched({ assetClass }: Instrument): boolean {
    if (assetClass === "crypto") return this.#options.searchKnowsCrypto;
    return assetClass === "stock" || this.#options.searchKnowsForex;
  }

  #pairs(assetClass: "crypto" | "forex", exchange: string) {
    const prefix = `${exchange.toUpperCase()}:`;
    return this.#listings
      .filter((one) => one.assetClass === assetClass && one.symbol.startsWith(prefix))
      .map(({ description, displaySymbol, symbol }) => ({ description, displaySymbol, symbol }));
  }

  #stocks() {
    return this.#listings
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

  #quote(symbol: string, nowMs: number) {
    const c = this.#options.price(symbol);
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

  #marketStatus(exchange: string, nowMs: number) {
    const session = this.#options.session(nowMs);
    return {
      exchange,
      holiday: null,
      isOpen: session === "regular",
      session,
      timezone: "America/New_York",
      t: Math.floor(nowMs / 1_000),
    };
  }
}
