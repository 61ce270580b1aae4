// The parts of local, chosen and connected: feed, log, store, both loops and the web app in one process. It decides
// nothing about a trade.

import type { Clock } from "../base/clock.ts";
import type { Context } from "../base/command.ts";
import { chooseSource, namesOf } from "../base/config.ts";
import { retryWhile } from "../base/retry.ts";
import { watchedSymbols } from "../contracts/watchlist.ts";
import { createStepWatch } from "../health/clock-steps.ts";
import { localHealth } from "../health/health.ts";
import { storePart } from "../health/store.ts";
import { createIngest } from "../ingest/ingest.ts";
import { seedWatchlist } from "../ingest/watchlist-sync.ts";
import { countsAtMs } from "../model/last-trade.ts";
import { DAY_MS } from "../model/trade.ts";
import { type CommitStore, openSqliteLog, type SqliteLog } from "../outbox/log.ts";
import { createProcessor } from "../processing/processor.ts";
import { openSqliteStore, type SqliteStore } from "../sqlite/store.ts";
import { createWeb, type Web } from "../web/app.ts";
import { createLiveView } from "../web/live/view.ts";
import { EVERY_2_SECONDS, EVERY_5_SECONDS, EVERY_HOUR, type Job } from "./jobs.ts";
import type { App, Startup } from "./startup.ts";
import { openUpstream } from "./upstream.ts";
import { openSymbolCheck, openWatchlist, tickerSets, watchedFeedHealth, watchlistJobs } from "./watchlist.ts";

interface LocalApp extends App {
  readonly web: Web;
}

/** A stop stores what was received so far, unless that is a long backlog: it is safe in the log. */
const DRAIN_MS_MAX = 5_000;
const DRAIN_POLL_MS = 5;
/** Between two slices of retention, so that it costs a tenth of a core at most. */
const RETENTION_PAUSE_MS = 20;
/** Nobody waits for it. */
const RETENTION_RETRY_MS_MAX = 10_000;

/**
 * Waits for no engine, but for another program that keeps market.sqlite locked. Rejects with a SetupError when DATA_DIR
 * cannot be used.
 */
export async function openLocalApp(context: Context, start: Pick<Startup, "waitFor">): Promise<LocalApp> {
  const { config, clock, logger, metrics, signal } = context;
  const source = chooseSource(config, "local");
  const { dataDirectory: directory, topic } = namesOf(config, source);
  const { symbolsMax, tickers: setting } = config.finnhub;
  const { sync, bytesMax } = config.outbox;
  await using opened = new AsyncDisposableStack();

  const storeOptions = { directory, sync, clock, logger, metrics };
  const store = opened.use(await start.waitFor("market.sqlite", async () => openSqliteStore(storeOptions)));
  const log = opened.use(openSqliteLog({ directory, topic, sync, bytesMax, clock, metrics, logger }));
  const upstream = opened.use(await openUpstream(source, config, { clock, logger }));
  const { apiUrl, token, simulated } = upstream;
  const { watchlist } = store;
  await start.waitFor("the watchlist in market.sqlite", () => seedWatchlist(watchlist, setting, clock));
  const symbols = watchedSymbols(watchlist);
  const feed = upstream.openFeed({ symbols, symbolsMax, clock, logger, metrics, signal });

  const { load, save } = store.commits;
  const commits: CommitStore = {
    load,
    save: (...position) => store.syncEarly().then(() => save(...position)),
  };
  const live = createLiveView();
  const ingest = createIngest({ ...context, feed, log });
  const processor = createProcessor({
    log: log.openReader(commits),
    store,
    clock,
    logger,
    metrics,
    onRowsStored: (rows) => live.note(rows, clock.now()),
  });
  const check = openSymbolCheck({ config, apiUrl, token, directory, clock, logger, metrics });
  const hasTraded = (symbol: string) => live.of(symbol) !== null;
  const deps = { config, watchlist, check, feed, ingest, hasTraded, clock, logger };
  const { watchlistSync, control } = openWatchlist(deps);

  const startedAtMs = clock.now();
  const lastStep = createStepWatch(clock);
  const health = () => {
    const watched = watchlistSync.wanted();
    const lastTradeAtMs = (symbol: string) => {
      const last = live.of(symbol);
      return last && countsAtMs(last);
    };
    const snapshot = {
      simulated,
      startedAtMs,
      symbols: watched.map((symbol) => ({ symbol, lastTradeAtMs: lastTradeAtMs(symbol) })),
      ahead: live.ahead(),
      feed: watchedFeedHealth(watchlistSync, feed.health()),
      clockStep: lastStep(),
      outbox: log.health(),
      publish: ingest.health(),
      processor: processor.health(),
      store: storePart(store.health(), clock.now()),
    };
    return localHealth(snapshot, clock.now());
  };
  const tickers = () => tickerSets(watchlistSync, feed.health());
  const changes = { control, adminToken: config.web.adminToken };
  const web = createWeb({ store, live, clock, logger, metrics, health, tickers, changes, simulated, signal });

  if (simulated) logger.info("the market is simulated; set FINNHUB_API_TOKEN for the real one");
  const resources = opened.move();
  return {
    web,
    health,
    jobs: [
      { name: "aggregates", schedule: EVERY_5_SECONDS, run: () => processor.trigger() },
      retentionJob(store, config.retentionDays, clock, signal),
      { name: "write-ahead log", schedule: EVERY_2_SECONDS, run: () => store.keepWalSmall() },
      ...watchlistJobs(check, watchlistSync, signal),
    ],
    async run(runSignal) {
      // The feed ends when a stop is requested; the processor follows when it has all that the feed appended.
      const drained = new AbortController();
      const ingesting = ingest.run().then(() => drain(log, clock));
      await Promise.all([
        ingesting.then(() => drained.abort()),
        processor.run(drained.signal),
        watchlistSync.run(runSignal),
      ]);
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

function retentionJob(store: SqliteStore, days: number, clock: Clock, signal: AbortSignal): Job {
  return {
    name: "retention",
    schedule: EVERY_HOUR,
    async run() {
      const drop = async () => store.dropReceivedBefore(store.retentionNowMs(clock.now()) - days * DAY_MS);
      // Another program's lock is waited for, and not until the next hour.
      const isWanted = () => !signal.aborted;
      const limits = { clock, firstMs: RETENTION_PAUSE_MS, maxMs: RETENTION_RETRY_MS_MAX, signal };
      while (await retryWhile(isWanted, limits, drop)) await clock.sleep(RETENTION_PAUSE_MS, signal);
    },
  };
}

/** Resolves when the processor has read everything in the log, or after DRAIN_MS_MAX. */
async function drain(log: SqliteLog, clock: Clock): Promise<void> {
  const endMs = clock.monotonic() + DRAIN_MS_MAX;
  while (log.health().unreadCount > 0 && clock.monotonic() < endMs) await clock.sleep(DRAIN_POLL_MS);
}
