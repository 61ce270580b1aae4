// A macro: it runs while the importing file is transpiled, from source as in scripts/build.ts, and its answer
// stands there as a text. So the page needs no build step beforehand and is inside the binary. No code of it runs
// in the process that serves the page. (Bun.build inside a macro waits for itself for ever, hence the child.)

import { join } from "node:path";

/** The page's script with all it imports. */
export function bundlePage(): string {
  const entrypoint = join(import.meta.dir, "page/main.ts");
  const build = Bun.spawnSync([
    process.execPath,
    "build",
    "--target=browser",
    "--production",
    "--minify",
    entrypoint,
  ]);
  if (!build.success) throw new Error(`the page cannot be bundled: ${build.stderr.toString()}`);
  return build.stdout.toString();
}
