// The parts of the embedded mode, chosen and connected: feed, log, store, both loops and the web app in one
// process. It decides nothing about a trade.

import type { Clock } from "../base/clock.ts";
import type { Context } from "../base/command.ts";
import { chooseSource, namesOf } from "../base/config.ts";
import type { Feed } from "../contracts/feed.ts";
import { watchedSymbols } from "../contracts/watchlist.ts";
import { openFinnhubFeed } from "../finnhub/feed.ts";
import { type HealthDocument, localHealth } from "../health/health.ts";
import { createIngest, type Ingest } from "../ingest/ingest.ts";
import { seedWatchlist, type WatchlistSync } from "../ingest/watchlist-sync.ts";
import { DAY_MS } from "../model/trade.ts";
import { openSqliteLog } from "../outbox/log.ts";
import { createProcessor, type Processor } from "../processing/processor.ts";
import { openSqliteStore, type SqliteStore } from "../sqlite/store.ts";
import { createWeb, type Web } from "../web/app.ts";
import { createLiveView } from "../web/live/view.ts";
import { EVERY_5_SECONDS, EVERY_HOUR, type Job } from "./jobs.ts";
import { openUpstream } from "./upstream.ts";
import { openSymbolCheck, openWatchlist, tickerSets, watchlistJobs } from "./watchlist.ts";

export type LocalApp = AsyncDisposable &
  Readonly<{
    ingest: Ingest;
    processor: Processor;
    /** Which tickers the feed streams. */
    watchlistSync: WatchlistSync;
    web: Web;
    jobs: readonly Job[];
    simulated: boolean;
    /** Resolves when the processor was handed all that is in the log, or after DRAIN_MS_MAX. */
    drain(): Promise<void>;
  }>;

/** A stop stores what was received so far, unless that is a long backlog: it is safe in the log. */
const DRAIN_MS_MAX = 5_000;
const DRAIN_POLL_MS = 5;
/** Between two slices of retention, so that it costs a tenth of a core at most. */
const RETENTION_PAUSE_MS = 20;

export async function openLocalApp({ config, clock, logger, metrics, signal }: Context): Promise<LocalApp> {
  const source = chooseSource(config, "local");
  const { dataDirectory: directory, topic } = namesOf(config, source);
  const { symbolsMax, tickers: setting } = config.finnhub;
  const { sync, bytesMax } = config.outbox;
  await using opened = new AsyncDisposableStack();

  const store = opened.use(openSqliteStore({ directory, sync }));
  const log = opened.use(openSqliteLog({ directory, topic, sync, bytesMax, clock, metrics, logger }));
  const reader = log.openReader(store.commits);
  const { url, apiUrl, token, simulated } = opened.use(await openUpstream(source, config, { clock, logger }));
  const { watchlist } = store;
  await seedWatchlist(watchlist, setting, clock);
  const feed: Feed = openFinnhubFeed({
    url,
    token,
    symbols: watchedSymbols(watchlist),
    symbolsMax,
    clock,
    logger,
    metrics,
    signal,
  });

  const live = createLiveView();
  const ingest = createIngest({ feed, log, clock, logger, metrics });
  const processor = createProcessor({
    log: reader,
    store,
    clock,
    logger,
    metrics,
    onRowsStored: (rows) => live.note(rows, clock.now()),
  });

  const check = openSymbolCheck({ config, apiUrl, token, directory, clock, logger, metrics });
  const hasTraded = (symbol: string) => live.of(symbol) !== null;
  const { watchlistSync, control } = openWatchlist({
    config,
    watchlist,
    check,
    feed,
    ingest,
    hasTraded,
    clock,
    logger,
  });

  const startedAtMs = clock.now();
  const health = (): HealthDocument => {
    const symbols = watchlistSync.wanted().map((symbol) => ({
      symbol,
      lastTradeAtMs: live.of(symbol)?.trade_timestamp ?? null,
    }));
    const parts = {
      feed: feed.health(),
      outbox: log.health(),
      publish: ingest.health(),
      processor: processor.health(),
    };
    return localHealth({ simulated, startedAtMs, symbols, ahead: live.ahead(), ...parts }, clock.now());
  };
  const sets = () => tickerSets(watchlistSync, feed.health());
  const web = createWeb({
    store,
    live,
    clock,
    logger,
    metrics,
    health,
    tickers: sets,
    changes: { control, adminToken: config.web.adminToken },
    simulated,
    signal,
  });

  const jobs: Job[] = [
    { name: "aggregates", schedule: EVERY_5_SECONDS, run: processor.trigger },
    {
      name: "retention",
      schedule: EVERY_HOUR,
      run: () => dropExpired(store, clock, config.retentionDays, signal),
    },
    ...watchlistJobs(check, watchlistSync, signal),
  ];
  const drain = async () => {
    const endMs = clock.monotonic() + DRAIN_MS_MAX;
    while (log.health().unreadCount > 0 && clock.monotonic() < endMs) await clock.sleep(DRAIN_POLL_MS);
  };
  const resources = opened.move();
  return {
    ingest,
    processor,
    watchlistSync,
    web,
    jobs,
    simulated,
    drain,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

async function dropExpired(
  store: SqliteStore,
  clock: Clock,
  retentionDays: number,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted && store.dropReceivedBefore(clock.now() - retentionDays * DAY_MS)) {
    await clock.sleep(RETENTION_PAUSE_MS, signal);
  }
}
