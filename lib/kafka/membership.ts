// One membership of a consumer group: joining it, passing on its assignments, and noticing that kafkajs hangs. What a
// member has is in kafka/assignment.ts. It commits only what `commit` is given.

import assert from "node:assert/strict";
import {
  type Consumer,
  type PartitionAssigner,
  PartitionAssigners,
  type TopicPartitionOffsetAndMetadata,
} from "kafkajs";
import { LogUnavailableError, mayPass, PipelineError, SetupError } from "../base/errors.ts";
import { type OutageLoop, outageLoop } from "../base/outages.ts";
import { retryWhile } from "../base/retry.ts";
import type { Assignment } from "./assignment.ts";
import { checkKafka, createKafka, type KafkaDeps } from "./client.ts";
import { isKafkaError, kafkaError } from "./errors.ts";
import { missingTopic } from "./topics.ts";

type MembershipDeps = KafkaDeps &
  Readonly<{
    groupId: string;
    topics: readonly string[];
    assignment: Assignment;
    /** Called when the membership is over and no retry can help. */
    onFailure(error: Error): void;
  }>;

/**
 * How long a broker holds a fetch when there is nothing. Data comes at once all the same, but nothing else of this
 * member moves meanwhile: heartbeats, a partition that was sought, leaving the group. 50 ms cost 4 % of a core when
 * idle and brought no latency, 500 ms cost 1.5 %; joining and seeking must take a quarter of a second at most.
 */
const FETCH_WAIT_MS_MAX = 250;
/**
 * Bytes of one partition in one answer: some thousand messages, 10 ms of decoding, so that every symbol gets its turn.
 * Not below what a producer puts into one batch: a larger batch comes only for the first partition that has something,
 * so a partition behind it would starve.
 */
const FETCH_PARTITION_BYTES_MAX = 256 * 1024;
const FETCH_BYTES_MAX = 4 * 1024 * 1024;
const HEARTBEAT_MS_MAX = 3_000;
/** A live consumer fetches, beats or tries to connect at least every few seconds, whatever the brokers do. */
const SILENCE_MS_MAX = 60_000;
const SILENCE_CHECK_MS = 5_000;
const JOIN_RETRY_FIRST_MS = 100;
const JOIN_RETRY_MAX_MS = 5_000;

export class Membership {
  readonly #deps: MembershipDeps;
  readonly #outage: OutageLoop;
  /** Above the time of any join, which is the only long silence of a healthy member. */
  readonly #silenceMsMax: number;
  #consumer: Consumer | null = null;
  #silenceMs = 0;
  #cancelCheck = () => {};
  /** From then on a refusal is one of the moment. */
  #hasJoined = false;
  #signal: AbortSignal | null = null;
  #hasLeft = false;

  constructor(deps: MembershipDeps) {
    this.#deps = deps;
    this.#outage = outageLoop(deps, "the log", "consumer");
    this.#silenceMsMax = SILENCE_MS_MAX + deps.settings.rebalanceTimeoutMs;
  }

  /** Joins the group as soon as there is a broker. Resolves after that, or when the signal aborts; never rejects. */
  async join(signal: AbortSignal): Promise<void> {
    this.#signal = signal;
    this.#checkSilence();
    await this.#joinUntilDone(signal);
  }

  async #joinUntilDone(signal: AbortSignal): Promise<void> {
    const retrying = {
      clock: this.#deps.clock,
      firstMs: JOIN_RETRY_FIRST_MS,
      maxMs: JOIN_RETRY_MAX_MS,
      signal,
      isRetryable: (error: unknown) => this.#isRetryable(error),
      outage: this.#outage,
    };
    const isWanted = () => !signal.aborted && !this.#hasLeft;
    try {
      await retryWhile(isWanted, retrying, () => this.#joinOnce(isWanted));
    } catch (error) {
      this.#deps.onFailure(kafkaError(error, "the log cannot be read"));
    }
  }

