// The parts of the producer, chosen and connected: feed -> outbox -> Kafka, the control topic, and the lease that keeps a
// second producer away. It decides nothing: when each part begins and ends, ingest/leadership.ts decides.

import { hostname } from "node:os";
import type { Context } from "../base/command.ts";
import { chooseSource, namesOf } from "../base/config.ts";
import type { PartitionSender } from "../contracts/log.ts";
import { createStepWatch } from "../health/clock-steps.ts";
import { producerHealth } from "../health/pipeline.ts";
import { createIngest } from "../ingest/ingest.ts";
import { createLastValues } from "../ingest/last-values.ts";
import { Leadership } from "../ingest/leadership.ts";
import { createRelay } from "../ingest/relay.ts";
import { checkTickers } from "../ingest/watchlist-sync.ts";
import { openControlTopic } from "../kafka/control-topic.ts";
import { openKafkaSender } from "../kafka/sender.ts";
import { openSqliteLog } from "../outbox/log.ts";
import type { App, Startup } from "./startup.ts";
import { openUpstream } from "./upstream.ts";
import { openSymbolCheck, openWatchlist, watchedFeedHealth, watchlistJobs } from "./watchlist.ts";

/** Resolves when the feed is open. Rejects as Leadership.mayOpenFeed does, and with SetupError. */
export async function openProducerApp(context: Context, start: Startup): Promise<App> {
  const { config, clock, logger, metrics, signal } = context;
  const source = chooseSource(config, "producer");
  const { dataDirectory: directory, topic } = namesOf(config, source);
  const kafka = { settings: config.kafka, clientId: "producer", clock, logger, topic };
  const { tickers: setting, symbolsMax } = config.finnhub;
  checkTickers(setting);
  await using opened = new AsyncDisposableStack();

  const log = opened.use(openSqliteLog({ directory, topic, ...config.outbox, clock, metrics, logger }));
  const outbox = log.openOutbox();
  const sender = withOneReady(opened.use(openKafkaSender(kafka)));
  const control = opened.use(openControlTopic(kafka));
  const { watchlist } = control;
  const { openFeed, token, apiUrl, simulated } = opened.use(await openUpstream(source, config, context));

  const relay = createRelay({ outbox, sender, clock, logger, metrics });
  const { ready } = sender;
  const { waitFor } = start;
  const self = { host: hostname(), pid: process.pid };
  const leadership = opened.use(
    new Leadership({ log, relay, control, ready, self, setting, waitFor, clock, logger, signal }),
  );
  await leadership.mayOpenFeed();

  const feed = openFeed({
    symbols: leadership.firstSymbols,
    symbolsMax,
    clock,
    logger,
    metrics,
    signal: leadership.feedSignal,
  });
  const trades = createLastValues();
  const ingest = createIngest({ ...context, feed, log, onMessage: trades.note });
  const check = openSymbolCheck({ config, apiUrl, token, directory, clock, logger, metrics });
  const hasTraded = (symbol: string) => trades.of(symbol) !== null;
  const { watchlistSync } = openWatchlist({
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
  const lastStep = createStepWatch(clock);
  const health = () => {
    const symbols = watchlistSync.wanted().map((symbol) => ({ symbol, lastTradeAtMs: trades.of(symbol) }));
    const parts = {
      feed: watchedFeedHealth(watchlistSync, feed.health()),
      outbox: log.health(),
      publish: ingest.health(),
      forward: relay.health(),
      lease: { unconfirmedSinceMs: log.lease.unconfirmedSinceMs() },
      clockStep: lastStep(),
    };
    return producerHealth({ simulated, startedAtMs, symbols, ahead: trades.ahead(), ...parts }, clock.now());
  };

  const resources = opened.move();
  return {
    jobs: watchlistJobs(check, watchlistSync, signal),
    health,
    run: () => leadership.run({ ingest, watchlistSync }),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** The relay and the start both wait for Kafka: they share one attempt. */
function withOneReady(sender: PartitionSender): PartitionSender {
  let pending: Promise<void> | null = null;
  const ready = () => {
    pending ??= sender.ready().finally(() => {
      pending = null;
    });
    return pending;
  };
  return { ...sender, ready };
}
