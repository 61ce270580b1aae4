// Whether Finnhub knows a symbol, by its REST API: found, not found, or unknown. Only a regular answer of Finnhub proves
// anything; a limit, a fault, silence or an empty list proves nothing. A check never rejects, and no result holds the
// token.

import { type Clock, TIMED_OUT, withTimeout } from "../base/clock.ts";
import { asObject } from "../base/json.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { SymbolCheck, SymbolCheckResult } from "../contracts/watchlist.ts";
import { HOUR_MS } from "../model/trade.ts";
import { createRestClient, type RestClient, type RestClientOptions, UnansweredError } from "./rest-client.ts";
import { nearestExchange, suggest } from "./suggestions.ts";
import { createSymbolLists, type List, type ListSource, type SymbolLists } from "./symbol-lists.ts";

type SymbolCheckOptions = Readonly<{
  apiUrl: string;
  token: string | undefined;
  /** Where the lists are kept; it may be deleted at any time. */
  directory: string;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  proxies?: RestClientOptions["proxies"];
  fetch?: NonNullable<RestClientOptions["fetch"]>;
}>;

export type FinnhubSymbols = SymbolCheck &
  Readonly<{
    /** Fetches every list in use again: for a daily job. */
    refresh(signal: AbortSignal): Promise<void>;
  }>;

type AssetClass = "crypto" | "forex";

/** A symbol that was listed so long ago still counts as listed. */
const FOUND_MS_MAX = 7 * 24 * HOUR_MS;
/** A symbol that was not listed so long ago may be listed by now, so the list is fetched again: at every check of an hour. */
const MISSING_MS_MAX = HOUR_MS / 2;
/** A list of this age is refreshed by the daily job; the job's times are a day apart, give or take. */
const REFRESH_MS_MIN = 12 * HOUR_MS;
/** How long a check waits for a list that only suggestions need. */
const SUGGEST_MS_MAX = 500;

const EXCHANGES: Readonly<Record<AssetClass, ListSource>> = {
  crypto: { path: "/crypto/exchange", exchange: null },
  forex: { path: "/forex/exchange", exchange: null },
};
const CLASSES = ["crypto", "forex"] as const;
const US_STOCKS: ListSource = { path: "/stock/symbol", exchange: "US" };
/** Exchanges whose symbols have another prefix than their name (#78). */
const PREFIX_OF_EXCHANGE: Readonly<Record<string, string>> = { "forex.com": "forex" };
/** Where a pair without its prefix was most likely meant to be. */
const USUAL_EXCHANGES = ["BINANCE", "OANDA"];

const FOUND: SymbolCheckResult = { kind: "found" };

