// The writing half of the log on Kafka: the far end of an outbox. It sends, looks which partitions have
// acknowledged, and never tries again by itself; what a partition has not acknowledged counts as not written.

import assert from "node:assert/strict";
import { Partitioners } from "kafkajs";
import { LogUnavailableError, RowRefusedError } from "./errors.ts";
import {
  checkKafka,
  compressionOf,
  createKafka,
  isKafkaError,
  type KafkaParts,
  kafkaError,
} from "./kafka.ts";
import { missingTopic, partitionId, placeOf, topicNames } from "./kafka-topics.ts";
import type {
  LogEntry,
  LogSender,
  LogWriter,
  PartitionId,
  RecordKind,
  SendBatch,
  SendOutcome,
} from "./log.ts";

/** A broker waits so long for its replicas; then the batch may or may not have been written. */
const ACK_MS_MAX = 10_000;
/**
 * kafkajs asks again where partitions live after an answer like NOT_LEADER, but not after a silence: a leader that
 * hangs must not be asked for longer than this when another has taken its place.
 */
const METADATA_MS_MAX = 10_000;
/** Symbols are some thousands at most; a topic fed with keys without end must not fill the memory. */
const KEYS_REMEMBERED_MAX = 50_000;

/**
 * The number of partitions is read once, by ready(): keys keep their partition for as long as the sender lives,
 * even when the topic grows meanwhile.
 */
export function openKafkaSender(
  parts: KafkaParts & Readonly<{ topic: string }>,
): LogSender & AsyncDisposable {
  const names = topicNames(parts.topic);
  const producer = createKafka(parts, "once").producer({
    allowAutoTopicCreation: false,
    // Its own retry asks only the brokers that have not answered: a partition whose leader moves to one that has
    // would count as written. The outbox repeats, and only what is not acknowledged.
    retry: { retries: 0 },
    metadataMaxAge: METADATA_MS_MAX,
    createPartitioner:
      () =>
      ({ message }) =>
        message.partition ?? assert.fail("every message is given its partition"),
  });
  const choosePartition = createPartitionChoice();
  let partitionCounts: ReadonlyMap<string, number> | null = null;

  function partitionOf(kind: RecordKind, key: string): PartitionId {
    const topic = names[kind];
    const count = partitionCounts?.get(topic);
    if (count === undefined) throw new Error("partitionOf before ready() has resolved");
    return partitionId(topic, choosePartition(key, count));
  }

  async function ready(): Promise<void> {
    try {
      // Once, at the start: it looks closer than a mere connection, and says what the operator must change.
      if (partitionCounts === null) await checkKafka(parts);
      await producer.connect();
      partitionCounts ??= await readPartitionCounts(parts, [names.trades, names.event, names.dead]);
    } catch (error) {
      throw kafkaError(error, "Kafka cannot be reached");
    }
  }

  async function send(batches: readonly SendBatch[]): Promise<readonly SendOutcome[]> {
    const filled = batches.filter(({ entries }) => entries.length > 0);
    const acknowledged = new Set<PartitionId>();
    let failure: unknown = null;
    try {
      const responses =
        filled.length === 0
          ? []
          : await producer.sendBatch({
              acks: -1,
              timeout: ACK_MS_MAX,
              compression: compressionOf(parts.settings),
              topicMessages: messagesOf(filled),
            });
      for (const { topicName, partition, errorCode } of responses) {
        if (errorCode === 0) acknowledged.add(partitionId(topicName, partition));
      }
    } catch (error) {
      failure = error;
    }
    return batches.map((batch) => {
      if (batch.entries.length === 0 || acknowledged.has(batch.partition)) return { kind: "acknowledged" };
      if (failure !== null) return outcomeOf(failure, batch, filled.length === 1);
      const error = new LogUnavailableError(
        `${batch.partition} was not in Kafka's answer`,
        "it is sent again: the partition may be moving to another broker",
      );
      return { kind: "unavailable", error };
    });
  }

  return {
    partitionOf,
    ready,
    send,
    [Symbol.asyncDispose]: () => producer.disconnect(),
  };
}

async function readPartitionCounts(
  parts: KafkaParts,
  topics: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const admin = createKafka(parts, "once").admin();
  try {
    await admin.connect();
    const counts = new Map<string, number>();
    for (const topic of topics) {
      try {
        const metadata = await admin.fetchTopicMetadata({ topics: [topic] });
        counts.set(topic, metadata.topics[0]?.partitions.length ?? 0);
      } catch (error) {
        throw isKafkaError(error, "UNKNOWN_TOPIC_OR_PARTITION") ? missingTopic(topic) : error;
      }
    }
    return counts;
  } finally {
    await admin.disconnect();
  }
}

