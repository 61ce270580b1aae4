// producer, processor and admin as a stranger gets them: one file each, started in an empty directory, with engines
// that are not there, that hang, that were never set up, and at last that are well. (dist/local is binary.test.ts.)

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { eventually, temporaryDirectory, within } from "../support/builders.ts";
import {
  addressesOf,
  buildBinaries,
  mustRun,
  ownNames,
  runCommand,
  type ServiceProcess,
  type Settings,
  startService,
} from "../support/processes.ts";
import { services, sharedCassandra, sharedKafka, uniqueName } from "../support/services/shared.ts";

const SERVICES = ["producer", "processor", "admin"] as const;
const COMMANDS = {
  producer: ["healthcheck", "replay"],
  processor: ["healthcheck"],
  admin: ["healthcheck", "import", "init", "replay", "verify"],
};
const PORTS = { producer: "PRODUCER_PORT", processor: "PROCESSOR_PORT", admin: "ADMIN_PORT" };
const TEST_MS_MAX = 180_000;
const READY_MS_MAX = 60_000;
/** Far below every time-out of a client: nobody waits for an answer any longer. */
const STOP_MS_MAX = 5_000;
const SECRET = "hush-hush-token";

let binaries: ReturnType<typeof buildBinaries>;
beforeAll(() => {
  binaries = buildBinaries();
}, TEST_MS_MAX);
afterAll(() => binaries?.[Symbol.dispose]());

const SOURCE: Settings = { FINNHUB_WS_URL: "ws://127.0.0.1:1", FINNHUB_API_TOKEN: SECRET };

/** How long the process takes to end well after one SIGTERM. */
async function stopMs(service: ServiceProcess): Promise<number> {
  const fromMs = performance.now();
  expect(await service.stop()).toBe(0);
  return performance.now() - fromMs;
}

for (const name of SERVICES) {
  test(
    `${name} answers --version, --help with its commands, and --check-config from an empty directory and leaves it empty`,
    async () => {
      using directory = temporaryDirectory();
      const settings = { ...SOURCE, DATA_DIR: directory.path };
      const run = (...args: string[]) => runCommand(binaries.path(name), args, settings);
      const version = await run("--version");
      expect(version).toMatchObject({ code: 0, err: "" });
      expect(version.out).toMatch(/^\d+\.\d+\.\d+\S*\n$/);
      const help = await run("--help");
      expect(help).toMatchObject({ code: 0, err: "" });
      const commands = [...help.out.matchAll(/^ {2}([a-z]+) /gm)].map(([, command]) => command!);
      expect(commands.sort()).toEqual(COMMANDS[name]);
      const config = await run("--check-config");
      expect(config).toMatchObject({ code: 0, err: "" });
      expect(config.out).toContain("KAFKA_TOPIC_NAME=market");
      expect(config.out).not.toContain(SECRET);
      expect(readdirSync(directory.path)).toEqual([]);
    },
    TEST_MS_MAX,
  );

  test(
    `${name} tells all wrong settings at once, and an unknown command, and nothing starts`,
    async () => {
      using directory = temporaryDirectory();
      const wrong = {
        ...SOURCE,
        DATA_DIR: directory.path,
        KAFKA_PORT: "kafka",
        CASSANDRA_CONSISTENCY: "MOST",
        KAFKA_SASL_USERNAME: "someone",
        ADMIN_TOKN: SECRET,
      };
      const refused = await runCommand(binaries.path(name), [], wrong);
      expect(refused.code).toBe(1);
      for (const setting of [
        "KAFKA_PORT",
        "CASSANDRA_CONSISTENCY",
        "KAFKA_SASL_USERNAME",
        "did you mean ADMIN_TOKEN",
      ])
        expect(refused.err).toContain(setting);
      expect(refused.err + refused.out).not.toContain(SECRET);
      const unknown = await runCommand(binaries.path(name), ["destroy"], { DATA_DIR: directory.path });
      expect(unknown.code).toBe(1);
      expect(unknown.err).toContain("unknown command 'destroy'");
      expect(readdirSync(directory.path)).toEqual([]);
    },
    TEST_MS_MAX,
  );

  test(
    `${name} waits for engines that are not up and for one that hangs, says so on /health, and stops at once all the same`,
    async () => {
      // Takes every connection and never says a word, as a stopped broker or node does.
      using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
      for (const port of [1, silent.port]) {
        using directory = temporaryDirectory();
        const settings = {
          ...SOURCE,
          DATA_DIR: directory.path,
          KAFKA_PORT: String(port),
          CASSANDRA_PORT: String(port),
          LOG_LEVEL: "warn",
        };
        await using service = await startService(binaries.path(name), settings);
        const waitsFor = { producer: ["Kafka"], processor: ["Kafka", "Cassandra"], admin: ["Cassandra"] }[
          name
        ];
        await eventually(5_000, "it says what it waits for, and why", async () => {
          const { code, reason } = await service.health();
          const isNamed = waitsFor.every((engine) => reason?.includes(`${engine}`));
          return code === 503 && isNamed && (port !== 1 || reason!.includes("ECONNREFUSED"));
        });
        const elsewhere = await fetch(`${service.url}/trades`);
        expect(elsewhere.status).toBe(404);
        expect(await elsewhere.json()).toEqual({ error: expect.stringContaining("/health and /metrics") });
        expect((await fetch(`${service.url}/metrics`)).status).toBe(200);
        const check = await runCommand(binaries.path(name), ["healthcheck"], {
          ...settings,
          [PORTS[name]]: new URL(service.url).port,
        });
        expect(check.code).toBe(1);
        expect(check.out).toContain("answered 503: start: waiting");
        expect(await stopMs(service)).toBeLessThan(STOP_MS_MAX);
        expect(service.stderr()).not.toContain(SECRET);
      }
    },
    TEST_MS_MAX,
  );
}

