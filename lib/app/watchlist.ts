// The parts around the watchlist, chosen and connected: the check of symbols, the sync with the feed, and the changes over
// the web. It decides nothing; local, producer and admin each take what they need.

import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Config } from "../base/config.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Feed, FeedHealth } from "../contracts/feed.ts";
import type { Watchlist } from "../contracts/watchlist.ts";
import { createSymbolCheck, type FinnhubSymbols } from "../finnhub/symbol-lookup.ts";
import type { Ingest } from "../ingest/ingest.ts";
import { createWatchlistSync, type WatchlistSync } from "../ingest/watchlist-sync.ts";
import type { TickerSets } from "../web/ticker-states.ts";
import { createWatchlistCommands, type WatchlistCommands } from "../web/watchlist-commands.ts";
import { EVERY_DAY, type Job } from "./jobs.ts";

type SymbolCheckDeps = Readonly<{
  config: Config;
  /** The REST API of Finnhub, or of the simulator in its place. */
  apiUrl: string;
  token: string | undefined;
  /** The data directory, by namesOf. */
  directory: string;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
}>;

/** Null: FINNHUB_VALIDATE_TICKERS=0. */
export function openSymbolCheck(deps: SymbolCheckDeps): FinnhubSymbols | null {
  const { config, directory, ...rest } = deps;
  if (!config.finnhub.validateTickers) return null;
  const { proxies } = config;
  return createSymbolCheck({ ...rest, proxies, directory: join(directory, "tickers") });
}

type WatchlistDeps = Readonly<{
  config: Config;
  watchlist: Watchlist;
  check: FinnhubSymbols | null;
  feed: Pick<Feed, "subscribe">;
  ingest: Pick<Ingest, "emitEvent">;
  hasTraded: (symbol: string) => boolean;
  clock: Clock;
  logger: Logger;
}>;

/** For a process that has the feed; its web may change the tickers too. */
export function openWatchlist(
  deps: WatchlistDeps,
): Readonly<{ watchlistSync: WatchlistSync; control: WatchlistCommands }> {
  const { config, watchlist, check, feed, ingest, hasTraded, clock, logger } = deps;
  const { emitEvent } = ingest;
  const watchlistSync = createWatchlistSync({ feed, watchlist, check, hasTraded, emitEvent, clock, logger });
  const { rejected, note: onResult } = watchlistSync;
  const { symbolsMax } = config.finnhub;
  return {
    watchlistSync,
    control: createWatchlistCommands({ wanted: watchlist, check, symbolsMax, rejected, onResult, clock }),
  };
}

/** What the web shows: a rejected ticker is among those that are not subscribed. */
export function tickerSets(
  watchlistSync: WatchlistSync,
  { subscribed, unsubscribed, unreceived, disconnectedSinceMs, lastProblem }: FeedHealth,
): TickerSets {
  const { outcome } = watchlistSync;
  return {
    wanted: watchlistSync.wanted(),
    subscribed,
    unsubscribed: [...unsubscribed, ...watchlistSync.rejected()],
    unreceived: [...unreceived, ...watchlistSync.unreceived()],
    disconnected: disconnectedOf(disconnectedSinceMs, lastProblem),
    outcome,
  };
}

/** The feed's own health, with the symbols that it is not asked for. */
export function watchedFeedHealth(watchlistSync: WatchlistSync, health: FeedHealth): FeedHealth {
  return { ...health, unreceived: [...health.unreceived, ...watchlistSync.unreceived()] };
}

/** Null: a socket is open. */
export function disconnectedOf(
  sinceMs: number | null,
  lastProblem: string | null,
): NonNullable<TickerSets["disconnected"]> | null {
  if (sinceMs === null) return null;
  const because = lastProblem === null ? "" : ` (${lastProblem})`;
  return { sinceMs, reason: `there is no connection to Finnhub${because}; it is tried again and again` };
}

/** Refreshes the lists of symbols, and checks rejected symbols again with them. */
export function watchlistJobs(
  check: FinnhubSymbols | null,
  watchlistSync: Pick<WatchlistSync, "recheck"> | null,
  signal: AbortSignal,
): Job[] {
  if (check === null) return [];
  const run = async () => {
    await check.refresh(signal);
    watchlistSync?.recheck();
  };
  return [{ name: "ticker lists", schedule: EVERY_DAY, run }];
}
