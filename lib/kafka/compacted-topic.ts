// Writes keyed records to a compacted topic of one partition.

import { LogUnavailableError } from "../base/errors.ts";
import { openBoundedProducer } from "./bounded-producer.ts";
import { compressionOf, type KafkaDeps } from "./client.ts";
import { kafkaError } from "./errors.ts";

export interface CompactedTopic extends AsyncDisposable {
  /**
   * Resolves with the record's offset when it is acknowledged. Rejects with LogUnavailableError (it may have been
   * written) or SetupError.
   */
  put(key: string, value: Uint8Array): Promise<number>;
}

export function openCompactedTopic(deps: KafkaDeps & Readonly<{ topic: string }>): CompactedTopic {
  const { topic } = deps;
  const bounded = openBoundedProducer(deps, { createPartitioner: () => () => 0 });
  return {
    async put(key, value) {
      try {
        const [answer] = await bounded.run(async (producer) => {
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
    [Symbol.asyncDispose]: () => bounded[Symbol.asyncDispose](),
  };
}
