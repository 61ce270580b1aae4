// The compiled binaries as processes, as a user starts them, and what they left in Cassandra.

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import cassandra from "cassandra-driver";
import { type StoredTrade, within } from "./local-process.ts";
import type { PlainAverage, PlainCandle } from "./reference.ts";

const START_MS_MAX = 30_000;
const BUILD_MS_MAX = 60_000;
const VERB_MS_MAX = 60_000;

export type Settings = Readonly<Record<string, string>>;

/** All binaries in a directory of their own, with nothing of the checkout beside them. */
export function buildBinaries(): Disposable & { readonly directory: string; path(name: string): string } {
  const directory = mkdtempSync(join(tmpdir(), "dist-"));
  const script = join(import.meta.dir, "../scripts/build.ts");
  const build = Bun.spawnSync([process.execPath, script, "--outdir", directory], { timeout: BUILD_MS_MAX });
  if (!build.success) throw new Error(`no binaries: ${build.stderr}${build.stdout}`);
  return {
    directory,
    path: (name) => join(directory, name),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

export type ServiceProcess = AsyncDisposable & {
  /** Where it answers, without a slash at the end. */
  readonly url: string;
  readonly pid: number;
  readonly stderr: () => string;
  readonly exited: Promise<number>;
  signal(signal: NodeJS.Signals): void;
  /** -9. Resolves when the process is gone. */
  kill(): Promise<void>;
  /** SIGTERM; the exit code. */
  stop(): Promise<number>;
  /** One sample of /metrics, or the sum over its labels; 0 where there is none. */
  metric(name: string): Promise<number>;
};

/** Starts a binary on any free port; resolves when it has said where it answers. */
export async function startService(binary: string, settings: Settings): Promise<ServiceProcess> {
  const cwd = settings.DATA_DIR ?? tmpdir();
  mkdirSync(cwd, { recursive: true });
  const ports = { ADMIN_PORT: "0", PRODUCER_PORT: "0", PROCESSOR_PORT: "0" };
  const child = Bun.spawn([binary], {
    cwd,
    env: { HOME: cwd, ...ports, ...settings },
    stdout: "pipe",
    stderr: "pipe",
  });
  let stderr = "";
  void (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) stderr += decoder.decode(chunk, { stream: true });
  })();
  const url = await within(START_MS_MAX, `the address of ${binary}`, () => address(child.stdout)).catch(
    (error: unknown) => {
      child.kill("SIGKILL");
      throw new Error(`${String(error)}\n${stderr}`);
    },
  );
  const kill = async () => {
    child.kill("SIGKILL");
    await child.exited;
  };
  return {
    url,
    pid: child.pid,
    stderr: () => stderr,
    exited: child.exited,
    signal: (signal) => child.kill(signal),
    kill,
    async stop() {
      child.kill("SIGTERM");
      return within(START_MS_MAX, `the end of ${binary} after SIGTERM`, () => child.exited);
    },
    async metric(name) {
      const text = await (await fetch(`${url}/metrics`)).text();
      const samples = text.matchAll(new RegExp(`^pipeline_${name}(?:\\{[^}]*\\})? (\\S+)$`, "gm"));
      return [...samples].reduce((sum, [, value]) => sum + Number(value), 0);
    },
    [Symbol.asyncDispose]: kill,
  };
}

async function address(stdout: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of stdout) {
    text += decoder.decode(chunk, { stream: true });
    const found = /^(?:page|health): (http:\/\/[^/\s]+)/m.exec(text);
    if (found) return found[1]!;
  }
  throw new Error(`the process ended without its address: ${text}`);
}

/** A verb of a binary, to its end. */
export async function runVerb(binary: string, args: readonly string[], settings: Settings) {
  const cwd = settings.DATA_DIR ?? tmpdir();
  mkdirSync(cwd, { recursive: true });
  const child = Bun.spawn([binary, ...args], {
    cwd,
    env: { HOME: cwd, ...settings },
    stdout: "pipe",
    stderr: "pipe",
    timeout: VERB_MS_MAX,
  });
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, err, code };
}

export type CassandraTables = { trades: StoredTrade[]; averages: PlainAverage[]; candles: PlainCandle[] };

/** All that the tables of a keyspace hold, read by a plain client, in the order of readTables. */
export async function readCassandra(
  options: cassandra.ClientOptions,
  keyspace: string,
): Promise<CassandraTables> {
  const client = new cassandra.Client({ ...options, keyspace });
  const all = async <Row>(table: string): Promise<Row[]> => {
    const rows: Row[] = [];
    const result = await client.execute(`SELECT * FROM ${table}`, [], { prepare: true, fetchSize: 5_000 });
    for await (const row of result) rows.push(plainRow({ ...row }) as Row);
    return rows;
  };
  try {
    const trades = await all<StoredTrade>("trades");
    const averages = await all<PlainAverage>("running_averages_15_sec");
    const candles = await all<PlainCandle>("candles_1_min");
    return {
      trades: trades.sort(
        (a, b) => order(a.symbol, b.symbol) || a.trade_timestamp - b.trade_timestamp || order(a.uuid, b.uuid),
      ),
      averages: averages.sort((a, b) => order(a.symbol, b.symbol) || a.window_end - b.window_end),
      candles: candles.sort((a, b) => order(a.symbol, b.symbol) || a.window_start - b.window_start),
    };
  } finally {
    await client.shutdown();
  }
}

function order(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

/** The driver's own types as what the columns mean: times in ms, uuid and date as text. */
function plainRow(row: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(row).map(([name, value]) => {
      if (value instanceof Date) return [name, value.getTime()];
      if (value instanceof cassandra.types.Uuid || value instanceof cassandra.types.LocalDate)
        return [name, value.toString()];
      return [name, value];
    }),
  );
}
