// `import`, as an operator types it: files of other recorders into the store of `local` and into a real Cassandra. Killed
// at any moment and run again each trade is there once, `verify` compares every window of them, and the page shows them.

import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually, seeded, temporaryDirectory } from "../support/builders.ts";
import { aggregateProblems, ofRow, ofTape, plainOfRow, tradeProblems } from "../support/compare.ts";
import {
  addressesOf,
  LOCAL,
  mustRun,
  ownNames,
  runCommand,
  type Settings,
  startService,
} from "../support/processes.ts";
import { clientOptions } from "../support/services/cassandra.ts";
import { services, sharedCassandra, sharedKafka } from "../support/services/shared.ts";
import { readCassandra, readTables } from "../support/tables.ts";
import { hasTapes, tapePath, tapes, tapeTrades } from "../support/tapes.ts";

const TEST_MS_MAX = 240_000;
const WAIT_MS_MAX = 60_000;
const ADMIN = [process.execPath, join(import.meta.dir, "../../admin.ts")];
const REAL = { FINNHUB_API_TOKEN: "import-token", FINNHUB_VALIDATE_TICKERS: "0", LOG_LEVEL: "warn" };
const START_MS = Date.parse("2013-10-07T14:00:00Z");

/** Ten symbols, times that repeat, prices of few digits: some prints are equal. */
function csvOf(rowCount: number, seed: number): string {
  const below = seeded(seed);
  const lines = ["time,symbol,price,size"];
  let timeMs = START_MS;
  for (let n = 0; n < rowCount; n++) {
    timeMs += below(3) === 0 ? below(40) : 0;
    lines.push(`${timeMs},S${below(10)},${(10_000 + below(50)) / 100},${1 + below(3)}`);
  }
  return `${lines.join("\n")}\n`;
}

const jsonOf = (out: string) => JSON.parse(out.trimEnd().split("\n").at(-1)!) as Record<string, unknown>;

function storedCount(directory: string): number {
  if (!existsSync(join(directory, "market.sqlite"))) return 0;
  try {
    using db = new Database(join(directory, "market.sqlite"), { readonly: true });
    return db.query<{ n: number }, []>("SELECT count(*) AS n FROM trades").get()!.n;
  } catch {
    return 0; // It is being made.
  }
}

test(
  "killed half-way and run again each trade is there once, `verify` compares every window, and the server shows them",
  async () => {
    using directory = temporaryDirectory();
    const settings = { ...REAL, DATA_DIR: join(directory.path, "data") };
    const rowCount = 60_000;
    const file = join(directory.path, "recorded.csv");
    writeFileSync(file, csvOf(rowCount, 1));
    const importing = Bun.spawn([...LOCAL, "import", file], {
      env: { HOME: process.env.HOME, ...settings },
      stdout: "ignore",
      stderr: "ignore",
    });
    await eventually(WAIT_MS_MAX, "some are stored", async () => storedCount(settings.DATA_DIR) > 0);
    importing.kill("SIGKILL");
    await importing.exited;

    const first = jsonOf(await mustRun(LOCAL, ["import", "--json", file], settings));
    expect(first).toMatchObject({ trades: rowCount, refused: {}, skipped: {} });
    expect(Number(first.stored) + Number(first.known)).toBe(rowCount);
    const before = readTables(settings.DATA_DIR);
    expect(before.trades.length).toBe(rowCount);
    const again = jsonOf(await mustRun(LOCAL, ["import", "--json", file], settings));
    expect(again).toMatchObject({ trades: rowCount, stored: 0, known: rowCount });
    expect(readTables(settings.DATA_DIR)).toEqual(before);

    const verified = jsonOf(await mustRun(LOCAL, ["verify", "--json"], settings));
    expect(verified).toMatchObject({ differences: 0, skippedExpired: 0, open: 0 });
    expect(verified.compared).toBe(before.averages.length + before.candles.length);
    expect(aggregateProblems(before, before.trades.map(plainOfRow))).toEqual([]);

    await using local = await startService(LOCAL, { ...settings, FINNHUB_WS_URL: "ws://127.0.0.1:9" });
    const { items } = (await (await fetch(`${local.url}/trades?symbol=S1&limit=1`)).json()) as {
      items: { trade_timestamp: number }[];
    };
    const newest = Math.max(
      ...before.trades.filter(({ symbol }) => symbol === "S1").map((row) => row.trade_timestamp),
    );
    expect(items).toMatchObject([{ trade_timestamp: newest }]);
    const refused = await runCommand(LOCAL, ["import", file], settings);
    expect([refused.code, refused.err]).toEqual([
      1,
      expect.stringContaining("import needs DATA_DIR to itself"),
    ]);
  },
  TEST_MS_MAX,
);

