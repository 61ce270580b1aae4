// The parts of admin, chosen and connected: history from Cassandra, the live view from the topic itself, the health of
// every process, and who may change the tickers. It moves no trade and commits nothing.

import type { Context } from "../base/command.ts";
import { namesOf } from "../base/config.ts";
import { connectCassandra } from "../cassandra/client.ts";
import { openCassandraStore } from "../cassandra/store.ts";
import { watchedSymbols } from "../contracts/watchlist.ts";
import { type HealthDocument, healthDocument } from "../health/health.ts";
import { brokerPart, remotePart, storePart, tailPart } from "../health/pipeline.ts";
import { checkKafka } from "../kafka/client.ts";
import { openControlTopic } from "../kafka/control-topic.ts";
import { createLagMonitor } from "../kafka/lag-monitor.ts";
import { tailKafka } from "../kafka/tail.ts";
import { openTopics, placeOf, topicNames } from "../kafka/topics.ts";
import { rowsIn } from "../processing/decode.ts";
import { createWeb, type TickerSets, type Web } from "../web/app.ts";
import { createLiveView } from "../web/live/view.ts";
import { createRemoteHealth } from "../web/remote-health.ts";
import { createWatchlistCommands } from "../web/watchlist-commands.ts";
import { EVERY_2_SECONDS, type Job } from "./jobs.ts";
import type { Startup } from "./startup.ts";
import { openSymbolCheck, watchlistJobs } from "./watchlist.ts";

export type AdminApp = AsyncDisposable &
  Readonly<{
    web: Web;
    jobs: readonly Job[];
    health: () => HealthDocument;
    /** Follows the topics until a stop is asked for. */
    run(): Promise<void>;
  }>;

export async function openAdminApp(context: Context, start: Startup): Promise<AdminApp> {
  const { config, clock, logger, metrics, signal } = context;
  const { source, retentionDays } = config;
  const simulated = source?.kind === "simulator";
  const { topic, groupId, keyspace, dataDirectory: directory } = namesOf(config, source);
  const kafka = { settings: config.kafka, clientId: "admin", clock, logger, topic };
  await using opened = new AsyncDisposableStack();

  const topics = opened.use(openTopics(kafka));
  const tickers = opened.use(openControlTopic(kafka));
  const cassandra = opened.use(
    await start.waitFor("Cassandra", (onFault) =>
      connectCassandra({ settings: config.cassandra, clock, logger, signal, onFault }),
    ),
  );
  const putDead = async () => {
    throw new Error("admin puts nothing aside");
  };
  const store = opened.use(
    await start.waitFor("the tables", () =>
      openCassandraStore({ cassandra, keyspace, retentionDays, clock, logger, metrics, putDead }),
    ),
  );
  // First: it looks closer than whoever merely asks, and says what the operator must change.
  await start.waitFor("Kafka", () => checkKafka(kafka));
  await start.waitFor("the topics", () => topics.partitionCount());
  // Who adds or removes a ticker must be told what is there already.
  const following = tickers.run(signal);
  await start.waitFor("the tickers' topic", () =>
    Promise.race([tickers.ready(signal), following.then(() => Promise.reject(signal.reason))]),
  );

  const live = createLiveView();
  let lastRecordAtMs: number | null = null;
  const tail = (runSignal: AbortSignal) =>
    tailKafka({
      ...kafka,
      topic: topicNames(topic).trades,
      from: "now",
      onRecords(records) {
        lastRecordAtMs = clock.now();
        for (const { value } of records) if (value !== null) live.note(rowsIn(value), lastRecordAtMs);
      },
      signal: runSignal,
    });

  const { producerUrls, processorUrls, adminToken } = config.web;
  const remotes = createRemoteHealth({ producer: producerUrls, processor: processorUrls }, clock);
  const lags = createLagMonitor(topics, groupId, clock);
  /** Since when the topic grows and the live view hears nothing of it; null = it hears, or nothing comes. */
  let deafSinceMs: number | null = null;
  const pollLags = async () => {
    const ends = () =>
      lags.snapshot().lags.reduce((sum, { partition, end }) => {
        return placeOf(partition).topic === topic ? sum + end : sum;
      }, 0);
    const [pollAtMs, endBefore] = [lags.snapshot().askedAtMs, ends()];
    await lags.poll();
    metrics.consumerLag.set(lags.snapshot().lags.reduce((sum, { lag }) => sum + lag, 0));
    const isHeard = pollAtMs === null || (lastRecordAtMs !== null && lastRecordAtMs >= pollAtMs);
    deafSinceMs = isHeard || ends() === endBefore ? null : (deafSinceMs ?? clock.now());
  };
  let probe = { okAtMs: null as number | null, problem: null as string | null };
  const probeStore = async () => {
    try {
      await store.probe();
      probe = { okAtMs: clock.now(), problem: null };
    } catch (error) {
      probe = { ...probe, problem: error instanceof Error ? error.message : String(error) };
    }
  };

  const startedAtMs = clock.now();
  const health = () => {
    const nowMs = clock.now();
    const remoteParts = remotes
      .snapshots()
      .map((remote) => [remote.name, remotePart(remote, startedAtMs, nowMs)] as const);
    return healthDocument(simulated, {
      ...Object.fromEntries(remoteParts),
      kafka: brokerPart(lags.snapshot(), startedAtMs, nowMs),
      cassandra: storePart(probe, startedAtMs, nowMs),
      live: tailPart({ lastRecordAtMs, deafSinceMs }, nowMs),
    });
  };

  /** What the producer last said of its feed. */
  const sets = (): TickerSets => {
    const feed = remotes.snapshots().find(({ name }) => name.startsWith("producer"))?.document?.parts.feed;
    return {
      wanted: watchedSymbols(tickers.watchlist),
      subscribed: textsOf(feed?.subscribed),
      unsubscribed: textsOf(feed?.unsubscribed),
    };
  };
  const { apiUrl, symbolsMax } = config.finnhub;
  const token = source?.kind === "finnhub" ? source.token : undefined;
  // A simulator within another process has no REST side that could be asked from here.
  const check = simulated
    ? null
    : openSymbolCheck({ config, apiUrl, token, directory, clock, logger, metrics });
  const control = createWatchlistCommands({ wanted: tickers.watchlist, check, symbolsMax, clock });
  const web = createWeb({
    store,
    live,
    clock,
    logger,
    metrics,
    health,
    tickers: sets,
    changes: { control, adminToken },
    simulated,
    seenAt: "topic",
    signal,
  });

  const jobs: Job[] = [
    { name: "health of the others", schedule: EVERY_2_SECONDS, run: remotes.poll },
    { name: "lag", schedule: EVERY_2_SECONDS, run: pollLags },
    { name: "store probe", schedule: EVERY_2_SECONDS, run: probeStore },
    ...watchlistJobs(check, null, signal),
  ];
  // The first answer shall be knowledge, not hope.
  await start.waitFor("a first look at the others", () =>
    Promise.all([remotes.poll(), pollLags(), probeStore()]),
  );
  const resources = opened.move();
  return {
    web,
    jobs,
    health,
    async run() {
      await Promise.all([tail(signal), following]);
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === "string") : [];
}
