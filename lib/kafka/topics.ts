// The topics of the pipeline: their names, how they are created, and how far they have been read. This file moves no
// record and no committed position. It changes no topic that exists, apart from the partitions of a forced growth.

import { type Admin, ConfigResourceTypes, type ITopicConfig } from "kafkajs";
import { backoffMs } from "../base/clock.ts";
import { LogUnavailableError, SetupError } from "../base/errors.ts";
import { outageLoop } from "../base/outages.ts";
import type { PartitionId, Position } from "../contracts/log.ts";
import { checkKafka, createKafka, type KafkaDeps } from "./client.ts";
import { isKafkaError, kafkaError } from "./errors.ts";
import {
  checkPartitionCount,
  differencesOf,
  type TopicNames,
  type TopicsWanted,
  topicConfigs,
} from "./topic-configs.ts";

/** All topics are named after the one of the trades. */
export function topicNames(topic: string): TopicNames {
  return { trades: topic, event: `${topic}.events`, dead: `${topic}.dead`, tickers: `${topic}.tickers` };
}

export function partitionId(topic: string, partition: number): PartitionId {
  return `${topic}/${partition}`;
}

export function placeOf(id: PartitionId): Readonly<{ topic: string; partition: number }> {
  const slash = id.lastIndexOf("/");
  return { topic: id.slice(0, slash), partition: Number(id.slice(slash + 1)) };
}

type PartitionLag = Readonly<{
  partition: PartitionId;
  committed: Position | null;
  beginOffset: number;
  endOffset: number;
  /** Records that the group has not committed; all records that are kept when it never committed. */
  lag: number;
}>;

export interface KafkaTopics extends AsyncDisposable {
  /**
   * Resolves when a broker answers. A broker that is still starting is waited for until the signal aborts; then it
   * rejects with LogUnavailableError. SetupError at once.
   */
  ready(signal: AbortSignal): Promise<void>;
  /**
   * Creates the topics that are missing; answers a sentence for each thing that was done, or found unlike what is
   * wanted. SetupError where the trades' topic has fewer partitions (without force) or more (even with force).
   */
  create(wanted: TopicsWanted): Promise<readonly string[]>;
  /** Partitions of the trades' topic. SetupError when one of the topics is missing. */
  partitionCount(): Promise<number>;
  /** How far the group has come in the trades' topic and in the events' topic. */
  lag(groupId: string): Promise<readonly PartitionLag[]>;
}

const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 1_000;
/** A controller elects leaders in far less; above it something is wrong with the brokers. */
const LEADERS_MS_MAX = 10_000;

type TopicsDeps = KafkaDeps & Readonly<{ topic: string }>;

export function openTopics(deps: TopicsDeps): KafkaTopics {
  const names = topicNames(deps.topic);
  let opened: Admin | null = null;

  /** Calls with an admin client that is connected. Every error is translated; `doing` begins its sentence. */
  async function call<T>(doing: string, work: (admin: Admin) => Promise<T>): Promise<T> {
    try {
      opened ??= createKafka(deps).admin();
      await opened.connect();
      return await work(opened);
    } catch (error) {
      throw kafkaError(error, doing);
    }
  }

  return {
    ready: (signal) => waitForKafka(deps, signal),
    create: (wanted) => call("the topics cannot be created", (admin) => createTopics(deps, admin, wanted)),
    partitionCount: () => call("the topics cannot be seen", (admin) => tradesPartitionCount(admin, names)),
    lag: (groupId) =>
      call("the group's lag cannot be seen", (admin) => lagOf(admin, groupId, [names.trades, names.event])),
    async [Symbol.asyncDispose]() {
      await opened?.disconnect();
    },
  };
}

/** Not `retry`: an abort rejects with the last error of Kafka, not with the signal's reason. */
async function waitForKafka(deps: KafkaDeps, signal: AbortSignal): Promise<void> {
  const { clock } = deps;
  const outage = outageLoop(deps, "the log", "start");
  for (let attempt = 0; ; attempt++) {
    try {
      await checkKafka(deps);
      outage.worked();
      return;
    } catch (error) {
      if (!(error instanceof LogUnavailableError) || signal.aborted) throw error;
      outage.failed(error);
    }
    await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), signal);
  }
}

