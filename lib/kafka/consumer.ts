// The reader of the log on Kafka: a member of a consumer group, mapped onto the contract of contracts/log.ts. kafkajs moves
// the bytes and keeps the membership; what it would do beyond that it is kept from: it commits nothing by itself,
// and where reading stands it is told, never asked. (What a member holds is kafka/assignment.ts, how its commits go
// together kafka/commits.ts, the writing half kafka/sender.ts; in patches/ is mended what cannot be kept out from
// here: a commit tried again under a later generation, a commit over the group's own when an offset is out of range.)

import assert from "node:assert/strict";
import { type Admin, type Consumer, type PartitionAssigner, PartitionAssigners } from "kafkajs";
import { backoffMs } from "../base/clock.ts";
import { LogUnavailableError, PipelineError, SetupError, StaleEpochError } from "../base/errors.ts";
import type { Delivery, LogReader, PartitionId, PartitionRange, RecordKind } from "../contracts/log.ts";
import { createAssignment } from "./assignment.ts";
import { checkKafka, createKafka, isKafkaError, type KafkaDeps, kafkaError } from "./client.ts";
import { createCommits } from "./commits.ts";
import { committedOffsets, missingTopic, partitionId, topicNames } from "./topics.ts";

export { createDeadWriter, createKafkaWriter, openKafkaSender } from "./sender.ts";

export type KafkaReaderOptions = KafkaDeps &
  Readonly<{
    topic: string;
    groupId: string;
    /** Whose topics are read: those of the trades and the events, where nothing is said. */
    kinds?: readonly RecordKind[];
  }>;

export type KafkaReaderHealth = Readonly<{
  epoch: number;
  /** Empty between two epochs. */
  partitions: readonly PartitionId[];
  lastFetchAtMs: number | null;
  lastHeartbeatAtMs: number | null;
  /** Fetched and not yet asked for. */
  heldBytes: number;
}>;

type Positions = ReadonlyMap<PartitionId, PartitionRange>;

/** Leaves the group when disposed, not when the iteration ends: until then the last commits are taken. */
export interface KafkaReader extends LogReader, AsyncDisposable {
  health(): KafkaReaderHealth;
}

/**
 * How long a broker holds a fetch when there is nothing. Data comes at once all the same; but nothing else of this
 * member moves meanwhile: heartbeats, a partition that was sought, leaving the group. 50 ms cost 4 % of a core idle
 * and brought no latency, 500 ms cost 1.5 %; joining and seeking are to take a quarter of a second at most.
 */
const FETCH_WAIT_MS_MAX = 250;
/**
 * Of one partition in one answer: some thousand messages, 10 ms of decoding; and every symbol gets its turn. Not below
 * what a producer puts into one batch: a larger batch comes only for the first partition that has something, so one
 * behind it would starve.
 */
const FETCH_PARTITION_BYTES_MAX = 256 * 1024;
const FETCH_BYTES_MAX = 4 * 1024 * 1024;
const HEARTBEAT_MS_MAX = 3_000;
/** A live consumer fetches, beats, or tries to connect at least every few seconds, whatever the brokers do. */
const SILENCE_MS_MAX = 60_000;
const SILENCE_LOOK_MS = 5_000;
const START_RETRY_FIRST_MS = 100;
const START_RETRY_MAX_MS = 5_000;

