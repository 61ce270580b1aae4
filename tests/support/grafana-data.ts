// Grafana's own front half, @grafana/data, installed once into the cache of the checkout, apart from what the project
// depends on: 200 MB that only one test needs. No Grafana runs.

import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

const SOURCE = join(import.meta.dir, "grafana-data");
const CACHE = join(import.meta.dir, "../../node_modules/.cache");
const FILES = ["package.json", "bun.lock", "seen.mjs"];
const INSTALL_MS_MAX = 300_000;
const SEE_MS_MAX = 60_000;

export type Seen = Readonly<{
  /** What a stat panel shows. */
  stats: readonly string[];
  /** Of each numeric field, how many points are left to draw. */
  points: readonly number[];
  /** Of each numeric field, its values as texts. */
  shown: readonly (readonly string[])[];
  /** Of each numeric field, the gap in ms beyond which no line is drawn; null = over any. */
  insertNulls: readonly (number | null)[];
}>;

/** Rejects with what the installer said. */
export async function installGrafanaData(): Promise<string> {
  const directory = join(CACHE, "grafana-data");
  const part = `${directory}.part-${process.pid}`;
  if (!existsSync(join(directory, "node_modules"))) {
    mkdirSync(part, { recursive: true });
    for (const file of FILES) copyFileSync(join(SOURCE, file), join(part, file));
    const command = [
      process.execPath,
      "install",
      "--frozen-lockfile",
      "--ignore-scripts",
      "--config=/dev/null",
    ];
    const install = Bun.spawn(command, {
      cwd: part,
      stdout: "ignore",
      stderr: "pipe",
      timeout: INSTALL_MS_MAX,
    });
    const [errors, code] = await Promise.all([install.stderr.text(), install.exited]);
    if (code !== 0) throw new Error(`@grafana/data was not installed (${code}):\n${errors}`);
    rmSync(directory, { recursive: true, force: true });
    renameSync(part, directory); // Whole or not at all.
  }
  for (const file of FILES) copyFileSync(join(SOURCE, file), join(directory, file));
  return directory;
}

export type Question = Readonly<{ panel: unknown; frames: readonly unknown[] }>;

/** What a person sees of panels that were answered with these frames, in the order of the questions. */
export async function seenOf(directory: string, questions: readonly Question[]): Promise<Seen[]> {
  const child = Bun.spawn([process.execPath, "seen.mjs"], {
    cwd: directory,
    stdin: new TextEncoder().encode(JSON.stringify(questions)),
    stdout: "pipe",
    stderr: "pipe",
    timeout: SEE_MS_MAX,
  });
  const [out, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`@grafana/data said (${code}): ${errors}`);
  // The last line: a library of Grafana's prints an advertisement before it.
  return JSON.parse(out.trimEnd().split("\n").at(-1)!) as Seen[];
}