test.skipIf(!hasTapes)(
  "the recorded days without ids: each of their trades once, equal prints too, and every window right",
  async () => {
    using directory = temporaryDirectory();
    const settings = { ...REAL, DATA_DIR: directory.path };
    const files = tapes.map(({ name }) => tapePath(name));
    const tradeCount = tapes.reduce((sum, tape) => sum + tape.tradeCount, 0);
    const counts = jsonOf(await mustRun(LOCAL, ["import", "--json", ...files], settings));
    expect(counts).toMatchObject({
      files: tapes.length,
      trades: tradeCount,
      stored: tradeCount,
      known: 0,
      refused: {},
    });
    const tables = readTables(directory.path);
    const expected = (await Promise.all(tapes.map(({ name }) => tapeTrades(name)))).flat();
    expect(tradeProblems(expected.map(ofTape), tables.trades.map(ofRow))).toEqual([]);
    expect(aggregateProblems(tables, tables.trades.map(plainOfRow))).toEqual([]);
    expect(await mustRun(LOCAL, ["verify"], settings)).toContain(": 0 differences");
  },
  TEST_MS_MAX,
);

test(
  "a dry run stores nothing and says what would be refused and why; simulated settings and unknown files are refused",
  async () => {
    using directory = temporaryDirectory();
    const settings = { ...REAL, DATA_DIR: join(directory.path, "data") };
    const file = join(directory.path, "a.csv");
    writeFileSync(file, `${csvOf(3, 2)}yesterday,S1,1,1\n`);
    const dry = await mustRun(LOCAL, ["import", "--dry-run", file], settings);
    expect(dry).toContain("a.csv, line or row 5: not a time: yesterday");
    expect(dry).toContain("one file with 3 trades: would take 3\n  refused: 1 (not a time)");
    expect(storedCount(settings.DATA_DIR)).toBe(0);
    const simulated = await runCommand(LOCAL, ["import", file], {
      DATA_DIR: directory.path,
      LOG_LEVEL: "warn",
    });
    expect([simulated.code, simulated.err]).toEqual([1, expect.stringContaining("those of simulated data")]);
    const missing = await runCommand(LOCAL, ["import", file, `${file}.gz`], settings);
    expect([missing.code, missing.err]).toEqual([1, expect.stringContaining("there is no file")]);
    expect(storedCount(settings.DATA_DIR)).toBe(0);
    expect(readFileSync(file, "utf8")).toContain("yesterday");
  },
  TEST_MS_MAX,
);

describe.skipIf(!services.available)("on real Kafka and Cassandra", () => {
  let settings: Settings;
  const names = ownNames();
  const directory = temporaryDirectory();
  let port: number;

  beforeAll(async () => {
    const [kafka, cassandra] = await Promise.all([sharedKafka(), sharedCassandra()]);
    port = cassandra.port;
    settings = { ...REAL, ...addressesOf(kafka, cassandra), ...names, DATA_DIR: directory.path };
    await mustRun(ADMIN, ["init"], settings);
  }, TEST_MS_MAX);
  afterAll(() => directory[Symbol.dispose]());

  test(
    "`admin import` stores each trade once and its windows, twice changes nothing, and trades of the last hour are refused",
    async () => {
      const rowCount = 3_000;
      const file = join(directory.path, "recorded.csv");
      const young = `${Date.now()},S1,100,1\n`;
      writeFileSync(file, csvOf(rowCount, 3) + young);
      const first = jsonOf(await mustRun(ADMIN, ["import", "--json", file], settings));
      expect(first).toMatchObject({
        trades: rowCount + 1,
        stored: rowCount,
        known: 0,
        refused: { "too young": 1 },
      });
      const before = await readCassandra(clientOptions(port), names.CASSANDRA_KEYSPACE);
      expect(before.trades.length).toBe(rowCount);
      expect(aggregateProblems(before, before.trades.map(plainOfRow))).toEqual([]);
      const again = jsonOf(await mustRun(ADMIN, ["import", "--json", file], settings));
      expect(again).toMatchObject({ stored: 0, known: rowCount });
      expect(await readCassandra(clientOptions(port), names.CASSANDRA_KEYSPACE)).toEqual(before);
      const verified = jsonOf(await mustRun(ADMIN, ["verify", "--json"], settings));
      expect(verified).toMatchObject({ differences: 0, skippedExpired: 0 });
      expect(verified.compared).toBe(before.averages.length + before.candles.length);
    },
    TEST_MS_MAX,
  );
});
