// The parts of the producer, chosen and connected: feed -> outbox -> Kafka, the tickers' topic, and the hold that
// keeps a second producer away. It decides nothing about a trade.

import { hostname } from "node:os";
import type { Context } from "../base/command.ts";
import { chooseSource, namesOf } from "../base/config.ts";
import { LogUnavailableError } from "../base/errors.ts";
import { watchedSymbols } from "../contracts/watchlist.ts";
import { openFinnhubFeed } from "../finnhub/feed.ts";
import { producerHealth } from "../health/pipeline.ts";
import { createIngest } from "../ingest/ingest.ts";
import { createLastValues } from "../ingest/last-values.ts";
import { acquireLease, type Lease, LeaseLostError } from "../ingest/lease.ts";
import { createRelay } from "../ingest/relay.ts";
import { stepDown } from "../ingest/step-down.ts";
import { checkTickers, seedWatchlist } from "../ingest/watchlist-sync.ts";
import { openKafkaSender } from "../kafka/consumer.ts";
import { openControlTopic } from "../kafka/control-topic.ts";
import { newSession } from "../model/identity.ts";
import { openSqliteLog } from "../outbox/log.ts";
import type { App, Startup } from "./startup.ts";
import { openUpstream } from "./upstream.ts";
import { openSymbolCheck, openWatchlist, watchlistJobs } from "./watchlist.ts";

