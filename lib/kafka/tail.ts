// Follows a topic without a place in the pipeline: under a group of its own, named for this process, that never
// commits. The admin's live view begins at the end; a reader of a compacted topic begins at the beginning. After a lost
// connection it goes on where it was, unless the records there are gone. It promises nothing more.

import type { Consumer, EachBatchPayload } from "kafkajs";
import { LogUnavailableError, mayPass, SetupError } from "../base/errors.ts";
import { type OutageLoop, outageLoop } from "../base/outages.ts";
import { retryWhile } from "../base/retry.ts";
import type { PartitionId } from "../contracts/log.ts";
import { checkKafka, createKafka, type KafkaDeps } from "./client.ts";
import { isKafkaError, kafkaError } from "./errors.ts";
import { missingTopic, partitionId } from "./topics.ts";

export type TailRecord = Readonly<{
  partition: PartitionId;
  offset: number;
  timestampMs: number;
  key: string | null;
  /** Null: a tombstone. */
  value: Uint8Array | null;
}>;

export type TailOptions = KafkaDeps &
  Readonly<{
    /** Its full name. */
    topic: string;
    from: "now" | "begin";
    /** A batch of one partition, in order. The next one waits until it resolves; an error of it ends the tail. */
    onRecords(records: readonly TailRecord[]): void | Promise<void>;
    signal: AbortSignal;
  }>;

/** The broker forgets a killed member after this time. Nobody waits for that: the group has no other member. */
const SESSION_MS = 10_000;
const HEARTBEAT_MS = 3_000;
/** A broker holds a fetch for so long when there is nothing. No member waits here, unlike in kafka/consumer.ts. */
const FETCH_WAIT_MS_MAX = 500;
const FETCH_PARTITION_BYTES_MAX = 256 * 1024;
/**
 * A group may rebalance several times before anything is read. But where the offset is gone Kafka refuses the fetch,
 * and each refusal is a join too: after so many of them reading begins where `from` says.
 */
const SEEKS_MAX = 5;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 5_000;

/**
 * Resolves when the signal aborts. Rejects with SetupError, or with the error of `onRecords`. Brokers that are away are
 * waited for.
 */
export async function tailKafka(options: TailOptions): Promise<void> {
  const { topic, clock, signal } = options;
  const outage = outageLoop(options, "the log", topic);
  const progress: Progress = { next: new Map(), seeks: new Map(), hasJoined: false, readerFault: null };
  await retryWhile(
    () => !signal.aborted,
    {
      clock,
      firstMs: RETRY_FIRST_MS,
      maxMs: RETRY_MAX_MS,
      signal,
      // Once it has been followed, a refusal is one of the moment.
      isRetryable: (error) =>
        error instanceof LogUnavailableError ||
        (progress.hasJoined && progress.readerFault === null && mayPass(error)),
      outage,
    },
    async () => {
      try {
        await checkKafka(options);
        await follow(options, progress, outage);
      } catch (error) {
        throw kafkaError(error, `${topic} cannot be followed`);
      }
    },
  );
}

/** By partition. */
type Progress = Readonly<{
  /** Where reading goes on after a reconnection. */
  next: Map<number, number>;
  /** How often that offset was sought without a record since. */
  seeks: Map<number, number>;
}> & {
  hasJoined: boolean;
  /** What `onRecords` threw. */
  readerFault: unknown;
};

/** Resolves when the signal aborts; rejects when the consumer gives up. */
async function follow(options: TailOptions, progress: Progress, outage: OutageLoop): Promise<void> {
  const { topic, from, onRecords, clock, signal } = options;
  const ended = Promise.withResolvers<void>();
  const consumer = createKafka(options, { outlastsRestart: true }).consumer({
    groupId: `${topic}.tail.${Math.floor(clock.random() * 2 ** 48).toString(16)}`,
    sessionTimeout: SESSION_MS,
    heartbeatInterval: HEARTBEAT_MS,
    maxWaitTimeInMs: FETCH_WAIT_MS_MAX,
    maxBytesPerPartition: FETCH_PARTITION_BYTES_MAX,
    allowAutoTopicCreation: false,
    retry: {
      restartOnFailure: async (error) => progress.hasJoined || !(kafkaError(error, "") instanceof SetupError),
    },
  });

  async function handOver({ batch, heartbeat }: EachBatchPayload): Promise<void> {
    const { partition } = batch;
    const records = batch.messages.map(({ offset, timestamp, key, value }) => ({
      partition: partitionId(topic, partition),
      offset: Number(offset),
      timestampMs: Number(timestamp),
      key: key === null ? null : key.toString(),
      value,
    }));
    try {
      await onRecords(records);
    } catch (error) {
      // kafkajs must not retry it, and neither do we.
      progress.readerFault = error;
      ended.reject(error);
      return;
    }
    progress.next.set(partition, Number(batch.lastOffset()) + 1);
    progress.seeks.delete(partition);
    await heartbeat();
  }

  const onAbort = () => ended.resolve();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    listen(consumer, topic, progress, outage, (error) => ended.reject(error));
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: from === "begin" });
    await consumer.run({ autoCommit: false, eachBatch: handOver });
    if (signal.aborted) return;
    await ended.promise;
  } catch (error) {
    throw isKafkaError(error, "UNKNOWN_TOPIC_OR_PARTITION") ? missingTopic(topic) : error;
  } finally {
    signal.removeEventListener("abort", onAbort);
    await consumer.disconnect();
  }
}

function listen(
  consumer: Consumer,
  topic: string,
  progress: Progress,
  outage: OutageLoop,
  fail: (error: Error) => void,
): void {
  const { next, seeks } = progress;
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    progress.hasJoined = true;
    outage.worked();
    for (const partition of payload.memberAssignment[topic] ?? []) {
      const offset = next.get(partition);
      if (offset === undefined) continue;
      const seekCount = (seeks.get(partition) ?? 0) + 1;
      seeks.set(partition, seekCount);
      if (seekCount <= SEEKS_MAX) consumer.seek({ topic, partition, offset: String(offset) });
      else next.delete(partition);
    }
  });
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    if (payload.restart) outage.failed(kafkaError(payload.error, `${topic} cannot be followed`));
    else fail(payload.error);
  });
}
