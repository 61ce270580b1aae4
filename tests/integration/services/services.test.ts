// That the real servers the other tests lean on are what they are taken for: they answer, they refuse who must be
// refused, they come back with their data, and they never outlive whoever started them.

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import cassandra from "cassandra-driver";
import { type Admin, Kafka, type KafkaConfig } from "kafkajs";
import { eventually, temporaryDirectory } from "../../support/builders.ts";
import * as node from "../../support/services/cassandra.ts";
import { createCertificates } from "../../support/services/certificates.ts";
import { isRunning, startGuard } from "../../support/services/guard.ts";
import * as broker from "../../support/services/kafka.ts";
import { freePort } from "../../support/services/server.ts";
import { services, sharedCassandra, sharedKafka, uniqueName } from "../../support/services/shared.ts";

/** Two starts and a clean end take 10 to 15 s on two cores of our own. */
const SERVERS_MS_MAX = 180_000;
const CHILD = join(import.meta.dir, "../../support/fixtures/services-child.ts");
const END_MS_MAX = 10_000;

// --- Without a server ------------------------------------------------------------------------------------------

test("a name is good for a topic and a keyspace, and never given twice", () => {
  const names = Array.from({ length: 100 }, () => uniqueName("windows"));
  for (const name of names) expect(name).toMatch(/^windows_[0-9a-f]{10}$/);
  expect(new Set(names).size).toBe(100);
  for (const prefix of ["", "9lives", "Two", "a-b", "a".repeat(38)]) {
    expect(() => uniqueName(prefix)).toThrow("not the beginning of a name");
  }
});

test("kill -9 of who started it ends a guarded process that is deaf to SIGTERM, and its directory", async () => {
  using directory = temporaryDirectory();
  await using child = await startChild("deaf", directory.path);
  expect(await isRunning(child.serverPid)).toBe(true);
  await killAndWatch(child);
  await eventually(END_MS_MAX, "the directory is gone", async () => readdirSync(directory.path).length === 0);
});

test("a paused process ends with its guard, and its directory", async () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, "guarded");
  const guard = await startGuard(path);
  const { pid, signal, endedHow } = await guard.run(
    [process.execPath, "-e", "setInterval(() => {}, 1e3)"],
    `${path}/log`,
  );
  await signal("SIGSTOP");
  expect(endedHow()).toBeNull();
  await guard[Symbol.asyncDispose]();
  expect(endedHow()).toBe("SIGKILL");
  expect(await isRunning(pid)).toBe(false);
  expect(existsSync(path)).toBe(false);
});

test("a guard says how its process ended, and then runs another", async () => {
  using directory = temporaryDirectory();
  const path = join(directory.path, "guarded");
  await using guard = await startGuard(path);
  const run = (...command: string[]) => guard.run(command, join(path, "log"));
  expect(await (await run(process.execPath, "-e", "process.exit(3)")).ended).toBe("code 3");
  await expect(run(join(path, "nothing"))).rejects.toThrow("could not be started");
  const last = await run(process.execPath, "-e", "console.log(7); setInterval(() => {}, 1e3)");
  await expect(run("true")).rejects.toThrow("one thing at a time");
  await last.signal("SIGKILL");
  expect(await last.ended).toBe("SIGKILL");
  await last.signal("SIGKILL"); // Nobody is there any more, and nobody else is hit.
});

test("where Java is missing one sentence names it, and servers are not available", async () => {
  const shared = JSON.stringify(join(import.meta.dir, "../../support/services/shared.ts"));
  const print = `import { services } from ${shared}; console.log(services.available)`;
  const child = Bun.spawn([process.execPath, "--no-env-file", "-e", print], {
    env: { PATH: "", HOME: process.env.HOME ?? "" },
    stdout: "pipe",
    stderr: "pipe",
  });
  expect(await child.stdout.text()).toBe("false\n");
  expect(await child.stderr.text()).toMatch(
    /^SKIPPED: Java 17 [^\n]*nothing is proven on real Kafka[^\n]*\n$/,
  );
});

// --- With servers ----------------------------------------------------------------------------------------------