export function openKafkaReader(options: KafkaReaderOptions): KafkaReader {
  const { settings, topic, groupId, kinds = ["trades", "event"], clock, logger } = options;
  const names = topicNames(topic);
  const kindOfTopic = new Map(kinds.map((kind) => [names[kind], kind]));
  const topics = [...kindOfTopic.keys()];
  const assignment = createAssignment(kindOfTopic, clock);
  /** Above any time that a join may take, which is the only long silence of a healthy member. */
  const silenceMsMax = SILENCE_MS_MAX + settings.rebalanceTimeoutMs;

  let failure: Error | null = null;
  let isIterated = false;
  let isDisposed = false;
  let quietMs = 0;
  let cancelLook = () => {};
  let lastFetchAtMs: number | null = null;
  let lastHeartbeatAtMs: number | null = null;
  let openedConsumer: Consumer | null = null;
  let openedAdmin: Admin | null = null;
  let positionsAsked: Readonly<{ epoch: number; answer: Promise<Positions> }> | null = null;

  const touch = () => {
    quietMs = 0;
  };
  function fail(error: Error): void {
    failure ??= error;
    assignment.end();
  }

  // ---- Membership -----------------------------------------------------------------------------------------------

  /** Joins the group, as soon as there is a broker. Whatever goes wrong for good comes out of `deliveries`. */
  async function start(signal: AbortSignal): Promise<void> {
    let isTold = false;
    for (let attempt = 0; !signal.aborted && !isDisposed; attempt++) {
      try {
        await checkKafka(options);
        // Meanwhile nobody may want it any more.
        if (signal.aborted || isDisposed) return;
        await join();
        // kafkajs cannot be stopped in the middle of a join: leave when it is done.
        if (isDisposed) await openedConsumer?.disconnect();
        return;
      } catch (error) {
        const known = kafkaError(error, "the consumer group cannot be joined");
        if (!(known instanceof LogUnavailableError)) return fail(known);
        if (!isTold) logger.warn("the log cannot be read yet; trying until it can", { error: known });
        isTold = true;
        await openedConsumer?.disconnect();
        openedConsumer = null;
        await clock.sleep(backoffMs(attempt, START_RETRY_FIRST_MS, START_RETRY_MAX_MS, clock.random), signal);
      }
    }
  }

  /** The group's protocol has no message for the end of an assignment: it is when this member asks to join anew. */
  const assigner: PartitionAssigner = (config) => {
    const inner = PartitionAssigners.roundRobin(config);
    return {
      ...inner,
      protocol(subscription) {
        assignment.end();
        return inner.protocol(subscription);
      },
    };
  };

  async function join(): Promise<void> {
    const consumer = createKafka(options, "insisting", touch).consumer({
      groupId,
      sessionTimeout: settings.sessionTimeoutMs,
      rebalanceTimeout: settings.rebalanceTimeoutMs,
      heartbeatInterval: Math.min(HEARTBEAT_MS_MAX, Math.floor(settings.sessionTimeoutMs / 3)),
      maxWaitTimeInMs: FETCH_WAIT_MS_MAX,
      minBytes: 1,
      maxBytesPerPartition: FETCH_PARTITION_BYTES_MAX,
      maxBytes: FETCH_BYTES_MAX,
      allowAutoTopicCreation: false,
      partitionAssigners: [assigner],
      retry: { restartOnFailure: async (error) => !(kafkaError(error, "") instanceof SetupError) },
    });
    openedConsumer = consumer;
    listen(consumer);
    await consumer.connect();
    try {
      // Where there is no commit kafkajs would otherwise begin at the end, should it ever begin by itself.
      await consumer.subscribe({ topics, fromBeginning: true });
    } catch (error) {
      throw isKafkaError(error, "UNKNOWN_TOPIC_OR_PARTITION") ? missingTopic(topics.join(" or ")) : error;
    }
    await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch: assignment.take });
  }

  function listen(consumer: Consumer): void {
    const { GROUP_JOIN, STOP, CRASH, FETCH, HEARTBEAT } = consumer.events;
    consumer.on(GROUP_JOIN, ({ payload }) => {
      touch();
      if (!isDisposed) assignment.begin(consumer, payload.memberAssignment);
    });
    consumer.on(STOP, assignment.end);
    consumer.on(CRASH, ({ payload }) => {
      touch();
      const error = kafkaError(payload.error, "the consumer has stopped");
      if (payload.restart) {
        assignment.end();
        logger.warn("the consumer begins anew", { error });
      } else fail(error);
    });
    consumer.on(FETCH, () => {
      touch();
      lastFetchAtMs = clock.now();
    });
    consumer.on(HEARTBEAT, () => {
      touch();
      lastHeartbeatAtMs = clock.now();
    });
  }

  /**
   * kafkajs can hang without an error. Silence is counted in looks, not read from the clock: a process that was
   * itself stopped has looked but once.
   */
  function lookForSilence(): void {
    cancelLook = clock.after(SILENCE_LOOK_MS, () => {
      quietMs += SILENCE_LOOK_MS;
      if (quietMs <= silenceMsMax) return lookForSilence();
      fail(
        new PipelineError(
          `the Kafka consumer has neither fetched nor connected for ${quietMs} ms`,
          "the process ends, so that its supervisor starts it again",
        ),
      );
    });
  }

  async function* deliveries(signal: AbortSignal): AsyncGenerator<Delivery> {
    assert(!isIterated, "the deliveries are iterated once");
    isIterated = true;
    if (signal.aborted) return;
    signal.addEventListener("abort", assignment.wake, { once: true });
    lookForSilence();
    start(signal).catch((error: unknown) => fail(kafkaError(error, "the log cannot be read")));
    try {
      while (!signal.aborted && !isDisposed) {
        if (failure !== null) throw failure;
        const delivery = assignment.next();
        if (delivery === null) await assignment.changed();
        else yield delivery;
      }
    } finally {
      cancelLook();
    }
  }

  // ---- What the reader is asked ---------------------------------------------------------------------------------

  async function position(epoch: number, id: PartitionId): Promise<PartitionRange> {
    assignment.place(epoch, id);
    try {
      const range = (await positionsOf(epoch)).get(id);
      assignment.place(epoch, id);
      if (range === undefined) throw new LogUnavailableError(`${id} is not known to Kafka just now`);
      return range;
    } catch (error) {
      assignment.place(epoch, id);
      throw kafkaError(error, `the position of ${id} cannot be read`);
    }
  }

  /** A new assignment asks for all its partitions at once, and whoever asks while the brokers are asked is answered too. */
  function positionsOf(epoch: number): Promise<Positions> {
    if (positionsAsked?.epoch !== epoch) {
      const answer = readPositions(epoch).finally(() => {
        if (positionsAsked?.answer === answer) positionsAsked = null;
      });
      positionsAsked = { epoch, answer };
    }
    return positionsAsked.answer;
  }

  async function readPositions(epoch: number): Promise<Positions> {
    openedAdmin ??= createKafka(options, "once").admin();
    const admin = openedAdmin;
    await admin.connect();
    const positions = new Map<PartitionId, PartitionRange>();
    const names = [...new Set(assignment.partitions.map((id) => assignment.place(epoch, id).topic))];
    // Before the ends, which may only grow: a commit beyond them would count for none.
    const committed = await committedOffsets(admin, groupId, names);
    const ranges = await Promise.all(
      names.map(async (name) => ({ name, offsets: await admin.fetchTopicOffsets(name) })),
    );
    for (const { name, offsets } of ranges) {
      for (const { partition, low, high } of offsets) {
        const id = partitionId(name, partition);
        positions.set(id, {
          committed: committed.get(id) ?? null,
          beginOffset: Number(low),
          endOffset: Number(high),
        });
      }
    }
    return positions;
  }

  const commit = createCommits({
    clock,
    check: ({ epoch, id }) => assignment.place(epoch, id),
    async send(commits) {
      assert(openedConsumer !== null);
      await openedConsumer.commitOffsets(
        commits.map(({ epoch, id, position: { offset, metadata } }) => {
          const { topic: name, partition } = assignment.place(epoch, id);
          return { topic: name, partition, offset: String(offset), metadata };
        }),
      );
    },
    errorOf({ epoch, id }, error) {
      if (!assignment.holds(epoch, id) || isKafkaError(error, ...NO_MEMBER)) {
        return new StaleEpochError(`Kafka deals ${id} out anew`, undefined, error);
      }
      return kafkaError(error, `${id} cannot be committed`);
    },
  });

  return {
    deliveries,
    position,
    seek: assignment.seek,
    commit: (epoch, id, position) => commit({ epoch, id, position }),
    health: () => ({
      epoch: assignment.epoch,
      partitions: assignment.partitions,
      lastFetchAtMs,
      lastHeartbeatAtMs,
      heldBytes: assignment.heldBytes,
    }),
    async [Symbol.asyncDispose]() {
      isDisposed = true;
      cancelLook();
      assignment.end();
      await Promise.all([openedConsumer?.disconnect(), openedAdmin?.disconnect()]);
    },
  };
}

/** The broker's words for a member that is not, or not of this generation, or in the middle of a rebalance. */
const NO_MEMBER = ["ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "FENCED_INSTANCE_ID"];
