// The parts around the tickers, chosen and connected: who checks them, who follows the wanted set, who may change it.
// It decides nothing; local, producer and admin each take what they need of it.

import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import type { Config } from "../base/config.ts";
import type { Report } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Feed, FeedHealth } from "../contracts/feed.ts";
import type { WantedSet } from "../contracts/watchlist.ts";
import { createSymbolCheck, type FinnhubSymbols } from "../finnhub/symbol-lookup.ts";
import type { Publisher } from "../ingest/ingest.ts";
import { createTickerFollower, type TickerFollower } from "../ingest/watchlist-sync.ts";
import type { TickerSets } from "../web/app.ts";
import { createTickerControl, type TickerControl } from "../web/watchlist-commands.ts";
import { EVERY_DAY, type Job } from "./jobs.ts";

export type CheckParts = Readonly<{
  config: Config;
  /** Finnhub's REST side, or that of whoever plays it. */
  apiUrl: string;
  token: string | undefined;
  /** As namesOf says. */
  directory: string;
  clock: Clock;
  report: Report;
  metrics: Metrics;
}>;

/** Null: FINNHUB_VALIDATE_TICKERS=0. */
export function openSymbolCheck(parts: CheckParts): FinnhubSymbols | null {
  const { config, directory, ...rest } = parts;
  if (!config.finnhub.validateTickers) return null;
  return createSymbolCheck({ ...rest, directory: join(directory, "tickers") });
}

export type TickerParts = Readonly<{
  config: Config;
  wanted: WantedSet;
  check: FinnhubSymbols | null;
  feed: Pick<Feed, "want">;
  publisher: Pick<Publisher, "say">;
  hasTraded: (symbol: string) => boolean;
  clock: Clock;
  report: Report;
}>;

/** For a process that has the feed; its web may change the tickers too. */
export function openTickers(
  parts: TickerParts,
): Readonly<{ follower: TickerFollower; control: TickerControl }> {
  const { config, wanted, check, feed, publisher, hasTraded, clock, report } = parts;
  const { say } = publisher;
  const follower = createTickerFollower({ feed, wanted, check, hasTraded, say, clock, report });
  const { rejected, note: onVerdict } = follower;
  const { symbolsMax } = config.finnhub;
  return {
    follower,
    control: createTickerControl({ wanted, check, symbolsMax, rejected, onVerdict, clock }),
  };
}

/** What the web shows: a ticker that does not exist stands among those that are not subscribed. */
export function tickerSets(
  follower: TickerFollower,
  { subscribed, unsubscribed }: Pick<FeedHealth, "subscribed" | "unsubscribed">,
): TickerSets {
  const { outcome } = follower;
  return {
    wanted: follower.wanted(),
    subscribed,
    unsubscribed: [...unsubscribed, ...follower.rejected()],
    outcome,
  };
}

/** The lists anew, and with them another look at what no list had. */
export function tickerJobs(
  check: FinnhubSymbols | null,
  follower: Pick<TickerFollower, "recheck"> | null,
  signal: AbortSignal,
): Job[] {
  if (check === null) return [];
  const run = async () => {
    await check.refresh(signal);
    follower?.recheck();
  };
  return [{ name: "ticker lists", schedule: EVERY_DAY, run }];
}