test(
  "a producer without a source refuses with a sentence that names both ways out; processor and admin need none",
  async () => {
    using directory = temporaryDirectory();
    for (const args of [[], ["--check-config"]]) {
      const refused = await runCommand(binaries.path("producer"), args, { DATA_DIR: directory.path });
      expect(refused.code).toBe(1);
      expect(refused.err).toContain("FINNHUB_API_TOKEN");
      expect(refused.err).toContain("FINNHUB_SIMULATE=1");
    }
    for (const name of ["processor", "admin"] as const) {
      const config = await runCommand(binaries.path(name), ["--check-config"], { DATA_DIR: directory.path });
      expect(config.code).toBe(0);
    }
  },
  TEST_MS_MAX,
);

test(
  "a port that is taken is told with the setting of that binary, and healthcheck fails where nobody listens",
  async () => {
    using directory = temporaryDirectory();
    using taken = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    for (const name of SERVICES) {
      const settings = { ...SOURCE, DATA_DIR: directory.path };
      const refused = await runCommand(binaries.path(name), [], {
        ...settings,
        [PORTS[name]]: `${taken.port}`,
      });
      expect(refused.code).toBe(1);
      expect(refused.err).toContain(PORTS[name]);
      const check = await runCommand(binaries.path(name), ["healthcheck"], {
        ...settings,
        [PORTS[name]]: "1",
      });
      expect(check.code).toBe(1);
      expect(check.out).toContain("failing: http://127.0.0.1:1/health");
    }
  },
  TEST_MS_MAX,
);

