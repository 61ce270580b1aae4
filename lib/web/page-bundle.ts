// A macro: it runs while the importing file is transpiled, both from source and in scripts/build.ts, and its result is
// put there as a text. So the page needs no build step beforehand and is inside the binary. None of this code runs in
// the process that serves the page. (Bun.build inside a macro waits for itself for ever, hence the child process.)

import { join } from "node:path";

/** A script of the page, with everything that it imports. */
export function bundlePage(name: "main" | "worker"): string {
  const entrypoint = join(import.meta.dir, `page/${name}.ts`);
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
