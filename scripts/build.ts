// `bun run build`: every entrypoint becomes one binary that needs nothing beside it.
// `bun scripts/build.ts [entry.ts ...] [--outdir dist] [--target bun-linux-x64-baseline]`: only those, or elsewhere,
// or for another machine than this one.

import { existsSync, rmSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import packageFile from "../package.json" with { type: "json" };

const root = join(import.meta.dir, "..");
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { outdir: { type: "string", default: join(root, "dist") }, target: { type: "string" } },
});
const all = ["local.ts", "producer.ts", "processor.ts", "admin.ts"].map((file) => join(root, file));
const entrypoints = positionals.length > 0 ? positionals : all.filter((file) => existsSync(file));
if (entrypoints.length === 0) throw new Error("there is no entrypoint to build");

const version = [packageFile.version, gitHash()].filter((part) => part !== "").join("+");
for (const entrypoint of entrypoints)
  await build(entrypoint, join(values.outdir, basename(entrypoint, ".ts")));

async function build(entrypoint: string, outfile: string): Promise<void> {
  const startedAtMs = performance.now();
  await Bun.build({
    entrypoints: [entrypoint],
    compile: {
      outfile,
      ...(values.target !== undefined && { target: values.target as Bun.Build.CompileTarget }),
      // An operator's .env is wanted; a bunfig.toml could run code of whoever owns the working directory.
      autoloadDotenv: true,
      autoloadBunfig: false,
    },
    format: "esm", // Bytecode of the other format fails on top-level await.
    bytecode: true, // Starts in 18 ms instead of 44.
    // Names stay: an error's name is its class's, and a stack trace is read by people.
    minify: { whitespace: true, syntax: true, identifiers: false },
    sourcemap: "inline", // Embedded: stack traces name the .ts files and their lines.
    define: { BUILD_VERSION: JSON.stringify(version) },
  });
  rmSync(`${outfile}.map`, { force: true }); // Bun leaves a copy of what it embedded.
  const sizeMb = (statSync(outfile).size / 1e6).toFixed(1);
  const seconds = ((performance.now() - startedAtMs) / 1_000).toFixed(1);
  console.log(`${outfile}  ${version}  ${sizeMb} MB  ${seconds} s`);
}

/** Empty where there is no git or no repository: an unpacked archive builds too. */
function gitHash(): string {
  if (Bun.which("git") === null) return "";
  const git = Bun.spawnSync(["git", "rev-parse", "--short", "HEAD"], { cwd: root, stderr: "ignore" });
  return git.success ? git.stdout.toString().trim() : "";
}
