// `admin init`: makes the topics and the tables that the other binaries need, waiting for engines that are still
// starting. It can be run any number of times, says what it did, and takes nothing away.

import type { Command, Context } from "../base/command.ts";
import { namesOf } from "../base/config.ts";
import { printLine } from "../base/logger.ts";
import { connectCassandra } from "../cassandra/client.ts";
import { applyGrafanaRole } from "../cassandra/grafana-role.ts";
import { applySchema } from "../cassandra/schema.ts";
import { openTopics } from "../kafka/topics.ts";

export const initCommand: Command = {
  name: "init",
  usage: "make the topics and the tables; safe to repeat, waits for Kafka and Cassandra",
  options: [
    ["--force", "give a topic in use more partitions (a symbol may move: verify --repair afterwards)"],
  ],
  async main(context, { force }) {
    // What one of them refuses must not hide behind the other's wait for an engine that does not start.
    const refused = new AbortController();
    const waiting = { ...context, signal: AbortSignal.any([context.signal, refused.signal]) };
    const faults: unknown[] = [];
    const told = async (work: Promise<readonly string[]>) => {
      try {
        for (const sentence of await work) printLine(sentence);
      } catch (error) {
        faults.push(error);
        refused.abort();
      }
    };
    await Promise.all([told(initTopics(waiting, force === true)), told(initTables(waiting))]);
    // The first one: the other may only have been told to wait no longer.
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
  const said = await applySchema(tables);
  return reader === null ? said : [...said, await applyGrafanaRole({ cassandra, keyspace, reader, clock })];
}