  /** Sends the request in the step in which it is called. */
  async commit(offsets: TopicPartitionOffsetAndMetadata[]): Promise<void> {
    assert(this.#consumer !== null);
    await this.#consumer.commitOffsets(offsets);
  }

  stopSilenceCheck(): void {
    this.#cancelCheck();
  }

  async leave(): Promise<void> {
    this.#hasLeft = true;
    this.#cancelCheck();
    await this.#consumer?.disconnect();
  }

  async #joinOnce(isWanted: () => boolean): Promise<void> {
    try {
      await checkKafka(this.#deps);
      // A stop may have come meanwhile.
      if (!isWanted()) return;
      await this.#startConsumer();
      // kafkajs cannot be stopped in the middle of a join: it leaves after it.
      if (this.#hasLeft) await this.#consumer?.disconnect();
    } catch (error) {
      const known = kafkaError(error, "the consumer group cannot be joined");
      if (this.#isRetryable(known)) {
        this.#touch(); // It is refused, which is no silence.
        await this.#consumer?.disconnect();
        this.#consumer = null;
      }
      throw known;
    }
  }

  async #startConsumer(): Promise<void> {
    const { settings, groupId, topics, assignment } = this.#deps;
    const kafka = createKafka(this.#deps, { outlastsRestart: true, onConnecting: () => this.#touch() });
    const consumer = kafka.consumer({
      groupId,
      sessionTimeout: settings.sessionTimeoutMs,
      rebalanceTimeout: settings.rebalanceTimeoutMs,
      heartbeatInterval: Math.min(HEARTBEAT_MS_MAX, Math.floor(settings.sessionTimeoutMs / 3)),
      maxWaitTimeInMs: FETCH_WAIT_MS_MAX,
      minBytes: 1,
      maxBytesPerPartition: FETCH_PARTITION_BYTES_MAX,
      maxBytes: FETCH_BYTES_MAX,
      allowAutoTopicCreation: false,
      partitionAssigners: [assignerThatEnds(assignment)],
      retry: {
        restartOnFailure: async (error) => this.#hasJoined || !(kafkaError(error, "") instanceof SetupError),
      },
    });
    this.#consumer = consumer;
    this.#listen(consumer);
    await consumer.connect();
    try {
      // Without a commit kafkajs would otherwise begin at the end, should it ever begin by itself.
      await consumer.subscribe({ topics: [...topics], fromBeginning: true });
    } catch (error) {
      throw isKafkaError(error, "UNKNOWN_TOPIC_OR_PARTITION") ? missingTopic(topics.join(" or ")) : error;
    }
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      eachBatch: (fetched) => assignment.accept(fetched),
    });
  }

  #listen(consumer: Consumer): void {
    const { assignment, onFailure } = this.#deps;
    const { GROUP_JOIN, STOP, CRASH, FETCH, HEARTBEAT } = consumer.events;
    consumer.on(GROUP_JOIN, ({ payload }) => {
      this.#touch();
      this.#hasJoined = true;
      this.#outage.worked();
      if (!this.#hasLeft) assignment.begin(consumer, payload.memberAssignment);
    });
    consumer.on(STOP, () => assignment.end());
    consumer.on(CRASH, ({ payload }) => {
      this.#touch();
      const error = kafkaError(payload.error, "the consumer has stopped");
      if (payload.restart) {
        assignment.end();
        this.#outage.failed(error);
      } else if (this.#isRetryable(error) && consumer === this.#consumer) {
        assignment.end();
        this.#outage.failed(error);
        void this.#joinAnew(consumer);
      } else onFailure(error);
    });
    consumer.on(FETCH, () => this.#touch());
    consumer.on(HEARTBEAT, () => this.#touch());
  }

  #isRetryable(error: unknown): boolean {
    return error instanceof LogUnavailableError || (this.#hasJoined && mayPass(error));
  }

  /** kafkajs has given this consumer up; a new one takes its place. */
  async #joinAnew(given: Consumer): Promise<void> {
    this.#consumer = null;
    try {
      await given.disconnect();
    } catch (error) {
      this.#deps.logger.debug("a consumer that was given up could not be closed", { error });
    }
    if (this.#signal !== null) await this.#joinUntilDone(this.#signal);
  }

  #touch(): void {
    this.#silenceMs = 0;
  }

  /**
   * kafkajs can hang without an error. Silence is counted in checks, not read from the clock: a process that was itself
   * suspended has made only one check.
   */
  #checkSilence(): void {
    this.#cancelCheck = this.#deps.clock.after(SILENCE_CHECK_MS, () => {
      this.#silenceMs += SILENCE_CHECK_MS;
      if (this.#silenceMs <= this.#silenceMsMax) return this.#checkSilence();
      this.#deps.onFailure(
        new PipelineError(
          `the Kafka consumer has neither fetched nor connected for ${this.#silenceMs} ms`,
          "the process ends, so that its supervisor starts it again",
        ),
      );
    });
  }
}

/**
 * Round robin. The group's protocol has no message for the end of an assignment: an assignment ends when this member
 * asks to join again, which is when kafkajs asks for the protocol's metadata.
 */
function assignerThatEnds(assignment: Assignment): PartitionAssigner {
  return (config) => {
    const inner = PartitionAssigners.roundRobin(config);
    return {
      ...inner,
      protocol(subscription) {
        assignment.end();
        return inner.protocol(subscription);
      },
    };
  };
}
