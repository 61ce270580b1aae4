// dist/local as a stranger gets it: one file in an empty directory, and nothing of the checkout beside it.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually, temporaryDirectory } from "../support/builders.ts";
import { buildBinaries, startService } from "../support/processes.ts";
import { readTables } from "../support/tables.ts";

const BUILD_MS_MAX = 60_000;
let binaries: ReturnType<typeof buildBinaries>;
let binary: string;

beforeAll(() => {
  binaries = buildBinaries("local");
  binary = binaries.path("local");
}, BUILD_MS_MAX);

afterAll(() => binaries?.[Symbol.dispose]());

function runBinary(args: readonly string[], cwd: string, settings: Record<string, string> = {}) {
  const child = Bun.spawnSync([binary, ...args], { cwd, env: { HOME: cwd, ...settings }, timeout: 20_000 });
  return { code: child.exitCode, out: child.stdout.toString(), err: child.stderr.toString() };
}

test("the binary is one file", () => {
  expect(readdirSync(binaries.directory)).toEqual(["local"]);
});

test("--version and --check-config answer from an empty directory and leave it empty", () => {
  using directory = temporaryDirectory();
  expect(runBinary(["--version"], directory.path)).toMatchObject({ code: 0, err: "" });
  expect(runBinary(["--version"], directory.path).out).toMatch(/^\d+\.\d+\.\d+/);
  const config = runBinary(["--check-config"], directory.path, { FINNHUB_API_TOKEN: "hush-hush-token" });
  expect(config.code).toBe(0);
  expect(config.out).toContain("RETENTION_DAYS");
  expect(config.out + config.err).not.toContain("hush-hush-token");
  expect(readdirSync(directory.path)).toEqual([]);
});

test("wrong settings are told all at once, with what to do, and nothing starts", () => {
  using directory = temporaryDirectory();
  const wrong = { ADMIN_PORT: "http", RETENTION_DAYS: "-1", FINHUB_API_TOKEN: "hush-hush-token" };
  const { code, err, out } = runBinary([], directory.path, wrong);
  expect(code).toBe(1);
  for (const name of ["ADMIN_PORT", "RETENTION_DAYS", "FINHUB_API_TOKEN", "FINNHUB_API_TOKEN"])
    expect(err).toContain(name);
  expect(err + out).not.toContain("hush-hush-token");
  expect(readdirSync(directory.path)).toEqual([]);
});

test("it serves page and trades from an empty directory, stops on SIGTERM with 0, and a restart keeps all data", async () => {
  using directory = temporaryDirectory();
  const settings = { DATA_DIR: directory.path, LOG_LEVEL: "warn" };
  const simulated = join(directory.path, "simulated");
  let firstUuids: string[];
  {
    await using local = await startService(binary, settings);
    const trades = async () =>
      (await (await fetch(`${local.url}/trades?symbol=BINANCE:BTCUSDT`)).json()) as { items: unknown[] };
    await eventually(3_000, "the first trade", async () => (await trades()).items.length > 0);
    const page = await fetch(local.url);
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
    expect(page.headers.get("x-data-source")).toBe("simulated");
    expect(await page.text()).toContain("<html");
    const script = await fetch(`${local.url}/page.js`);
    expect(script.headers.get("content-type")).toBe("text/javascript; charset=utf-8");
    // With both chart libraries; a bundle that failed would be a few lines.
    expect((await script.text()).length).toBeGreaterThan(100_000);
    expect(await (await fetch(`${local.url}/health`)).json()).toMatchObject({
      status: "ok",
      simulated: true,
    });
    expect(await local.stop()).toBe(0);
    firstUuids = readTables(simulated).trades.map(({ uuid }) => uuid);
    expect(firstUuids.length).toBeGreaterThan(0);
  }
  await using again = await startService(binary, settings);
  expect(await again.stop()).toBe(0);
  const secondUuids = new Set(readTables(simulated).trades.map(({ uuid }) => uuid));
  expect(firstUuids.filter((uuid) => !secondUuids.has(uuid))).toEqual([]);
}, 60_000);

test("a second one on the same data refuses and says which file is in use", async () => {
  using directory = temporaryDirectory();
  await using _first = await startService(binary, { DATA_DIR: directory.path, LOG_LEVEL: "warn" });
  const second = runBinary([], directory.path, { DATA_DIR: directory.path, ADMIN_PORT: "0" });
  expect(second.code).toBe(1);
  expect(second.err).toContain("outbox.sqlite is in use by another process");
}, 60_000);

test("a port that is taken is told with the setting that chooses another", async () => {
  using directory = temporaryDirectory();
  await using first = await startService(binary, { DATA_DIR: join(directory.path, "a"), LOG_LEVEL: "warn" });
  const port = new URL(first.url).port;
  const second = runBinary([], directory.path, { DATA_DIR: join(directory.path, "b"), ADMIN_PORT: port });
  expect(second.code).toBe(1);
  expect(second.err).toContain("ADMIN_PORT");
}, 60_000);

test("the .env of the working directory is read, and a bunfig there is not", async () => {
  using directory = temporaryDirectory();
  const data = join(directory.path, "from-env-file");
  mkdirSync(data);
  writeFileSync(join(directory.path, ".env"), `DATA_DIR=${data}\nADMIN_PORT=0\nLOG_LEVEL=warn\n`);
  writeFileSync(join(directory.path, "bunfig.toml"), 'preload = ["./not-there.ts"]\n');
  const { out, code } = runBinary(["--check-config"], directory.path);
  expect(code).toBe(0);
  expect(out).toContain(data);
});

test("healthcheck asks the running one, and fails where none runs", async () => {
  using directory = temporaryDirectory();
  await using local = await startService(binary, { DATA_DIR: directory.path, LOG_LEVEL: "warn" });
  const port = new URL(local.url).port;
  await eventually(5_000, "healthy", async () => (await fetch(`${local.url}/health`)).ok);
  expect(runBinary(["healthcheck"], directory.path, { ADMIN_PORT: port }).code).toBe(0);
  await local.kill();
  expect(runBinary(["healthcheck"], directory.path, { ADMIN_PORT: port }).code).toBe(1);
}, 60_000);

test(
  "a fault in a binary has a stack that names the TypeScript file and its line",
  () => {
    using directory = temporaryDirectory();
    const script = join(import.meta.dir, "../../scripts/build.ts");
    const entrypoint = join(import.meta.dir, "../support/fixtures/service.ts");
    Bun.spawnSync([process.execPath, script, entrypoint, "--outdir", directory.path]);
    const child = Bun.spawnSync([join(directory.path, "service")], {
      cwd: directory.path,
      env: { FIXTURE: "throw", LOG_FORMAT: "json" },
    });
    expect(child.exitCode).toBe(70);
    expect(child.stderr.toString()).toMatch(/service\.ts:\d+/);
  },
  BUILD_MS_MAX,
);

test("a store that cannot be opened is told in a sentence", () => {
  using directory = temporaryDirectory();
  mkdirSync(join(directory.path, "simulated", "market.sqlite"), { recursive: true });
  const { code, err } = runBinary([], directory.path, { DATA_DIR: directory.path, ADMIN_PORT: "0" });
  expect(code).toBe(1);
  expect(err).toContain("market.sqlite cannot be opened");
});