/** Where Java's default partitioner would put it, since others may rely on that: murmur2, once for each key. */
export function createPartitionChoice(): (key: string, partitionCount: number) => number {
  const chooseAsJava = Partitioners.DefaultPartitioner();
  const known = new Map<string, number>();
  return (key, partitionCount) => {
    if (partitionCount === 1) return 0;
    const name = `${partitionCount} ${key}`;
    let partition = known.get(name);
    if (partition === undefined) {
      // It looks at no more of a partition than that there is one.
      const partitionMetadata = Array.from({ length: partitionCount }, (_, id) => ({
        partitionErrorCode: 0,
        partitionId: id,
        leader: 0,
        replicas: [],
        isr: [],
      }));
      partition = chooseAsJava({ topic: "", partitionMetadata, message: { key, value: null } });
      if (known.size >= KEYS_REMEMBERED_MAX) known.clear();
      known.set(name, partition);
    }
    return partition;
  };
}

function messagesOf(batches: readonly SendBatch[]) {
  const byTopic = new Map<string, { key: string; value: Buffer; partition: number }[]>();
  for (const { partition: id, entries } of batches) {
    const { topic, partition } = placeOf(id);
    let messages = byTopic.get(topic);
    if (messages === undefined) {
      messages = [];
      byTopic.set(topic, messages);
    }
    for (const { key, value } of entries) {
      messages.push({ key, value: Buffer.from(value.buffer, value.byteOffset, value.length), partition });
    }
  }
  return [...byTopic].map(([topic, messages]) => ({ topic, messages }));
}

const TOO_LARGE = ["MESSAGE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"];
const INVALID = ["INVALID_RECORD", "CORRUPT_MESSAGE", "INVALID_TIMESTAMP", "UNSUPPORTED_FOR_MESSAGE_FORMAT"];

/**
 * kafkajs rejects with the first error of any partition, so an error proves something of a batch only when it was
 * sent alone, and of a message only when that was alone in it.
 */
function outcomeOf(failure: unknown, { entries }: SendBatch, isAlone: boolean): SendOutcome {
  const error = kafkaError(failure, "Kafka has not acknowledged");
  if (!isAlone || !isKafkaError(failure, ...TOO_LARGE, ...INVALID)) return { kind: "unavailable", error };
  // Halved until the one that is at fault stands alone.
  return { kind: entries.length > 1 ? "too_large" : "refused", error };
}

/** Of one append of the writer below; the outbox bounds its own batches. */
const APPEND_BYTES_MAX = 256 * 1024;

/**
 * The sender as a LogWriter, for one who keeps no outbox: an append resolves when every partition has acknowledged
 * all of it. Appends go one after the other. RowRefusedError when Kafka refuses an entry for good.
 */
export function createKafkaWriter(sender: LogSender): LogWriter {
  let last: Promise<void> = Promise.resolve();

  async function appendNow(entries: readonly LogEntry[]): Promise<void> {
    await sender.ready();
    const waiting = new Map<PartitionId, LogEntry[]>();
    for (const entry of entries) {
      const id = sender.partitionOf(entry.kind, entry.key);
      const ofPartition = waiting.get(id);
      if (ofPartition) ofPartition.push(entry);
      else waiting.set(id, [entry]);
    }
    // One partition at a time: only so does a refusal say whom it is about.
    for (const [partition, ofPartition] of waiting) {
      for (const group of groupsOf(ofPartition)) await sendWhole(partition, group);
    }
  }

  async function sendWhole(partition: PartitionId, entries: readonly LogEntry[]): Promise<void> {
    const [outcome] = await sender.send([{ partition, entries }]);
    assert(outcome !== undefined);
    switch (outcome.kind) {
      case "acknowledged":
        return;
      case "too_large": {
        const middle = Math.ceil(entries.length / 2);
        await sendWhole(partition, entries.slice(0, middle));
        return sendWhole(partition, entries.slice(middle));
      }
      case "refused":
        throw new RowRefusedError(outcome.error.message, "see max.message.bytes of the topic", outcome.error);
      case "unavailable":
        throw outcome.error;
    }
  }

  return {
    append(entries) {
      const appended = last.then(() => appendNow(entries));
      // The next one waits for this one's end, not for its success.
      last = appended.catch(() => {});
      return appended;
    },
  };
}

/** Every group within the bound, but for an entry that alone is larger. */
function groupsOf(entries: readonly LogEntry[]): LogEntry[][] {
  const groups: LogEntry[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const entry of entries) {
    if (bytes + entry.value.length > APPEND_BYTES_MAX) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)?.push(entry);
    bytes += entry.value.length;
  }
  return groups;
}