async function createTopics(deps: TopicsDeps, admin: Admin, wanted: TopicsWanted): Promise<string[]> {
  const { topic } = deps;
  const done: string[] = [];
  const { brokers } = await admin.describeCluster();
  const found = await partitionsOf(admin, topic);
  if (found !== null) checkPartitionCount(topic, found.length, wanted);
  for (const config of topicConfigs(topicNames(topic), wanted, brokers.length)) {
    const isCreated = await admin.createTopics({ topics: [config], waitForLeaders: false });
    await waitForLeaders(deps, admin, config.topic, 1);
    if (isCreated) done.push(`made the topic ${config.topic} (partitions: ${config.numPartitions})`);
    // A topic that exists belongs to its operator: differences are reported, never changed.
    else done.push(...differencesOf(config, await settingsOf(admin, config)));
  }
  if (found !== null && found.length < wanted.partitions) {
    await admin.createPartitions({ topicPartitions: [{ topic, count: wanted.partitions }] });
    done.push(
      `${topic} has ${wanted.partitions} partitions instead of ${found.length}: run \`admin verify --repair\` ` +
        "for the current windows, and restart the producers",
    );
  }
  await waitForLeaders(deps, admin, topic, wanted.partitions);
  return done;
}

/** Null = there is no such topic. */
async function partitionsOf(admin: Admin, topic: string) {
  try {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
    return topics[0]?.partitions ?? null;
  } catch (error) {
    if (isKafkaError(error, "UNKNOWN_TOPIC_OR_PARTITION")) return null;
    throw error;
  }
}

/** The values of the config's settings as the topic has them. */
async function settingsOf(admin: Admin, { topic, configEntries = [] }: ITopicConfig) {
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [
      { type: ConfigResourceTypes.TOPIC, name: topic, configNames: configEntries.map(({ name }) => name) },
    ],
  });
  return new Map(resources[0]?.configEntries.map(({ configName, configValue }) => [configName, configValue]));
}

/** A broker learns of a topic a moment after the controller has created it. */
async function waitForLeaders(
  { clock }: KafkaDeps,
  admin: Admin,
  topic: string,
  partitions: number,
): Promise<void> {
  const untilMs = clock.monotonic() + LEADERS_MS_MAX;
  for (let attempt = 0; ; attempt++) {
    const found = (await partitionsOf(admin, topic)) ?? [];
    if (found.length >= partitions && found.every(({ leader }) => leader >= 0)) return;
    if (clock.monotonic() > untilMs) {
      throw new LogUnavailableError(
        `${topic} has no leader for each of its partitions`,
        "check that all brokers are running",
      );
    }
    await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random));
  }
}

async function tradesPartitionCount(
  admin: Admin,
  { trades, event, dead, tickers }: TopicNames,
): Promise<number> {
  for (const name of [event, dead, tickers, trades]) {
    const partitions = await partitionsOf(admin, name);
    if (partitions === null) throw missingTopic(name);
    if (name === trades) return partitions.length;
  }
  throw missingTopic(trades);
}

async function lagOf(admin: Admin, groupId: string, topics: string[]): Promise<PartitionLag[]> {
  const committed = await committedOffsets(admin, groupId, topics);
  const lags: PartitionLag[] = [];
  for (const topic of topics) {
    for (const { partition, low, high } of await admin.fetchTopicOffsets(topic)) {
      const id = partitionId(topic, partition);
      const position = committed.get(id) ?? null;
      const [beginOffset, endOffset] = [Number(low), Number(high)];
      const from = Math.max(position?.offset ?? beginOffset, beginOffset);
      const lag = Math.max(0, endOffset - from);
      lags.push({ partition: id, committed: position, beginOffset, endOffset, lag });
    }
  }
  return lags;
}

export function missingTopic(name: string): SetupError {
  return new SetupError(`Kafka has no topic ${name}`, "run `admin init`, or correct KAFKA_TOPIC_NAME");
}

/** What the group has committed in these topics; a partition without a commit is missing. */
export async function committedOffsets(
  admin: Admin,
  groupId: string,
  topics: string[],
): Promise<Map<PartitionId, Position>> {
  const committed = new Map<PartitionId, Position>();
  // A client that has just connected knows no broker by name, and does not find the group's coordinator.
  await admin.describeCluster();
  await admin.fetchTopicMetadata({ topics });
  for (const { topic, partitions } of await admin.fetchOffsets({ groupId, topics })) {
    for (const { partition, offset, metadata } of partitions) {
      // -1 = none.
      if (Number(offset) < 0) continue;
      committed.set(partitionId(topic, partition), { offset: Number(offset), metadata: metadata ?? "" });
    }
  }
  return committed;
}