/** A release that does not arrive costs the next producer its 15 s; a stop does not wait for it. */
const RELEASE_MS_MAX = 3_000;

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
  // What is received while the hold is not confirmed is in doubt, and that it is not yet taken is no other case.
  let lease: Lease | null = null;
  log.lease.guard(() => lease?.isConfirmed() ?? false);
  // Nobody else was seen to hold since this outbox did: it need not wait for Kafka to receive.
  const isOwn = log.lease.isOwn;
  const sender = opened.use(openKafkaSender(kafka));
  const tickers = opened.use(openControlTopic(kafka));
  const { wanted } = tickers;
  const watchedNow = () => watchedSymbols(wanted);
  const upstream = opened.use(await openUpstream(source, config, context));

  let readying: Promise<void> | null = null;
  const ready = () => {
    readying ??= sender.ready().finally(() => {
      readying = null;
    });
    return readying;
  };
  // What an earlier run left is sent without a hold: nobody else has it. What is in doubt the outbox does not show.
  const received = new AbortController();
  const relay = createRelay({ outbox, sender: { ...sender, ready }, clock, logger, metrics });
  const relaying = relay.run(received.signal);
  opened.defer(async () => {
    received.abort();
    await Promise.allSettled([relaying]);
  });

  // Followed for longer than the feed runs: the hold is let go at the very end.
  const over = new AbortController();
  opened.defer(() => over.abort());
  const following = tickers.run(over.signal);
  const stopped = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  const failed = Promise.race([following, relaying]).then(() => stopped);
  /** Whatever waits for Kafka learns that waiting is no help, and of a stop at once. */
  const orFailed = <T>(work: Promise<T>) => Promise.race([work, failed, stopped]);

  const kept = new AbortController();
  let keeping: Promise<void> = Promise.resolve();

  /** What can go wrong for good comes before the claim, which would make another producer wait for nothing. */
  async function obtain(): Promise<void> {
    await start.waitFor("Kafka", () => orFailed(ready()));
    await start.waitFor("the tickers' topic", () => orFailed(tickers.ready(signal)));
    const session = newSession(clock.random) + newSession(clock.random);
    const self = { session, host: hostname(), pid: process.pid };
    const taken = await start.waitFor("the hold on the topic", () =>
      orFailed(acquireLease({ topic: tickers.lease, self, journal: log.lease, clock, logger, signal })),
    );
    lease = taken;
    keeping = taken.run(kept.signal);
    keeping.catch(() => {});
    await start.waitFor("the tickers' topic", () =>
      orFailed(Promise.race([seedWatchlist(wanted, setting, clock), keeping])),
    );
    keepSymbols();
    wanted.onChange(keepSymbols);
  }

  /** For a start during which Kafka is away. */
  function keepSymbols(): void {
    try {
      log.lease.keepSymbols(watchedNow());
    } catch (error) {
      if (!(error instanceof LogUnavailableError)) throw error;
      logger.warn("the wanted tickers were not written down for a start without Kafka", { error });
    }
  }

  /** Aborted: the feed ends, and the forwarder goes on until it is told. */
  const leaving = new AbortController();
  let ingesting: Promise<void> = Promise.resolve();

  /** With the feed closed. */
  async function leave(error: LeaseLostError): Promise<LeaseLostError> {
    leaving.abort();
    await ingesting;
    return stepDown({ log, relaying, received, clock, signal }, error);
  }

  const obtaining = obtain();
  // It is looked at below or in run; what comes between waits there.
  for (const early of [obtaining, following, relaying, failed, stopped]) early.catch(() => {});
  if (!isOwn) {
    try {
      await obtaining;
    } catch (error) {
      throw error instanceof LeaseLostError ? await leave(error) : error;
    }
  }

  const { url, token, apiUrl, simulated } = upstream;
  const feed = openFinnhubFeed({
    url,
    token,
    symbols: isOwn ? (log.lease.symbols ?? setting) : watchedNow(),
    symbolsMax,
    proxies: config.proxies,
    clock,
    logger,
    metrics,
    signal: AbortSignal.any([signal, leaving.signal]),
  });
  const trades = createLastValues();
  const ingest = createIngest({ feed, log, clock, logger, metrics, onMessage: trades.note });
  const check = openSymbolCheck({ config, apiUrl, token, directory, clock, logger, metrics });
  const hasTraded = (symbol: string) => trades.of(symbol) !== null;
  const { watchlistSync } = openWatchlist({ config, wanted, check, feed, ingest, hasTraded, clock, logger });

  const startedAtMs = clock.now();
  const health = () => {
    const symbols = watchlistSync.wanted().map((symbol) => ({ symbol, lastTradeAtMs: trades.of(symbol) }));
    const parts = {
      feed: feed.health(),
      outbox: log.health(),
      publish: ingest.health(),
      forward: relay.health(),
      lease: { unconfirmedSinceMs: log.lease.unconfirmedSinceMs() },
    };
    return producerHealth({ simulated, startedAtMs, symbols, ahead: trades.ahead(), ...parts }, clock.now());
  };

  /**
   * Until a stop is asked for and what was received is sent, as far as that can be done in some seconds. Rejects with
   * LeaseLostError, and what else ends the process.
   */
  async function run(): Promise<void> {
    ingesting = ingest.run();
    // The feed ends when a stop is asked for, then the forwarder when it has sent what it can, then the hold.
    const emptied = ingesting.then(() => {
      if (!leaving.signal.aborted) received.abort();
      return relaying;
    });
    const work = Promise.all([
      emptied.then(() => kept.abort()),
      obtaining.then(() => Promise.all([keeping, watchlistSync.run(signal)])),
    ]);
    try {
      // A broker that hangs is not waited for: what was received is safe on disk.
      await Promise.race([work, following, emptied.then(() => clock.sleep(RELEASE_MS_MAX))]);
    } catch (error) {
      if (error instanceof LeaseLostError) throw await leave(error);
      if (signal.aborted && error === signal.reason) {
        // A stop that came before the hold did.
        await emptied;
      } else {
        leaving.abort();
        await Promise.allSettled([ingesting]);
        throw error;
      }
    }
    if (lease !== null) await release(lease);
    over.abort();
    await Promise.race([following, clock.sleep(RELEASE_MS_MAX)]);
  }

  async function release(taken: Lease): Promise<void> {
    try {
      await Promise.race([taken.release(), clock.sleep(RELEASE_MS_MAX)]);
    } catch (error) {
      if (!(error instanceof LogUnavailableError)) throw error;
      logger.warn("the hold on the feed could not be let go: another producer will wait for it", { error });
    }
  }

  const resources = opened.move();
  return {
    jobs: watchlistJobs(check, watchlistSync, signal),
    health,
    run,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}