describe.skipIf(!services.available)("real servers", () => {
  test(
    "the shared Kafka creates and lists a topic",
    async () => {
      const { port } = await sharedKafka();
      const topic = uniqueName("services");
      const topics = await withAdmin(broker.clientOptions(port), async (admin) => {
        await admin.createTopics({ topics: [{ topic, numPartitions: 3 }], waitForLeaders: true });
        return admin.listTopics();
      });
      expect(topics).toContain(topic);
    },
    SERVERS_MS_MAX,
  );

  test(
    "the shared Cassandra answers a query in a keyspace of its own",
    async () => {
      const { port } = await sharedCassandra();
      const keyspace = uniqueName("services");
      await withClient(node.clientOptions(port), async (client) => {
        await client.execute(keyspaceOf(keyspace));
        await client.execute(`CREATE TABLE ${keyspace}.t (k int PRIMARY KEY, v text)`);
        await client.execute(`INSERT INTO ${keyspace}.t (k, v) VALUES (1, 'here')`);
        const { rows } = await client.execute(`SELECT v FROM ${keyspace}.t WHERE k = 1`);
        expect(rows.map((row) => row.v)).toEqual(["here"]);
        await client.execute(`DROP KEYSPACE ${keyspace}`);
      });
    },
    SERVERS_MS_MAX,
  );

  test(
    "kill -9 of who started it ends a Kafka, and nothing of it is left on the disk",
    async () => {
      using directory = temporaryDirectory();
      await using child = await startChild("kafka", directory.path);
      expect(await Bun.file(`/proc/${child.serverPid}/cmdline`).text()).toContain("kafka.Kafka");
      await killAndWatch(child);
      await eventually(END_MS_MAX, "it is gone", async () => readdirSync(directory.path).length === 0);
    },
    SERVERS_MS_MAX,
  );

  test(
    "a broker with TLS and SCRAM takes its users and refuses everybody else, also after kill -9 and a start",
    async () => {
      using certificates = await createCertificates();
      const sasl = { mechanism: "scram-sha-512", users: { ada: "lace", bob: "hope" } } as const;
      const options = { tls: certificates, sasl };
      await using kafka = await broker.startKafka(options);
      const right = broker.clientOptions(kafka.port, options);
      const list = (client: KafkaConfig) => withAdmin(client, (admin) => admin.listTopics());
      const as = (username: string, password: string): KafkaConfig => {
        return { ...right, sasl: { mechanism: "scram-sha-512", username, password } };
      };
      const { ssl: _, ...withoutTls } = right;
      const { sasl: __, ...withoutUser } = right;
      await withAdmin(right, (admin) => admin.createTopics({ topics: [{ topic: "kept" }] }));
      const pid = kafka.pid;
      await kafka.kill();
      expect(await isRunning(pid)).toBe(false);
      await expect(list(right)).rejects.toThrow();
      await kafka.start();
      expect(kafka.pid).not.toBe(pid);

      expect(await list(right)).toContain("kept");
      expect(await list(as("bob", "hope"))).toContain("kept");
      await expect(list(as("ada", "hope"))).rejects.toThrow("SASL");
      await expect(list(as("eve", "lace"))).rejects.toThrow("SASL");
      await expect(list({ ...right, ssl: { ca: [certificates.strangerCa] } })).rejects.toThrow(
        /certificate|issuer/,
      );
      await expect(list(withoutTls)).rejects.toThrow();
      await expect(list(withoutUser)).rejects.toThrow();
    },
    SERVERS_MS_MAX,
  );

  test(
    "a broker with plain users refuses a wrong password, obeys further properties, and can be paused",
    async () => {
      const sasl = { mechanism: "plain", users: { ada: "lace" } } as const;
      const properties = { "log.retention.ms": "1234" };
      await using kafka = await broker.startKafka({ sasl, properties });
      const right = broker.clientOptions(kafka.port, { sasl });
      const wrong: KafkaConfig = {
        ...right,
        sasl: { mechanism: "plain", username: "ada", password: "love" },
      };
      const read = (client: KafkaConfig) => withAdmin(client, retentionOf);
      expect(await read(right)).toBe("1234");
      await expect(read(wrong)).rejects.toThrow("SASL");
      await kafka.kill("SIGSTOP");
      await expect(read(right)).rejects.toThrow(/timeout|timed out/i);
      await kafka.kill("SIGCONT");
      expect(await read(right)).toBe("1234");
    },
    SERVERS_MS_MAX,
  );

  test(
    "a node with TLS and passwords takes its user and refuses everybody else, also after a restart",
    async () => {
      using certificates = await createCertificates();
      const options = { tls: certificates, authenticator: "password" } as const;
      await using cassandraNode = await node.startCassandra(options);
      const { port } = cassandraNode;
      const right = node.clientOptions(port, options);
      const read = (client: cassandra.ClientOptions) =>
        withClient(client, async (connected) => {
          const { rows } = await connected.execute("SELECT keyspace_name FROM system_schema.keyspaces");
          return rows.map((row) => String(row.keyspace_name));
        });
      await withClient(right, (client) => client.execute(keyspaceOf("kept")));
      await cassandraNode.restart();
      expect(cassandraNode.port).toBe(port);

      expect(await read(right)).toContain("kept");
      const credentials = { ...node.FIRST_USER, password: "love" };
      expect(await refusal(read({ ...right, credentials }))).toContain("AuthenticationError");
      const stranger = { ca: [certificates.strangerCa], rejectUnauthorized: true };
      expect(await refusal(read({ ...right, sslOptions: stranger }))).toMatch(/certificate|issuer/);
      const { sslOptions: _, ...withoutTls } = right;
      const { credentials: __, ...withoutUser } = right;
      expect(await refusal(read(withoutTls))).not.toBe("");
      expect(await refusal(read(withoutUser))).toContain("AuthenticationError");
    },
    SERVERS_MS_MAX,
  );

  test(
    "what a server said before it died at its start is in the error",
    async () => {
      const properties = { "metric.reporters": "there.is.no.such.Reporter" };
      const error = await broker.startKafka({ properties }).catch((caught: unknown) => caught);
      expect(String(error)).toContain("Kafka ended at its start (code 1)");
      expect(String(error)).toContain("there.is.no.such.Reporter");
    },
    SERVERS_MS_MAX,
  );

  test("a free port is one on which a server can listen", async () => {
    const port = await freePort();
    using listener = Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } });
    expect(listener.port).toBe(port);
  });
});

