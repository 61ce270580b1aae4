// The reader of the log on Kafka: a member of a consumer group, mapped onto the contract of contracts/log.ts. kafkajs
// moves the bytes and keeps the membership, and is kept from everything else: it commits nothing by itself, and is told
// where reading stands, never asked. The parts are kafka/membership.ts, assignment.ts, positions.ts and commits.ts.
// patches/ mends what cannot be prevented from here: a commit that is retried under a later generation, and a commit
// that overwrites the group's own when an offset is out of range.

import assert from "node:assert/strict";
import { StaleEpochError } from "../base/errors.ts";
import type { Delivery, LogReader, RecordKind } from "../contracts/log.ts";
import { Assignment } from "./assignment.ts";
import type { KafkaDeps } from "./client.ts";
import { createCommits } from "./commits.ts";
import { isKafkaError, kafkaError } from "./errors.ts";
import { Membership } from "./membership.ts";
import { Positions } from "./positions.ts";
import { topicNames } from "./topics.ts";

type KafkaReaderOptions = KafkaDeps &
  Readonly<{
    /** The topic of the trades. */
    topic: string;
    groupId: string;
    /** Whose topics are read; by default those of the trades and the events. */
    kinds?: readonly RecordKind[];
  }>;

/** Leaves the group when disposed, not when the iteration ends: until then the last commits are accepted. */
export interface KafkaReader extends LogReader, AsyncDisposable {
  /**
   * What this member has now. For tests of rebalances and of the limit on memory, which no delivery shows; /health
   * shows what the processor makes of it.
   */
  readonly assignment: Readonly<Pick<Assignment, "epoch" | "partitions" | "bufferedBytes">>;
}

/** The broker's words for one that is no member, not of this generation, or in the middle of a rebalance. */
const NO_MEMBER = ["ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "FENCED_INSTANCE_ID"];

export function openKafkaReader(options: KafkaReaderOptions): KafkaReader {
  const { topic, groupId, kinds = ["trades", "event"], clock } = options;
  let failure: Error | null = null;
  let isIterated = false;
  let isDisposed = false;
  const names = topicNames(topic);
  const kindOfTopic = new Map(kinds.map((kind) => [names[kind], kind]));
  const assignment = new Assignment(kindOfTopic, clock);
  const positions = new Positions(options, groupId, assignment);
  const membership = new Membership({
    ...options,
    topics: [...kindOfTopic.keys()],
    assignment,
    onFailure(error) {
      failure ??= error;
      assignment.end();
    },
  });

  async function* deliveries(signal: AbortSignal): AsyncGenerator<Delivery> {
    assert(!isIterated, "the deliveries are iterated once");
    isIterated = true;
    if (signal.aborted) return;
    signal.addEventListener("abort", () => assignment.wakeUp(), { once: true });
    void membership.join(signal);
    try {
      while (!signal.aborted && !isDisposed) {
        if (failure !== null) throw failure;
        const delivery = assignment.next();
        if (delivery === null) await assignment.changed();
        else yield delivery;
      }
    } finally {
      membership.stopSilenceCheck();
    }
  }

  const commit = createCommits({
    clock,
    check: ({ epoch, id }) => assignment.place(epoch, id),
    send: (commits) =>
      membership.commit(
        commits.map(({ epoch, id, position: { offset, metadata } }) => {
          const { topic: name, partition } = assignment.place(epoch, id);
          return { topic: name, partition, offset: String(offset), metadata };
        }),
      ),
    errorOf({ epoch, id }, error) {
      if (!assignment.isCurrent(epoch, id) || isKafkaError(error, ...NO_MEMBER)) {
        return new StaleEpochError(`${id} was reassigned`, undefined, error);
      }
      return kafkaError(error, `${id} cannot be committed`);
    },
  });

  return {
    deliveries,
    position: (epoch, id) => positions.rangeOf(epoch, id),
    seek: (epoch, id, offset) => assignment.seek(epoch, id, offset),
    commit: (epoch, id, position) => commit({ epoch, id, position }),
    assignment,
    async [Symbol.asyncDispose]() {
      isDisposed = true;
      assignment.end();
      await Promise.all([membership.leave(), positions.close()]);
    },
  };
}
