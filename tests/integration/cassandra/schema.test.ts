// The tables on Cassandra: applied once and recorded, in the options that the settings ask for; foreign tables are
// refused and nothing of the operator's is undone.

import { beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../../../lib/base/clock.ts";
import { SetupError } from "../../../lib/base/errors.ts";
import type { Cassandra, DriverRow } from "../../../lib/cassandra/client.ts";
import { applySchema, checkSchema } from "../../../lib/cassandra/schema.ts";
import { AGGREGATES } from "../../../lib/model/aggregates.ts";
import { connectTo, emptyKeyspace, keyspaceWithTables } from "../../support/cassandra.ts";
import { DATACENTER, startCassandra } from "../../support/services/cassandra.ts";
import type { Address } from "../../support/services/server.ts";
import { services, sharedCassandra, uniqueName } from "../../support/services/shared.ts";

const DAY_S = 86_400;
const TIMEOUT_MS = 60_000;

describe.skipIf(!services.available)("on a real node", () => {
  let node: Address;
  beforeAll(async () => {
    node = await sharedCassandra();
  }, 120_000);

  function apply(
    cassandra: Cassandra,
    keyspace: string,
    changes: Partial<Parameters<typeof applySchema>[0]> = {},
  ) {
    return applySchema({
      cassandra,
      keyspace,
      datacenter: DATACENTER,
      replicationFactor: 1,
      retentionDays: 30,
      clock: systemClock,
      ...changes,
    });
  }

  async function optionsOf(cassandra: Cassandra, keyspace: string): Promise<Map<string, DriverRow>> {
    const { rows } = await cassandra.execute(
      "SELECT table_name, id, default_time_to_live, gc_grace_seconds, compaction FROM system_schema.tables WHERE keyspace_name = ?",
      [keyspace],
    );
    return new Map(rows.map((row) => [String(row.table_name), row]));
  }

  async function ttlsOf(cassandra: Cassandra, keyspace: string): Promise<Record<string, unknown>> {
    const options = await optionsOf(cassandra, keyspace);
    return Object.fromEntries([...options].map(([name, row]) => [name, row.default_time_to_live]));
  }

  test(
    "a keyspace that is not there is made, with every file of cql/ applied and recorded",
    async () => {
      await using cassandra = await connectTo(node);
      const name = uniqueName("test");
      try {
        const said = await apply(cassandra, name);
        const files = readdirSync(join(import.meta.dir, "../../../cql")).sort();
        expect(said).toEqual([`created the keyspace ${name}`, ...files.map((file) => `applied ${file}`)]);
        const { rows } = await cassandra.execute(`SELECT file FROM ${name}.schema_versions`, []);
        expect(rows.map(({ file }) => String(file)).sort()).toEqual(files);
        expect(await ttlsOf(cassandra, name)).toEqual({
          schema_versions: 0,
          trades: 30 * DAY_S,
          feed_events: 30 * DAY_S,
          // No trade outlives its aggregates.
          ...Object.fromEntries(AGGREGATES.map(({ table }) => [table, 31 * DAY_S])),
        });
        expect(await checkSchema(cassandra, name)).toEqual({ tradesTtlS: 30 * DAY_S });
      } finally {
        await cassandra.define(`DROP KEYSPACE IF EXISTS ${name}`);
      }
    },
    TIMEOUT_MS,
  );

  test(
    "applied again it changes nothing: the same tables, the same rows",
    async () => {
      await using keyspace = await keyspaceWithTables(node);
      const { cassandra, name } = keyspace;
      const before = await optionsOf(cassandra, name);
      await cassandra.execute(
        `INSERT INTO ${name}.feed_events (day, event_timestamp, session, sequence) VALUES ('2026-01-05', 1, 'a', 1)`,
        [],
      );
      const versions = () => cassandra.execute(`SELECT file, applied_at FROM ${name}.schema_versions`, []);
      const recorded = JSON.stringify((await versions()).rows);
      expect(await apply(cassandra, name)).toEqual([`the keyspace ${name} is as it should be`]);
      expect(JSON.stringify([...(await optionsOf(cassandra, name))])).toBe(JSON.stringify([...before]));
      expect(JSON.stringify((await versions()).rows)).toBe(recorded);
      expect((await cassandra.execute(`SELECT day FROM ${name}.feed_events`, [])).rows.length).toBe(1);
    },
    TIMEOUT_MS,
  );

  test(
    "20 to 50 compaction windows lie in a TTL, whatever the retention",
    async () => {
      await using keyspace = await keyspaceWithTables(node, 1);
      const { cassandra, name } = keyspace;
      for (const retentionDays of [1, 2, 3, 30, 365, 3_650]) {
        await apply(cassandra, name, { retentionDays });
        const options = await optionsOf(cassandra, name);
        options.delete("schema_versions");
        expect(options.size).toBe(4);
        for (const row of options.values()) {
          const compaction = row.compaction as Record<string, string>;
          expect(compaction.class).toContain("TimeWindowCompactionStrategy");
          expect(compaction.compaction_window_unit).toBe("HOURS");
          const windowS = Number(compaction.compaction_window_size) * 3_600;
          const windows = Number(row.default_time_to_live) / windowS;
          expect(windows).toBeGreaterThanOrEqual(20);
          expect(windows).toBeLessThanOrEqual(50);
          expect(row.gc_grace_seconds).toBe(DAY_S);
        }
      }
    },
    TIMEOUT_MS,
  );

  test(
    "another RETENTION_DAYS alters the tables, and says that old rows keep theirs",
    async () => {
      await using keyspace = await keyspaceWithTables(node);
      const { cassandra, name } = keyspace;
      for (const retentionDays of [7, 90]) {
        const [sentence, ...more] = await apply(cassandra, name, { retentionDays });
        expect(more).toEqual([]);
        expect(sentence).toContain(
          `kept for ${retentionDays} day(s) from now on; rows written before keep their time`,
        );
        const ttls = await ttlsOf(cassandra, name);
        expect(ttls.trades).toBe(retentionDays * DAY_S);
        expect(ttls.candles_1_min).toBe((retentionDays + 1) * DAY_S);
        expect(await checkSchema(cassandra, name)).toEqual({ tradesTtlS: retentionDays * DAY_S });
      }
    },
    TIMEOUT_MS,
  );

  test(
    "a retention that no row of this node could have is refused, and the tables stay as they were",
    async () => {
      // As a node is by default; the shared one takes rows beyond 2038.
      await using plain = await startCassandra();
      await using keyspace = await keyspaceWithTables(plain);
      const { cassandra, name } = keyspace;
      const error = await apply(cassandra, name, { retentionDays: 7_300 }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(SetupError);
      expect((error as SetupError).hint).toContain("smaller RETENTION_DAYS");
      expect((await ttlsOf(cassandra, name)).trades).toBe(30 * DAY_S);
    },
    TIMEOUT_MS,
  );

  test(
    "a compaction strategy that the operator chose stays when the retention changes",
    async () => {
      await using keyspace = await keyspaceWithTables(node);
      const { cassandra, name } = keyspace;
      await cassandra.define(
        `ALTER TABLE ${name}.trades WITH compaction = {'class': 'UnifiedCompactionStrategy'}`,
      );
      await apply(cassandra, name, { retentionDays: 7 });
      const trades = (await optionsOf(cassandra, name)).get("trades");
      expect(JSON.stringify(trades?.compaction)).toContain("UnifiedCompactionStrategy");
      expect(trades?.default_time_to_live).toBe(7 * DAY_S);
    },
    TIMEOUT_MS,
  );

  test(
    "a keyspace with the origin's trades is refused before anything is made in it",
    async () => {
      await using keyspace = await emptyKeyspace(node);
      const { cassandra, name } = keyspace;
      await cassandra.define(
        `CREATE TABLE ${name}.trades (symbol text, trade_timestamp timestamp, uuid uuid, price double, PRIMARY KEY ((symbol), trade_timestamp))`,
      );
      for (const work of [() => apply(cassandra, name), () => checkSchema(cassandra, name)]) {
        const error = await work().then(
          () => null,
          (thrown: unknown) => thrown as SetupError,
        );
        expect(error).toBeInstanceOf(SetupError);
        expect(error?.message).toContain("its key is ((symbol), trade_timestamp)");
        expect(error?.hint).toContain("CASSANDRA_KEYSPACE");
      }
      expect([...(await optionsOf(cassandra, name)).keys()]).toEqual(["trades"]);
    },
    TIMEOUT_MS,
  );

  test(
    "what has no tables yet, or lost one, asks for `admin init`, which brings it back",
    async () => {
      await using keyspace = await emptyKeyspace(node);
      const { cassandra, name } = keyspace;
      const check = () => checkSchema(cassandra, name).catch((thrown: unknown) => thrown as SetupError);
      for (const drop of ["", "candles_1_min", "schema_versions"]) {
        if (drop !== "") await cassandra.define(`DROP TABLE ${name}.${drop}`);
        const error = await check();
        expect(error).toBeInstanceOf(SetupError);
        expect((error as SetupError).hint).toBe("run `admin init`");
        await apply(cassandra, name);
        expect(await check()).toEqual({ tradesTtlS: 30 * DAY_S });
      }
    },
    TIMEOUT_MS,
  );

  test(
    "a file that was never recorded is an older keyspace",
    async () => {
      await using keyspace = await keyspaceWithTables(node);
      const { cassandra, name } = keyspace;
      await cassandra.execute(`DELETE FROM ${name}.schema_versions WHERE file = '004-feed-events.cql'`, []);
      const error = await checkSchema(cassandra, name).catch((thrown: unknown) => thrown as SetupError);
      expect((error as SetupError).message).toContain("004-feed-events.cql was not applied");
      expect(await apply(cassandra, name)).toEqual(["applied 004-feed-events.cql"]);
    },
    TIMEOUT_MS,
  );

  test(
    "a replication that is not what the settings say is told, not changed",
    async () => {
      await using keyspace = await keyspaceWithTables(node);
      const { cassandra, name } = keyspace;
      const said = await apply(cassandra, name, { replicationFactor: 3 });
      expect(said[0]).toContain(
        "has a replication factor of 1 in datacenter1, CASSANDRA_REPLICATION_FACTOR is 3",
      );
      expect(said[1]).toContain("the datacenter has 1 node(s)");
      expect(said.length).toBe(2);
    },
    TIMEOUT_MS,
  );

  test(
    "a datacenter of any name is quoted, and one that does not exist is said",
    async () => {
      await using cassandra = await connectTo(node);
      const name = uniqueName("test");
      const error = await apply(cassandra, name, { datacenter: "it's; no" }).catch(
        (thrown: unknown) => thrown,
      );
      expect(error).toBeInstanceOf(SetupError);
      expect((error as SetupError).hint).toContain("CASSANDRA_DATACENTER");
    },
    TIMEOUT_MS,
  );
});
