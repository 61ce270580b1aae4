// A simulation that finds nothing proves nothing: each mistake of simulation/controls.ts is planted in a copy of
// the tree, and the simulation of the copy must show it in its figures: lost, doubled or wrongWindows above 0.

import { afterAll, expect, test } from "bun:test";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryDirectory } from "../support/builders.ts";
import { CONTROLS, type Control } from "./controls.ts";

const ROOT = join(import.meta.dir, "../..");
const SEEDS_MAX = 600;
const RUN_MS_MAX = 90_000;
/** Two cores. */
const PROCESSES_MAX = 2;

type Figures = { seeds: number; lost: number; doubled: number; wrongWindows: number };
type Found = Figures & { name: string; seed: string; tookMs: number };

const found: Found[] = [];

function copyTree(to: string): void {
  const tests = ["tests/simulation", "tests/support", "tests/reference.ts"];
  for (const name of ["lib", "sql", "schemas", ...tests, "bench/simulate.ts"]) {
    cpSync(join(ROOT, name), join(to, name), { recursive: true });
  }
  for (const name of ["package.json", "tsconfig.json"]) cpSync(join(ROOT, name), join(to, name));
  symlinkSync(join(ROOT, "node_modules"), join(to, "node_modules"));
}

function plant(directory: string, { name, edits }: Control): void {
  for (const { file, find, replace } of edits) {
    const path = join(directory, file);
    const parts = readFileSync(path, "utf8").split(find);
    if (parts.length !== 2) {
      throw new Error(
        `"${name}" fits ${parts.length - 1} times in ${file}: mend tests/simulation/controls.ts`,
      );
    }
    writeFileSync(path, parts.join(replace));
  }
}

async function run(directory: string, { name, from = 1, seedsMax = SEEDS_MAX }: Control): Promise<Found> {
  const startedMs = performance.now();
  const options = ["--from", String(from), "--seeds", String(seedsMax), "--until-wrong", "--json"];
  const child = Bun.spawn([process.execPath, "bench/simulate.ts", ...options], {
    cwd: directory,
    stdout: "pipe",
    stderr: "ignore",
    timeout: RUN_MS_MAX,
  });
  const output = await child.stdout.text();
  await child.exited;
  const figures = JSON.parse(output.trimEnd().split("\n").at(-1) || "{}") as Figures;
  const seed = /(?:^|\n)seed (\d+): RED(?![\s\S]*\nseed \d+: RED)/.exec(output)?.[1] ?? "none";
  return { ...figures, name, seed, tookMs: Math.round(performance.now() - startedMs) };
}

let slots = PROCESSES_MAX;
const waiting: (() => void)[] = [];

async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  if (slots === 0) await new Promise<void>((resolve) => waiting.push(resolve));
  else slots -= 1;
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next) next();
    else slots += 1;
  }
}

afterAll(() => {
  for (const { name, seeds, seed, lost, doubled, wrongWindows, tookMs } of found) {
    const figures = `${lost} lost, ${doubled} doubled, ${wrongWindows} windows wrong`;
    console.log(`${name.padEnd(66)} seed ${seed} after ${seeds} seeds, ${tookMs} ms: ${figures}`);
  }
});

for (const control of CONTROLS) {
  test.concurrent(
    `planted: ${control.name}`,
    () =>
      inTurn(async () => {
        using directory = temporaryDirectory();
        mkdirSync(join(directory.path, "tests"), { recursive: true });
        mkdirSync(join(directory.path, "bench"));
        copyTree(directory.path);
        plant(directory.path, control);
        const figures = await run(directory.path, control);
        found.push(figures);
        expect(figures.lost + figures.doubled + figures.wrongWindows).toBeGreaterThan(0);
      }),
    600_000,
  );
}

test("a patch that does not fit is an error", () => {
  const edit = { file: "package.json", find: "no such text", replace: "" };
  expect(() => plant(ROOT, { name: "none", edits: [edit] })).toThrow("fits 0 times");
});
