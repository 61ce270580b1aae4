// The topics of the pipeline: what they are called, how they are made, how far they have been read. It moves no
// record and no committed position, and it changes no topic that is there, but for the partitions of a forced growth.

import { type Admin, ConfigResourceTypes, type ITopicConfig } from "kafkajs";
import { backoffMs } from "../base/clock.ts";
import { LogUnavailableError, SetupError } from "../base/errors.ts";
import type { PartitionId, Position } from "../contracts/log.ts";
import { DAY_MS } from "../model/trade.ts";
import { checkKafka, createKafka, isKafkaError, type KafkaDeps, kafkaError } from "./client.ts";

/** All side topics are named after the one of the trades. */
export function topicNames(topic: string) {
  return { trades: topic, event: `${topic}.events`, dead: `${topic}.dead`, tickers: `${topic}.tickers` };
}

export function partitionId(topic: string, partition: number): PartitionId {
  return `${topic}/${partition}`;
}

export function placeOf(id: PartitionId): Readonly<{ topic: string; partition: number }> {
  const slash = id.lastIndexOf("/");
  return { topic: id.slice(0, slash), partition: Number(id.slice(slash + 1)) };
}

export type PartitionLag = Readonly<{
  partition: PartitionId;
  committed: Position | null;
  beginOffset: number;
  endOffset: number;
  /** Records that the group has not committed; of a group that never committed all that are kept. */
  lag: number;
}>;

export type TopicsWanted = Readonly<{
  partitions: number;
  retentionDays: number;
  /** Gives a topic in use more partitions: a symbol then moves in mid-window. */
  force: boolean;
}>;

export interface KafkaTopics extends AsyncDisposable {
  /**
   * Resolves when a broker answers; one that is still starting is waited for until the signal aborts, and then
   * rejects with LogUnavailableError. SetupError at once.
   */
  ready(signal: AbortSignal): Promise<void>;
  /**
   * Makes what is not there; a sentence for each thing done or found unlike what is wanted. SetupError where the
   * trades' topic has another number of partitions (without force), or has more of them (even with force).
   */
  create(wanted: TopicsWanted): Promise<readonly string[]>;
  /** Of the trades' topic. SetupError when one of the topics is missing. */
  partitionCount(): Promise<number>;
  /** How far the group has come in the trades' and the events' topic. */
  lag(groupId: string): Promise<readonly PartitionLag[]>;
  /** The first offset at or after that time, the end where there is none, by partition of that topic. */
  offsetsAt(topic: string, timeMs: number): Promise<ReadonlyMap<PartitionId, number>>;
}

/**
 * TTL of trades > retention of the topics, in parts of RETENTION_DAYS: a record that is replayed at the last
 * moment must still have time to live. Kafka drops whole segments, so a record stays up to a segment longer.
 */
const RETENTION_SHARE = 0.9;
const SEGMENT_SHARE = 0.05;
const SEGMENT_MS_MAX = DAY_MS;
/** Three copies, two of which must have a record before it is acknowledged: one broker may then be down. */
const REPLICAS_MAX = 3;
const IN_SYNC_MIN = 2;
/** Kafka's own default, written down because the one below must be larger. */
const RECORD_BYTES_MAX = 1_048_588;
/** A dead letter holds a frame of up to 16 MiB (finnhub/frame.ts), as base64 in JSON. */
const DEAD_RECORD_BYTES_MAX = 32 * 1024 * 1024;
/** Of a list that every producer reads whole at its start: most of it should be current. */
const TICKERS_DIRTY_RATIO = 0.1;
const WAIT_FIRST_MS = 100;
const WAIT_MAX_MS = 1_000;
/** A controller deals out leaders in far less; beyond it something is wrong with the brokers. */
const LEADERS_MS_MAX = 10_000;

