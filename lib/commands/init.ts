// `admin init`: creates the topics and the tables that the other binaries need, waiting for engines that are still
// starting. It can be run any number of times, prints what it did, and deletes nothing.

import type { Command, Context } from "../base/command.ts";
import { namesOf } from "../base/config.ts";
import { printLine } from "../base/logger.ts";
import { connectCassandra } from "../cassandra/client.ts";
import { applyGrafanaRole } from "../cassandra/grafana-role.ts";
import { applySchema } from "../cassandra/schema.ts";
import { openTopics } from "../kafka/topics.ts";

export const initCommand: Command = {
  name: "init",
  usage: "create the topics and the tables; safe to repeat, waits for Kafka and Cassandra",
  options: [
    ["--force", "give a topic in use more partitions (a symbol may move: verify --repair afterwards)"],
  ],
  async main(context, { force }) {
    // A refusal of one engine ends the wait for the other, which may never start.
    const refused = new AbortController();
    const waiting = { ...context, signal: AbortSignal.any([context.signal, refused.signal]) };
    const faults: unknown[] = [];
    const print = async (work: Promise<readonly string[]>) => {
      try {
        for (const sentence of await work) printLine(sentence);
      } catch (error) {
        faults.push(error);
        refused.abort();
      }
    };
    await Promise.all([print(initTopics(waiting, force === true)), print(initTables(waiting))]);
    // The first fault is the cause: the second may be no more than the ended wait.
    if (faults.length > 0) throw faults[0];
    return 0;
  },
};

async function initTopics({ config, clock, logger, signal }: Context, force: boolean) {
  const { topic } = namesOf(config, config.source);
  const deps = { settings: config.kafka, clientId: "admin", clock, logger, topic };
  await using topics = openTopics(deps);
  await topics.ready(signal);
  return await topics.create({
    partitions: config.kafka.partitions,
    retentionDays: config.retentionDays,
    force,
  });
}

async function initTables({ config, clock, logger, signal }: Context) {
  const { keyspace } = namesOf(config, config.source);
  const { datacenter, replicationFactor } = config.cassandra;
  await using cassandra = await connectCassandra({ settings: config.cassandra, clock, logger, signal });
  const { retentionDays } = config;
  const { cassandraRole: reader } = config.grafana;
  const tables = { cassandra, keyspace, datacenter, replicationFactor, retentionDays, clock };
  const sentences = await applySchema(tables);
  return reader === null
    ? sentences
    : [...sentences, await applyGrafanaRole({ cassandra, keyspace, reader, clock })];
}
