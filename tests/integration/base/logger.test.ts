// The logger of a real process whose standard error nobody reads.

import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { eventually, temporaryDirectory } from "../../support/builders.ts";

const STEP_MS_MAX = 20_000;
const LINES = 200;
/** Three times what a pipe holds. Each line that waited by itself would take 100 ms. */
const LOGGED_MS_MAX = 2_000;

const PROGRAM = `
import { writeFileSync, renameSync } from "node:fs";
import { openLogger } from ${JSON.stringify(join(import.meta.dir, "../../../lib/base/logger.ts"))};
const logger = openLogger({ name: "local", level: "info", format: "json", secrets: [] });
const begunAt = performance.now();
for (let line = 0; line < ${LINES}; line++) logger.warn("x".repeat(900));
writeFileSync("took.new", String(performance.now() - begunAt));
renameSync("took.new", "took");
process.exit(0);
`;

test("a reader of the log that stops reading holds up one line, and not every one", async () => {
  using directory = temporaryDirectory();
  // The shell's second program has the pipe and reads nothing, until its own input ends.
  const command = `"$0" --no-env-file -e "$1" 2>&1 >&3 3>&- | (read _ <&4)`;
  const child = Bun.spawn(["bash", "-c", `exec 3>/dev/null 4<&0; ${command}`, process.execPath, PROGRAM], {
    cwd: directory.path,
    stdin: "pipe",
    stdout: "ignore",
    stderr: "inherit",
  });
  try {
    const file = join(directory.path, "took");
    await eventually(STEP_MS_MAX, "all lines", () => existsSync(file));
    expect(Number(readFileSync(file, "utf8"))).toBeLessThan(LOGGED_MS_MAX);
  } finally {
    child.stdin.end();
    await child.exited;
  }
}, 30_000);
