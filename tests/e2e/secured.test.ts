// What a user's own engines ask for: Kafka over TLS with SASL, Cassandra over TLS with a user who may do no more than
// he must. The compiled binaries work there as anywhere; and with a wrong secret or authority each ends at once, with
// one sentence that names the setting, after a handful of connections and without a secret in any line.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import cassandra from "cassandra-driver";
import { startSimulator } from "../../lib/simulator/simulator.ts";
import { parseTape } from "../../lib/simulator/tape.ts";
import { eventually, seeded, temporaryDirectory, within } from "../support/builders.ts";
import { aggregateProblems, ofRow, ofTape, plainOf, tradeProblems } from "../support/compare.ts";
import {
  addressesOf,
  buildBinaries,
  mustRun,
  ownNames,
  runCommand,
  type Settings,
  startService,
} from "../support/processes.ts";
import { type CassandraOptions, clientOptions, startCassandra } from "../support/services/cassandra.ts";
import { type Certificates, createCertificates } from "../support/services/certificates.ts";
import { startKafka } from "../support/services/kafka.ts";
import type { Server } from "../support/services/server.ts";
import { services, sharedKafka, uniqueName } from "../support/services/shared.ts";
import { readCassandra } from "../support/tables.ts";
import type { TapeTrade } from "../support/tapes.ts";

const SERVICES_MS_MAX = 180_000;
const STREAM_MS_MAX = 60_000;
/** Of all mistakes of one kind: a start takes half a second where nobody else wants the processor. */
const MISTAKES_MS_MAX = 180_000;
/**
 * One to learn of the mistake, and two to see what speaks at the port where that explains it; and two parts of a
 * process may begin at the same moment.
 */
const CONNECTIONS_MAX = 6;

/** With signs that have a meaning in a URL, in JSON and in Kafka's own protocol. */
const KAFKA_USER = "pipeline";
const KAFKA_PASSWORD = "kafka-p@ss=word+1%20";
const CASSANDRA_USER = "pipeline";
const CASSANDRA_PASSWORD = 'cassandra-p@ss"word+2';
const WRONG_PASSWORD = "wr0ng-p@ss=word+3";
const TOKEN = "feed-token-4711";
const SECRETS = [KAFKA_PASSWORD, CASSANDRA_PASSWORD, WRONG_PASSWORD, TOKEN];

type Binaries = ReturnType<typeof buildBinaries>;
let binaries: Binaries;
let certificates: Certificates;
let broker: Server;
let node: Server;
/** All that is right, but for names and a source. */
let right: Settings;
/** Of topics and tables that are there: in these one mistake is the only one. */
let made: Settings;
let nodeOptions: CassandraOptions;

