// README.md's bare machine, by hand: the binaries in an empty directory, its .env as it is printed, real engines by
// `npm run services`, and the verbs of the night. Its commands for systemd run in systemd-machine.test.ts.

import { afterAll, beforeAll, describe, expect } from "bun:test";
import { existsSync, linkSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import cassandra from "cassandra-driver";
import { eventually } from "../../support/builders.ts";
import { clientOptions } from "../../support/services/cassandra.ts";
import { whatIsMissing } from "../../support/services/java.ts";
import { services } from "../../support/services/shared.ts";
import { blockOf, type Query, queriesOf, ROOT } from "./read.ts";
import {
  areTraded,
  asked,
  type Health,
  isWell,
  look,
  newWalk,
  ports,
  type Reader,
  runIn,
  SEEN_MS_MAX,
  STEP_MS_MAX,
  step,
  type Tickers,
  tickerCount,
  windowsVerified,
  withPorts,
} from "./steps.ts";
import { type Done, type Job, openTerminal, type Terminal } from "./terminal.ts";

export function bareMachine({ clone, machine, checkout }: Reader): void {
  const walk = newWalk();
  const missing = services.available ? whatIsMissing() : "a real Kafka or Cassandra";

  describe.skipIf(missing !== null)("README.md, a bare machine, by hand", () => {
    let shell: Terminal;
    let engines: Job;
    const jobs: Record<string, Job> = {};
    const startedAt = new Date();
    const healthUrl = (port: string) => `http://127.0.0.1:${ports[port]}/health`;

    beforeAll(() => {
      mkdirSync(machine);
      // Where each listens, which the document leaves at the defaults.
      shell = openTerminal(machine, {
        ADMIN_PORT: ports["8080"]!,
        PRODUCER_PORT: ports["8081"]!,
        PROCESSOR_PORT: ports["8082"]!,
        PRODUCER_URL: `http://127.0.0.1:${ports["8081"]}`,
      });
    });
    afterAll(() => shell?.[Symbol.asyncDispose](), STEP_MS_MAX);

    step(walk, "npm run services", async (text) => {
      // What Maven fetched once is there.
      const jars = "node_modules/.cache";
      if (existsSync(join(ROOT, jars)) && !existsSync(join(clone, jars)))
        symlinkSync(join(ROOT, jars), join(clone, jars));
      engines = await checkout().start(text, /^running /m);
      for (const [setting, printedPort] of [
        ["KAFKA_PORT", "9092"],
        ["CASSANDRA_PORT", "9042"],
      ] as const)
        ports[printedPort] = new RegExp(`^${setting}=(\\d+)$`, "m").exec(engines.said())![1]!;
      expect(engines.said()).toContain("\nKAFKA_SERVER=127.0.0.1\n");
      expect(engines.said()).toContain("\nCASSANDRA_HOST=127.0.0.1\n");
      return engines.said().slice(engines.said().indexOf("KAFKA_SERVER"));
    });
    step(walk, "openssl rand -hex 16", async (text) => {
      const token = (await runIn(shell, text)).out.trim();
      expect(token).toMatch(/^[0-9a-f]{32}$/);
      const binaries = ["producer", "processor", "admin"];
      for (const name of binaries) linkSync(join(clone, "dist", name), join(machine, name));
      const settings = withPorts(blockOf("README.md", "ini"));
      writeFileSync(join(machine, ".env"), settings.replace(/^ADMIN_TOKEN=$/m, `ADMIN_TOKEN=${token}`));
      expect(readFileSync(join(machine, ".env"), "utf8")).toContain(token);
      return "(32 digits, into .env)";
    });
    step(walk, "./admin --check-config", async (text) => {
      const { out } = await runIn(shell, text);
      expect(out).toContain(`KAFKA_PORT=${ports["9092"]}\n`);
      expect(out).toContain("\nADMIN_TOKEN=set\n");
      expect(out).toContain("source: the built-in simulator\n");
      return out.slice(out.indexOf("source: "));
    });
    for (const command of ["./admin init", "admin init"])
      step(walk, command, async (text) => (await runIn(shell, text)).out, {
        // The second time it is safe too.
        changes: () => (command.startsWith("./") ? [] : [["admin", "./admin"]]),
      });
    for (const [command, port] of [
      ["./processor &", "8082"],
      ["PROCESSOR_PORT=8083 ./processor &", "8083"],
      ["./producer &", "8081"],
      ["./admin &", "8080"],
    ] as const)
      step(walk, command, async (text) => {
        const job = await shell.start(text, /^(?:health|page): http\S+$/m);
        jobs[port] = job;
        const line = /^(?:health|page): .*$/m.exec(job.said())![0];
        expect(line).toContain(`http://127.0.0.1:${ports[port]}/`);
        return line;
      });

    step(walk, "curl 'http://127.0.0.1:8080/health?pretty'", async (text) => {
      const shown = await asked<Health>(
        shell,
        text,
        (health) => isWell(health) && health.simulated && Object.keys(health.parts).length > 4,
      );
      expect((await fetch(healthUrl("8080"))).status).toBe(200);
      return shown;
    });
    step(walk, "curl 'http://127.0.0.1:8081/health?pretty'", (text) => asked<Health>(shell, text, isWell));
    step(walk, "curl 'http://127.0.0.1:8080/tickers'", (text) =>
      asked<Tickers>(shell, text, areTraded(tickerCount)),
    );
    step(
      walk,
      "export ADMIN_TOKEN=...",
      async (text) => {
        shell.environment.ADMIN_TOKEN = text.split("=")[1]!;
        return "(nothing)";
      },
      {
        changes: () => {
          const token = /^ADMIN_TOKEN=(.+)$/m.exec(readFileSync(join(machine, ".env"), "utf8"))![1]!;
          return [["...", token]];
        },
      },
    );

    /** Since when the producer's connection is the one it is. */
    async function connectedSince(): Promise<number> {
      const { parts } = (await (await fetch(healthUrl("8081"))).json()) as {
        parts: { feed: { stateSince: number } };
      };
      return parts.feed.stateSince;
    }
    /** What README.md promises of a change is 2 s; a machine that is busy with other tests gets more. */
    async function changesTickers(text: string, count: number): Promise<string> {
      const since = await connectedSince();
      const { out } = await runIn(shell, text);
      await asked<Tickers>(shell, withPorts("curl 'http://127.0.0.1:8080/tickers'"), areTraded(count));
      expect(await connectedSince()).toBe(since);
      return out === "" ? "(nothing)" : out;
    }
    step(
      walk,
      `curl -X POST 'http://127.0.0.1:8080/tickers' -H "authorization: Bearer $ADMIN_TOKEN" ` +
        `-H 'content-type: application/json' -d '{"symbol": "BINANCE:SOLUSDT"}'`,
      async (text) => {
        const shown = await changesTickers(text, tickerCount + 1);
        expect(JSON.parse(shown)).toMatchObject({ symbol: "BINANCE:SOLUSDT" });
        return shown;
      },
    );
    step(
      walk,
      `curl -X DELETE 'http://127.0.0.1:8080/tickers/BINANCE:SOLUSDT' -H "authorization: Bearer $ADMIN_TOKEN"`,
      (text) => changesTickers(text, tickerCount),
    );
    step(walk, "./producer healthcheck", async (text) => {
      let shown = "";
      // It waits 3 s for an answer, which a machine that is busy with other tests may take.
      for (const name of ["processor", "admin", "producer"])
        await eventually(SEEN_MS_MAX, `${name} says that it is well`, async () => {
          const { code, out } = await shell.run(text.replace("producer", name));
          shown = out;
          expect(out).toStartWith(code === 0 ? "ok: " : "failing: ");
          return code === 0;
        });
      return shown;
    });

    look(walk, "the queries on Cassandra of docs/DATA.md answer, in the columns they name", async () => {
      const client = new cassandra.Client(clientOptions(Number(ports["9042"])));
      // Simulated data has a keyspace of its own; the day is the one on which this runs.
      const day = (at: Date) => at.toISOString().slice(0, 10);
      const here = ({ text }: Query, at: Date) =>
        text.replaceAll("market.", "market_simulated.").replaceAll("2026-01-05", day(at));
      try {
        const queries = queriesOf("docs/DATA.md", "cql");
        expect(queries.length).toBeGreaterThan(0);
        for (const query of queries) {
          let columns: string[] = [];
          await eventually(SEEN_MS_MAX, `rows for: ${query.title}`, async () => {
            // In the first seconds of an hour or of a day there is none yet.
            for (const at of [startedAt, new Date()]) {
              const { rows } = await client.execute(here(query, at));
              if (rows[0] !== undefined) columns = rows[0].keys();
            }
            return columns.length > 0;
          });
          expect({ title: query.title, columns }).toEqual({
            title: query.title,
            columns: [...query.columns],
          });
        }
      } finally {
        await client.shutdown();
      }
    });

    step(walk, "./admin verify --from 2026-01-05 --to 2026-01-06", async (text) => {
      const done = await runIn(shell, text);
      windowsVerified(done);
      return done.out;
    });
    step(walk, "./admin verify --from 2026-01-05 --repair", async (text) => {
      let done: Done | null = null;
      await eventually(SEEN_MS_MAX, "windows that are over", async () => {
        done = await runIn(shell, text);
        return windowsVerified(done) > 0;
      });
      return done!.out;
    });
    step(walk, "./admin replay --from 2026-01-05T14:00 --to 2026-01-05T15:00", async (text) => {
      const { out } = await runIn(shell, text);
      expect(out).toStartWith("replayed 0 trades ");
      // And of what was received today, which changes nothing.
      const again = await runIn(shell, `./admin replay --from ${startedAt.toISOString()}`);
      expect(Number(/^replayed (\d+) trades/.exec(again.out)?.[1])).toBeGreaterThan(0);
      expect(windowsVerified(await runIn(shell, "./admin verify"))).toBeGreaterThan(0);
      return out + again.out;
    });
    for (const command of ["./admin replay --dead", "admin replay --dead"])
      step(
        walk,
        command,
        async (text) => {
          const { out } = await runIn(shell, text);
          expect(out).toStartWith("read 0 dead letters and took 0 of them");
          return out;
        },
        { changes: () => (command.startsWith("./") ? [] : [["admin", "./admin"]]) },
      );
    step(walk, "./producer replay --dead", async (text) => {
      // While a producer runs there, it is refused with a sentence.
      const refused = await runIn(shell, text, 1);
      expect(refused.out + refused.err).toMatch(/producer: .*\n {2}\S/);
      expect(await jobs["8081"]!.terminate()).toBe(0);
      expect((await runIn(shell, "./producer healthcheck", 1)).out).toStartWith("failing: ");
      const { out } = await runIn(shell, text);
      expect(out).toStartWith("0 messages put back; ");
      return out;
    });

    look(walk, "a SIGTERM ends each with 0, and Control-C the engines", async () => {
      const codes = await Promise.all(["8080", "8082", "8083"].map((port) => jobs[port]!.terminate()));
      expect(codes).toEqual([0, 0, 0]);
      await engines.interrupt();
      for (const port of ["9092", "9042"])
        expect(
          await Bun.connect({ hostname: "127.0.0.1", port: Number(ports[port]), socket: { data() {} } }).then(
            () => "somebody listens",
            () => "nobody listens",
          ),
        ).toBe("nobody listens");
    });
  });
}
