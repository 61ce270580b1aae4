// The parts of admin, chosen and connected: history from Cassandra, the live view from the topic itself, the health of
// every process, and the changes of the watchlist. It moves no trade and commits nothing.

import type { Context } from "../base/command.ts";
import { namesOf } from "../base/config.ts";
import { asObject } from "../base/json.ts";
import { connectCassandra } from "../cassandra/client.ts";
import { openCassandraStore } from "../cassandra/store.ts";
import { type Watchlist, watchedSymbols } from "../contracts/watchlist.ts";
import { checkKafka } from "../kafka/client.ts";
import { openControlTopic } from "../kafka/control-topic.ts";
import { createLagMonitor } from "../kafka/lag-monitor.ts";
import { tailKafka } from "../kafka/tail.ts";
import { openTopics, topicNames } from "../kafka/topics.ts";
import { rowsIn } from "../processing/decode.ts";
import { createWeb } from "../web/app.ts";
import { createLiveView } from "../web/live/view.ts";
import { createRemoteHealth, type RemoteHealth } from "../web/remote-health.ts";
import type { TickerSets } from "../web/ticker-states.ts";
import { createWatchlistCommands } from "../web/watchlist-commands.ts";
import { AdminHealth } from "./admin-health.ts";
import type { App, Startup } from "./startup.ts";
import { disconnectedOf, openSymbolCheck, watchlistJobs } from "./watchlist.ts";

export async function openAdminApp(context: Context, start: Startup): Promise<App> {
  const { config, clock, logger, metrics, signal } = context;
  const { source } = config;
  const simulated = source?.kind === "simulator";
  const { topic, groupId } = namesOf(config, source);
  await using opened = new AsyncDisposableStack();
  const { kafka, topics, store, tickers, following } = await openEngines(context, start, opened);

  const { producerUrls, processorUrls, adminToken } = config.web;
  const kinds = { producer: producerUrls, processor: processorUrls };
  const remotes = createRemoteHealth(kinds, clock, config.proxies);
  const lags = createLagMonitor(topics, groupId, clock);
  const others = new AdminHealth({
    remotes,
    lags,
    probeStore: () => store.probe(),
    topic,
    clock,
    metrics,
    simulated,
  });
  const health = () => others.document();

  const live = createLiveView();
  const tail = () =>
    tailKafka({
      ...kafka,
      topic: topicNames(topic).trades,
      from: "now",
      onRecords(records) {
        const nowMs = clock.now();
        others.noteRecords(nowMs);
        for (const { value, timestampMs } of records)
          if (value !== null) live.note(rowsIn({ value, timestampMs }), nowMs);
      },
      signal,
    });

  const { watchlist } = tickers;
  const check = openCheck(context);
  const { symbolsMax } = config.finnhub;
  const control = createWatchlistCommands({ wanted: watchlist, check, symbolsMax, clock });
  const web = createWeb({
    store,
    live,
    clock,
    logger,
    metrics,
    health,
    tickers: () => tickerSets(watchlist, remotes),
    changes: { control, adminToken },
    simulated,
    seenAt: "topic",
    signal,
  });

  await start.waitFor("a first look at the others", () => others.poll());
  const resources = opened.move();
  return {
    web,
    jobs: [...others.jobs(), ...watchlistJobs(check, null, signal)],
    health,
    async run() {
      await Promise.all([tail(), following]);
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

/** Kafka, Cassandra and the watchlist, each waited for until it answers. They are released with `opened`. */
async function openEngines(context: Context, start: Startup, opened: AsyncDisposableStack) {
  const { config, clock, logger, metrics, signal } = context;
  const { topic, keyspace } = namesOf(config, config.source);
  const { retentionDays } = config;
  const kafka = { settings: config.kafka, clientId: "admin", clock, logger, topic };
  const topics = opened.use(openTopics(kafka));
  const tickers = opened.use(openControlTopic(kafka));
  const cassandra = opened.use(
    await start.waitFor("Cassandra", (onFault) =>
      connectCassandra({ settings: config.cassandra, clock, logger, signal, onFault }),
    ),
  );
  const putDead = async () => {
    throw new Error("admin writes no dead letters");
  };
  const store = opened.use(
    await start.waitFor("the tables", () =>
      openCassandraStore({ cassandra, keyspace, retentionDays, clock, logger, metrics, putDead }),
    ),
  );
  // Before anything else of Kafka: this check says what the operator must change, where the others merely wait.
  await start.waitFor("Kafka", () => checkKafka(kafka));
  await start.waitFor("the topics", () => topics.partitionCount());
  // Whoever adds or removes a ticker must be told what is on the watchlist already.
  const following = tickers.run(signal);
  await start.waitFor("the tickers' topic", () =>
    Promise.race([tickers.ready(signal), following.then(() => Promise.reject(signal.reason))]),
  );
  return { kafka, topics, store, tickers, following };
}

/** Null: nobody can be asked. A simulator within another process has no REST side that could be reached from here. */
function openCheck({ config, clock, logger, metrics }: Context) {
  const { source } = config;
  if (source?.kind === "simulator") return null;
  const { dataDirectory: directory } = namesOf(config, source);
  const token = source?.kind === "finnhub" ? source.token : undefined;
  return openSymbolCheck({ config, apiUrl: config.finnhub.apiUrl, token, directory, clock, logger, metrics });
}

/** The watchlist, and what the producer last said of its feed. */
function tickerSets(wanted: Watchlist, remotes: RemoteHealth): TickerSets {
  const producer = remotes.snapshots().find(({ name }) => name.startsWith("producer"));
  const feed = producer?.document?.parts.feed;
  return {
    wanted: watchedSymbols(wanted),
    subscribed: textsOf(feed?.subscribed),
    unsubscribed: textsOf(feed?.unsubscribed),
    unreceived: unreceivedIn(feed?.unreceived),
    disconnected: disconnectedOf(
      typeof feed?.disconnectedSince === "number" ? feed.disconnectedSince : null,
      typeof feed?.lastProblem === "string" ? feed.lastProblem : null,
    ),
  };
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === "string") : [];
}

function unreceivedIn(value: unknown): NonNullable<TickerSets["unreceived"]> {
  if (!Array.isArray(value)) return [];
  return value.flatMap((one: unknown) => {
    const { symbol, since, reason } = asObject(one) ?? {};
    if (typeof symbol !== "string" || typeof since !== "number" || typeof reason !== "string") return [];
    return { symbol, sinceMs: since, reason };
  });
}