describe.skipIf(!services.available)("with TLS and passwords", () => {
  beforeAll(async () => {
    binaries = buildBinaries();
    certificates = await createCertificates();
    const sasl = {
      mechanism: ["scram-sha-512", "plain"],
      users: { [KAFKA_USER]: KAFKA_PASSWORD },
    } as const;
    nodeOptions = { tls: certificates, authenticator: "password" };
    [broker, node] = await Promise.all([
      startKafka({ tls: certificates, sasl }),
      startCassandra(nodeOptions),
      sharedKafka(),
    ]);
    await createCassandraUser();
    right = {
      ...addressesOf(broker, node),
      KAFKA_SSL: "1",
      KAFKA_SSL_CA: certificates.caFile,
      KAFKA_SASL_MECHANISM: "scram-sha-512",
      KAFKA_SASL_USERNAME: KAFKA_USER,
      KAFKA_SASL_PASSWORD: KAFKA_PASSWORD,
      CASSANDRA_SSL: "1",
      CASSANDRA_SSL_CA: certificates.caFile,
      CASSANDRA_USERNAME: CASSANDRA_USER,
      CASSANDRA_PASSWORD,
      FINNHUB_WS_URL: "ws://127.0.0.1:1",
      FINNHUB_API_TOKEN: TOKEN,
      FINNHUB_VALIDATE_TICKERS: "0",
      KAFKA_SESSION_TIMEOUT_MS: "6000",
      // Every line that could hold a secret.
      LOG_LEVEL: "debug",
    };
    made = ownNames(uniqueName("made"));
    await mustRun(binaries.path("admin"), ["init"], { ...right, ...made });
  }, SERVICES_MS_MAX);
  afterAll(async () => {
    await Promise.all([broker, node].map((server) => server?.[Symbol.asyncDispose]()));
    certificates?.[Symbol.dispose]();
    binaries?.[Symbol.dispose]();
  }, SERVICES_MS_MAX);

  /** Who may make a keyspace, and with it owns what is in it: `admin init` needs no more. */
  async function createCassandraUser(): Promise<void> {
    const client = new cassandra.Client(clientOptions(node.port, nodeOptions));
    try {
      await client.execute(
        `CREATE ROLE ${CASSANDRA_USER} WITH PASSWORD = '${CASSANDRA_PASSWORD}' AND LOGIN = true`,
      );
      await client.execute(`GRANT CREATE ON ALL KEYSPACES TO ${CASSANDRA_USER}`);
    } finally {
      await client.shutdown();
    }
  }

  /** The same settings, this secret from a file instead. */
  function secretsInFiles(settings: Settings, directory: string, names: readonly string[]): Settings {
    const files = names.map((name) => {
      const path = join(directory, name);
      writeFileSync(path, `${settings[name]}\n`);
      return [`${name}_FILE`, path] as const;
    });
    const others = Object.entries(settings).filter(([name]) => !names.includes(name));
    return Object.fromEntries([...others, ...files]);
  }

  // --- The right ones ------------------------------------------------------------------------------------------

  for (const [mechanism, tradeCount] of [
    ["scram-sha-512", 2_000],
    ["plain", 500],
  ] as const) {
    test(
      `with ${mechanism} every trade of a stream ends up in the tables, and admin finds everything well`,
      async () => {
        using directory = temporaryDirectory();
        const { trades, tape } = streamOf(tradeCount);
        await using simulator = await startSimulator({
          tape,
          speed: "max",
          times: "recorded",
          token: TOKEN,
          ledger: false,
        });
        const name = uniqueName("market");
        const given = {
          ...right,
          ...ownNames(name),
          KAFKA_SASL_MECHANISM: mechanism,
          FINNHUB_WS_URL: simulator.wsUrl,
          FINNHUB_STOCKS_TICKERS: JSON.stringify([...tape.symbols]),
          DATA_DIR: directory.path,
        };
        // One of the two takes its secrets as a container orchestrator hands them out.
        const settings =
          mechanism === "plain"
            ? given
            : secretsInFiles(given, directory.path, [
                "KAFKA_SASL_PASSWORD",
                "CASSANDRA_PASSWORD",
                "FINNHUB_API_TOKEN",
              ]);
        const init = await runCommand(binaries.path("admin"), ["init"], settings);
        expect(init).toMatchObject({ code: 0 });
        expect(init.out).toContain("made the topic");
        expect(init.out).toContain("created the keyspace");

        let said = init.out + init.err;
        {
          await using processor = await startService(binaries.path("processor"), settings);
          await using producer = await startService(binaries.path("producer"), settings);
          await using admin = await startService(binaries.path("admin"), {
            ...settings,
            PRODUCER_URL: producer.url,
            PROCESSOR_URL: processor.url,
          });
          await within(STREAM_MS_MAX, "the stream's end", () => simulator.tapeEnded);
          await eventually(
            STREAM_MS_MAX,
            "every trade stored",
            async () => (await processor.metric("processor_rows_stored_total")) >= trades.length,
          );
          await eventually(STREAM_MS_MAX, "admin finds everything well", async () => {
            const { status, parts } = await admin.health();
            return status === "ok" && Object.keys(parts).includes("processor");
          });
          const { parts } = await admin.health();
          for (const name of ["producer", "processor", "kafka", "cassandra", "live"])
            expect([name, parts[name]?.ok]).toEqual([name, true]);
          for (const service of [producer, processor, admin]) {
            expect(await service.stop()).toBe(0);
            said += service.stderr();
          }
        }
        for (const secret of SECRETS) expect(said).not.toContain(secret);

        const tables = await readCassandra(clientOptions(node.port, nodeOptions), name);
        expect(tradeProblems(trades.map(ofTape), tables.trades.map(ofRow))).toEqual([]);
        expect(aggregateProblems(tables, trades.map(plainOf))).toEqual([]);
      },
      3 * STREAM_MS_MAX,
    );
  }

  // --- The wrong ones ------------------------------------------------------------------------------------------

  type Mistake = Readonly<{
    what: string;
    engine: "KAFKA" | "CASSANDRA";
    changed: () => Settings | Promise<Settings>;
    sentence: RegExp;
    /** The setting to change: it must be named. */
    setting: RegExp;
  }>;

  const mistakes: readonly Mistake[] = [
    {
      what: "a wrong Kafka password (SCRAM)",
      engine: "KAFKA",
      changed: () => ({ KAFKA_SASL_PASSWORD: WRONG_PASSWORD }),
      sentence: /^Kafka refuses the user or its password/,
      setting: /KAFKA_SASL_PASSWORD/,
    },
    {
      what: "a wrong Kafka password (PLAIN)",
      engine: "KAFKA",
      changed: () => ({ KAFKA_SASL_MECHANISM: "plain", KAFKA_SASL_PASSWORD: WRONG_PASSWORD }),
      sentence: /^Kafka refuses the user or its password/,
      setting: /KAFKA_SASL_PASSWORD/,
    },
    {
      what: "a foreign authority for Kafka",
      engine: "KAFKA",
      changed: () => ({ KAFKA_SSL_CA: certificates.strangerCaFile }),
      sentence: /^Kafka's certificate is not trusted/,
      setting: /KAFKA_SSL_CA/,
    },
    {
      what: "TLS with a Kafka that has none",
      engine: "KAFKA",
      changed: async () => ({ KAFKA_PORT: String((await sharedKafka()).port) }),
      sentence: /does not speak TLS and KAFKA_SSL is on/,
      setting: /KAFKA_SSL=0/,
    },
    {
      what: "no TLS with a Kafka that wants it",
      engine: "KAFKA",
      changed: () => ({ KAFKA_SSL: "0", KAFKA_SSL_CA: "" }),
      sentence: /speaks TLS and KAFKA_SSL is off/,
      setting: /KAFKA_SSL=1/,
    },
    {
      what: "a wrong Cassandra password",
      engine: "CASSANDRA",
      changed: () => ({ CASSANDRA_PASSWORD: WRONG_PASSWORD }),
      sentence: /^Cassandra does not accept the user or the password/,
      setting: /CASSANDRA_PASSWORD/,
    },
    {
      what: "a foreign authority for Cassandra",
      engine: "CASSANDRA",
      changed: () => ({ CASSANDRA_SSL_CA: certificates.strangerCaFile }),
      sentence: /^the certificate of Cassandra is not accepted/,
      setting: /CASSANDRA_SSL_CA/,
    },
  ];

  for (const { what, engine, changed, sentence, setting } of mistakes) {
    const users: readonly (readonly [binary: string, ...args: string[]])[] =
      engine === "KAFKA"
        ? [["admin", "init"], ["admin"], ["producer"], ["processor"]]
        : [["admin", "init"], ["admin"], ["processor"]];
    test(
      `${what} ends each of ${users.map((user) => user.join(" ")).join(", ")} with one sentence, and is not tried again`,
      async () => {
        using directory = temporaryDirectory();
        const settings: Settings = {
          ...right,
          ...made,
          ADMIN_PORT: "0",
          PRODUCER_PORT: "0",
          PROCESSOR_PORT: "0",
          DATA_DIR: directory.path,
          ...(await changed()),
        };
        for (const [binary, ...args] of users) {
          await using counter = await countConnections(Number(settings[`${engine}_PORT`]));
          const done = await runCommand(binaries.path(binary), args, {
            ...settings,
            [`${engine}_PORT`]: String(counter.port),
          });
          const said = sentencesIn(done.err);
          expect([binary, done.code]).toEqual([binary, 1]);
          // What it is, perhaps why, and what to do; nothing of it twice, and nothing else above `info`.
          expect(said.length).toBeWithin(2, 4);
          expect(said[0]).toStartWith(`${binary}: `);
          expect(said[0]?.slice(`${binary}: `.length)).toMatch(sentence);
          expect(said.slice(1).filter((line) => !line.startsWith("  "))).toEqual([]);
          expect(said.at(-1)).toMatch(setting);
          expect(said.filter((line, index) => saysAgain(line, said[index - 1] ?? ""))).toEqual([]);
          expect(levelsIn(done.err).filter((level) => level !== "DEBUG" && level !== "INFO")).toEqual([]);
          for (const secret of SECRETS) expect(done.out + done.err).not.toContain(secret);
          expect(counter.count(), binary).toBeWithin(1, CONNECTIONS_MAX + 1);
        }
      },
      MISTAKES_MS_MAX,
    );
  }
});