export function openTopics(deps: KafkaDeps & Readonly<{ topic: string }>): KafkaTopics {
  const { topic, clock, logger } = deps;
  const names = topicNames(topic);
  let opened: Admin | null = null;

  /** With a client that is connected; every error comes out as ours. */
  async function ask<T>(doing: string, question: (admin: Admin) => Promise<T>): Promise<T> {
    try {
      opened ??= createKafka(deps, "once").admin();
      await opened.connect();
      return await question(opened);
    } catch (error) {
      throw kafkaError(error, doing);
    }
  }

  /** Null = there is no such topic. */
  async function partitionsOf(admin: Admin, name: string) {
    try {
      const { topics } = await admin.fetchTopicMetadata({ topics: [name] });
      return topics[0]?.partitions ?? null;
    } catch (error) {
      if (isKafkaError(error, "UNKNOWN_TOPIC_OR_PARTITION")) return null;
      throw error;
    }
  }

  function wantedTopics({ partitions, retentionDays }: TopicsWanted, brokerCount: number): ITopicConfig[] {
    const replicationFactor = Math.min(brokerCount, REPLICAS_MAX);
    const keptMs = retentionDays * DAY_MS;
    const base = {
      "min.insync.replicas": String(replicationFactor >= REPLICAS_MAX ? IN_SYNC_MIN : 1),
      "unclean.leader.election.enable": "false",
      // A producer's clock that is wrong must neither have its records refused nor kept for ever.
      "message.timestamp.type": "LogAppendTime",
    };
    const kept = {
      ...base,
      "cleanup.policy": "delete",
      "retention.ms": String(Math.floor(keptMs * RETENTION_SHARE)),
      "segment.ms": String(Math.min(SEGMENT_MS_MAX, Math.floor(keptMs * SEGMENT_SHARE))),
      "max.message.bytes": String(RECORD_BYTES_MAX),
    };
    const one = (name: string, numPartitions: number, config: Record<string, string>) => ({
      topic: name,
      numPartitions,
      replicationFactor,
      configEntries: Object.entries(config).map(([key, value]) => ({ name: key, value })),
    });
    return [
      one(names.trades, partitions, kept),
      one(names.event, 1, kept),
      one(names.dead, 1, { ...kept, "max.message.bytes": String(DEAD_RECORD_BYTES_MAX) }),
      one(names.tickers, 1, {
        ...base,
        "cleanup.policy": "compact",
        "segment.ms": String(SEGMENT_MS_MAX),
        "min.cleanable.dirty.ratio": String(TICKERS_DIRTY_RATIO),
      }),
    ];
  }

  async function create(wanted: TopicsWanted): Promise<readonly string[]> {
    const done: string[] = [];
    await ask("the topics cannot be made", async (admin) => {
      const { brokers } = await admin.describeCluster();
      const found = await partitionsOf(admin, names.trades);
      if (found !== null) checkPartitions(found.length, wanted);
      for (const config of wantedTopics(wanted, brokers.length)) {
        const isMade = await admin.createTopics({ topics: [config], waitForLeaders: false });
        await waitForLeaders(admin, config.topic, 1);
        if (isMade) done.push(`made the topic ${config.topic} (partitions: ${config.numPartitions})`);
        else done.push(...(await differences(admin, config)));
      }
      if (found !== null && found.length < wanted.partitions) {
        await admin.createPartitions({ topicPartitions: [{ topic, count: wanted.partitions }] });
        done.push(
          `${topic} has ${wanted.partitions} partitions instead of ${found.length}: run \`admin verify --repair\` ` +
            "for the windows of now, and start the producers again",
        );
      }
      await waitForLeaders(admin, topic, wanted.partitions);
    });
    return done;
  }

  function checkPartitions(found: number, { partitions, force }: TopicsWanted): void {
    if (found === partitions) return;
    const what = `${topic} has ${found} partitions and KAFKA_TOPIC_PARTITIONS is ${partitions}`;
    if (found > partitions) {
      throw new SetupError(
        `${what}: Kafka cannot take partitions away`,
        `set KAFKA_TOPIC_PARTITIONS=${found}, or give KAFKA_TOPIC_NAME a new name`,
      );
    }
    if (force) return;
    throw new SetupError(
      `${what}: with more of them symbols move to other partitions in mid-window`,
      `set KAFKA_TOPIC_PARTITIONS=${found}, or use --force and \`admin verify --repair\` afterwards`,
    );
  }

  /** A topic that is there is its operator's: what is unlike is said, never changed. */
  async function differences(admin: Admin, { topic: name, configEntries }: ITopicConfig): Promise<string[]> {
    const { resources } = await admin.describeConfigs({
      includeSynonyms: false,
      resources: [
        {
          type: ConfigResourceTypes.TOPIC,
          name,
          configNames: (configEntries ?? []).map((entry) => entry.name),
        },
      ],
    });
    const values = new Map(
      resources[0]?.configEntries.map(({ configName, configValue }) => [configName, configValue]),
    );
    return (configEntries ?? [])
      .filter((entry) => values.get(entry.name) !== entry.value)
      .map(
        (entry) =>
          `${name} has ${entry.name}=${values.get(entry.name)}, wanted is ${entry.value}: left as it is`,
      );
  }

  /** A broker takes a moment to learn of a topic that its controller has made. */
  async function waitForLeaders(admin: Admin, name: string, partitions: number): Promise<void> {
    const untilMs = clock.monotonic() + LEADERS_MS_MAX;
    for (let attempt = 0; ; attempt++) {
      const found = (await partitionsOf(admin, name)) ?? [];
      if (found.length >= partitions && found.every(({ leader }) => leader >= 0)) return;
      if (clock.monotonic() > untilMs) {
        throw new LogUnavailableError(
          `${name} has no leader for each of its partitions`,
          "see whether all brokers run",
        );
      }
      await clock.sleep(backoffMs(attempt, WAIT_FIRST_MS, WAIT_MAX_MS, clock.random));
    }
  }

  return {
    async ready(signal) {
      let isTold = false;
      for (let attempt = 0; ; attempt++) {
        try {
          return await checkKafka(deps);
        } catch (error) {
          if (!(error instanceof LogUnavailableError) || signal.aborted) throw error;
          if (!isTold) logger.warn("Kafka does not answer yet; waiting for it", { error });
          isTold = true;
        }
        await clock.sleep(backoffMs(attempt, WAIT_FIRST_MS, WAIT_MAX_MS, clock.random), signal);
      }
    },
    create,
    partitionCount: () =>
      ask("the topics cannot be seen", async (admin) => {
        const { trades, event, dead, tickers } = names;
        for (const name of [event, dead, tickers, trades]) {
          const partitions = await partitionsOf(admin, name);
          if (partitions === null) throw missingTopic(name);
          if (name === trades) return partitions.length;
        }
        throw missingTopic(trades);
      }),
    lag: (groupId) =>
      ask("the group's lag cannot be seen", async (admin) => {
        const topics = [names.trades, names.event];
        const committed = await committedOffsets(admin, groupId, topics);
        const lags: PartitionLag[] = [];
        for (const name of topics) {
          for (const { partition, low, high } of await admin.fetchTopicOffsets(name)) {
            const id = partitionId(name, partition);
            const position = committed.get(id) ?? null;
            const [beginOffset, endOffset] = [Number(low), Number(high)];
            const from = Math.max(position?.offset ?? beginOffset, beginOffset);
            const lag = Math.max(0, endOffset - from);
            lags.push({ partition: id, committed: position, beginOffset, endOffset, lag });
          }
        }
        return lags;
      }),
    offsetsAt: (name, timeMs) =>
      ask("the offsets of a time cannot be seen", async (admin) => {
        const offsets = await admin.fetchTopicOffsetsByTimestamp(name, timeMs);
        return new Map(
          offsets.map(({ partition, offset }) => [partitionId(name, partition), Number(offset)]),
        );
      }),
    async [Symbol.asyncDispose]() {
      await opened?.disconnect();
    },
  };
}

export function missingTopic(name: string): SetupError {
  return new SetupError(`Kafka has no topic ${name}`, "run `admin init`, or see KAFKA_TOPIC_NAME");
}

/** What the group has committed in these topics; a partition without a commit is not in it. */
export async function committedOffsets(
  admin: Admin,
  groupId: string,
  topics: string[],
): Promise<Map<PartitionId, Position>> {
  const committed = new Map<PartitionId, Position>();
  // A client that has just connected knows no broker by name yet, and looks for the group's coordinator in vain.
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
