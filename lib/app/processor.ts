// The parts of the processor, chosen and connected: Kafka -> both queries -> Cassandra. It decides nothing about a
// trade.

import type { Context } from "../base/command.ts";
import { namesOf } from "../base/config.ts";
import { connectCassandra } from "../cassandra/client.ts";
import { openCassandraStore } from "../cassandra/store.ts";
import { consumerHealth } from "../health/pipeline.ts";
import { openKafkaReader } from "../kafka/consumer.ts";
import { openKafkaSender } from "../kafka/sender.ts";
import { createDeadWriter, createKafkaWriter } from "../kafka/writer.ts";
import { createProcessor } from "../processing/processor.ts";
import { EVERY_5_SECONDS } from "./jobs.ts";
import type { App, Startup } from "./startup.ts";

export async function openProcessorApp(context: Context, start: Startup): Promise<App> {
  const { config, clock, logger, metrics, signal } = context;
  const simulated = config.source?.kind === "simulator";
  const { topic, groupId, keyspace } = namesOf(config, config.source);
  const { retentionDays } = config;
  const kafka = { settings: config.kafka, clientId: "processor", clock, logger, topic };
  await using opened = new AsyncDisposableStack();

  const sender = opened.use(openKafkaSender(kafka));
  const putDead = createDeadWriter(createKafkaWriter(sender));
  // Both at once, because each takes a moment and a start should be short.
  const [cassandra] = await Promise.all([
    start.waitFor("Cassandra", (onFault) =>
      connectCassandra({ settings: config.cassandra, clock, logger, signal, onFault }),
    ),
    start.waitFor("Kafka", () => sender.ready()),
  ]);
  opened.use(cassandra);
  const store = opened.use(
    await start.waitFor("the tables", () =>
      openCassandraStore({ cassandra, keyspace, retentionDays, clock, logger, metrics, putDead }),
    ),
  );
  const reader = opened.use(openKafkaReader({ ...kafka, groupId }));
  const processor = createProcessor({ log: reader, store, clock, logger, metrics });
  const startedAtMs = clock.now();
  const resources = opened.move();
  return {
    run: (runSignal) => processor.run(runSignal),
    jobs: [{ name: "aggregates", schedule: EVERY_5_SECONDS, run: processor.trigger }],
    health: () => consumerHealth({ simulated, startedAtMs, processor: processor.health() }, clock.now()),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}
