// A guard is a process of its own beside the one that wants a server. It runs that server as its child and lives on
// a pipe from the one that wants it: when the pipe closes, for whatever reason (kill -9 included), the server is
// killed and its directory removed. As the server's parent it cannot mistake another process for it: a pid belongs to
// a child until its parent has seen it end. This file is both sides: what the tests import, and, run by itself, the
// guard. It never signals anything but its own child.

import { closeSync, mkdirSync, openSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";

/** What the guard is asked, one JSON text a line. */
type Request = { run: readonly string[]; log: string } | { signal: NodeJS.Signals };
/** What it says, one JSON text a line. `signalled` and `started` answer a request, `ended` comes when it comes. */
type Reply = { started: number } | { refused: string } | { signalled: true } | { ended: string };

export type Guarded = {
  readonly pid: number;
  /** Resolves with how it ended (`code 1`, `SIGKILL`) as soon as it has; never rejects. */
  readonly ended: Promise<string>;
  /** How it ended; null while it runs. */
  endedHow(): string | null;
  /** Resolves when the signal was sent; does nothing when it has ended. */
  signal(name: NodeJS.Signals): Promise<void>;
};

export type Guard = AsyncDisposable & {
  /** Runs a command, its output appended to the log; one at a time. */
  run(command: readonly string[], log: string): Promise<Guarded>;
};

/** Makes the directory; it is gone when the guard is disposed of, and with it what runs. */
export async function startGuard(directory: string): Promise<Guard> {
  mkdirSync(directory, { recursive: true });
  const child = Bun.spawn([process.execPath, "--no-env-file", import.meta.path, directory], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
    detached: true, // Control-C on a terminal goes to a whole group; this one is to outlive the others.
  });
  child.unref();
  /** Answers come in the order of the requests. */
  const asked: PromiseWithResolvers<Reply>[] = [];
  let running = null as { end: PromiseWithResolvers<string>; how: string | null } | null;

  const take = (reply: Reply) => {
    if (!("ended" in reply)) return asked.shift()?.resolve(reply);
    if (running === null) throw new Error("the guard speaks of a server that was not started");
    running.how = reply.ended;
    running.end.resolve(reply.ended);
  };
  const over = (async () => {
    for await (const line of linesOf(child.stdout)) take(JSON.parse(line) as Reply);
    const code = await child.exited;
    for (const { reject } of asked.splice(0)) reject(new Error(`the guard ended with code ${code}`));
    if (running?.how === null) take({ ended: "with its guard" });
  })();
  const ask = async (request: Request): Promise<Reply> => {
    const answer = Promise.withResolvers<Reply>();
    asked.push(answer);
    child.stdin.write(`${JSON.stringify(request)}\n`);
    await child.stdin.flush();
    return answer.promise;
  };

  return {
    async run(command, log) {
      if (running?.how === null) throw new Error("a guard runs one thing at a time");
      const mine: NonNullable<typeof running> = { end: Promise.withResolvers(), how: null };
      running = mine; // Before it is asked: it can have ended by the time of the answer.
      const reply = await ask({ run: command, log });
      if (!("started" in reply)) {
        mine.how = "not started";
        throw new Error(`${command[0]} could not be started: ${JSON.stringify(reply)}`);
      }
      return {
        pid: reply.started,
        ended: mine.end.promise,
        endedHow: () => mine.how,
        async signal(name) {
          if (mine.how === null) await ask({ signal: name });
        },
      };
    },
    async [Symbol.asyncDispose]() {
      await child.stdin.end();
      await over;
    },
  };
}

/** How it ended; after the time it is killed. */
export async function endWithin(limitMs: number, run: Guarded): Promise<string> {
  const timer = setTimeout(() => void run.signal("SIGKILL"), limitMs);
  try {
    return await run.ended;
  } finally {
    clearTimeout(timer);
  }
}

/** Whether the process runs. A zombie has ended, though its pid still takes signals. */
export async function isRunning(pid: number): Promise<boolean> {
  const status = Bun.file(`/proc/${pid}/status`);
  if (await Bun.file("/proc/self/status").exists()) {
    return /^State:\s*[^ZX]/m.test(await status.text().catch(() => ""));
  }
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

// --- The guard itself ------------------------------------------------------------------------------------------

async function guard(directory: string): Promise<never> {
  let child: Bun.Subprocess | null = null;
  const end = async (): Promise<never> => {
    child?.kill("SIGKILL"); // It reaches a stopped process too.
    await child?.exited;
    rmSync(directory, { recursive: true, force: true });
    process.exit(0);
  };
  const say = (reply: Reply) => {
    try {
      writeSync(1, `${JSON.stringify(reply)}\n`);
    } catch {
      void end(); // Nobody listens any more: the same as the closed pipe.
    }
  };
  for (const name of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(name, () => void end());

  for await (const line of linesOf(Bun.stdin.stream())) {
    const request = JSON.parse(line) as Request;
    if ("signal" in request) {
      child?.kill(request.signal);
      say({ signalled: true });
      continue;
    }
    mkdirSync(dirname(request.log), { recursive: true });
    const log = openSync(request.log, "a");
    try {
      const mine = Bun.spawn([...request.run], { stdin: "ignore", stdout: log, stderr: log, cwd: directory });
      child = mine;
      say({ started: mine.pid });
      void mine.exited.then(() => say({ ended: `${mine.signalCode ?? `code ${mine.exitCode}`}` }));
    } catch (error) {
      say({ refused: String(error) });
    } finally {
      closeSync(log);
    }
  }
  return end();
}

if (import.meta.main) await guard(process.argv[2]!);
