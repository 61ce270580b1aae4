// A topic followed without a place in the pipeline: under a group of its own name, made up for this process, that
// never commits. The admin's live view begins at the end; who needs a compacted topic begins at its beginning. It
// promises no more than that: after a lost connection it goes on where it was, unless that was long ago.

import type { Consumer, EachBatchPayload } from "kafkajs";
import { backoffMs } from "../base/clock.ts";
import { LogUnavailableError, SetupError } from "../base/errors.ts";
import type { PartitionId } from "../contracts/log.ts";
import { openBoundedProducer } from "./bounded-producer.ts";
import {
  checkKafka,
  compressionOf,
  createKafka,
  isKafkaError,
  type KafkaDeps,
  kafkaError,
} from "./client.ts";
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
    /** A batch of one partition, in order. The next waits until it resolves; what it throws ends the tail. */
    onRecords(records: readonly TailRecord[]): void | Promise<void>;
    /** Once, when everything that was there at the start has been handed over. */
    onCaughtUp?(): void;
    signal: AbortSignal;
  }>;

/** The broker forgets a member that was killed after so long; nobody waits for it, the group is its own. */
const SESSION_MS = 10_000;
const HEARTBEAT_MS = 3_000;
/** See kafka/consumer.ts. */
const FETCH_WAIT_MS_MAX = 500;
const FETCH_PARTITION_BYTES_MAX = 256 * 1024;
/**
 * A group may be dealt out anew several times before anything is read. But where the offset is gone, Kafka refuses it,
 * and each refusal is a joining too: then reading begins where `from` says.
 */
const SEEKS_MAX = 5;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 5_000;

/**
 * Resolves when the signal aborts. Rejects with SetupError, or with what `onRecords` threw. Brokers that are away
 * are waited for.
 */
export async function tailKafka(options: TailOptions): Promise<void> {
  const { topic, logger, clock, signal } = options;
  /** Where each partition goes on after a reconnection. */
  const next = new Map<string, number>();
  const progress: Progress = { next, seeks: new Map(), toReach: null };
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      await checkKafka(options);
      await follow(options, progress);
      attempt = 0;
    } catch (error) {
      const known = kafkaError(error, `${topic} cannot be followed`);
      if (!(known instanceof LogUnavailableError)) throw known;
      logger.warn("the topic cannot be followed just now; trying until it can", { topic, error: known });
    }
    await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), signal);
  }
}

type Progress = {
  readonly next: Map<string, number>;
  /** How often that offset was sought without a record since. */
  readonly seeks: Map<string, number>;
  /** The ends that were there at the start and are not reached yet; null = not asked yet. */
  toReach: Map<string, number> | null;
};

/** Until the signal aborts (resolves) or the consumer gives up (rejects). */
async function follow(options: TailOptions, progress: Progress): Promise<void> {
  const { topic, from, onRecords, clock, signal } = options;
  const kafka = createKafka(options, "insisting");
  const ended = Promise.withResolvers<void>();
  const groupId = `${topic}.tail.${Math.floor(clock.random() * 2 ** 48).toString(16)}`;
  const consumer = kafka.consumer({
    groupId,
    sessionTimeout: SESSION_MS,
    heartbeatInterval: HEARTBEAT_MS,
    maxWaitTimeInMs: FETCH_WAIT_MS_MAX,
    maxBytesPerPartition: FETCH_PARTITION_BYTES_MAX,
    allowAutoTopicCreation: false,
    retry: { restartOnFailure: async (error) => !(kafkaError(error, "") instanceof SetupError) },
  });

  async function takeBatch({ batch, heartbeat }: EachBatchPayload): Promise<void> {
    const records = batch.messages.map(({ offset, timestamp, key, value }) => ({
      partition: partitionId(topic, batch.partition),
      offset: Number(offset),
      timestampMs: Number(timestamp),
      key: key === null ? null : key.toString(),
      value,
    }));
    try {
      await onRecords(records);
    } catch (error) {
      // Not kafkajs's to repeat.
      ended.reject(error);
      return;
    }
    const nextOffset = Number(batch.lastOffset()) + 1;
    progress.next.set(String(batch.partition), nextOffset);
    progress.seeks.delete(String(batch.partition));
    reach(options, progress, String(batch.partition), nextOffset);
    await heartbeat();
  }

  const onAbort = () => ended.resolve();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    listen(consumer, options, progress, (error) => ended.reject(error));
    await consumer.connect();
    await readEnds(options, progress);
    await consumer.subscribe({ topics: [topic], fromBeginning: from === "begin" });
    await consumer.run({ autoCommit: false, eachBatch: takeBatch });
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
  { topic }: TailOptions,
  { next, seeks }: Progress,
  fail: (error: Error) => void,
): void {
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    for (const partition of payload.memberAssignment[topic] ?? []) {
      const name = String(partition);
      const offset = next.get(name);
      if (offset === undefined) continue;
      const seekCount = (seeks.get(name) ?? 0) + 1;
      seeks.set(name, seekCount);
      if (seekCount <= SEEKS_MAX) consumer.seek({ topic, partition, offset: String(offset) });
      else next.delete(name);
    }
  });
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    if (!payload.restart) fail(payload.error);
  });
}

async function readEnds(options: TailOptions, progress: Progress): Promise<void> {
  if (progress.toReach !== null || options.onCaughtUp === undefined) return;
  const admin = createKafka(options, "once").admin();
  try {
    await admin.connect();
    const ends = await admin.fetchTopicOffsets(options.topic);
    const isFilled = ({ low, high }: { low: string; high: string }) =>
      options.from === "begin" && Number(high) > Number(low);
    progress.toReach = new Map(
      ends.filter(isFilled).map(({ partition, high }) => [String(partition), Number(high)]),
    );
  } finally {
    await admin.disconnect();
  }
  if (progress.toReach.size === 0) options.onCaughtUp();
}

function reach({ onCaughtUp }: TailOptions, { toReach }: Progress, partition: string, nextOffset: number) {
  const end = toReach?.get(partition);
  if (toReach === null || end === undefined || nextOffset < end) return;
  toReach.delete(partition);
  if (toReach.size === 0) onCaughtUp?.();
}

export interface KeyedTopic extends AsyncDisposable {
  /**
   * Resolves when it is acknowledged, with its offset. Rejects with LogUnavailableError (it may have been written) or
   * SetupError.
   */
  put(key: string, value: Uint8Array): Promise<number>;
}

/** For a compacted topic of one partition. */
export function openKeyedTopic(deps: KafkaDeps & Readonly<{ topic: string }>): KeyedTopic {
  const { topic } = deps;
  const opened = openBoundedProducer(deps, { createPartitioner: () => () => 0 });
  return {
    async put(key, value) {
      try {
        const [answer] = await opened.run(async (producer) => {
          await producer.connect();
          return producer.send({
            topic,
            acks: -1,
            compression: compressionOf(deps.settings),
            messages: [{ key, value }],
          });
        });
        if (answer?.errorCode !== 0) {
          throw answer?.error ?? new LogUnavailableError(`${topic} has not acknowledged ${key}`, "try again");
        }
        return Number(answer.baseOffset);
      } catch (error) {
        throw kafkaError(error, `${topic} cannot be written`);
      }
    },
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  };
}
