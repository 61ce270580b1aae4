// The watchlist sync: the watched symbols go to the feed, at once and in order; whether they exist is asked afterwards.
// Only what is proven not to exist is taken from the feed again, with a log line and an event. It changes no record of
// the watchlist, and it never takes away a symbol that has traded, whatever a list says.

import { backoffMs, type Clock, TIMED_OUT, withTimeout } from "../base/clock.ts";
import { SetupError } from "../base/errors.ts";
import type { Logger } from "../base/logger.ts";
import type { Feed, FeedEventType, UnreceivedSymbol } from "../contracts/feed.ts";
import {
  type SymbolCheck,
  type SymbolCheckResult,
  symbolFault,
  type Watchlist,
  watchedSymbols,
} from "../contracts/watchlist.ts";

/** What is known of a watched symbol; `unchecked`: nothing yet, or nobody checks. */
export type SymbolOutcome =
  | Readonly<{ kind: "unchecked" }>
  | (SymbolCheckResult & Readonly<{ checkedAtMs: number }>);

export type WatchlistSyncDeps = Readonly<{
  feed: Pick<Feed, "subscribe">;
  watchlist: Watchlist;
  /** Null: FINNHUB_VALIDATE_TICKERS=0. */
  check: SymbolCheck | null;
  /** Whether a trade of it came: proof enough that it exists. */
  hasTraded: (symbol: string) => boolean;
  /** Appends a feed event; what it rejects with ends the sync. */
  emitEvent: (type: FeedEventType, detail: Readonly<Record<string, unknown>>) => Promise<void>;
  clock: Clock;
  logger: Logger;
}>;

export type WatchlistSync = Readonly<{
  /** Follows the watchlist and checks its symbols until the signal aborts. It is to be run once. */
  run(signal: AbortSignal): Promise<void>;
  /** On the watchlist and not proven missing, in the order of priority. */
  wanted(): readonly string[];
  /** On the watchlist, but proven not to exist. */
  rejected(): readonly string[];
  outcome(symbol: string): SymbolOutcome;
  /** The rejected ones, since when and why. */
  unreceived(): readonly UnreceivedSymbol[];
  /** Takes over what another check has just proven of a symbol, so that it is not asked again. */
  note(symbol: string, result: SymbolCheckResult): void;
  /** Checks again what was proven missing or could not be checked: for a daily job, after the lists are fresh. */
  recheck(): void;
}>;

const UNCHECKED: SymbolOutcome = { kind: "unchecked" };
/** Waits after a check that proved nothing, for all symbols together: what ails one ails the others. */
const RETRY_FIRST_MS = 30_000;
const RETRY_MAX_MS = 3_600_000;
/**
 * Waits before a symbol that was missing in the lists is looked for again: a list may have been incomplete for a moment,
 * and what is listed tomorrow should stream within the hour. A wait costs a search, and a list when the last one is old.
 */
const MISSING_AGAIN_FIRST_MS = 5 * 60_000;
const MISSING_AGAIN_MAX_MS = 3_600_000;
/** In one log line. */
const SYMBOLS_LOGGED_MAX = 20;

export function createWatchlistSync(deps: WatchlistSyncDeps): WatchlistSync {
  const sync = new Sync(deps);
  return {
    run: (signal) => sync.run(signal),
    wanted: () => sync.wanted(),
    rejected: () => sync.rejected(),
    outcome: (symbol) => sync.outcome(symbol),
    unreceived: () => sync.unreceived(),
    note: (symbol, result) => sync.note(symbol, result),
    recheck: () => sync.recheck(),
  };
}

/** Of a symbol that is proven missing. The time of the next check is monotonic. */
type Missing = Readonly<{ sinceMs: number; attempts: number; againMonotonicMs: number }>;

class Sync {
  readonly #deps: WatchlistSyncDeps;
  readonly #outcomes = new Map<string, SymbolOutcome>();
  readonly #missing = new Map<string, Missing>();
  /** Resolves when there may be something new to check. */
  #wakeup = Promise.withResolvers<void>();
  /** What the feed was told last, as JSON. */
  #subscribed = "";

