// A real Apache Kafka for tests: one broker that is its own controller (KRaft), on loopback, in a directory that is
// gone afterwards. Plain, or with TLS and SASL as a user's broker has it.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Kafka, type KafkaConfig, logLevel, type SASLOptions } from "kafkajs";
import type { Certificates } from "./certificates.ts";
import { endWithin, startGuard } from "./guard.ts";
import { classArchive, QUICK_COMPILER, requireJava, resolveJars } from "./java.ts";
import { freePort, HOST, type Server, serverDirectory, startServer } from "./server.ts";

type Mechanism = "plain" | "scram-sha-512";

export type KafkaOptions = Readonly<{
  /** Its clients must speak TLS. */
  tls?: Certificates;
  /** Its clients must name one of these users (name -> password), by any of the mechanisms. */
  sasl?: Readonly<{
    mechanism: Mechanism | readonly [Mechanism, ...Mechanism[]];
    users: Readonly<Record<string, string>>;
  }>;
  /** Both of Java's compilers, for a server that is measured or lives long: the quick one alone starts on a third of the CPU. */
  isOptimized?: boolean;
  /** Further lines of server.properties, like a short retention: {"log.retention.ms": "1000"}. */
  properties?: Readonly<Record<string, string>>;
}>;

const HEAP = "512m";
/** 16 bytes. Not random ones: the tool takes an id that begins with "-" for an option. */
const CLUSTER = Buffer.from("pipeline-tests-1").toString("base64url");
const FORMAT_MS_MAX = 60_000;
/** Of one question whether it is ready. */
const ASK_MS_MAX = 2_000;
/** One broker, one run, two cores: nothing is kept twice, nobody waits for others to join. */
const SMALL = {
  "num.network.threads": "2",
  "num.io.threads": "2",
  "background.threads": "2",
  "num.recovery.threads.per.data.dir": "1",
  "log.cleaner.threads": "1",
  "log.cleaner.dedupe.buffer.size": "8388608",
  "default.replication.factor": "1",
  "offsets.topic.replication.factor": "1",
  "offsets.topic.num.partitions": "1",
  "transaction.state.log.replication.factor": "1",
  "transaction.state.log.min.isr": "1",
  "transaction.state.log.num.partitions": "1",
  "share.coordinator.state.topic.replication.factor": "1",
  "share.coordinator.state.topic.min.isr": "1",
  "share.coordinator.state.topic.num.partitions": "1",
  "group.coordinator.threads": "1",
  "group.initial.rebalance.delay.ms": "0",
  "group.min.session.timeout.ms": "1000", // A test of a killed consumer should not take 6 s.
  "auto.create.topics.enable": "false",
  "log.retention.ms": "-1", // Trades of tests are dated years ago; the default would delete them.
  "broker.session.timeout.ms": "3000", // After kill -9 the broker is back in 5 s instead of 12.
  "broker.heartbeat.interval.ms": "500",
};

