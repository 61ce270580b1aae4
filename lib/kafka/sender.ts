// The far end of an outbox on Kafka. It sends, looks which partitions have acknowledged, and never retries by itself:
// what a partition has not acknowledged counts as not written.

import assert from "node:assert/strict";
import { Partitioners, type RecordMetadata } from "kafkajs";
import { LogUnavailableError, RestartError } from "../base/errors.ts";
import type { PartitionId, PartitionSender, RecordKind, SendBatch, SendOutcome } from "../contracts/log.ts";
import { type BoundedProducer, openBoundedProducer } from "./bounded-producer.ts";
import { checkKafka, compressionOf, createKafka, type KafkaDeps } from "./client.ts";
import { isKafkaError, kafkaError } from "./errors.ts";
import { missingTopic, partitionId, placeOf, topicNames } from "./topics.ts";

/** A broker waits so long for its replicas; then the batch may or may not have been written. */
const ACK_MS_MAX = 10_000;
/**
 * kafkajs asks again where partitions are when one has not been acknowledged, but that answer may be late: a leader
 * that hangs must not be used for longer than this when another one has taken its place.
 */
const METADATA_MS_MAX = 10_000;
/** Symbols are some thousands at most; a topic fed with unlimited keys must not fill the memory. */
const KEYS_REMEMBERED_MAX = 50_000;

type SenderDeps = KafkaDeps & Readonly<{ topic: string }>;

/**
 * The number of partitions is read once, by ready(): keys keep their partition for as long as the sender lives,
 * even when the topic grows meanwhile.
 */
export function openKafkaSender(deps: SenderDeps): PartitionSender & AsyncDisposable {
  const sender = new KafkaSender(deps);
  // An object of its own, because callers spread it to replace a method.
  return {
    partitionOf: (kind, key) => sender.partitionOf(kind, key),
    ready: () => sender.ready(),
    send: (batches) => sender.send(batches),
    [Symbol.asyncDispose]: () => sender.close(),
  };
}

class KafkaSender implements PartitionSender {
  readonly #deps: SenderDeps;
  readonly #names: ReturnType<typeof topicNames>;
  readonly #producer: BoundedProducer;
  readonly #choosePartition = createPartitionChoice();
  /** By topic, as ready() read them; null = not yet. */
  #partitionCounts: ReadonlyMap<string, number> | null = null;
  /** By topic, at the last send: the topic may have been recreated since ready(). */
  readonly #partitionCountsNow = new Map<string, number>();

  constructor(deps: SenderDeps) {
    this.#deps = deps;
    this.#names = topicNames(deps.topic);
    this.#producer = openBoundedProducer(deps, {
      metadataMaxAge: METADATA_MS_MAX,
      createPartitioner:
        () =>
        ({ topic, partitionMetadata, message }) => {
          this.#partitionCountsNow.set(topic, partitionMetadata.length);
          return message.partition ?? assert.fail("every message is given its partition");
        },
    });
  }

  partitionOf(kind: RecordKind, key: string): PartitionId {
    const topic = this.#names[kind];
    const count = this.#partitionCounts?.get(topic);
    if (count === undefined) throw new Error("partitionOf before ready() has resolved");
    return partitionId(topic, this.#choosePartition(key, count));
  }

  async ready(): Promise<void> {
    const { trades, event, dead } = this.#names;
    try {
      // Once, at the start: it checks more than a connection does, and says what the operator must change.
      if (this.#partitionCounts === null) await checkKafka(this.#deps);
      await this.#producer.run((producer) => producer.connect());
      this.#partitionCounts ??= await readPartitionCounts(this.#deps, [trades, event, dead]);
    } catch (error) {
      throw kafkaError(error, "Kafka cannot be reached");
    }
  }

  async send(batches: readonly SendBatch[]): Promise<readonly SendOutcome[]> {
    const filled = batches.filter(({ entries }) => entries.length > 0);
    const answers = new Map<PartitionId, RecordMetadata>();
    let failure: unknown = null;
    try {
      for (const answer of filled.length === 0 ? [] : await this.#produce(filled)) {
        answers.set(partitionId(answer.topicName, answer.partition), answer);
      }
    } catch (error) {
      failure = error;
    }
    return batches.map((batch) => {
      if (batch.entries.length === 0) return { kind: "acknowledged" };
      if (failure !== null) return { kind: "unavailable", error: kafkaError(failure, NOT_ACKNOWLEDGED) };
      const answer = answers.get(batch.partition);
      if (answer === undefined) return { kind: "unavailable", error: this.#unanswered(batch.partition) };
      return outcomeOf(answer, batch);
    });
  }

  async close(): Promise<void> {
    await this.#producer[Symbol.asyncDispose]();
  }

  #produce(filled: readonly SendBatch[]): Promise<RecordMetadata[]> {
    // Before the first wait, because the entries belong to the caller.
    const topicMessages = messagesOf(filled);
    return this.#producer.run((producer) =>
      producer.sendBatch({
        acks: -1,
        timeout: ACK_MS_MAX,
        compression: compressionOf(this.#deps.settings),
        topicMessages,
      }),
    );
  }

  /** kafkajs leaves out what is not in its list of the topic's partitions. */
  #unanswered(id: PartitionId): Error {
    const { topic, partition } = placeOf(id);
    const count = this.#partitionCountsNow.get(topic);
    const countAtStart = this.#partitionCounts?.get(topic);
    if (count !== undefined && countAtStart !== undefined && count < countAtStart && partition >= count) {
      return new RestartError(
        `${topic} has ${count} partitions now, ${countAtStart} when this process started: restart it`,
        "the topic was recreated; only a new start puts its keys into the partitions that are left",
      );
    }
    return new LogUnavailableError(
      `${id} was not in Kafka's answer`,
      "it is sent again: the partition may be moving to another broker",
    );
  }
}

async function readPartitionCounts(
  deps: KafkaDeps,
  topics: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const admin = createKafka(deps).admin();
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

/** The choice of Java's default partitioner (murmur2), which other programs may rely on; computed once per key. */
export function createPartitionChoice(): (key: string, partitionCount: number) => number {
  const chooseAsJava = Partitioners.DefaultPartitioner();
  const known = new Map<string, number>();
  return (key, partitionCount) => {
    if (partitionCount === 1) return 0;
    const name = `${partitionCount} ${key}`;
    let partition = known.get(name);
    if (partition === undefined) {
      // Of each partition it uses nothing but its existence.
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
 * MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE, INVALID_RECORD: no retry can help. CORRUPT_MESSAGE is not among them: it
 * happens to a message on its way. Nor is INVALID_TIMESTAMP, by which a wrong clock would have every message refused:
 * such a partition queue waits, and /health says why.
 */
const BLAMES_MESSAGE: ReadonlySet<number> = new Set([10, 18, 87]);

function outcomeOf({ errorCode, error: reason }: RecordMetadata, { entries }: SendBatch): SendOutcome {
  if (errorCode === 0) return { kind: "acknowledged" };
  const error = kafkaError(reason, NOT_ACKNOWLEDGED);
  if (!BLAMES_MESSAGE.has(errorCode)) return { kind: "unavailable", error };
  // The caller halves the batch until the entry at fault is alone.
  return { kind: entries.length > 1 ? "too_large" : "refused", error };
}