  constructor(deps: WatchlistSyncDeps) {
    this.#deps = deps;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { watchlist, check } = this.#deps;
    const unlisten = watchlist.onChange(() => this.#follow());
    try {
      this.#follow();
      if (check !== null) await this.#checkUntilAborted(check, signal);
      else await new Promise<void>((resolve) => onAbort(signal, resolve));
    } finally {
      unlisten();
    }
  }

  wanted(): readonly string[] {
    return this.#watched().filter((symbol) => !this.#isRejected(symbol));
  }

  rejected(): readonly string[] {
    return this.#watched().filter((symbol) => this.#isRejected(symbol));
  }

  outcome(symbol: string): SymbolOutcome {
    return this.#outcomes.get(symbol) ?? UNCHECKED;
  }

  note(symbol: string, result: SymbolCheckResult): void {
    const { clock } = this.#deps;
    this.#outcomes.set(symbol, { ...result, checkedAtMs: clock.now() });
    if (result.kind !== "not_found") {
      this.#missing.delete(symbol);
      return;
    }
    const known = this.#missing.get(symbol);
    const attempts = known === undefined ? 0 : known.attempts + 1;
    const waitMs = Math.min(MISSING_AGAIN_MAX_MS, MISSING_AGAIN_FIRST_MS * 2 ** Math.min(attempts, 30));
    const sinceMs = known?.sinceMs ?? clock.now();
    this.#missing.set(symbol, { sinceMs, attempts, againMonotonicMs: clock.monotonic() + waitMs });
  }

  unreceived(): readonly UnreceivedSymbol[] {
    return this.rejected().map((symbol) => ({
      symbol,
      kind: "not_listed",
      sinceMs: this.#missing.get(symbol)?.sinceMs ?? this.#deps.clock.now(),
      reason: "it is in none of Finnhub's lists, which are asked again every hour",
    }));
  }

  recheck(): void {
    for (const [symbol, { kind }] of this.#outcomes) if (kind === "unknown") this.#outcomes.delete(symbol);
    const againMonotonicMs = this.#deps.clock.monotonic();
    for (const [symbol, missing] of this.#missing)
      this.#missing.set(symbol, { ...missing, againMonotonicMs });
    this.#wakeup.resolve();
  }

  #watched(): string[] {
    return watchedSymbols(this.#deps.watchlist);
  }

  #isRejected(symbol: string): boolean {
    return this.#outcomes.get(symbol)?.kind === "not_found";
  }

  /** The watchlist has changed. */
  #follow(): void {
    const known = new Set(this.#watched());
    for (const symbol of this.#outcomes.keys()) {
      if (known.has(symbol)) continue;
      this.#outcomes.delete(symbol);
      this.#missing.delete(symbol);
    }
    this.#subscribe();
    this.#wakeup.resolve();
  }

  /** The feed is told only of changes: it sends the difference, but each call wakes it. */
  #subscribe(): void {
    const symbols = this.wanted();
    const json = JSON.stringify(symbols);
    if (json === this.#subscribed) return;
    this.#subscribed = json;
    this.#deps.feed.subscribe(symbols);
  }

  async #checkUntilAborted(check: SymbolCheck, signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    /** Rounds in a row that proved nothing; a round that only a change began does not count. */
    let attempt = 0;
    let isRetry = false;
    while (!signal.aborted) {
      this.#wakeup = Promise.withResolvers();
      const isProven = await this.#checkAll(check, signal, isRetry);
      if (signal.aborted) return;
      if (isProven) attempt = 0;
      else if (isRetry || attempt === 0) attempt += 1;
      const waitMs = Math.min(isProven ? RETRY_MAX_MS : this.#retryMs(attempt), this.#missingDueMs());
      isRetry = (await withTimeout(clock, waitMs, () => this.#wakeup.promise, signal)) === TIMED_OUT;
    }
  }

  /** Checks what is unchecked, and at a retry also what a check could not prove. False: a check proved nothing. */
  async #checkAll(check: SymbolCheck, signal: AbortSignal, isRetry: boolean): Promise<boolean> {
    const unproven: string[] = [];
    let reason = "";
    for (const symbol of this.#watched()) {
      const { kind } = this.outcome(symbol);
      if (signal.aborted) return true;
      const isDue = kind === "unchecked" || (kind === "unknown" && isRetry) || this.#isMissingDue(symbol);
      if (!isDue) continue;
      const result = await check.check(symbol, signal);
      if (signal.aborted) return true;
      await this.#apply(symbol, result);
      if (this.outcome(symbol).kind !== "unknown" || result.kind !== "unknown") continue;
      unproven.push(symbol);
      reason = result.reason;
    }
    if (unproven.length === 0) return [...this.#outcomes.values()].every(({ kind }) => kind !== "unknown");
    const symbols = unproven.slice(0, SYMBOLS_LOGGED_MAX);
    const fields = { reason, symbols, symbolCount: unproven.length };
    this.#deps.logger.warn(
      "whether tickers exist could not be checked; they are subscribed all the same",
      fields,
    );
    return false;
  }

  async #apply(symbol: string, result: SymbolCheckResult): Promise<void> {
    const { hasTraded, emitEvent, logger } = this.#deps;
    if (!this.#watched().includes(symbol)) return; // It was removed meanwhile.
    const isTraded = result.kind === "not_found" && hasTraded(symbol);
    const wasMissing = this.#missing.get(symbol);
    if (wasMissing !== undefined && result.kind === "unknown") {
      // What was proven holds until something else is.
      this.note(symbol, { kind: "not_found", suggestions: this.#suggestionsOf(symbol) });
      return;
    }
    this.note(symbol, isTraded ? { kind: "found" } : result);
    this.#subscribe();
    if (isTraded) logger.info("a ticker is in none of Finnhub's lists, but it trades", { symbol });
    else if (result.kind === "found" && wasMissing !== undefined) {
      const { sinceMs: fromMs } = wasMissing;
      logger.info("Finnhub lists a ticker that it did not list before: it is subscribed", { symbol, fromMs });
      await emitEvent("ticker_accepted", { symbol, fromMs });
    } else if (result.kind === "not_found" && wasMissing === undefined) {
      const { suggestions } = result;
      logger.warn("Finnhub does not know a ticker: it is not subscribed", { symbol, suggestions });
      await emitEvent("ticker_rejected", { symbol, message: "not found at Finnhub", suggestions });
    }
  }

  #suggestionsOf(symbol: string): readonly string[] {
    const outcome = this.outcome(symbol);
    return outcome.kind === "not_found" ? outcome.suggestions : [];
  }

  #isMissingDue(symbol: string): boolean {
    const missing = this.#missing.get(symbol);
    return missing !== undefined && missing.againMonotonicMs <= this.#deps.clock.monotonic();
  }

  /** Until the first missing symbol is due. */
  #missingDueMs(): number {
    const nowMs = this.#deps.clock.monotonic();
    const dueMs = [...this.#missing.values()].map(({ againMonotonicMs }) => againMonotonicMs - nowMs);
    return Math.max(0, Math.min(RETRY_MAX_MS, ...dueMs));
  }

  /** At least half of the back-off: a limit of calls does not pass at once. */
  #retryMs(attempt: number): number {
    const half = { firstMs: RETRY_FIRST_MS / 2, maxMs: RETRY_MAX_MS / 2 };
    const jitterMs = backoffMs(attempt, half.firstMs, half.maxMs, this.#deps.clock.random);
    return jitterMs + Math.min(half.maxMs, half.firstMs * 2 ** Math.min(attempt, 30));
  }
}

function onAbort(signal: AbortSignal, callback: () => void): void {
  if (signal.aborted) callback();
  else signal.addEventListener("abort", callback, { once: true });
}

/**
 * Brings the setting's list into the watchlist. An operator's records come first: a symbol that the setting no longer
 * names goes, unless an operator asked for it, and one that an operator removed stays away. Rejects with SetupError for
 * a text that cannot be a symbol, and as Watchlist.put does.
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

/** Throws SetupError when an entry of the setting cannot be a symbol. */
export function checkTickers(setting: readonly string[]): void {
  for (const symbol of setting) {
    const fault = symbolFault(symbol);
    if (fault === null) continue;
    throw new SetupError(
      `FINNHUB_STOCKS_TICKERS: ${JSON.stringify(symbol)} is not a ticker: ${fault}`,
      "take it out of the list, or write it as Finnhub does, like AAPL or BINANCE:BTCUSDT",
    );
  }
}
