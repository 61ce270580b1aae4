// What the questions about Kafka and Cassandra share: a pair of real servers of their own, the compiled binaries, and
// an eye on the topic that takes nobody's word. It measures nothing.

import { join } from "node:path";
import { type Admin, CompressionCodecs, CompressionTypes, Kafka, logLevel } from "kafkajs";
import {
  buildBinaries,
  runCommand,
  type ServiceProcess,
  type Settings,
  startService,
} from "../tests/support/processes.ts";
import { DATACENTER, startCassandra } from "../tests/support/services/cassandra.ts";
import { startKafka } from "../tests/support/services/kafka.ts";
import { uniqueName } from "../tests/support/services/shared.ts";
import { cpuSecondsOf, ended, linesOf, now } from "./children.ts";

const REQUEST_MS_MAX = 30_000;
/** Without anything new for so long something is broken. */
export const STALL_MS_MAX = 30_000;

CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async ({ buffer }: { buffer: Buffer }) => Bun.zstdCompress(buffer, { level: 1 }),
  decompress: async (buffer: Buffer) => Bun.zstdDecompress(buffer),
});

export type Engines = Awaited<ReturnType<typeof openEngines>>;

export async function openEngines() {
  await using opened = new AsyncDisposableStack();
  const [kafka, cassandra] = await Promise.all([
    startKafka({ isOptimized: true }).then((server) => opened.use(server)),
    startCassandra({ isOptimized: true }).then((server) => opened.use(server)),
  ]);
  const binaries = opened.use(buildBinaries());
  const broker = `${kafka.host}:${kafka.port}`;
  const node = `${cassandra.host}:${cassandra.port}`;
  const client = new Kafka({
    brokers: [broker],
    clientId: "bench",
    logLevel: logLevel.NOTHING,
    requestTimeout: REQUEST_MS_MAX,
  });
  const admin = client.admin();
  await admin.connect();
  opened.defer(() => admin.disconnect());
  const held = opened.move();

  /** Settings of a pipeline of its own, with its topics and tables made. */
  async function pipeline(directory: string, more: Settings = {}): Promise<Settings> {
    const name = uniqueName("market");
    const settings = {
      KAFKA_SERVER: broker,
      CASSANDRA_HOST: node,
      KAFKA_TOPIC_NAME: name,
      KAFKA_GROUP_ID: name,
      CASSANDRA_KEYSPACE: name,
      DATA_DIR: join(directory, name),
      FINNHUB_API_TOKEN: "bench-token",
      FINNHUB_VALIDATE_TICKERS: "0",
      LOG_LEVEL: "warn",
      ...more,
    };
    const { code, out, err } = await runCommand(binaries.path("admin"), ["init"], settings);
    if (code !== 0) throw new Error(`admin init ended with ${code}\n${out}${err}`);
    return settings;
  }

  return {
    kafka,
    cassandra,
    client,
    pipeline,
    binary: binaries.path,
    start: (name: "producer" | "processor", settings: Settings): Promise<ServiceProcess> =>
      startService(binaries.path(name), settings),
    /** Ready when this resolves; its further lines are in `lines`. */
    async floor(what: string, settings: Settings, more: Readonly<Record<string, unknown>> = {}) {
      const given = {
        broker,
        node,
        datacenter: DATACENTER,
        topic: settings.KAFKA_TOPIC_NAME,
        group: uniqueName("floor"),
        keyspace: settings.CASSANDRA_KEYSPACE,
        ...more,
      };
      const child = Bun.spawn(
        [process.execPath, join(import.meta.dir, "floors-engines.ts"), what, JSON.stringify(given)],
        { stdin: "ignore", stdout: "pipe", stderr: "inherit" },
      );
      const lines = linesOf(child.stdout);
      const { value } = await lines.next();
      if (value !== "ready") throw new Error(`the floor ${what} did not begin: ${value}`);
      return { pid: child.pid, lines, exited: child.exited, [Symbol.asyncDispose]: () => ended(child) };
    },
    /** Records of the topic that its broker has acknowledged, of all partitions. */
    recordCount: (topic: string) => recordCount(admin, topic),
    cpuSeconds: () => ({ kafka: cpuSecondsOf(kafka.pid), cassandra: cpuSecondsOf(cassandra.pid) }),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

async function recordCount(admin: Admin, topic: string): Promise<number> {
  const offsets = await admin.fetchTopicOffsets(topic);
  return offsets.reduce((sum, { high }) => sum + Number(high), 0);
}

/** Asks until the answer is yes. */
export async function until(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  everyMs = 20,
): Promise<void> {
  const endMs = now() + STALL_MS_MAX;
  while (!(await isSo())) {
    if (now() > endMs) throw new Error(`not within ${STALL_MS_MAX} ms: ${what}`);
    await Bun.sleep(everyMs);
  }
}
