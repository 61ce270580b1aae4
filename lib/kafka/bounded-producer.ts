// kafkajs's producer, every call of which ends in time. Its own time-outs go by the wall clock: when that is set back
// while a broker is silent, they do not come for as long. It repeats nothing.

import type { Socket } from "node:net";
import type { Producer, ProducerConfig } from "kafkajs";
import { LogUnavailableError } from "../base/errors.ts";
import { createKafka, type KafkaDeps } from "./client.ts";

/** Above what kafkajs itself gives two requests: one that asks where the partitions are, one that writes. */
const CALL_MS_MAX = 30_000;
/** Whoever closes needs no answer any longer; what comes in a moment is waited for all the same. */
const CLOSE_MS_MAX = 2_000;
const NO_ANSWER = "Kafka has not answered in time";

export interface BoundedProducer extends AsyncDisposable {
  /**
   * With a producer that has been connected. Rejects with what `work` rejects with, or with LogUnavailableError when
   * it takes too long: then its connections are dropped, and those of all calls that are out with it. The next call
   * makes new ones.
   */
  run<T>(work: (producer: Producer) => Promise<T>): Promise<T>;
}

type Link = Readonly<{ producer: Producer; sockets: Set<Socket> }> & {
  isConnected: boolean;
  isDropped: boolean;
};

export function openBoundedProducer(
  deps: KafkaDeps,
  config: Pick<ProducerConfig, "createPartitioner" | "metadataMaxAge">,
): BoundedProducer {
  const { clock } = deps;
  let current = open();

  function open(): Link {
    const sockets = new Set<Socket>();
    const onConnecting = (socket: Socket) => {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
      // kafkajs may try another broker although nobody waits for it any longer.
      if (link.isDropped) socket.destroy(new Error(NO_ANSWER));
    };
    const producer = createKafka(deps, "once", onConnecting).producer({
      ...config,
      allowAutoTopicCreation: false,
      // Whoever calls owns the repeats, and knows better what has been acknowledged.
      retry: { retries: 0 },
    });
    const link: Link = { producer, sockets, isConnected: false, isDropped: false };
    return link;
  }

  /** With an error, or kafkajs would go on waiting for the answers before it lets the connection go. */
  function drop(link: Link): void {
    link.isDropped = true;
    for (const socket of link.sockets) socket.destroy(new Error(NO_ANSWER));
  }

  async function connected(link: Link): Promise<Producer> {
    // Only once: later each call connects to what it needs, which a broker of the settings need not be.
    if (!link.isConnected) await link.producer.connect();
    link.isConnected = true;
    return link.producer;
  }

  return {
    async run(work) {
      const link = current;
      const late = Promise.withResolvers<never>();
      const cancel = clock.after(CALL_MS_MAX, () => {
        if (current === link) current = open();
        drop(link);
        late.reject(
          new LogUnavailableError(
            `${NO_ANSWER} (${CALL_MS_MAX} ms)`,
            "see whether the brokers of KAFKA_SERVER hang, and whether a clock was set back",
          ),
        );
      });
      try {
        return await Promise.race([connected(link).then(work), late.promise]);
      } finally {
        cancel();
      }
    },
    async [Symbol.asyncDispose]() {
      const link = current;
      // It waits for the answers that are out.
      const cancel = clock.after(CLOSE_MS_MAX, () => drop(link));
      try {
        await link.producer.disconnect();
      } finally {
        cancel();
      }
    },
  };
}
