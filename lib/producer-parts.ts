// The parts of the producer, chosen and connected: feed -> outbox -> Kafka, the tickers' topic, and the hold that
// keeps a second producer away. It decides nothing about a trade.

import { hostname } from "node:os";
import { chooseSource, namesOf } from "./config.ts";
import { LogUnavailableError } from "./errors.ts";
import { openFinnhubFeed } from "./feed-finnhub.ts";
import { openUpstream } from "./feed-parts.ts";
import { createForwarder } from "./forward.ts";
import type { HealthDocument } from "./health.ts";
import { producerHealth } from "./health-pipeline.ts";
import { newSession } from "./identity.ts";
import type { Job } from "./jobs.ts";
import { type Hold, takeHold } from "./kafka-hold.ts";
import { openKafkaTickers } from "./kafka-tickers.ts";
import { createLastTrades } from "./last-trades.ts";
import type { Context } from "./lifecycle.ts";
import type { LogSender } from "./log.ts";
import { openKafkaSender } from "./log-kafka.ts";
import { openSqliteLog } from "./log-sqlite.ts";
import type { Start } from "./probe-parts.ts";
import { createPublisher } from "./publish.ts";
import { openSymbolCheck, openTickers, tickerJobs } from "./ticker-parts.ts";
import { seedWanted } from "./tickers.ts";

export type ProducerParts = AsyncDisposable &
  Readonly<{
    jobs: readonly Job[];
    health: () => HealthDocument;
    /** Until a stop is asked for and what was received is sent, as far as that can be done in some seconds. */
    run(): Promise<void>;
  }>;

/** A stop waits so long for brokers that hang, once what could be sent is sent: the outbox is safe on disk. */
const LET_GO_MS_MAX = 3_000;

export async function openProducer(context: Context, start: Start): Promise<ProducerParts> {
  const { config, clock, report, metrics, signal } = context;
  const source = chooseSource(config, "producer");
  const { dataDirectory: directory, topic } = namesOf(config, source);
  const kafka = { settings: config.kafka, clientId: "producer", clock, report, topic };
  await using opened = new AsyncDisposableStack();

  const log = opened.use(openSqliteLog({ directory, topic, ...config.outbox, clock, metrics, report }));
  const sender = opened.use(openKafkaSender(kafka));
  const tickers = opened.use(openKafkaTickers(kafka));
  await start.waitFor("Kafka", () => sender.ready());

  // Followed for longer than the feed runs: the hold is let go at the very end.
  const over = new AbortController();
  opened.defer(() => over.abort());
  const following = tickers.run(over.signal);
  /** Whatever waits for the topic learns that it cannot be read at all. */
  const orFailed = <T>(work: Promise<T>) =>
    Promise.race([work, following.then(() => Promise.reject(signal.reason))]);
  await start.waitFor("the tickers' topic", () => orFailed(tickers.ready(signal)));
  const hold: Hold = await start.waitFor("the hold on the topic", () => {
    const session = newSession(clock.random) + newSession(clock.random);
    const self = { holder: log.id, session, host: hostname(), pid: process.pid };
    return orFailed(takeHold({ topic: tickers.hold, self, clock, report, signal }));
  });
  await start.waitFor("the tickers' topic", () =>
    orFailed(seedWanted(tickers.wanted, config.finnhub.tickers, clock)),
  );

  const upstream = opened.use(await openUpstream(source, config, context));
  const { url, token, apiUrl, simulated } = upstream;
  const { wanted } = tickers;
  const feed = openFinnhubFeed({
    url,
    token,
    symbols: wanted.list().flatMap((record) => (record.wanted ? record.symbol : [])),
    symbolsMax: config.finnhub.symbolsMax,
    clock,
    report,
    metrics,
    signal,
  });
  const trades = createLastTrades();
  const publisher = createPublisher({ feed, log, clock, report, metrics, onMessage: trades.note });
  const forwarder = createForwarder({
    outbox: log.openForwarder(),
    sender: whileHeld(sender, hold),
    clock,
    report,
    metrics,
  });
  const check = openSymbolCheck({ config, apiUrl, token, directory, clock, report, metrics });
  const hasTraded = (symbol: string) => trades.of(symbol) !== null;
  const { follower } = openTickers({ config, wanted, check, feed, publisher, hasTraded, clock, report });

  const startedAtMs = clock.now();
  const health = () => {
    const symbols = follower.wanted().map((symbol) => ({ symbol, lastTradeAtMs: trades.of(symbol) }));
    const parts = {
      feed: feed.health(),
      outbox: log.health(),
      publish: publisher.health(),
      forward: forwarder.health(),
    };
    return producerHealth({ simulated, startedAtMs, symbols, ahead: trades.ahead(), ...parts }, clock.now());
  };

  async function run(): Promise<void> {
    // The feed ends when a stop is asked for, then the forwarder when it has sent what it can, then the hold.
    const published = new AbortController();
    const sent = new AbortController();
    const late = Promise.withResolvers<void>();
    const work = Promise.all([
      publisher.run().then(() => published.abort()),
      forwarder.run(published.signal).then(() => {
        sent.abort();
        clock.after(LET_GO_MS_MAX, () => late.resolve());
      }),
      hold.run(sent.signal),
      follower.run(signal),
    ]);
    await Promise.race([work, following, late.promise]);
    await Promise.race([letGo(), late.promise]);
  }

  async function letGo(): Promise<void> {
    try {
      await hold.release();
    } catch (error) {
      if (!(error instanceof LogUnavailableError)) throw error;
      report.warn("the hold on the topic was not let go: a producer elsewhere waits until it has run out", {
        error,
      });
    }
    over.abort();
    await following;
  }

  const held = opened.move();
  return {
    jobs: tickerJobs(check, follower, signal),
    health,
    run,
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** Whoever has lost the hold, or may have, sends nothing: another producer may be sending the same trades by now. */
function whileHeld(sender: LogSender, hold: Pick<Hold, "isConfirmed">): LogSender {
  return {
    partitionOf: sender.partitionOf,
    ready: sender.ready,
    async send(batches) {
      if (hold.isConfirmed()) return sender.send(batches);
      const error = new LogUnavailableError(
        "the hold on the topic is in doubt: no sign of life of this producer was read back of late",
        "see whether the brokers of KAFKA_SERVER run and can be reached from here",
      );
      return batches.map(() => ({ kind: "unavailable", error }));
    },
  };
}
