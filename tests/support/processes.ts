// The binaries, compiled or from their sources, as a user starts them: services to their address, commands to their end.

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { Simulator } from "../../lib/simulator/simulator.ts";
import { eventually, within } from "./builders.ts";
import type { Address } from "./services/server.ts";
import { uniqueName } from "./services/shared.ts";

const ROOT = join(import.meta.dir, "../..");
const START_MS_MAX = 90_000;
const BUILD_MS_MAX = 60_000;
const COMMAND_MS_MAX = 60_000;
const QUIET_LOOKS = 50;

export type Settings = Readonly<Record<string, string>>;
/** A binary's path, or a program with its first arguments. */
export type Command = string | readonly string[];

/** `local` from its sources. */
export const LOCAL: Command = [process.execPath, join(ROOT, "local.ts")];

/** Binaries in a directory of their own, with nothing of the checkout beside them; without names all there are. */
export function buildBinaries(
  ...names: readonly string[]
): Disposable & { readonly directory: string; path(name: string): string } {
  const directory = mkdtempSync(join(tmpdir(), "dist-"));
  const entrypoints = names.map((name) => join(ROOT, `${name}.ts`));
  const command = [process.execPath, join(ROOT, "scripts/build.ts"), ...entrypoints, "--outdir", directory];
  const build = Bun.spawnSync(command, { timeout: BUILD_MS_MAX });
  if (!build.success) throw new Error(`no binaries: ${build.stderr}${build.stdout}`);
  return {
    directory,
    path: (name) => join(directory, name),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

/** Where a broker and a node are, as the binaries are told. */
export const addressesOf = (kafka: Address, cassandra: Address): Settings => ({
  KAFKA_SERVER: kafka.host,
  KAFKA_PORT: String(kafka.port),
  CASSANDRA_HOST: cassandra.host,
  CASSANDRA_PORT: String(cassandra.port),
});

/** A topic, a group and a keyspace that nobody else has, all of one name. */
export function ownNames(name = uniqueName("market")) {
  return { KAFKA_TOPIC_NAME: name, KAFKA_GROUP_ID: name, CASSANDRA_KEYSPACE: name };
}

/** What /health answers, as far as the tests look at it. */
export type Health = Readonly<{
  code: number;
  status: string;
  reason: string | null;
  parts: Readonly<Record<string, HealthPart | undefined>>;
}>;

type HealthPart = Readonly<{
  ok: boolean;
  recordCount?: number;
  rowsInFlight?: number;
  partitions?: readonly string[];
}>;

export type ServiceProcess = AsyncDisposable & {
  /** Where it answers, without a slash at the end. */
  readonly url: string;
  readonly pid: number;
  readonly stderr: () => string;
  readonly exited: Promise<number>;
  signal(signal: NodeJS.Signals): void;
  /** -9: nothing is finished. Resolves when the process is gone. */
  kill(): Promise<void>;
  /** SIGTERM: everything in flight is finished. The exit code. */
  stop(): Promise<number>;
  health(): Promise<Health>;
  /** One sample of /metrics, or the sum over its labels; 0 where there is none. */
  metric(name: string): Promise<number>;
};

/** On any free port, with these settings and nothing else of ours; resolves when it has said where it answers. */
export async function startService(command: Command, settings: Settings): Promise<ServiceProcess> {
  const ports = { ADMIN_PORT: "0", PRODUCER_PORT: "0", PROCESSOR_PORT: "0" };
  const { name, child } = spawn(command, [], { ...ports, ...settings });
  let stderr = "";
  void (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) stderr += decoder.decode(chunk, { stream: true });
  })();
  const url = await within(START_MS_MAX, `the address of ${name}`, () => address(child.stdout)).catch(
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
      return within(START_MS_MAX, `the end of ${name} after SIGTERM`, () => child.exited);
    },
    async health() {
      const answer = await fetch(`${url}/health`);
      return { ...((await answer.json()) as Omit<Health, "code">), code: answer.status };
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
    const found = /^(?:page|health): (http:\/\/[^/\s]+)\//m.exec(text);
    if (found) return found[1]!;
  }
  throw new Error(`the process ended without its address: ${text}`);
}

/**
 * Resolves with how many trades the simulator sent, when it sends no more and the producer, which began after
 * `sentBefore` of them, has received the rest. A burst that was due is still sent: quiet is when many looks in a row
 * see nothing new.
 */
export async function receivedAll(
  limitMs: number,
  { ledger }: Simulator,
  producer: ServiceProcess,
  sentBefore = 0,
): Promise<number> {
  let sentCount = -1;
  let quietLooks = 0;
  await eventually(limitMs, "everything sent and received", async () => {
    const { tradesSent } = ledger.counts();
    quietLooks = tradesSent === sentCount ? quietLooks + 1 : 0;
    sentCount = tradesSent;
    const received = sentBefore + (await producer.metric("feed_trades_received_total"));
    return quietLooks > QUIET_LOOKS && received >= sentCount;
  });
  return sentCount;
}

/** Runs a command of a binary to its end. */
export async function runCommand(command: Command, args: readonly string[], settings: Settings) {
  const { child } = spawn(command, args, settings, COMMAND_MS_MAX);
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, err, code };
}

/** Runs a command that has to end well. Resolves with what it printed; rejects with everything that it printed. */
export async function mustRun(
  command: Command,
  args: readonly string[],
  settings: Settings,
): Promise<string> {
  const { out, err, code } = await runCommand(command, args, settings);
  if (code !== 0) throw new Error(`${nameOf(command)} ${args.join(" ")} ended with ${code}\n${out}${err}`);
  return out;
}

/** In its data's directory, which is made where it is not there. */
function spawn(command: Command, args: readonly string[], settings: Settings, timeout?: number) {
  const cwd = settings.DATA_DIR ?? tmpdir();
  mkdirSync(cwd, { recursive: true });
  // Bun keeps what it has made of sources at home: a binary has no use for one.
  const home = typeof command === "string" ? cwd : (process.env.HOME ?? cwd);
  const child = Bun.spawn([...wordsOf(command), ...args], {
    cwd,
    env: { HOME: home, ...settings },
    stdout: "pipe",
    stderr: "pipe",
    ...(timeout === undefined ? {} : { timeout }),
  });
  return { name: nameOf(command), child };
}

function wordsOf(command: Command): readonly string[] {
  return typeof command === "string" ? [command] : command;
}

function nameOf(command: Command): string {
  return basename(wordsOf(command).at(-1)!);
}
