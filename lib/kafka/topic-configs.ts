// What the pipeline's topics should be like: their partitions, replicas and settings, and the sentences about a topic
// that is unlike that. Pure.

import type { ITopicConfig } from "kafkajs";
import { SetupError } from "../base/errors.ts";
import { DAY_MS } from "../model/trade.ts";

export type TopicsWanted = Readonly<{
  /** Of the trades' topic. */
  partitions: number;
  retentionDays: number;
  /** Gives a topic in use more partitions: some symbols then move to another partition in the middle of a window. */
  force: boolean;
}>;

/** The full name of each topic. */
export type TopicNames = Readonly<{ trades: string; event: string; dead: string; tickers: string }>;

/**
 * TTL of trades > retention of the topics, as shares of RETENTION_DAYS: a record that is replayed at the last moment
 * must still have time to live. Kafka drops whole segments, so a record stays up to one segment longer.
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
/** Every producer reads the whole tickers' topic at its start: most of it should be current. */
const TICKERS_DIRTY_RATIO = 0.1;

export function topicConfigs(
  names: TopicNames,
  { partitions, retentionDays }: TopicsWanted,
  brokerCount: number,
): ITopicConfig[] {
  const replicationFactor = Math.min(brokerCount, REPLICAS_MAX);
  const ttlMs = retentionDays * DAY_MS;
  const base = {
    "min.insync.replicas": String(replicationFactor >= REPLICAS_MAX ? IN_SYNC_MIN : 1),
    "unclean.leader.election.enable": "false",
    // A wrong clock of a producer must neither have its records refused nor keep them for ever.
    "message.timestamp.type": "LogAppendTime",
  };
  const deleted = {
    ...base,
    "cleanup.policy": "delete",
    "retention.ms": String(Math.floor(ttlMs * RETENTION_SHARE)),
    "segment.ms": String(Math.min(SEGMENT_MS_MAX, Math.floor(ttlMs * SEGMENT_SHARE))),
    "max.message.bytes": String(RECORD_BYTES_MAX),
  };
  const compacted = {
    ...base,
    "cleanup.policy": "compact",
    "segment.ms": String(SEGMENT_MS_MAX),
    "min.cleanable.dirty.ratio": String(TICKERS_DIRTY_RATIO),
  };
  const configOf = (topic: string, numPartitions: number, settings: Record<string, string>) => ({
    topic,
    numPartitions,
    replicationFactor,
    configEntries: Object.entries(settings).map(([name, value]) => ({ name, value })),
  });
  return [
    configOf(names.trades, partitions, deleted),
    configOf(names.event, 1, deleted),
    configOf(names.dead, 1, { ...deleted, "max.message.bytes": String(DEAD_RECORD_BYTES_MAX) }),
    configOf(names.tickers, 1, compacted),
  ];
}

/** Throws SetupError where the topic has more partitions than are wanted, or, without force, fewer. */
export function checkPartitionCount(topic: string, found: number, { partitions, force }: TopicsWanted): void {
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
    `${what}: with more partitions some symbols move to another one in the middle of a window`,
    `set KAFKA_TOPIC_PARTITIONS=${found}, or use --force and \`admin verify --repair\` afterwards`,
  );
}

/** A sentence for each setting that is unlike what is wanted. `values`: the topic's settings by name. */
export function differencesOf(
  { topic, configEntries = [] }: ITopicConfig,
  values: ReadonlyMap<string, string>,
): string[] {
  return configEntries
    .filter(({ name, value }) => values.get(name) !== value)
    .map(
      ({ name, value }) =>
        `${topic} has ${name}=${values.get(name)}, but should have ${value}; init does not change it: use kafka-configs.sh`,
    );
}
