// What an operator reads in the journal while Kafka and Cassandra are away: the real binaries, from their sources, on
// ports on which nobody listens.

import { describe, expect, test } from "bun:test";
import { createServer } from "node:net";
import { join } from "node:path";
import { temporaryDirectory } from "../support/builders.ts";
import { type ServiceProcess, startService } from "../support/processes.ts";

const ROOT = join(import.meta.dir, "../..");
/** Several retries of every loop, and less than the minute after which a second line is due. */
const AWAY_MS = 20_000;
const TEST_MS_MAX = 120_000;
/** `starting`, the market is simulated and played, connected; one line for each engine that is away; with some room. */
const LINES_MAX = 8;
const LINE_LENGTH_MAX = 300;

/** A port that was free a moment ago. */
async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function start(name: string, format: string, directory: string): Promise<ServiceProcess> {
  return startService([process.execPath, join(ROOT, `${name}.ts`)], {
    CASSANDRA_HOST: "127.0.0.1",
    CASSANDRA_PORT: String(await closedPort()),
    DATA_DIR: join(directory, name),
    KAFKA_PORT: String(await closedPort()),
    KAFKA_SERVER: "127.0.0.1",
    FINNHUB_SIMULATE: "1",
    LOG_FORMAT: format,
  });
}

describe.each(["json", "pretty"])("with Kafka and Cassandra away for 20 s, in %s lines", (format) => {
  test.concurrent.each(["producer", "processor", "admin"])(
    "%s says it once, in one line, without a stack",
    async (name) => {
      using directory = temporaryDirectory();
      const service = await start(name, format, directory.path);
      await Bun.sleep(AWAY_MS);
      const lines = service.stderr().trimEnd().split("\n");
      await service.kill();
      console.log(`${name}, ${format}: ${lines.length} lines in ${AWAY_MS / 1_000} s`);
      expect(lines.length).toBeLessThanOrEqual(LINES_MAX);
      const outages = lines.filter((line) => line.includes("cannot be used"));
      expect(outages.length).toBeGreaterThanOrEqual(1);
      expect(outages.length).toBeLessThanOrEqual(2);
      for (const line of lines) {
        expect(line.length).toBeLessThanOrEqual(LINE_LENGTH_MAX);
        expect(line).not.toMatch(/^\s+at |\\n +at /);
        // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
        expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
      }
    },
    TEST_MS_MAX,
  );
});
