// The user that Grafana logs in as, on a node with passwords: what it may, and what it may not.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { systemClock } from "../../../lib/base/clock.ts";
import { SetupError } from "../../../lib/base/errors.ts";
import { applyGrafanaRole } from "../../../lib/cassandra/grafana-role.ts";
import { applySchema } from "../../../lib/cassandra/schema.ts";
import { connectTo, keyspaceWithTables } from "../../support/cassandra.ts";
import { DATACENTER, FIRST_USER, startCassandra } from "../../support/services/cassandra.ts";
import type { Server } from "../../support/services/server.ts";
import { services, sharedCassandra } from "../../support/services/shared.ts";

const START_MS_MAX = 120_000;
const TIMEOUT_MS = 60_000;
const PASSWORD = "it's a 'secret'";

describe.skipIf(!services.available)("on a node with passwords", () => {
  let node: Server;
  beforeAll(async () => {
    node = await startCassandra({ authenticator: "password" });
  }, START_MS_MAX);
  afterAll(async () => await node?.[Symbol.asyncDispose](), TIMEOUT_MS);

  const asFirst = () => connectTo(node, { credentials: FIRST_USER });
  const asReader = (password: string) =>
    connectTo(node, { credentials: { username: "grafana_reader", password } });

  test(
    "it reads the tables, writes into none, sees no other keyspace, and its password can be changed",
    async () => {
      await using first = await asFirst();
      const tables = {
        cassandra: first,
        datacenter: DATACENTER,
        replicationFactor: 1,
        retentionDays: 30,
        clock: systemClock,
      };
      await applySchema({ ...tables, keyspace: "market" });
      await applySchema({ ...tables, keyspace: "private" });
      const make = (password: string) =>
        applyGrafanaRole({
          cassandra: first,
          keyspace: "market",
          reader: { username: "grafana_reader", password },
          clock: systemClock,
        });
      expect(await make("before")).toBe("created the user grafana_reader, who may read market");
      expect(await make(PASSWORD)).toBe("the user grafana_reader may read market");

      await expect(asReader("before")).rejects.toBeInstanceOf(SetupError);
      await using reader = await asReader(PASSWORD);
      expect((await reader.execute("SELECT * FROM market.trades", [])).rows).toEqual([]);
      for (const forbidden of [
        "SELECT * FROM private.trades",
        "SELECT * FROM system_auth.roles",
        "INSERT INTO market.schema_versions (file) VALUES ('mine')",
        "DELETE FROM market.schema_versions WHERE file = '002-trades.cql'",
        "TRUNCATE market.trades",
      ]) {
        const fault = await reader.execute(forbidden, []).catch((error: unknown) => error);
        expect({ forbidden, message: String(fault) }).toEqual({
          forbidden,
          message: expect.stringContaining("the user may not do this in Cassandra"),
        });
      }
      await expect(reader.define("DROP TABLE market.trades")).rejects.toThrow(
        "the user may not do this in Cassandra",
      );
    },
    TIMEOUT_MS,
  );

  test(
    "a superuser is not taken for it, and keeps its password",
    async () => {
      await using first = await asFirst();
      const reader = { username: "CASSANDRA", password: "another" };
      await expect(
        applyGrafanaRole({ cassandra: first, keyspace: "market", reader, clock: systemClock }),
      ).rejects.toThrow("is a superuser");
      await using again = await asFirst();
      expect(again.nodeCount()).toBe(1);
    },
    TIMEOUT_MS,
  );

  test(
    "on a node without passwords it is refused, with what to do",
    async () => {
      await using keyspace = await keyspaceWithTables(await sharedCassandra());
      const { cassandra, name } = keyspace;
      const reader = { username: "grafana_reader", password: PASSWORD };
      const fault = await applyGrafanaRole({ cassandra, keyspace: name, reader, clock: systemClock }).catch(
        (error: unknown) => error,
      );
      expect(fault).toBeInstanceOf(SetupError);
      expect(fault).toMatchObject({ message: expect.stringContaining("asks for no passwords") });
      expect(Bun.inspect(fault)).not.toContain("secret");
    },
    TIMEOUT_MS,
  );
});
