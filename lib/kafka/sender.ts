// The writing half of the log on Kafka: the far end of an outbox. It sends, looks which partitions have
// acknowledged, and never tries again by itself; what a partition has not acknowledged counts as not written.

import assert from "node:assert/strict";
import { Partitioners, type RecordMetadata } from "kafkajs";
import { LogUnavailableError, RestartError, RowRefusedError } from "../base/errors.ts";
import type {
  LogEntry,
  LogWriter,
  PartitionId,
  PartitionSender,
  RecordKind,
  SendBatch,
  SendOutcome,
} from "../contracts/log.ts";
import { encodeDeadLetter } from "../model/codec.ts";
import type { DeadLetter } from "../model/dead-letter.ts";
import { openBoundedProducer } from "./bounded-producer.ts";
import {
  checkKafka,
  compressionOf,
  createKafka,
  isKafkaError,
  type KafkaDeps,
  kafkaError,
} from "./client.ts";
import { missingTopic, partitionId, placeOf, topicNames } from "./topics.ts";

/** A broker waits so long for its replicas; then the batch may or may not have been written. */
const ACK_MS_MAX = 10_000;
/**
 * kafkajs asks again where partitions live when one has not been acknowledged, but an answer may be late in coming:
 * a leader that hangs must not be asked for longer than this when another has taken its place.
 */
const METADATA_MS_MAX = 10_000;
/** Symbols are some thousands at most; a topic fed with keys without end must not fill the memory. */
const KEYS_REMEMBERED_MAX = 50_000;

/**
 * The number of partitions is read once, by ready(): keys keep their partition for as long as the sender lives,
 * even when the topic grows meanwhile.
 */
export function openKafkaSender(
  deps: KafkaDeps & Readonly<{ topic: string }>,
): PartitionSender & AsyncDisposable {
  const names = topicNames(deps.topic);
  /** As of the last send; the topic may have been made anew since ready(). */
  const partitionCountsNow = new Map<string, number>();
  const opened = openBoundedProducer(deps, {
    metadataMaxAge: METADATA_MS_MAX,
    createPartitioner:
      () =>
      ({ topic, partitionMetadata, message }) => {
        partitionCountsNow.set(topic, partitionMetadata.length);
        return message.partition ?? assert.fail("every message is given its partition");
      },
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
      if (partitionCounts === null) await checkKafka(deps);
      await opened.run((producer) => producer.connect());
      partitionCounts ??= await readPartitionCounts(deps, [names.trades, names.event, names.dead]);
    } catch (error) {
      throw kafkaError(error, "Kafka cannot be reached");
    }
  }

  async function send(batches: readonly SendBatch[]): Promise<readonly SendOutcome[]> {
    const filled = batches.filter(({ entries }) => entries.length > 0);
    const answers = new Map<PartitionId, RecordMetadata>();
    let failure: unknown = null;
    try {
      for (const answer of filled.length === 0 ? [] : await produce(filled)) {
        answers.set(partitionId(answer.topicName, answer.partition), answer);
      }
    } catch (error) {
      failure = error;
    }
    return batches.map((batch) => {
      if (batch.entries.length === 0) return { kind: "acknowledged" };
      if (failure !== null) return { kind: "unavailable", error: kafkaError(failure, NOT_ACKNOWLEDGED) };
      const answer = answers.get(batch.partition);
      if (answer === undefined) return { kind: "unavailable", error: unanswered(batch.partition) };
      return outcomeOf(answer, batch);
    });
  }

  function produce(filled: readonly SendBatch[]): Promise<RecordMetadata[]> {
    // Before anything is waited for: the entries are the caller's.
    const topicMessages = messagesOf(filled);
    return opened.run((producer) =>
      producer.sendBatch({
        acks: -1,
        timeout: ACK_MS_MAX,
        compression: compressionOf(deps.settings),
        topicMessages,
      }),
    );
  }

  /** kafkajs leaves out what is not in its list of the topic's partitions. */
  function unanswered(id: PartitionId): Error {
    const { topic, partition } = placeOf(id);
    const count = partitionCountsNow.get(topic);
    const countAtStart = partitionCounts?.get(topic);
    if (count !== undefined && countAtStart !== undefined && count < countAtStart && partition >= count) {
      return new RestartError(
        `${topic} has ${count} partitions now, ${countAtStart} when this process started: restart it`,
        "the topic was made anew; only a new start puts its keys into the partitions that are left",
      );
    }
    return new LogUnavailableError(
      `${id} was not in Kafka's answer`,
      "it is sent again: the partition may be moving to another broker",
    );
  }

  return {
    partitionOf,
    ready,
    send,
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  };
}

async function readPartitionCounts(
  deps: KafkaDeps,
  topics: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const admin = createKafka(deps, "once").admin();
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
  const byTopic = new Map<string, { key: string; value: Uint8Array; partition: number }[]>();
  for (const { partition: id, entries } of batches) {
    const { topic, partition } = placeOf(id);
    let messages = byTopic.get(topic);
    if (messages === undefined) {
      messages = [];
      byTopic.set(topic, messages);
    }
    for (const { key, value } of entries) messages.push({ key, value, partition });
  }
  return [...byTopic].map(([topic, messages]) => ({ topic, messages }));
}

const NOT_ACKNOWLEDGED = "Kafka has not acknowledged";

/**
 * MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_RECORD: what another try cannot mend. Not so CORRUPT_MESSAGE,
 * which befalls a message on its way, and INVALID_TIMESTAMP, by which a wrong clock would have every message
 * refused: such a lane waits, and /health says why.
 */
const BLAMES_MESSAGE: ReadonlySet<number> = new Set([10, 18, 87]);

function outcomeOf({ errorCode, error: reason }: RecordMetadata, { entries }: SendBatch): SendOutcome {
  if (errorCode === 0) return { kind: "acknowledged" };
  const error = kafkaError(reason, NOT_ACKNOWLEDGED);
  if (!BLAMES_MESSAGE.has(errorCode)) return { kind: "unavailable", error };
  // Halved until the one that is at fault stands alone.
  return { kind: entries.length > 1 ? "too_large" : "refused", error };
}

/** Of one append of the writer below; the outbox bounds its own batches. */
const APPEND_BYTES_MAX = 256 * 1024;

/**
 * The sender as a LogWriter, for one who keeps no outbox: an append resolves when every partition has acknowledged
 * all of it. Appends go one after the other. RowRefusedError when Kafka refuses an entry for good.
 */
export function createKafkaWriter(sender: PartitionSender): LogWriter {
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
    // One after the other: what is too large is halved, and nobody here is in a hurry.
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

/** What a store on another engine does with its dead letters: resolves when `.dead` has them. */
export function createDeadWriter(log: LogWriter): (deadLetters: readonly DeadLetter[]) => Promise<void> {
  return (deadLetters) =>
    log.append(
      deadLetters.map((deadLetter) => ({
        kind: "dead",
        key: deadLetter.session,
        value: encodeDeadLetter(deadLetter),
      })),
    );
}