// --- Helpers ---------------------------------------------------------------------------------------------------

/** An hour ago, so that every window is closed: frames of ten trades of some symbols, with everything that a trade can have. */
function streamOf(tradeCount: number) {
  const random = seeded(tradeCount);
  const symbols = ["AAPL", "MSFT", "BINANCE:BTCUSDT", "OANDA:EUR_USD"];
  const firstAtMs = Date.now() - 3_600_000;
  const trades: TapeTrade[] = Array.from({ length: tradeCount }, (_, index) => ({
    c: [null, [], ["1"], ["1", "12"]][random(4)] ?? null,
    p: (1 + random(1_000_000)) / 1_000,
    s: symbols[random(symbols.length)]!,
    t: firstAtMs + index * 60,
    v: random(1_000) / 10,
  }));
  const lines: string[] = [];
  for (let from = 0; from < tradeCount; from += 10) {
    const frame = JSON.stringify({ data: trades.slice(from, from + 10), type: "trade" });
    lines.push(JSON.stringify({ at: firstAtMs + from * 60, frame }));
  }
  return { trades, tape: parseTape(lines.join("\n"), "stream") };
}

/** Lines for a person: all that is no record of the log. */
function sentencesIn(errors: string): string[] {
  return errors.split("\n").filter((line) => line !== "" && !line.startsWith("{"));
}

function levelsIn(errors: string): string[] {
  const records = errors.split("\n").filter((line) => line.startsWith("{"));
  return records.map((line) => (JSON.parse(line) as { level: string }).level);
}

/** Whether the line, without what begins it, stands in the one before already. */
function saysAgain(line: string, before: string): boolean {
  return before.includes(line.replace(/^ *(?:because: )?/, ""));
}

/** Between a binary and its engine: passes everything on, and counts who came. */
async function countConnections(port: number) {
  const open = new Set<Socket>();
  let count = 0;
  const server = createServer((near) => {
    count += 1;
    const far = connect(port, "127.0.0.1");
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      open.add(one);
      one.pipe(other);
      // How it ended is the binary's to tell.
      one.on("error", () => other.destroy());
      one.on("close", () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    count: () => count,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
