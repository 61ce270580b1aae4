// A fresh copy of the tree and a terminal in it, as a reader has them: Node.js, npm, and nothing of this test run.

import { cpSync, existsSync, mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { within } from "../../support/builders.ts";
import { documentText, ROOT } from "./read.ts";

/** The tree as a clone has it: without what .gitignore names. */
export function copyTree(to: string): void {
  const ignored = documentText(".gitignore").trim().split("\n");
  const globs = [".git", ...ignored].map((line) => new Bun.Glob(line.replace(/\/$/, "")));
  mkdirSync(to, { recursive: true });
  cpSync(ROOT, to, {
    recursive: true,
    filter: (path) => path === ROOT || !globs.some((glob) => glob.match(basename(path))),
  });
}

/** Where the machine's own things are; no setting of ours, and nothing of the test run. */
const BASICS = [
  "HOME",
  "LANG",
  "TMPDIR",
  "JAVA_HOME",
  "JAVA_HOME_17_X64",
  "NODE_EXTRA_CA_CERTS",
  "HTTPS_PROXY",
];

/** Without the Bun of this checkout: a reader has Node.js and npm. */
function pathOfReader(): string {
  const directories = (process.env.PATH ?? "").split(":");
  const isOurs = (directory: string) =>
    existsSync(join(directory, "bun")) && !existsSync(join(directory, "npm"));
  return directories.filter((directory) => !isOurs(directory)).join(":");
}

export type Done = Readonly<{ code: number; out: string; err: string }>;
export type Job = {
  /** Of the process itself, not of the shell that started it. */
  readonly pid: number;
  said(): string;
  /** Control-C: it goes to the whole group. Resolves when nobody of it is left. */
  interrupt(): Promise<number>;
  /** `kill PID`. Resolves with the exit code. */
  terminate(): Promise<number>;
};
export type Terminal = AsyncDisposable & {
  /** To its end. */
  run(text: string): Promise<Done>;
  /** Something that stays, in front or (with `&`) behind; resolves when it has said that. */
  start(text: string, said: RegExp): Promise<Job>;
  /** Into every later command, as `export` in a shell. */
  readonly environment: Record<string, string>;
};

const COMMAND_MS_MAX = 150_000;
const END_MS_MAX = 45_000;
const POLL_MS = 20;

/** Each command is a `bash -ec` with a process group of its own, in this directory. */
export function openTerminal(cwd: string, settings: Readonly<Record<string, string>> = {}): Terminal {
  const basics = BASICS.flatMap((name) => (process.env[name] ? [[name, process.env[name]] as const] : []));
  const environment: Record<string, string> = {
    PATH: pathOfReader(),
    ...Object.fromEntries(basics),
    // What was fetched once is not asked for again.
    npm_config_prefer_offline: "true",
    ...settings,
  };
  const groups = new Set<ReturnType<typeof spawn>>();

  function spawn(text: string) {
    const child = Bun.spawn(["bash", "-ec", text], {
      cwd,
      env: environment,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      detached: true,
    });
    const texts = { out: "", err: "" };
    const take = async (name: "out" | "err", stream: ReadableStream<Uint8Array>) => {
      const decoder = new TextDecoder();
      for await (const chunk of stream) texts[name] += decoder.decode(chunk, { stream: true });
    };
    const state = { isOver: false };
    // The streams end when the last process that holds them is gone.
    const over = Promise.all([take("out", child.stdout), take("err", child.stderr)]).then(async () => {
      const code = await child.exited;
      state.isOver = true;
      groups.delete(group);
      return code;
    });
    const group = {
      pid: child.pid,
      texts,
      over,
      isOver: () => state.isOver,
      signal(name: NodeJS.Signals) {
        if (!state.isOver) process.kill(-child.pid, name);
      },
    };
    groups.add(group);
    return group;
  }

  return {
    environment,
    async run(text) {
      const group = spawn(text);
      const code = await within(COMMAND_MS_MAX, `the end of \`${text}\``, () => group.over);
      return { code, ...group.texts };
    },
    async start(text, said) {
      const isBehind = text.endsWith("&");
      const group = spawn(isBehind ? `${text}\necho "[1] $!"\nwait $!` : text);
      const all = () => group.texts.out + group.texts.err;
      await within(COMMAND_MS_MAX, `${said} from \`${text}\``, async () => {
        while (!said.test(all())) {
          if (group.isOver()) throw new Error(`\`${text}\` ended with ${await group.over}:\n${all()}`);
          await Bun.sleep(POLL_MS);
        }
      });
      const pid = isBehind ? Number(/^\[1\] (\d+)$/m.exec(group.texts.out)?.[1]) : group.pid;
      const end = () => within(END_MS_MAX, `the end of \`${text}\``, () => group.over);
      return {
        pid,
        said: all,
        async interrupt() {
          group.signal("SIGINT");
          return end();
        },
        async terminate() {
          if (!group.isOver()) process.kill(pid, "SIGTERM");
          return end();
        },
      };
    },
    async [Symbol.asyncDispose]() {
      const left = [...groups];
      for (const group of left) group.signal("SIGKILL");
      await Promise.all(left.map(({ over }) => over));
    },
  };
}
