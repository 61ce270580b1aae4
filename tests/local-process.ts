// `local` as a child process, as a user starts it, and what it left in its tables.

import { Database } from "bun:sqlite";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { PlainAverage, PlainCandle } from "./reference.ts";

const ROOT = join(import.meta.dir, "..");
const START_MS_MAX = 20_000;
const POLL_MS = 20;

export type LocalProcess = AsyncDisposable & {
  readonly url: string;
  readonly pid: number;
  readonly stderr: () => string;
  /** Resolves with the exit code. */
  readonly exited: Promise<number>;
  /** -9: nothing is finished. Resolves when the process is gone. */
  kill(): Promise<void>;
  /** SIGTERM: everything in flight is finished. */
  stop(): Promise<number>;
};

/** Starts it on any free port with these settings and nothing else of ours; resolves when its page is there. */
export async function startLocal(
  settings: Record<string, string>,
  command?: readonly string[],
): Promise<LocalProcess> {
  if (settings.DATA_DIR) mkdirSync(settings.DATA_DIR, { recursive: true });
  const child = Bun.spawn([...(command ?? [process.execPath, join(ROOT, "local.ts")])], {
    cwd: settings.DATA_DIR ?? ROOT,
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "", ADMIN_PORT: "0", ...settings },
    stdout: "pipe",
    stderr: "pipe",
  });
  let stderr = "";
  void (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) stderr += decoder.decode(chunk, { stream: true });
  })();
  const url = await within(START_MS_MAX, "the page's line", () => pageLine(child.stdout)).catch(
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
    kill,
    async stop() {
      child.kill("SIGTERM");
      return within(START_MS_MAX, "the end after SIGTERM", () => child.exited);
    },
    [Symbol.asyncDispose]: kill,
  };
}

async function pageLine(stdout: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of stdout) {
    text += decoder.decode(chunk, { stream: true });
    const found = /^page: (http:\S+)\/$/m.exec(text);
    if (found) return found[1]!;
  }
  throw new Error(`the process ended without the page's line: ${text}`);
}

/** Polls until the check holds; fails by name after the time. */
export async function eventually(
  limitMs: number,
  name: string,
  check: () => Promise<boolean>,
): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!(await check())) {
    if (performance.now() > endMs) throw new Error(`not within ${limitMs} ms: ${name}`);
    await Bun.sleep(POLL_MS);
  }
}

export async function within<T>(limitMs: number, name: string, work: () => Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`not within ${limitMs} ms: ${name}`)), limitMs);
  try {
    return await Promise.race([work(), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

export type StoredTrade = {
  symbol: string;
  hour: number;
  trade_timestamp: number;
  uuid: string;
  price: number;
  volume: number;
  trade_conditions: string | null;
  ingest_timestamp: number;
};

/** All that market.sqlite holds, read by plain SQL. */
export function readTables(directory: string) {
  using db = new Database(join(directory, "market.sqlite"), { readonly: true });
  return {
    trades: db.query<StoredTrade, []>("SELECT * FROM trades ORDER BY symbol, trade_timestamp, uuid").all(),
    averages: db
      .query<PlainAverage & { version?: number }, []>(
        "SELECT * FROM running_averages_15_sec ORDER BY symbol, window_end",
      )
      .all()
      .map(({ version: _version, ...row }) => row),
    candles: db
      .query<PlainCandle & { version?: number }, []>(
        "SELECT * FROM candles_1_min ORDER BY symbol, window_start",
      )
      .all()
      .map(({ version: _version, ...row }) => row),
    events: db
      .query<{ type: string; detail: string }, []>(
        "SELECT type, detail FROM feed_events ORDER BY event_timestamp",
      )
      .all(),
    deadCount: db.query<{ n: number }, []>("SELECT count(*) AS n FROM dead").get()!.n,
  };
}
