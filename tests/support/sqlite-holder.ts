// Another program that has market.sqlite open: a process of its own with a transaction that stays open until the test
// ends it.

import { join } from "node:path";
import { within } from "./builders.ts";

const START_MS_MAX = 20_000;

const PROGRAM = `
import { Database } from "bun:sqlite";
const [path, ...statements] = process.argv.slice(1);
const db = new Database(path);
db.run("PRAGMA busy_timeout = 10000");
for (const statement of statements) db.query(statement).all();
console.log("held");
for await (const _ of console) break;
if (db.inTransaction) db.run("COMMIT");
db.close();
`;

export type Holder = AsyncDisposable & Readonly<{ pid: number; release(): Promise<void> }>;

/** Resolves when the statements were executed. `release` commits and resolves when the program has ended. */
export async function holdDatabase(directory: string, ...statements: readonly string[]): Promise<Holder> {
  const path = join(directory, "market.sqlite");
  const child = Bun.spawn([process.execPath, "--no-env-file", "-e", PROGRAM, path, ...statements], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  await within(START_MS_MAX, "the other program's transaction", async () => {
    const { value } = await child.stdout.getReader().read();
    if (!new TextDecoder().decode(value).includes("held")) throw new Error("it holds nothing");
  });
  return {
    pid: child.pid,
    async release() {
      child.stdin.write("\n");
      child.stdin.end();
      await child.exited;
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}