/** Resolves when a client is answered and the broker can create topics. */
export async function startKafka(options: KafkaOptions = {}): Promise<Server> {
  const java = requireJava();
  const jars = await resolveJars("kafka");
  const directory = serverDirectory("kafka");
  const guard = await startGuard(directory);
  const archive = classArchive("kafka", java, directory);
  const [port, internalPort, controllerPort] = [await freePort(), await freePort(), await freePort()];

  const settings = join(directory, "server.properties");
  const lines = { ...SMALL, ...listeners(port, internalPort, controllerPort), ...security(options) };
  const all = { ...lines, "log.dirs": join(directory, "data"), ...options.properties };
  writeFileSync(
    settings,
    Object.entries(all)
      .map(([key, value]) => `${key}=${value}\n`)
      .join(""),
  );

  const flags = ["-XX:+UseSerialGC", "-XX:-UsePerfData", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
  const run = (heap: string, ...more: string[]) => [java.executable, `-Xmx${heap}`, ...flags, ...more];
  const classpath = ["-cp", `${jars}/*`];
  try {
    const users = scramUsers(options).flatMap((user) => ["--add-scram", user]);
    const tool = ["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", settings, ...users];
    await format(run("128m", ...QUICK_COMPILER, ...archive.readFlags, ...classpath, ...tool));
  } catch (error) {
    await guard[Symbol.asyncDispose]();
    throw error;
  }
  return startServer({
    name: "Kafka",
    guard,
    directory,
    port,
    command: run(
      HEAP,
      `-Xms${HEAP}`,
      ...(options.isOptimized ? [] : QUICK_COMPILER),
      ...archive.flags,
      ...classpath,
      "kafka.Kafka",
      settings,
    ),
    archive,
    isReady: () => isReady(clientOptions(port, options)),
  });

  async function format(command: readonly string[]): Promise<void> {
    const log = join(directory, "format.log");
    const how = await endWithin(FORMAT_MS_MAX, await guard.run(command, log));
    if (how !== "code 0")
      throw new Error(`Kafka's storage was not made (${how}):\n${await Bun.file(log).text()}`);
  }
}

/** What a kafkajs client needs for this broker: with the first of its users and mechanisms, trusting its authority. */
export function clientOptions(port: number, { tls, sasl }: KafkaOptions = {}): KafkaConfig {
  const [user] = Object.entries(sasl?.users ?? {});
  const [mechanism] = mechanismsOf(sasl);
  const login = user && { mechanism, username: user[0], password: user[1] };
  return {
    brokers: [`${HOST}:${port}`],
    clientId: "tests",
    logLevel: logLevel.NOTHING,
    connectionTimeout: ASK_MS_MAX,
    authenticationTimeout: ASK_MS_MAX,
    requestTimeout: ASK_MS_MAX,
    retry: { retries: 0 },
    ...(tls && { ssl: { ca: [tls.ca] } }),
    ...(login && { sasl: login as SASLOptions }),
  };
}

/** A broker that stands in its own metadata is registered and may lead partitions. */
async function isReady(client: KafkaConfig): Promise<boolean> {
  const admin = new Kafka(client).admin();
  try {
    await admin.connect();
    const { brokers, controller } = await admin.describeCluster();
    // The first question for a group makes the topic of the groups, and is refused while it is made.
    await admin.describeGroups(["ready"]);
    return brokers.length === 1 && controller !== null;
  } finally {
    await admin.disconnect();
  }
}

/** Clients have a listener of their own; the broker speaks to itself on plain ones. */
function listeners(port: number, internalPort: number, controllerPort: number): Record<string, string> {
  const internal = `INTERNAL://${HOST}:${internalPort}`;
  return {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.voters": `1@${HOST}:${controllerPort}`,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "INTERNAL",
    listeners: `CLIENT://${HOST}:${port},${internal},CONTROLLER://${HOST}:${controllerPort}`,
    "advertised.listeners": `CLIENT://${HOST}:${port},${internal}`,
  };
}

function security({ tls, sasl }: KafkaOptions): Record<string, string> {
  const protocol = sasl ? (tls ? "SASL_SSL" : "SASL_PLAINTEXT") : tls ? "SSL" : "PLAINTEXT";
  const settings: Record<string, string> = {
    "listener.security.protocol.map": `CLIENT:${protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT`,
  };
  if (tls) {
    settings["ssl.keystore.type"] = "PKCS12";
    settings["ssl.keystore.location"] = tls.keyStore;
    settings["ssl.keystore.password"] = tls.keyStorePassword;
    settings["ssl.key.password"] = tls.keyStorePassword;
  }
  if (sasl) {
    const mechanisms = mechanismsOf(sasl);
    const users = Object.entries(sasl.users).map(([name, password]) => `user_${name}="${password}"`);
    const plain = `org.apache.kafka.common.security.plain.PlainLoginModule required ${users.join(" ")};`;
    const scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    settings["listener.name.client.sasl.enabled.mechanisms"] = mechanisms.join(",").toUpperCase();
    for (const mechanism of mechanisms) {
      settings[`listener.name.client.${mechanism}.sasl.jaas.config`] = mechanism === "plain" ? plain : scram;
    }
  }
  return settings;
}

/** With SCRAM the users are in the storage from its making on. */
function scramUsers({ sasl }: KafkaOptions): string[] {
  if (sasl === undefined || !mechanismsOf(sasl).includes("scram-sha-512")) return [];
  return Object.entries(sasl.users).map(
    ([name, password]) => `SCRAM-SHA-512=[name=${name},password=${password}]`,
  );
}

function mechanismsOf(sasl: KafkaOptions["sasl"]): readonly Mechanism[] {
  return [sasl?.mechanism ?? []].flat();
}
