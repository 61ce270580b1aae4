// compose.yaml: that it is well formed and confines what it starts, and that its commands work. There is no container
// engine here. So the same binaries, built from what the Dockerfile copies, are started as processes with the file's
// own arguments and environment, in its order, against real servers that run with the file's own settings; mapped are
// host names, ports and paths, nothing else.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import cassandra from "cassandra-driver";
import { namesOf, readConfig } from "../../lib/base/config.ts";
import packageFile from "../../package.json" with { type: "json" };
import { eventually, within } from "../support/builders.ts";
import {
  type Compose,
  cassandraFlags,
  composeText,
  durationMs,
  environmentOf,
  kafkaProperties,
  ROOT,
  readCompose,
  startOrder,
  variablesOf,
} from "../support/compose.ts";
import { ask, cqlOf, type Target } from "../support/grafana-plugin.ts";
import { clientOptions, startCassandra } from "../support/services/cassandra.ts";
import { startKafka } from "../support/services/kafka.ts";
import { freePort, type Server } from "../support/services/server.ts";
import { services as engines, uniqueName } from "../support/services/shared.ts";

/** A second or two, more where many processes share two cores. */
const LINT_MS_MAX = 60_000;
const OURS = ["init", "producer", "processor-1", "processor-2", "admin"];
const SAMPLE = Object.fromEntries(
  readFileSync(join(ROOT, "sample.env"), "utf8")
    .split("\n")
    .flatMap((line) => {
      const [, name, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
      return name === undefined ? [] : [[name, (value ?? "").replace(/^'(.*)'$/, "$1")] as const];
    }),
);
const fresh = readCompose(SAMPLE);
const dockerfile = readFileSync(join(ROOT, "Dockerfile"), "utf8");

// --- The file --------------------------------------------------------------------------------------------------

function lint(file: string) {
  const linter = join(ROOT, "node_modules/dclint/bin/dclint.cjs");
  const config = join(ROOT, ".dclintrc.yaml");
  const done = Bun.spawnSync([process.execPath, linter, "--config", config, "--max-warnings", "0", file]);
  return { code: done.exitCode, text: done.stdout.toString() + done.stderr.toString() };
}

test(
  "dclint and the schema of the compose specification find nothing in compose.yaml",
  () => {
    expect(lint(join(ROOT, "compose.yaml"))).toEqual({ code: 0, text: "\n" });
  },
  LINT_MS_MAX,
);

test.each([
  ["a key that there is not", /^ {4}mem_limit: 1g$/m, "    memory_limit: 1g", "/services/kafka"],
  ["a condition that there is not", /service_completed_successfully/, "service_done", "depends_on"],
  ["a port on every address", /"127\.0\.0\.1:9092:9092"/, '"9092:9092"', "9092"],
  ["an image without a version", /apache\/kafka:[\d.]+/, "apache/kafka", "apache/kafka"],
])(
  "they would find %s",
  (_, pattern, wrong, named) => {
    const directory = mkdtempSync(join(tmpdir(), "compose-"));
    try {
      expect(composeText()).toMatch(pattern);
      writeFileSync(join(directory, "compose.yaml"), composeText().replace(pattern, wrong));
      const { code, text } = lint(join(directory, "compose.yaml"));
      expect(code).not.toBe(0);
      expect(text).toContain(named);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  },
  LINT_MS_MAX,
);

test("every container has no capability, no way to new rights, a read-only root, limits, and a version", () => {
  for (const [name, service] of Object.entries(fresh.services)) {
    expect({ name, ...service }).toMatchObject({
      name,
      cap_drop: ["ALL"],
      security_opt: ["no-new-privileges:true"],
      read_only: true,
      mem_limit: expect.stringMatching(/^\d+[mg]$/),
      logging: { options: { "max-size": "10m" } },
      image: expect.stringMatching(/^[\w./-]+:v?\d+\.\d+\.\d+$/),
      restart: name === "init" ? "no" : "unless-stopped",
    });
    // Kafka's image has a user of its own, whose number it does not promise.
    if (name !== "kafka")
      expect({ name, user: service.user }).toEqual({ name, user: expect.stringMatching(/^[1-9]\d*:\d+$/) });
    if (name !== "init") expect({ name, test: service.healthcheck?.test[0] }).toEqual({ name, test: "CMD" });
  }
});

test("every port is published on this machine alone, Grafana's as the origin's", () => {
  const ports = Object.values(fresh.services).flatMap((service) => service.ports ?? []);
  for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/);
  expect(fresh.services.grafana?.ports).toEqual(["127.0.0.1:3003:3000"]);
  expect(fresh.services.grafana?.environment).toMatchObject({
    GF_SECURITY_ADMIN_USER: "admin",
    GF_SECURITY_ADMIN_PASSWORD: "admin",
  });
});

test("what must outlive a container lies in a named volume at the place where its program writes", () => {
  const places = Object.entries(fresh.services).flatMap(([name, { volumes = [] }]) =>
    volumes.filter((volume) => !volume.startsWith("./")).map((volume) => `${name} ${volume}`),
  );
  expect(places).toEqual([
    "kafka kafka:/var/lib/kafka/data",
    "cassandra cassandra:/var/lib/cassandra",
    "cassandra cassandra-logs:/var/log/cassandra",
    "producer outbox:/data",
    "admin admin:/data",
    "grafana grafana:/var/lib/grafana",
    "prometheus prometheus:/prometheus",
  ]);
  expect(Object.keys(fresh.volumes).sort()).toEqual(
    places.map((place) => /([\w-]+):/.exec(place)![1]!).sort(),
  );
  expect(fresh.services.kafka?.environment?.KAFKA_LOG_DIRS).toBe("/var/lib/kafka/data");
  for (const name of ["producer", "admin"]) expect(fresh.services[name]?.environment?.DATA_DIR).toBe("/data");
});

test("every file that is mounted is there", () => {
  const mounted = Object.values(fresh.services).flatMap(({ volumes = [] }) =>
    volumes.filter((volume) => volume.startsWith("./")).map((volume) => volume.split(":")[0]!),
  );
  expect(mounted.length).toBeGreaterThan(3);
  expect(mounted.filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
});

test("ours are asked for their health by their own binary, and get the time a stop may take", () => {
  for (const name of OURS) {
    const { command = [], healthcheck, stop_grace_period: grace = "0s" } = fresh.services[name]!;
    if (name !== "init") expect(healthcheck?.test).toEqual(["CMD", command[0]!, "healthcheck"]);
    // STOP_MS_MAX of lib/app/lifecycle.ts, and some more.
    expect(durationMs(grace)).toBeGreaterThanOrEqual(35_000);
  }
});

test("every setting of sample.env reaches the processes, or is compose.yaml's own to set", () => {
  const passed = variablesOf(composeText());
  const ours = new Set(OURS.flatMap((name) => Object.keys(fresh.services[name]?.environment ?? {})));
  const missing = Object.keys(SAMPLE).filter((name) => !passed.has(name) && !ours.has(name));
  expect(missing).toEqual([
    // A file of the host, which no container sees.
    "SIMULATOR_TAPE",
    // Inside the network of compose.yaml nothing is encrypted and nobody logs in.
    "KAFKA_SSL",
    "KAFKA_SSL_CA",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "CASSANDRA_USERNAME",
    "CASSANDRA_PASSWORD",
    "CASSANDRA_DATACENTER",
    "CASSANDRA_SSL",
    "CASSANDRA_SSL_CA",
    "CASSANDRA_GRAFANA_USERNAME",
    "CASSANDRA_GRAFANA_PASSWORD",
  ]);
  // And nothing is passed that nobody reads.
  expect([...ours].filter((name) => !(name in SAMPLE))).toEqual([]);
});

test("no process gets a secret that it does not need", () => {
  const holders = (name: string) =>
    OURS.filter((service) => name in (fresh.services[service]?.environment ?? {}));
  expect({
    token: holders("FINNHUB_API_TOKEN"),
    admin: holders("ADMIN_TOKEN"),
    grafana: holders("GRAFANA_PASSWORD"),
  }).toEqual({ token: ["producer", "admin"], admin: ["admin"], grafana: [] });
});

test.each(["", "0", "1", "true", "false"])(
  "with FINNHUB_SIMULATE=%s Grafana shows the keyspace that the processes write",
  (simulate) => {
    for (const keyspace of ["", "stocks"]) {
      const compose = readCompose({ FINNHUB_SIMULATE: simulate, CASSANDRA_KEYSPACE: keyspace });
      for (const name of OURS) {
        const config = readConfig(environmentOf(compose.services[name]!));
        expect(shownKeyspace(compose)).toBe(namesOf(config, config.source).keyspace);
      }
    }
  },
);

/** As Grafana fills the provisioning file with its environment. */
function shownKeyspace(compose: Compose): string {
  const environment = environmentOf(compose.services.grafana!);
  const text = readFileSync(join(ROOT, "grafana/provisioning/datasources/datasources.yaml"), "utf8");
  const { datasources } = Bun.YAML.parse(text) as { datasources: { jsonData: { keyspace: string } }[] };
  return datasources[0]!.jsonData.keyspace.replace(
    /\$\{(\w+)\}/g,
    (_, name: string) => environment[name] ?? "",
  );
}

// --- The image -------------------------------------------------------------------------------------------------

const copied = [...dockerfile.matchAll(/^COPY (?!--)(.+)$/gm)].map(([, words]) => {
  const paths = words!.split(/\s+/);
  return { from: paths.slice(0, -1), to: paths.at(-1)! };
});

test("the image is distroless, its user nobody's, and Bun the version of package.json", () => {
  const bases = [...dockerfile.matchAll(/^FROM (\S+)/gm)].map(([, base]) => base);
  expect(bases).toEqual([
    `oven/bun:${packageFile.devDependencies.bun}`,
    "gcr.io/distroless/base-nossl-debian12:nonroot",
  ]);
  expect(dockerfile).toMatch(/^USER 65532:65532$/m);
  expect(fresh.services.producer?.user).toBe("65532:65532");
  expect(fresh.services.producer?.image).toBe(`finnhub-realtime-pipeline:${packageFile.version}`);
  expect(dockerfile).toContain("bun-linux-x64-baseline");
});

test("what the Dockerfile copies is not ignored, and no secret is", () => {
  const ignore = readFileSync(join(ROOT, ".dockerignore"), "utf8").split("\n");
  const kept = ignore.filter((line) => line.startsWith("!")).map((line) => line.slice(1));
  expect(ignore).toContain("*");
  for (const path of copied.flatMap(({ from }) => from)) expect(kept).toContain(path.split("/")[0]!);
  expect(kept.filter((path) => /env|data|git|node_modules/.test(path))).toEqual([]);
});

// --- The commands ----------------------------------------------------------------------------------------------

const BUILD_MS_MAX = 120_000;
const START_MS_MAX = 180_000;
const STEP_MS_MAX = 90_000;
const SYMBOL = "BINANCE:BTCUSDT";

type Running = { child: Bun.Subprocess; stderr: () => string };

describe.skipIf(!engines.available)("the commands of compose.yaml, as processes", () => {
  const directory = mkdtempSync(join(tmpdir(), "stack-"));
  const name = uniqueName("market");
  /** What a user's .env would say; the names keep this run apart from another's. */
  const compose = readCompose({
    ...SAMPLE,
    FINNHUB_SIMULATE: "1",
    KAFKA_TOPIC_NAME: name,
    KAFKA_GROUP_ID: name,
    CASSANDRA_KEYSPACE: name,
  });
  const running = new Map<string, Running>();
  const ports = new Map<string, number>();
  let kafka: Server;
  let node: Server;

  beforeAll(async () => {
    buildImage();
    [kafka, node] = await Promise.all([
      startKafka({ properties: placeless(kafkaProperties(compose.services.kafka!.environment!)) }),
      startCassandra({ jvm: jvmFlags() }),
    ]);
    for (const [service, port] of [
      ["producer", "8081"],
      ["processor-1", "8082"],
      ["processor-2", "8082"],
      ["admin", "8080"],
    ] as const)
      ports.set(`${service}:${port}`, await freePort());
  }, BUILD_MS_MAX + START_MS_MAX);

  afterAll(async () => {
    for (const { child } of running.values()) child.kill("SIGKILL");
    await Promise.all([...running.values()].map(({ child }) => child.exited));
    await Promise.all([kafka, node].map((server) => server?.[Symbol.asyncDispose]()));
    rmSync(directory, { recursive: true, force: true });
  }, START_MS_MAX);

  /** The build stage: what is copied into it, and its command, for this machine. */
  function buildImage(): void {
    const source = join(directory, "source");
    mkdirSync(source);
    for (const { from, to } of copied)
      for (const pattern of from)
        for (const path of new Bun.Glob(pattern).scanSync({ cwd: ROOT, onlyFiles: false })) {
          const target = to.endsWith("/") ? join(source, to, path.split("/").at(-1)!) : join(source, to);
          mkdirSync(dirname(target), { recursive: true });
          cpSync(join(ROOT, path), target, { recursive: true });
        }
    symlinkSync(join(ROOT, "node_modules"), join(source, "node_modules"));
    const command = [process.execPath, "scripts/build.ts", "--outdir", join(directory, "usr/local/bin")];
    const build = Bun.spawnSync(command, { cwd: source, timeout: BUILD_MS_MAX });
    if (!build.success) throw new Error(`no binaries: ${build.stderr}${build.stdout}`);
    rmSync(source, { recursive: true, force: true });
  }

  /** All but where it listens, where it keeps its data and who it is. */
  function placeless(properties: Record<string, string>): Record<string, string> {
    const placed = /listener|^log\.dirs$|quorum|^node\.id$|^process\.roles$/;
    return Object.fromEntries(Object.entries(properties).filter(([key]) => !placed.test(key)));
  }

  const jvmFlags = () => cassandraFlags(compose, "127.0.0.1");

  /** An environment of compose.yaml on this machine: host names, ports and paths mapped, the rest as it is. */
  function mapped(service: string): Record<string, string> {
    const image = {
      ...Object.fromEntries([...dockerfile.matchAll(/(\w+)=(\S+)/g)].map(([, k, v]) => [k, v])),
    };
    const mine: Record<string, string> = { ...environmentOf(compose.services[service]!) };
    for (const key of ["BIND_ADDRESS", "DATA_DIR", "LOG_FORMAT"]) mine[key] ??= String(image[key]);
    const places: Record<string, string> = {
      "kafka 19092": `${kafka.host} ${kafka.port}`,
      "cassandra 9042": `${node.host} ${node.port}`,
    };
    for (const [host, port] of [
      ["KAFKA_SERVER", "KAFKA_PORT"],
      ["CASSANDRA_HOST", "CASSANDRA_PORT"],
    ] as const) {
      const place = places[`${mine[host]} ${mine[port]}`];
      if (place === undefined) throw new Error(`nobody is at ${mine[host]}:${mine[port]}`);
      [mine[host], mine[port]] = place.split(" ") as [string, string];
    }
    for (const key of ["PRODUCER_PORT", "PROCESSOR_PORT", "ADMIN_PORT"])
      if (mine[key]) mine[key] = String(ports.get(`${service}:${mine[key]}`));
    for (const key of ["PRODUCER_URL", "PROCESSOR_URL"])
      if (mine[key])
        mine[key] = mine[key].replace(/http:\/\/([\w-]+:\d+)/g, (_, place: string) => {
          if (!ports.has(place)) throw new Error(`nobody is at ${place}`);
          return `http://127.0.0.1:${ports.get(place)}`;
        });
    if (mine.BIND_ADDRESS !== "0.0.0.0") throw new Error("other containers could not reach it");
    return { ...mine, BIND_ADDRESS: "127.0.0.1", DATA_DIR: join(directory, service, mine.DATA_DIR!) };
  }

  const binary = (word: string) => join(directory, "usr/local/bin", word);

  function start(service: string): void {
    const [word, ...args] = compose.services[service]!.command!;
    const cwd = join(directory, service);
    mkdirSync(join(cwd, "data"), { recursive: true });
    const child = Bun.spawn([binary(word!), ...args], {
      cwd,
      env: mapped(service),
      stdout: "pipe",
      stderr: "pipe",
    });
    let stderr = "";
    const decoder = new TextDecoder();
    for (const stream of [child.stdout, child.stderr])
      void (async () => {
        for await (const chunk of stream) stderr += decoder.decode(chunk, { stream: true });
      })();
    running.set(service, { child, stderr: () => stderr });
  }

  /** As Docker asks: by the health check's own command, in the container's own environment. */
  async function isHealthy(service: string): Promise<string | null> {
    const [, word, ...args] = compose.services[service]!.healthcheck!.test;
    const child = Bun.spawn([binary(word!), ...args], {
      cwd: join(directory, service),
      env: mapped(service),
      stdout: "pipe",
      stderr: "pipe",
    });
    const [text, code] = await Promise.all([child.stdout.text(), child.exited]);
    return code === 0 ? text.trim() : null;
  }

  test(
    "started in the file's order everything becomes healthy, rows come, Grafana's questions are answered, and a stop is clean",
    async () => {
      const startedAt = performance.now();
      const say = (text: string) =>
        console.log(`${((performance.now() - startedAt) / 1_000).toFixed(1).padStart(6)} s  ${text}`);
      const order = startOrder(compose.services).filter((service) => !compose.services[service]!.profiles);
      say(`order: ${order.join(", ")}`);
      expect(order.slice(0, 3)).toEqual(["kafka", "cassandra", "init"]);
      say(
        `kafka: answers, with ${Object.keys(placeless(kafkaProperties(compose.services.kafka!.environment!))).length} settings of compose.yaml`,
      );
      await expectNodeSettings(say);

      for (const service of order.filter((one) => OURS.includes(one))) {
        for (const [dependency, { condition }] of Object.entries(
          compose.services[service]!.depends_on ?? {},
        )) {
          if (condition !== "service_completed_successfully") continue;
          expect({ dependency, code: running.get(dependency)?.child.exitCode }).toEqual({
            dependency,
            code: 0,
          });
        }
        start(service);
        if (service !== "init") continue;
        const { child, stderr } = running.get(service)!;
        const code = await within(STEP_MS_MAX, "the end of init", () => child.exited);
        expect({ code, said: stderr() }).toMatchObject({ code: 0 });
        say(`init: ended with 0: ${stderr().trim().split("\n").join("; ")}`);
      }
      for (const service of OURS.slice(1)) {
        let health: string | null = null;
        await eventually(STEP_MS_MAX, `${service} is healthy`, async () => {
          const { child, stderr } = running.get(service)!;
          if (child.exitCode !== null) throw new Error(`${service} ended: ${stderr()}`);
          health = await isHealthy(service);
          return health !== null;
        });
        say(`${service}: ${health}`);
      }

      const keyspace = shownKeyspace(compose);
      expect(keyspace).toBe(`${name}_simulated`);
      const client = new cassandra.Client({ ...clientOptions(node.port), keyspace });
      try {
        let row: unknown;
        await eventually(STEP_MS_MAX, "the first row", async () => {
          row = (await client.execute("SELECT symbol, price, trade_timestamp FROM trades LIMIT 1")).first();
          return row !== null;
        });
        say(`first row in ${keyspace}.trades: ${JSON.stringify(row)}`);
        await expectAnswers(client, say);
      } finally {
        await client.shutdown();
      }

      for (const service of OURS.slice(1).reverse()) {
        const { child, stderr } = running.get(service)!;
        child.kill("SIGTERM");
        const graceMs = durationMs(compose.services[service]!.stop_grace_period!);
        const code = await within(graceMs, `the end of ${service}`, () => child.exited);
        expect({ service, code, said: code === 0 ? "" : stderr() }).toEqual({ service, code: 0, said: "" });
        say(`${service}: stopped with 0`);
      }
    },
    10 * STEP_MS_MAX,
  );

  /** The node says itself that it runs with what compose.yaml gives it. */
  async function expectNodeSettings(say: (text: string) => void): Promise<void> {
    const given = jvmFlags().flatMap((flag) => {
      const [, setting, value] = /^-Dcassandra\.settings\.(\w+)=(.*)$/.exec(flag) ?? [];
      return setting === undefined ? [] : [[setting, value] as const];
    });
    expect(given.length).toBeGreaterThan(3);
    const client = new cassandra.Client(clientOptions(node.port));
    try {
      const { rows } = await client.execute("SELECT name, value FROM system_views.settings");
      const known = new Map(rows.map((row) => [String(row.name), String(row.value)]));
      for (const [setting, value] of given) {
        expect({ setting, value: known.get(setting)?.replace(/^(\w+)_ADDRESS$/, "$1") }).toEqual({
          setting,
          value,
        });
      }
      say(`cassandra: answers, with ${given.map((pair) => pair.join("=")).join(" ")}`);
    } finally {
      await client.shutdown();
    }
  }

  async function expectAnswers(client: cassandra.Client, say: (text: string) => void): Promise<void> {
    const { panels } = JSON.parse(readFileSync(join(ROOT, "grafana/dashboards/market.json"), "utf8")) as {
      panels: { title: string; targets: Target[] }[];
    };
    const range = { fromMs: Date.now() - 900_000, toMs: Date.now() };
    for (const { title, targets } of panels) {
      for (const target of targets) {
        let rowCount = 0;
        let tookMs = 0;
        await eventually(STEP_MS_MAX, `rows for ${title}`, async () => {
          const askedAt = performance.now();
          const frames = await ask(client, cqlOf(target, { symbol: SYMBOL }, range));
          tookMs = performance.now() - askedAt;
          expect(frames.every((frame) => frame.name === SYMBOL)).toBe(true);
          rowCount = frames[0]?.fields[0]?.values.length ?? 0;
          return rowCount > 0;
        });
        say(`Grafana, ${title}, ${target.refId}: ${rowCount} rows in ${tookMs.toFixed(0)} ms`);
      }
    }
  }
});