export function createSymbolCheck(options: SymbolCheckOptions): FinnhubSymbols {
  const { directory, clock, logger } = options;
  const calls = createRestClient(options);
  const lists = createSymbolLists({ directory, calls, clock, logger });
  const lookup = new SymbolLookup(calls, lists, clock);
  return {
    async check(symbol, signal) {
      const { promise: stopped, resolve: stop } = Promise.withResolvers<SymbolCheckResult>();
      const onAbort = () => stop(unknown("there was no time to ask Finnhub"));
      if (signal.aborted) onAbort();
      signal.addEventListener("abort", onAbort);
      try {
        return await Promise.race([lookup.find(symbol), stopped]);
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
    refresh: (signal) => lists.refresh(REFRESH_MS_MIN, signal),
  };
}

class SymbolLookup {
  readonly #calls: RestClient;
  readonly #lists: SymbolLists;
  readonly #clock: Clock;

  constructor(calls: RestClient, lists: SymbolLists, clock: Clock) {
    this.#calls = calls;
    this.#lists = lists;
    this.#clock = clock;
  }

  async find(symbol: string): Promise<SymbolCheckResult> {
    try {
      const colon = symbol.indexOf(":");
      return await (colon < 0 ? this.#findStock(symbol) : this.#findPair(symbol, symbol.slice(0, colon)));
    } catch (error) {
      if (error instanceof UnansweredError) return unknown(error.message);
      throw error;
    }
  }

  /** A symbol without a prefix. */
  async #findStock(symbol: string): Promise<SymbolCheckResult> {
    const known = await this.#lists.known(US_STOCKS);
    if (known?.items.has(symbol) && this.#lists.ageMs(known) <= FOUND_MS_MAX) return FOUND;
    let searchProblem: string | null = null;
    try {
      if (await this.#isInSearch(symbol)) return FOUND;
    } catch (error) {
      if (!(error instanceof UnansweredError)) throw error;
      searchProblem = error.message;
    }
    const stocks = await this.#listFor(US_STOCKS, symbol);
    if (stocks.items.has(symbol)) return FOUND;
    if (stocks.items.size === 0) return unknown("Finnhub's list of US stocks is empty just now");
    // VOD.L: the suffix is the code of another exchange, unless it is the class of a share, as in BRK.B.
    const abroad = /^[^.]+\.([A-Z]{1,4})$/.exec(symbol)?.[1];
    if (abroad !== undefined) {
      const foreign = await this.#listFor({ path: "/stock/symbol", exchange: abroad }, symbol);
      if (foreign.items.has(symbol)) return FOUND;
    }
    if (searchProblem !== null) return unknown(searchProblem);
    return notFound(symbol, [stocks, ...(await this.#listsAtHand(USUAL_EXCHANGES))]);
  }

  /** A symbol with the prefix of an exchange. */
  async #findPair(symbol: string, prefix: string): Promise<SymbolCheckResult> {
    const source = await this.#sourceOf(prefix);
    if (source === null) return this.#findWithoutExchange(symbol, prefix);
    const listed = await this.#listFor(source, symbol);
    if (listed.items.has(symbol)) return FOUND;
    if (listed.items.size === 0) return unknown(`Finnhub's list of ${prefix} is empty just now`);
    const usual = USUAL_EXCHANGES.filter((one) => one !== prefix.toUpperCase());
    const others = await Promise.all([this.#listsAtHand(usual), this.#lists.known(US_STOCKS)]);
    return notFound(symbol, [listed, ...others.flat()]);
  }

  /** Both lists of exchanges are there and name no such one. The search knows some symbols that no list shows. */
  async #findWithoutExchange(symbol: string, prefix: string): Promise<SymbolCheckResult> {
    if (await this.#isInSearch(symbol)) return FOUND;
    const exchanges = await Promise.all(CLASSES.map((one) => this.#lists.get(EXCHANGES[one], FOUND_MS_MAX)));
    const prefixes = exchanges.flatMap(({ items }) => [...items.keys()].map(prefixOf));
    const meant = nearestExchange(prefix, prefixes);
    const others = await this.#listsAtHand([...(meant === null ? [] : [meant]), ...USUAL_EXCHANGES]);
    return notFound(symbol, [...others, await this.#lists.known(US_STOCKS)]);
  }

  /** A list that holds the symbol, or one young enough to prove that it does not. */
  async #listFor(source: ListSource, symbol: string): Promise<List> {
    const known = await this.#lists.known(source);
    if (known?.items.has(symbol) && this.#lists.ageMs(known) <= FOUND_MS_MAX) return known;
    return this.#lists.get(source, MISSING_MS_MAX);
  }

  async #isInSearch(symbol: string): Promise<boolean> {
    const result = asObject(await this.#calls.get("/search", { q: symbol }))?.result;
    if (!Array.isArray(result)) throw new UnansweredError("Finnhub's search answers in an unknown form");
    return result.some((one: unknown) => asObject(one)?.symbol === symbol);
  }

  /** The list of an exchange by the prefix of its symbols; null: it is proven that no exchange has it. */
  async #sourceOf(prefix: string): Promise<ListSource | null> {
    const lowerCase = prefix.toLowerCase();
    const nameIn = (list: List | null) =>
      [...(list?.items.keys() ?? [])].find((name) => prefixOf(name).toLowerCase() === lowerCase);
    for (const one of CLASSES) {
      const exchange = nameIn(await this.#lists.known(EXCHANGES[one]));
      if (exchange !== undefined) return { path: `/${one}/symbol`, exchange };
    }
    for (const one of CLASSES) {
      const list = await this.#lists.get(EXCHANGES[one], MISSING_MS_MAX);
      const exchange = nameIn(list);
      if (exchange !== undefined) return { path: `/${one}/symbol`, exchange };
      if (list.items.size === 0) {
        throw new UnansweredError(`Finnhub's list of ${one} exchanges is empty just now`);
      }
    }
    return null;
  }

  /** For suggestions only: a list that is not there soon makes the answer no worse. */
  #listsAtHand(prefixes: readonly string[]): Promise<(List | null)[]> {
    const listOf = async (prefix: string): Promise<List | null> => {
      try {
        const source = await this.#sourceOf(prefix);
        return source === null ? null : await this.#lists.get(source, FOUND_MS_MAX);
      } catch (error) {
        if (error instanceof UnansweredError) return null;
        throw error;
      }
    };
    return Promise.all(
      prefixes.map(async (prefix) => {
        const list = await withTimeout(this.#clock, SUGGEST_MS_MAX, () => listOf(prefix));
        return list === TIMED_OUT ? null : list;
      }),
    );
  }
}

function prefixOf(exchange: string): string {
  return PREFIX_OF_EXCHANGE[exchange.toLowerCase()] ?? exchange;
}

function unknown(reason: string): SymbolCheckResult {
  return { kind: "unknown", reason };
}

function notFound(symbol: string, lists: readonly (List | null)[]): SymbolCheckResult {
  return { kind: "not_found", suggestions: suggest(symbol, entriesOf(lists)) };
}

function* entriesOf(all: readonly (List | null)[]): Iterable<readonly [string, string]> {
  for (const list of all) if (list !== null) yield* list.items;
}
