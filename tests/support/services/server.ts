// One server for a test: started under a guard, ready when it has answered, stopped, killed, paused and started again
// on the same port and data. What is particular to Kafka or Cassandra comes in as a recipe.

import { mkdtempSync, readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { endWithin, type Guard, type Guarded } from "./guard.ts";
import type { ClassArchive } from "./java.ts";

export type Address = Readonly<{ host: string; port: number }>;

export type Server = AsyncDisposable &
  Address & {
    /** Of the Java process; another one after start() or restart(). Throws when none runs. */
    readonly pid: number;
    /** A clean end (SIGTERM); the data stays. */
    stop(): Promise<void>;
    /** Resolves when the signal was sent; with SIGKILL (which also ends a paused one) when the server is gone. */
    kill(signal?: NodeJS.Signals): Promise<void>;
    /** Starts one that was stopped or killed, on the same port and data; resolves when it answers. */
    start(): Promise<void>;
    /** A clean end and a start. */
    restart(): Promise<void>;
    /** The end of what it logged. */
    log(): string;
  };

export type Recipe = Readonly<{
  name: string;
  guard: Guard;
  directory: string;
  port: number;
  command: readonly string[];
  archive: ClassArchive;
  /** Asks the server, in a bounded time. False and a rejection mean: not yet. */
  isReady(): Promise<boolean>;
}>;

export const HOST = "127.0.0.1";
/** 5 to 10 s alone on two cores; others may want them too. */
const START_MS_MAX = 120_000;
/** Cassandra takes 6 s; writing the archive of classes as long again. */
const STOP_MS_MAX = 60_000;
const POLL_MS = 25;
const LOG_LINES = 40;
/** Below the ports that systems give to outgoing connections, which would take one between choice and use. */
const PORT_MIN = 20_000;
const PORTS = 12_000;
/** A server takes three at most; a process with more goes on in the next one's. */
const PORTS_PER_PROCESS = 16;

export function serverDirectory(service: string): string {
  return mkdtempSync(join(tmpdir(), `pipeline-${service}-`));
}

let portsTried = 0;

/** A port on which nobody listens. Processes that ask at once are told different ones, by their pids. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < PORTS; attempt++) {
    const port = PORT_MIN + ((process.pid * PORTS_PER_PROCESS + portsTried++) % PORTS);
    const listener = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      listener.once("error", () => resolve(false));
      listener.listen(port, HOST, () => resolve(true));
    });
    await new Promise((resolve) => listener.close(resolve));
    if (isFree) return port;
  }
  throw new Error(`every port from ${PORT_MIN} to ${PORT_MIN + PORTS - 1} is taken`);
}

/** Starts it; when that fails, the end of its log is in the error, and nothing is left. */
export async function startServer(recipe: Recipe): Promise<Server> {
  const { name, guard, directory, port, command, archive } = recipe;
  const logFile = join(directory, "server.log");
  const log = () => readFileSync(logFile, "utf8").trimEnd().split("\n").slice(-LOG_LINES).join("\n");
  let running: Guarded | null = null;

  const start = async () => {
    if (running?.endedHow() === null) throw new Error(`${name} runs already: stop or kill it first`);
    const mine = await guard.run(command, logFile);
    running = mine;
    const endMs = performance.now() + START_MS_MAX;
    let refusal: unknown = "nobody listens";
    const isReady = () =>
      recipe.isReady().catch((error: unknown) => {
        refusal = error;
        return false;
      });
    while (!((await isListening(port)) && (await isReady()))) {
      const how = mine.endedHow();
      if (how !== null) throw new Error(`${name} ended at its start (${how}); its log's end:\n${log()}`);
      if (performance.now() > endMs) {
        const late = `${name} did not answer within ${START_MS_MAX} ms (${refusal})`;
        throw new Error(`${late}; its log's end:\n${log()}`);
      }
      await Bun.sleep(POLL_MS);
    }
  };
  const kill = async (signal: NodeJS.Signals = "SIGKILL") => {
    await running?.signal(signal);
    if (signal === "SIGKILL") await running?.ended;
  };
  const stop = async () => {
    await running?.signal("SIGTERM");
    await running?.signal("SIGCONT"); // A paused one would never see the end it was asked for.
    if (running !== null) await endWithin(STOP_MS_MAX, running);
    archive.keep();
  };
  const dispose = async () => {
    // Nothing of it is kept but the archive, so a clean end is worth its time only for that.
    if (archive.isWanted() && running?.endedHow() === null) await stop();
    await guard[Symbol.asyncDispose]();
  };

  try {
    await start();
  } catch (error) {
    await guard[Symbol.asyncDispose]();
    throw error;
  }
  return {
    host: HOST,
    port,
    get pid() {
      if (running === null || running.endedHow() !== null) throw new Error(`${name} does not run`);
      return running.pid;
    },
    stop,
    kill,
    start,
    async restart() {
      await stop();
      await start();
    },
    log,
    [Symbol.asyncDispose]: dispose,
  };
}

/** Cheaper than a client, until somebody listens. */
function isListening(port: number): Promise<boolean> {
  const socket = connect(port, HOST);
  return new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
  }).finally(() => socket.destroy());
}
