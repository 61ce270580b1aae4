// Builders for the tests that need a real Kafka: settings of a client, the topics of one test, a log as the contract
// suite drives it. Names are unique, so that tests can share one broker.

import type { Admin, Kafka } from "kafkajs";
import { systemClock } from "../../lib/base/clock.ts";
import type { Config } from "../../lib/base/config.ts";
import { silentLogger } from "../../lib/base/logger.ts";
import type { PartitionId, RecordKind } from "../../lib/contracts/log.ts";
import { createKafka, type KafkaDeps } from "../../lib/kafka/client.ts";
import { type KafkaReader, openKafkaReader } from "../../lib/kafka/consumer.ts";
import { openKafkaSender } from "../../lib/kafka/sender.ts";
import { openTopics } from "../../lib/kafka/topics.ts";
import { createKafkaWriter } from "../../lib/kafka/writer.ts";
import type { OpenLog } from "../contract/log.ts";
import { eventually } from "./builders.ts";
import type { Address } from "./services/server.ts";
import { uniqueName } from "./services/shared.ts";

export type KafkaSettings = Config["kafka"];

/** The shortest that every broker accepts. */
export const SESSION_MS = 6_000;

export function kafkaDeps({ host, port }: Address, changed: Partial<KafkaSettings> = {}): KafkaDeps {
  const settings: KafkaSettings = {
    brokers: [`${host}:${port}`],
    partitions: 3,
    compression: "zstd",
    sessionTimeoutMs: SESSION_MS,
    rebalanceTimeoutMs: SESSION_MS,
    tls: null,
    sasl: null,
    ...changed,
  };
  return { settings, clientId: "test", clock: systemClock, logger: silentLogger };
}

/** The topics of one test, created as `admin init` creates them. */
export async function createTopics(deps: KafkaDeps, partitions: number): Promise<string> {
  const topic = uniqueName("market");
  await using topics = openTopics({ ...deps, topic });
  await topics.create({ partitions, retentionDays: 30, force: false });
  return topic;
}

const REMAKE_MS_MAX = 60_000;

/** Deletes a topic and makes it again. A broker that has just done either may still say otherwise, for moments. */
export async function remakeTopic(admin: Admin, topic: string, numPartitions: number): Promise<void> {
  await admin.deleteTopics({ topics: [topic] });
  const replicas = { numPartitions, replicationFactor: 1 };
  await eventually(REMAKE_MS_MAX, `${topic} is made again`, () =>
    admin.createTopics({ topics: [{ topic, ...replicas }], waitForLeaders: false }).catch(() => false),
  );
  await eventually(REMAKE_MS_MAX, `${topic} has leaders again`, async () => {
    const metadata = await admin.fetchTopicMetadata({ topics: [topic] }).catch(() => null);
    return metadata?.topics[0]?.partitions.filter(({ leader }) => leader >= 0).length === numPartitions;
  });
}

const ALL_KINDS: readonly RecordKind[] = ["trades", "event", "dead"];

/** Reassigns by leaving: the old member is gone, and another one takes its place. */
export async function openKafkaLog(deps: KafkaDeps, partitions: number): Promise<OpenLog> {
  const topic = await createTopics(deps, partitions);
  const groupId = uniqueName("processor");
  const readers: KafkaReader[] = [];
  let sender = openKafkaSender({ ...deps, topic });
  let writer = createKafkaWriter(sender);
  const close = async () => {
    await Promise.all(readers.splice(0).map((reader) => reader[Symbol.asyncDispose]()));
  };
  const openReader = () => {
    const reader = openKafkaReader({ ...deps, topic, groupId, kinds: ALL_KINDS });
    readers.push(reader);
    return reader;
  };
  return {
    get writer() {
      return writer;
    },
    openReader: async () => openReader(),
    async reassign() {
      await close();
      return openReader();
    },
    async reopen() {
      await close();
      await sender[Symbol.asyncDispose]();
      sender = openKafkaSender({ ...deps, topic });
      writer = createKafkaWriter(sender);
    },
    async [Symbol.asyncDispose]() {
      await close();
      await sender[Symbol.asyncDispose]();
    },
  };
}

/** Polls until the condition is true. Fails with what it waited for. */
export function until(what: string, isTrue: () => boolean | Promise<boolean>, msMax = 60_000): Promise<void> {
  return eventually(msMax, what, isTrue);
}

/** As retention does it: everything below the offset is gone. */
export async function deleteRecords(deps: KafkaDeps, id: PartitionId, belowOffset: number): Promise<void> {
  const [topic = "", partition = ""] = id.split("/");
  const admin = createKafka(deps).admin();
  await admin.connect();
  // kafkajs deletes only from topics whose metadata it has fetched.
  await admin.fetchTopicOffsets(topic);
  await admin.deleteTopicRecords({
    topic,
    partitions: [{ partition: Number(partition), offset: String(belowOffset) }],
  });
  await admin.disconnect();
}

/**
 * Resolves when the group has committed all that the topic holds: then its rows are stored, resends or not. A
 * processor's own counts would not tell, since they include resends.
 */
export async function allCommitted(
  client: Kafka,
  topic: string,
  groupId: string,
  limitMs: number,
): Promise<void> {
  const admin = client.admin();
  await admin.connect();
  try {
    let left: string[] = [];
    await eventually(limitMs, `everything of ${topic} committed`, async () => {
      const ends = await admin.fetchTopicOffsets(topic);
      const [group] = await admin.fetchOffsets({ groupId, topics: [topic] });
      const committed = new Map(
        group?.partitions.map(({ partition, offset }) => [partition, Number(offset)]),
      );
      left = ends
        .filter(({ partition, high }) => Number(high) > 0 && (committed.get(partition) ?? -1) < Number(high))
        .map(({ partition, high }) => `partition ${partition}: ${committed.get(partition)} of ${high}`);
      return left.length === 0;
    }).catch((error: unknown) => {
      throw new Error(`${error}: ${left.join(", ")}`);
    });
  } finally {
    await admin.disconnect();
  }
}
