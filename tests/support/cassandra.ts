// A keyspace of a test's own on the shared node, with our tables, and a store on it. Dropped at the end of the scope.

import { type Clock, systemClock } from "../../lib/base/clock.ts";
import { silentLogger } from "../../lib/base/logger.ts";
import { createMetrics, type Metrics } from "../../lib/base/metrics.ts";
import { type Cassandra, type CassandraSettings, connectCassandra } from "../../lib/cassandra/client.ts";
import { applySchema } from "../../lib/cassandra/schema.ts";
import { type CassandraStore, openCassandraStore } from "../../lib/cassandra/store.ts";
import type { DeadLetter } from "../../lib/model/dead-letter.ts";
import { NOON_MS } from "./builders.ts";
import { DATACENTER } from "./services/cassandra.ts";
import type { Address } from "./services/server.ts";
import { uniqueName } from "./services/shared.ts";

/** Just after the rows of most tests were received, so that none of them is too old. */
export const SOON_AFTER_NOON: Clock = { ...systemClock, now: () => NOON_MS + 60_000 };
export const RETENTION_DAYS = 30;

export function settingsFor(
  { host, port }: Address,
  changes: Partial<CassandraSettings> = {},
): CassandraSettings {
  return {
    contactPoints: [`${host}:${port}`],
    datacenter: DATACENTER,
    replicationFactor: 1,
    consistency: "LOCAL_QUORUM",
    tls: null,
    credentials: null,
    ...changes,
  };
}

export function connectTo(address: Address, changes: Partial<CassandraSettings> = {}): Promise<Cassandra> {
  return connectCassandra({
    settings: settingsFor(address, changes),
    clock: systemClock,
    logger: silentLogger,
    signal: AbortSignal.timeout(60_000),
  });
}

export type Keyspace = AsyncDisposable & Readonly<{ cassandra: Cassandra; name: string }>;

/** Without tables. */
export async function emptyKeyspace(address: Address): Promise<Keyspace> {
  const name = uniqueName("test");
  const cassandra = await connectTo(address);
  await cassandra.define(
    `CREATE KEYSPACE ${name} WITH replication = {'class': 'NetworkTopologyStrategy', '${DATACENTER}': 1}`,
  );
  return {
    cassandra,
    name,
    async [Symbol.asyncDispose]() {
      await cassandra.define(`DROP KEYSPACE IF EXISTS ${name}`);
      await cassandra[Symbol.asyncDispose]();
    },
  };
}

export async function keyspaceWithTables(
  address: Address,
  retentionDays = RETENTION_DAYS,
): Promise<Keyspace> {
  const keyspace = await emptyKeyspace(address);
  await applySchema({
    cassandra: keyspace.cassandra,
    keyspace: keyspace.name,
    datacenter: DATACENTER,
    replicationFactor: 1,
    retentionDays,
    clock: systemClock,
  });
  return keyspace;
}

export type TestStore = AsyncDisposable &
  Readonly<{
    store: CassandraStore;
    keyspace: Keyspace;
    metrics: Metrics;
    deadLetters(): Promise<readonly DeadLetter[]>;
  }>;

/** The letters that the store hands on are kept as their topic's reader would: once. */
export async function openTestStore(address: Address, clock: Clock = SOON_AFTER_NOON): Promise<TestStore> {
  const keyspace = await keyspaceWithTables(address);
  const metrics = createMetrics();
  const deadLetters = new Map<string, DeadLetter>();
  const store = await openCassandraStore({
    cassandra: await connectTo(address),
    keyspace: keyspace.name,
    retentionDays: RETENTION_DAYS,
    clock,
    logger: silentLogger,
    metrics,
    async putDead(items) {
      for (const deadLetter of items) {
        deadLetters.set(`${deadLetter.session} ${deadLetter.sequence} ${deadLetter.item}`, deadLetter);
      }
    },
  });
  return {
    store,
    keyspace,
    metrics,
    deadLetters: async () => [...deadLetters.values()],
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await keyspace[Symbol.asyncDispose]();
    },
  };
}
