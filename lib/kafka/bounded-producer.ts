// kafkajs's producer with a limit on the time of every call. kafkajs's own time-outs use the wall clock: when that is
// set back while a broker is silent, they come as much later. Nothing is retried here.

import type { Socket } from "node:net";
import type { Producer, ProducerConfig } from "kafkajs";
import { TIMED_OUT, withTimeout } from "../base/clock.ts";
import { LogUnavailableError } from "../base/errors.ts";
import { createKafka, type KafkaDeps } from "./client.ts";

/** Above what kafkajs itself allows two requests: one that asks where the partitions are, and one that writes. */
const CALL_MS_MAX = 30_000;
/** On disposal nobody needs the answers that are still out, but a moment is given to those that come soon. */
const CLOSE_MS_MAX = 2_000;
const NO_ANSWER = "Kafka has not answered in time";

export interface BoundedProducer extends AsyncDisposable {
  /**
   * Calls `work` with a producer that has been connected. Rejects with the error of `work`, or with LogUnavailableError
   * when it takes longer than 30 s: then the connections of that producer are dropped, and with them those of all other
   * calls that are out. The next call makes new ones.
   */
  run<T>(work: (producer: Producer) => Promise<T>): Promise<T>;
}

type Link = Readonly<{ producer: Producer; sockets: Set<Socket> }> & {
  isConnected: boolean;
  isDropped: boolean;
};

type Options = Pick<ProducerConfig, "createPartitioner" | "metadataMaxAge">;

export function openBoundedProducer(deps: KafkaDeps, options: Options): BoundedProducer {
  const { clock } = deps;
  let current = openLink(deps, options);
  return {
    async run(work) {
      const link = current;
      const answer = await withTimeout(clock, CALL_MS_MAX, (signal) => {
        // In the very step of the time-out, so that no other call begins on the dropped link.
        signal.addEventListener("abort", () => {
          if (current === link) current = openLink(deps, options);
          drop(link);
        });
        return connected(link).then(work);
      });
      if (answer !== TIMED_OUT) return answer;
      throw new LogUnavailableError(
        `${NO_ANSWER} (${CALL_MS_MAX} ms)`,
        "check whether the brokers of KAFKA_SERVER hang, and whether a clock was set back",
      );
    },
    async [Symbol.asyncDispose]() {
      const link = current;
      // disconnect() waits for the answers that are out.
      const cancel = clock.after(CLOSE_MS_MAX, () => drop(link));
      try {
        await link.producer.disconnect();
      } finally {
        cancel();
      }
    },
  };
}

function openLink(deps: KafkaDeps, options: Options): Link {
  const sockets = new Set<Socket>();
  const onConnecting = (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    // kafkajs may try another broker although nobody waits any longer.
    if (link.isDropped) socket.destroy(new Error(NO_ANSWER));
  };
  const producer = createKafka(deps, { onConnecting }).producer({
    ...options,
    allowAutoTopicCreation: false,
    // The caller owns the retries, and knows better what has been acknowledged.
    retry: { retries: 0 },
  });
  const link: Link = { producer, sockets, isConnected: false, isDropped: false };
  return link;
}

/** With an error: otherwise kafkajs would wait for the answers before it lets a connection go. */
function drop(link: Link): void {
  link.isDropped = true;
  for (const socket of link.sockets) socket.destroy(new Error(NO_ANSWER));
}

async function connected(link: Link): Promise<Producer> {
  // Only once: later each call connects to the brokers it needs, which may be none of the settings.
  if (!link.isConnected) await link.producer.connect();
  link.isConnected = true;
  return link.producer;
}
