// Whether Finnhub knows a symbol, by its REST side: found, not found, or could not check. Only what Finnhub answered
// in good order proves anything; a limit, a fault, silence or an empty list proves nothing. It never rejects, and
// no verdict holds the token.

import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { SymbolCheck, SymbolCheckResult } from "../contracts/watchlist.ts";
import { createRestClient, type RestClientOptions, UnansweredError } from "./rest-client.ts";
import { nearestExchange, suggest } from "./suggestions.ts";
import { createSymbolLists, type List, type ListSource } from "./symbol-lists.ts";

export type SymbolCheckOptions = Readonly<{
  apiUrl: string;
  token: string | undefined;
  /** Where the lists are kept; it may be deleted at any time. */
  directory: string;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  fetch?: NonNullable<RestClientOptions["fetch"]>;
}>;

export type FinnhubSymbols = SymbolCheck &
  Readonly<{
    /** Asks again for every list in use: for a daily job. */
    refresh(signal: AbortSignal): Promise<void>;
  }>;

type AssetClass = "crypto" | "forex";

const HOUR_MS = 3_600_000;
/** A symbol that was listed so long ago is taken for listed. */
const FOUND_MS_MAX = 7 * 24 * HOUR_MS;
/** A symbol that was not listed so long ago may be by now, and the list is asked for again. */
const MISSING_MS_MAX = HOUR_MS;
/** A list of this age is refreshed by the daily job; the job's times are a day apart, give or take. */
const REFRESH_MS_MIN = 12 * HOUR_MS;
/** For lists that only suggestions need. */
const SUGGEST_MS_MAX = 500;

const EXCHANGES: Readonly<Record<AssetClass, ListSource>> = {
  crypto: { path: "/crypto/exchange", exchange: null },
  forex: { path: "/forex/exchange", exchange: null },
};
const CLASSES = ["crypto", "forex"] as const;
const US_STOCKS: ListSource = { path: "/stock/symbol", exchange: "US" };
/** Exchanges whose symbols begin otherwise than their name (#78). */
const PREFIX_OF_EXCHANGE: Readonly<Record<string, string>> = { "forex.com": "forex" };
/** Where a pair without its prefix was most likely meant to be. */
const USUAL_EXCHANGES = ["BINANCE", "OANDA"];