describe.skipIf(!services.available)("on real engines", () => {
  let engines: Settings;
  beforeAll(async () => {
    const [kafka, cassandra] = await Promise.all([sharedKafka(), sharedCassandra()]);
    engines = {
      ...addressesOf(kafka, cassandra),
      KAFKA_SESSION_TIMEOUT_MS: "6000",
      LOG_LEVEL: "warn",
      FINNHUB_VALIDATE_TICKERS: "0",
    };
  }, TEST_MS_MAX);

  const ownPipeline = (directory: string): Settings => ({
    ...engines,
    ...SOURCE,
    ...ownNames(),
    DATA_DIR: directory,
  });

  test(
    "engines that were never set up end each binary with `admin init`, and half of a set-up with what is missing",
    async () => {
      using directory = temporaryDirectory();
      const settings = ownPipeline(directory.path);
      for (const name of SERVICES) {
        const ended = await runCommand(binaries.path(name), [], { ...settings, [PORTS[name]]: "0" });
        expect(ended.code).toBe(1);
        expect(ended.err).toContain("run `admin init`");
      }
      await mustRun(binaries.path("admin"), ["init"], settings);
      const elsewhere = { ...settings, CASSANDRA_KEYSPACE: uniqueName("none") };
      for (const name of ["processor", "admin"] as const) {
        const ended = await runCommand(binaries.path(name), [], { ...elsewhere, [PORTS[name]]: "0" });
        expect(ended.code).toBe(1);
        expect(ended.err).toContain("run `admin init`");
        expect(ended.err).toContain(elsewhere.CASSANDRA_KEYSPACE);
      }
      const topicless = { ...settings, KAFKA_TOPIC_NAME: uniqueName("none") };
      for (const name of SERVICES) {
        const ended = await runCommand(binaries.path(name), [], { ...topicless, [PORTS[name]]: "0" });
        expect(ended.code).toBe(1);
        expect(ended.err).toContain(topicless.KAFKA_TOPIC_NAME);
        expect(ended.err).toContain("run `admin init`");
      }
    },
    TEST_MS_MAX,
  );

  test(
    "a Kafka that hangs behind a Cassandra that is well is named, and keeps nobody from stopping",
    async () => {
      using silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
      using directory = temporaryDirectory();
      const settings = ownPipeline(directory.path);
      await mustRun(binaries.path("admin"), ["init"], settings);
      for (const name of ["processor", "admin"] as const) {
        await using service = await startService(binaries.path(name), {
          ...settings,
          KAFKA_PORT: String(silent.port),
        });
        await eventually(
          READY_MS_MAX,
          "it waits for Kafka alone",
          async () =>
            /^start: waiting for \d+ s for (.*?)(?: \(.*\))?$/.exec(
              (await service.health()).reason ?? "",
            )?.[1] === "Kafka",
        );
        expect(await stopMs(service)).toBeLessThan(STOP_MS_MAX);
      }
    },
    TEST_MS_MAX,
  );

  test(
    "healthcheck is 0 when the process is well, and SIGTERM ends each at once",
    async () => {
      using directory = temporaryDirectory();
      const settings = ownPipeline(directory.path);
      await mustRun(binaries.path("admin"), ["init"], settings);
      for (const name of SERVICES) {
        await using service = await startService(binaries.path(name), settings);
        const port = { [PORTS[name]]: new URL(service.url).port };
        // Alone admin shows that the others are gone.
        const isWell = name !== "admin";
        await eventually(READY_MS_MAX, `${name} has its parts`, async () => {
          const { code, reason } = await service.health();
          return isWell ? code === 200 : reason!.includes("producer:");
        });
        const check = await runCommand(binaries.path(name), ["healthcheck"], { ...settings, ...port });
        expect(check.code).toBe(isWell ? 0 : 1);
        expect(await stopMs(service)).toBeLessThan(STOP_MS_MAX);
      }
    },
    TEST_MS_MAX,
  );

  test(
    "a producer that waits whether a silent one is alive says so, stops at once, and takes over when it has waited",
    async () => {
      using directory = temporaryDirectory();
      const settings = ownPipeline(directory.path);
      await mustRun(binaries.path("admin"), ["init"], settings);
      const isHolding = async (service: ServiceProcess) =>
        (await service.metric("log_bytes")) >= 0 && (await service.health()).code === 200;
      await using first = await startService(binaries.path("producer"), settings);
      await eventually(READY_MS_MAX, "the first holds the topic", () => isHolding(first));
      await first.kill();
      const other = { ...settings, DATA_DIR: join(directory.path, "other") };
      for (const isLast of [false, true]) {
        await using heir = await startService(binaries.path("producer"), other);
        await eventually(READY_MS_MAX, "it waits", async () =>
          ((await heir.health()).reason ?? "").includes("the lease on the feed"),
        );
        if (isLast) await eventually(READY_MS_MAX, "it holds the topic", () => isHolding(heir));
        expect(await stopMs(heir)).toBeLessThan(STOP_MS_MAX);
      }
      // Its own process that was killed it does not wait for.
      await using again = await startService(binaries.path("producer"), other);
      await within(READY_MS_MAX, "the feed", () =>
        eventually(READY_MS_MAX, "it holds", () => isHolding(again)),
      );
      expect(await stopMs(again)).toBeLessThan(STOP_MS_MAX);
    },
    TEST_MS_MAX,
  );
});
