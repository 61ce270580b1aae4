// Java, and what runs on it: the jars of a server, resolved by Maven once for a checkout, and an archive of its
// loaded classes (AppCDS) that the first clean stop leaves behind, which halves every later start. Everything lies in
// node_modules/.cache; nothing here starts a server.

import { Database } from "bun:sqlite";
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, realpathSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { endWithin, startGuard } from "./guard.ts";

export type Java = Readonly<{ executable: string; keytool: string; version: string }>;

const CACHE = join(import.meta.dir, "../../../node_modules/.cache/services");
/** Kafka asks for 17; from 24 on Cassandra's security manager is refused. Tested on 17. */
const JAVA_MAJOR_MIN = 17;
const JAVA_MAJOR_MAX = 23;
/** 110 MB over a slow line; from Maven's own cache it takes seconds. */
const RESOLVE_MS_MAX = 600_000;
const POLL_MS = 100;
/** A server that lives for a test never earns back what the optimizing compiler costs. */
export const QUICK_COMPILER: readonly string[] = ["-XX:TieredStopAtLevel=1"];

/** The first usable one of JAVA_HOME, the name that GitHub's machines give to 17, and the path. */
export function findJava(): Java | null {
  const homes = [process.env.JAVA_HOME, process.env.JAVA_HOME_17_X64].filter((home) => home !== undefined);
  const found = [...homes.map((home) => join(home, "bin/java")), Bun.which("java")];
  for (const path of found) {
    if (path === null || !existsSync(path)) continue;
    const executable = realpathSync(path);
    const { stderr } = Bun.spawnSync([executable, "-version"], { stderr: "pipe" });
    const version = /version "(\d+[^"]*)"/.exec(stderr.toString())?.[1] ?? "0";
    const major = Number.parseInt(version, 10);
    const keytool = join(dirname(executable), "keytool");
    if (major >= JAVA_MAJOR_MIN && major <= JAVA_MAJOR_MAX) return { executable, keytool, version };
  }
  return null;
}

/** What real servers need and this machine lacks, as part of a sentence; null when they can run. */
export function whatIsMissing(): string | null {
  const java = findJava() === null ? [`Java ${JAVA_MAJOR_MIN} (or up to ${JAVA_MAJOR_MAX})`] : [];
  const maven = Bun.which("mvn") === null && !isResolved("kafka", "cassandra", "avro") ? ["Maven"] : [];
  const missing = [...java, ...maven];
  return missing.length > 0 ? missing.join(" and ") : null;
}

export function requireJava(): Java {
  const java = findJava();
  if (java === null) throw new Error(`there is no ${whatIsMissing()}: install it, or set JAVA_HOME`);
  return java;
}

/** The directory with a server's jars. Several processes may ask at once; one of them resolves. */
export async function resolveJars(service: string): Promise<string> {
  const jars = jarsOf(service);
  if (existsSync(jars)) return realpathSync(jars); // The archive of classes knows jars by their real path.
  mkdirSync(CACHE, { recursive: true });
  await locked(join(CACHE, "lock.sqlite"), async () => {
    if (existsSync(jars)) return;
    const mvn = Bun.which("mvn");
    if (mvn === null) throw new Error(`there is no Maven to resolve the jars of ${service}: install it`);
    const directory = `${jars}.part-${process.pid}`;
    await using guard = await startGuard(directory);
    const pom = ["-f", pomOf(service)];
    const goal = ["dependency:copy-dependencies", `-DoutputDirectory=${directory}/jars`];
    const log = join(directory, "maven.log");
    const run = await guard.run([mvn, "-B", "-q", ...pom, ...goal, "-DincludeScope=runtime"], log);
    const how = await endWithin(RESOLVE_MS_MAX, run);
    if (how !== "code 0") {
      throw new Error(`Maven did not bring the jars of ${service} (${how}):\n${readFileSync(log, "utf8")}`);
    }
    renameSync(join(directory, "jars"), jars); // Whole or not at all.
  });
  return realpathSync(jars);
}

export type ClassArchive = Readonly<{
  /** For the command line: read the archive, or, where there is none yet, write one at a clean end. */
  flags: readonly string[];
  /** For a helper of the same jars: read only. */
  readFlags: readonly string[];
  /** Makes what a clean end has written the archive of later starts. */
  keep(): void;
  /** Whether a clean end would write one, so that it is worth its time. */
  isWanted(): boolean;
}>;

/** `directory` is where one is written before it is kept. */
export function classArchive(service: string, java: Java, directory: string): ClassArchive {
  const identity = hashOf(`${java.executable} ${java.version} ${realpathSync(jarsOf(service))}`);
  const archive = join(CACHE, `${service}-${identity}.jsa`);
  const written = join(directory, "classes.jsa");
  const quiet = ["-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"];
  const isThere = existsSync(archive);
  const readFlags = isThere ? [...quiet, `-XX:SharedArchiveFile=${archive}`] : [];
  return {
    flags: isThere ? readFlags : [...quiet, `-XX:ArchiveClassesAtExit=${written}`],
    readFlags,
    keep() {
      if (!existsSync(written) || existsSync(archive)) return;
      const part = `${archive}.part-${process.pid}`;
      copyFileSync(written, part); // The other directory may be on another disk, where a rename cannot go.
      renameSync(part, archive);
    },
    isWanted: () => !existsSync(archive),
  };
}

function isResolved(...services: string[]): boolean {
  return services.every((service) => existsSync(jarsOf(service)));
}

/** Named by what is in it: another version is another directory. */
function jarsOf(service: string): string {
  return join(CACHE, `${service}-${hashOf(readFileSync(pomOf(service), "utf8"))}`);
}

function pomOf(service: string): string {
  return join(import.meta.dir, service, "pom.xml");
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 12);
}

/** One process at a time; the lock is SQLite's on the file, which the system frees when its holder dies. */
async function locked(file: string, work: () => Promise<void>): Promise<void> {
  using db = new Database(file);
  const endMs = performance.now() + RESOLVE_MS_MAX;
  for (;;) {
    try {
      db.run("BEGIN EXCLUSIVE");
      break;
    } catch (error) {
      const isHeld = error instanceof Error && "code" in error && error.code === "SQLITE_BUSY";
      if (!isHeld || performance.now() > endMs) throw error;
      await Bun.sleep(POLL_MS);
    }
  }
  await work();
}