export function createSymbolCheck(options: SymbolCheckOptions): FinnhubSymbols {
  const { clock, logger } = options;
  const calls = createRestClient(options);
  const lists = createSymbolLists({ directory: options.directory, calls, clock, logger });

  /** A list that holds the symbol, or one young enough to prove that it does not. */
  async function listFor(source: ListSource, symbol: string): Promise<List> {
    const known = await lists.known(source);
    if (known?.items.has(symbol) && lists.ageMs(known) <= FOUND_MS_MAX) return known;
    return lists.get(source, MISSING_MS_MAX);
  }

  async function isInSearch(symbol: string): Promise<boolean> {
    const body = await calls.get("/search", { q: symbol });
    const result: unknown =
      typeof body === "object" && body !== null && "result" in body ? body.result : null;
    if (!Array.isArray(result)) throw new UnansweredError("Finnhub's search answers in an unknown form");
    return result.some(
      (one: unknown) => typeof one === "object" && one !== null && "symbol" in one && one.symbol === symbol,
    );
  }

  async function judgePlain(symbol: string): Promise<SymbolCheckResult> {
    const known = await lists.known(US_STOCKS);
    if (known?.items.has(symbol) && lists.ageMs(known) <= FOUND_MS_MAX) return { kind: "found" };
    let searchProblem: string | null = null;
    try {
      if (await isInSearch(symbol)) return { kind: "found" };
    } catch (error) {
      if (!(error instanceof UnansweredError)) throw error;
      searchProblem = error.message;
    }
    const stocks = await listFor(US_STOCKS, symbol);
    if (stocks.items.has(symbol)) return { kind: "found" };
    if (stocks.items.size === 0) return unknown("Finnhub's list of US stocks is empty just now");
    // VOD.L: the suffix is the code of another exchange, unless it is the class of a share, as in BRK.B.
    const abroad = /^[^.]+\.([A-Z]{1,4})$/.exec(symbol)?.[1];
    if (abroad !== undefined) {
      const foreign = await listFor({ path: "/stock/symbol", exchange: abroad }, symbol);
      if (foreign.items.has(symbol)) return { kind: "found" };
    }
    if (searchProblem !== null) return unknown(searchProblem);
    const others = await Promise.all(USUAL_EXCHANGES.map((prefix) => ifAtHand(symbolsOf(prefix))));
    return { kind: "not_found", suggestions: suggest(symbol, entriesOf([stocks, ...others])) };
  }

  async function judgePair(symbol: string, prefix: string): Promise<SymbolCheckResult> {
    const source = await symbolsOf(prefix);
    if (source !== null) {
      const listed = await listFor(source, symbol);
      if (listed.items.has(symbol)) return { kind: "found" };
      if (listed.items.size === 0) return unknown(`Finnhub's list of ${prefix} is empty just now`);
      const usual = USUAL_EXCHANGES.filter((one) => one !== prefix.toUpperCase());
      const others = await Promise.all([
        ...usual.map((one) => ifAtHand(symbolsOf(one))),
        lists.known(US_STOCKS),
      ]);
      return { kind: "not_found", suggestions: suggest(symbol, entriesOf([listed, ...others])) };
    }
    // Both lists of exchanges are there and name no such one. The search knows of some symbols that no list shows.
    if (await isInSearch(symbol)) return { kind: "found" };
    const exchanges = await Promise.all(CLASSES.map((one) => lists.get(EXCHANGES[one], FOUND_MS_MAX)));
    const meant = nearestExchange(
      prefix,
      exchanges.flatMap(({ items }) => [...items.keys()].map(prefixOf)),
    );
    const prefixes = [...(meant === null ? [] : [meant]), ...USUAL_EXCHANGES];
    const others = await Promise.all(prefixes.map((one) => ifAtHand(symbolsOf(one))));
    const stocks = await lists.known(US_STOCKS);
    return { kind: "not_found", suggestions: suggest(symbol, entriesOf([...others, stocks])) };
  }

  /** The list of an exchange by its symbols' prefix; null: there is proof that no exchange has it. */
  async function symbolsOf(prefix: string): Promise<ListSource | null> {
    const wanted = prefix.toLowerCase();
    const named = (list: List | null) =>
      [...(list?.items.keys() ?? [])].find((name) => prefixOf(name).toLowerCase() === wanted);
    for (const one of CLASSES) {
      const exchange = named(await lists.known(EXCHANGES[one]));
      if (exchange !== undefined) return { path: `/${one}/symbol`, exchange };
    }
    for (const one of CLASSES) {
      const list = await lists.get(EXCHANGES[one], MISSING_MS_MAX);
      const exchange = named(list);
      if (exchange !== undefined) return { path: `/${one}/symbol`, exchange };
      if (list.items.size === 0)
        throw new UnansweredError(`Finnhub's list of ${one} exchanges is empty just now`);
    }
    return null;
  }

  /** For suggestions only: a list that is not soon at hand makes the answer no worse. */
  async function ifAtHand(finding: Promise<ListSource | null>): Promise<List | null> {
    const patience = new AbortController();
    const getting = async () => {
      try {
        const source = await finding;
        return source === null ? null : await lists.get(source, FOUND_MS_MAX);
      } catch (error) {
        if (error instanceof UnansweredError) return null;
        throw error;
      } finally {
        patience.abort();
      }
    };
    return Promise.race([getting(), clock.sleep(SUGGEST_MS_MAX, patience.signal).then(() => null)]);
  }

  async function judge(symbol: string): Promise<SymbolCheckResult> {
    try {
      const colon = symbol.indexOf(":");
      return await (colon < 0 ? judgePlain(symbol) : judgePair(symbol, symbol.slice(0, colon)));
    } catch (error) {
      if (error instanceof UnansweredError) return unknown(error.message);
      throw error;
    }
  }

  return {
    async check(symbol, signal) {
      const { promise: stopped, resolve: stop } = Promise.withResolvers<SymbolCheckResult>();
      const onAbort = () => stop(unknown("there was no time to ask Finnhub"));
      if (signal.aborted) onAbort();
      signal.addEventListener("abort", onAbort);
      try {
        return await Promise.race([judge(symbol), stopped]);
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    },
    refresh: (signal) => lists.refresh(REFRESH_MS_MIN, signal),
  };
}

function prefixOf(exchange: string): string {
  return PREFIX_OF_EXCHANGE[exchange.toLowerCase()] ?? exchange;
}

function unknown(reason: string): SymbolCheckResult {
  return { kind: "unknown", reason };
}

function* entriesOf(all: readonly (List | null)[]): Iterable<readonly [string, string]> {
  for (const list of all) if (list !== null) yield* list.items;
}