// --- Helpers ---------------------------------------------------------------------------------------------------

type Child = AsyncDisposable & { readonly process: Bun.Subprocess; readonly serverPid: number };

/** A process that has started what `kind` says, with a directory of its own for temporary files. */
async function startChild(kind: "deaf" | "kafka", directory: string): Promise<Child> {
  const child = Bun.spawn([process.execPath, "--no-env-file", CHILD, kind], {
    env: { ...process.env, TMPDIR: directory },
    stdout: "pipe",
    stderr: "inherit",
  });
  let said = "";
  for await (const chunk of child.stdout) {
    said += Buffer.from(chunk).toString();
    if (said.endsWith("\n")) break;
  }
  const serverPid = Number(/^pid (\d+)$/m.exec(said)?.[1]);
  if (!serverPid) throw new Error(`the child did not say the server's pid: ${said}`);
  return {
    process: child,
    serverPid,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

async function killAndWatch(child: Child): Promise<void> {
  child.process.kill("SIGKILL");
  await child.process.exited;
  const isGone = async () => !(await isRunning(child.serverPid));
  await eventually(END_MS_MAX, `the server (pid ${child.serverPid}) is gone`, isGone);
}

async function withAdmin<T>(options: KafkaConfig, work: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = new Kafka(options).admin();
  try {
    await admin.connect();
    return await work(admin);
  } finally {
    await admin.disconnect();
  }
}

async function retentionOf(admin: Admin): Promise<string | undefined> {
  const configNames = ["log.retention.ms"];
  const BROKER = 4; // Kafka's number for the kind of thing that is described.
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: BROKER, name: "1", configNames }],
  });
  return resources[0]?.configEntries[0]?.configValue;
}

async function withClient<T>(
  options: cassandra.ClientOptions,
  work: (client: cassandra.Client) => Promise<T>,
): Promise<T> {
  const client = new cassandra.Client(options);
  try {
    await client.connect();
    return await work(client);
  } finally {
    await client.shutdown();
  }
}

function keyspaceOf(name: string): string {
  return `CREATE KEYSPACE ${name} WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`;
}

/** Why the one node refused; the driver tells it beside its own error. */
async function refusal(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => null,
    (caught: unknown) => caught,
  );
  if (!(error instanceof cassandra.errors.NoHostAvailableError)) throw new Error(`not refused: ${error}`);
  return Object.values(error.innerErrors)
    .map((inner) => `${inner}`)
    .join("; ");
}
