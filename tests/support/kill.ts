// kill -9 at a moment that a seed has chosen: after a number of lines of the child, or while it starts.

import { expect } from "bun:test";
import { systemClock } from "../../lib/base/clock.ts";

const CHILD_MS_MAX = 20_000;

/**
 * Runs a fixture until it has printed `lineCount` lines, kills it, and passes every whole line to `onLine`. With 0 lines
 * it is killed after `startMs`: started, and perhaps not yet ready.
 */
export async function runAndKill(
  command: readonly string[],
  lineCount: number,
  startMs: number,
  onLine: (line: string) => void,
): Promise<void> {
  const child = Bun.spawn([process.execPath, ...command], {
    stdout: "pipe",
    stderr: "pipe",
    timeout: CHILD_MS_MAX,
  });
  let isKilled = false;
  const kill = () => {
    isKilled = true;
    process.kill(child.pid, "SIGKILL");
  };
  if (lineCount === 0) systemClock.after(startMs, kill);
  let lines = 0;
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of child.stdout) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    for (const line of parts) {
      onLine(line);
      lines += 1;
      if (lines === lineCount && !isKilled) kill();
    }
  }
  await child.exited;
  expect(await child.stderr.text()).toBe("");
  expect(child.signalCode).toBe("SIGKILL");
}
