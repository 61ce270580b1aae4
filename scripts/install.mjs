// The first half of every npm script: installs what bun.lock names, with the Bun that package.json names. Plain
// Node.js, because it is what a fresh clone can run. It installs and ends; it does not start the second half. A
// process between npm and the program would get a Control-C too, and could not tell whether the program had it.

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

const root = new URL("..", import.meta.url);
const { devDependencies } = JSON.parse(readFileSync(new URL("package.json", root), "utf8"));

// All it prints goes to standard error: standard output is the program's.
const { status, error } = spawnSync(
  "npx",
  ["--yes", `bun@${devDependencies.bun}`, "install", "--frozen-lockfile"],
  { cwd: root, stdio: ["ignore", 2, 2] },
);
if (error !== undefined) console.error(`npx cannot be started: ${error.message}`);
process.exitCode = status ?? 1;
