// The follower: what is wanted goes to the feed, at once and in order; whether it exists is asked afterwards. Only
// what is proven not to exist is taken from the feed again, and said. It changes no record, and it never takes away
// a ticker that has traded, whatever a list says.

import { backoffMs, type Clock } from "../base/clock.ts";
import { SetupError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { Feed, FeedEventType } from "../contracts/feed.ts";
import {
  type SymbolCheck,
  type SymbolCheckResult,
  symbolFault,
  type Watchlist,
  watchedSymbols,
} from "../contracts/watchlist.ts";

/** What is known of a wanted ticker; `unchecked`: nothing yet, or nobody asks. */
export type SymbolOutcome =
  | Readonly<{ kind: "unchecked" }>
  | (SymbolCheckResult & Readonly<{ checkedAtMs: number }>);

export type WatchlistSyncDeps = Readonly<{
  feed: Pick<Feed, "want">;
  watchlist: Watchlist;
  /** Null: FINNHUB_VALIDATE_TICKERS=0. */
  check: SymbolCheck | null;
  /** Whether a trade of it came: proof enough that it exists. */
  hasTraded: (symbol: string) => boolean;
  /** Into the feed events; what it rejects with ends the follower. */
  emitEvent: (type: FeedEventType, detail: Readonly<Record<string, unknown>>) => Promise<void>;
  clock: Clock;
  logger: Logger;
}>;

export type WatchlistSync = Readonly<{
  /** Follows and checks until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
  /** Wanted and not proven missing, in the order of priority. */
  wanted(): readonly string[];
  /** Wanted by a record, but proven not to exist. */
  rejected(): readonly string[];
  outcome(symbol: string): SymbolOutcome;
  /** What somebody else has just learnt of a ticker, so that it is not asked again. */
  note(symbol: string, result: SymbolCheckResult): void;
  /** Looks again at what was proven missing or could not be checked: for a daily job, after the lists are fresh. */
  recheck(): void;
}>;

const UNCHECKED: SymbolOutcome = { kind: "unchecked" };
/** Waits after a check that proved nothing, all tickers together: what ails one ails the others. */
const RETRY_FIRST_MS = 30_000;
const RETRY_MAX_MS = 3_600_000;
/** Of a report line. */
const SYMBOLS_SAID_MAX = 20;

export function createWatchlistSync(deps: WatchlistSyncDeps): WatchlistSync {
  const { feed, watchlist, check, hasTraded, emitEvent, clock, logger } = deps;
  const outcomes = new Map<string, SymbolOutcome>();
  /** Resolves when there may be something new to check. */
  let wake = Promise.withResolvers<void>();
  let told = "";

  const records = () => watchedSymbols(watchlist);
  const isRejected = (symbol: string) => outcomes.get(symbol)?.kind === "not_found";
  const stands = () => records().filter((symbol) => !isRejected(symbol));

  /** The feed hears of it only when something changed: it sends the difference, but each call wakes it. */
  function settle(): void {
    const symbols = stands();
    const words = JSON.stringify(symbols);
    if (words === told) return;
    told = words;
    feed.want(symbols);
  }

  function follow(): void {
    const known = new Set(records());
    for (const symbol of outcomes.keys()) if (!known.has(symbol)) outcomes.delete(symbol);
    settle();
    wake.resolve();
  }

  async function take(symbol: string, result: SymbolCheckResult): Promise<void> {
    if (!records().includes(symbol)) return; // Removed meanwhile.
    const traded = result.kind === "not_found" && hasTraded(symbol);
    outcomes.set(symbol, { ...(traded ? { kind: "found" } : result), checkedAtMs: clock.now() });
    settle();
    if (traded) logger.info("a ticker is in none of Finnhub's lists, but it trades", { symbol });
    else if (result.kind === "not_found") {
      const { suggestions } = result;
      logger.warn("Finnhub does not know a ticker: it is not subscribed", { symbol, suggestions });
      await emitEvent("ticker_rejected", { symbol, message: "not found at Finnhub", suggestions });
    }
  }

  /** False: a check proved nothing. */
  async function checkAll(asked: SymbolCheck, signal: AbortSignal, isRetry: boolean): Promise<boolean> {
    const unproven: string[] = [];
    let reason = "";
    for (const symbol of records()) {
      const kind = outcomes.get(symbol)?.kind ?? "unchecked";
      if (signal.aborted) return true;
      if (kind !== "unchecked" && !(kind === "unknown" && isRetry)) continue;
      const result = await asked.check(symbol, signal);
      if (signal.aborted) return true;
      await take(symbol, result);
      if (result.kind !== "unknown") continue;
      unproven.push(symbol);
      reason = result.reason;
    }
    if (unproven.length === 0) return [...outcomes.values()].every(({ kind }) => kind !== "unknown");
    const symbols = unproven.slice(0, SYMBOLS_SAID_MAX);
    const fields = { reason, symbols, symbolCount: unproven.length };
    logger.warn("whether tickers exist could not be checked; they are subscribed all the same", fields);
    return false;
  }

  async function checkForEver(asked: SymbolCheck, signal: AbortSignal): Promise<void> {
    let attempt = 0;
    let isRetry = false;
    while (!signal.aborted) {
      wake = Promise.withResolvers();
      const isProven = await checkAll(asked, signal, isRetry);
      if (signal.aborted) return;
      attempt = isProven ? 0 : isRetry || attempt === 0 ? attempt + 1 : attempt;
      const patience = new AbortController();
      const stop = () => patience.abort();
      signal.addEventListener("abort", stop);
      const waitMs = isProven ? RETRY_MAX_MS : retryMs(attempt);
      isRetry = await Promise.race([
        wake.promise.then(() => false),
        clock.sleep(waitMs, patience.signal).then(() => true),
      ]);
      patience.abort();
      signal.removeEventListener("abort", stop);
    }
  }

  /** Half of the back-off at least: a limit of calls does not pass at once. */
  function retryMs(attempt: number): number {
    const jitter = backoffMs(attempt, RETRY_FIRST_MS / 2, RETRY_MAX_MS / 2, clock.random);
    return jitter + Math.min(RETRY_MAX_MS / 2, (RETRY_FIRST_MS / 2) * 2 ** Math.min(attempt, 30));
  }

  return {
    async run(signal) {
      const unfollow = watchlist.onChange(follow);
      try {
        follow();
        if (check !== null) await checkForEver(check, signal);
        else await new Promise<void>((resolve) => onAbort(signal, resolve));
      } finally {
        unfollow();
      }
    },
    wanted: stands,
    rejected: () => records().filter(isRejected),
    outcome: (symbol) => outcomes.get(symbol) ?? UNCHECKED,
    note(symbol, result) {
      outcomes.set(symbol, { ...result, checkedAtMs: clock.now() });
    },
    recheck() {
      for (const [symbol, { kind }] of outcomes) if (kind !== "found") outcomes.delete(symbol);
      settle();
      wake.resolve();
    },
  };
}

function onAbort(signal: AbortSignal, callback: () => void): void {
  if (signal.aborted) callback();
  else signal.addEventListener("abort", callback, { once: true });
}

/**
 * Brings the setting's list into the set. It speaks only where no operator has: a ticker that it no longer names
 * goes, unless an operator asked for it; one that an operator removed stays away. Throws SetupError for a text
 * that can be no ticker.
 */
export async function seedWatchlist(
  watchlist: Watchlist,
  setting: readonly string[],
  clock: Clock,
): Promise<void> {
  checkTickers(setting);
  const bySymbol = new Map(watchlist.list().map((record) => [record.symbol, record]));
  for (const symbol of setting) {
    const record = bySymbol.get(symbol);
    if (record !== undefined && (record.wanted || record.by === "operator")) continue;
    await watchlist.put({ symbol, wanted: true, changedAtMs: clock.now(), by: "setting" });
  }
  for (const { symbol, wanted: isWanted, by } of bySymbol.values()) {
    if (!isWanted || by === "operator" || setting.includes(symbol)) continue;
    await watchlist.put({ symbol, wanted: false, changedAtMs: clock.now(), by: "setting" });
  }
}

/** Throws SetupError when one of the setting's tickers cannot be one. */
export function checkTickers(setting: readonly string[]): void {
  for (const symbol of setting) {
    const fault = symbolFault(symbol);
    if (fault === null) continue;
    throw new SetupError(
      `FINNHUB_STOCKS_TICKERS: ${JSON.stringify(symbol)} is no ticker: ${fault}`,
      "take it out of the list, or write it as Finnhub does, like AAPL or BINANCE:BTCUSDT",
    );
  }
}
