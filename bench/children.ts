// Children of a measurement: started, read line by line, ended; and what the kernel says of them. It measures nothing.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { SentFrame } from "./sender.ts";

/** The kernel counts CPU time in these. */
const CLOCK_TICKS_PER_SECOND = 100;

export async function startSender(tradesPerSecond: number, tradeCount: number, speed: number | "max") {
  const child = Bun.spawn(
    [
      process.execPath,
      join(import.meta.dir, "sender.ts"),
      ...[tradesPerSecond, tradeCount, speed].map(String),
    ],
    { stdin: "ignore", stdout: "pipe", stderr: "inherit" },
  );
  const lines = linesOf(child.stdout);
  const first = JSON.parse((await lines.next()).value ?? "null") as { wsUrl: string; tradeCount: number };
  const cpuAtStart = cpuSecondsOf(child.pid);
  return {
    ...first,
    cpuSeconds: () => cpuSecondsOf(child.pid) - cpuAtStart,
    async end(): Promise<readonly SentFrame[]> {
      child.kill("SIGTERM");
      return JSON.parse((await lines.next()).value ?? "[]") as SentFrame[];
    },
    [Symbol.asyncDispose]: () => ended(child),
  };
}

export async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, undefined> {
  const decoder = new TextDecoder();
  let parts: string[] = [];
  for await (const bytes of stream) {
    const pieces = decoder.decode(bytes, { stream: true }).split("\n");
    parts.push(pieces[0]!);
    for (const piece of pieces.slice(1)) {
      yield parts.join("");
      parts = [piece];
    }
  }
}

export async function ended(child: Bun.Subprocess): Promise<void> {
  child.kill("SIGKILL");
  await child.exited;
}

/** When the frame of this trade was handed to the socket. */
export function sentAt(sent: readonly SentFrame[], number: number): number {
  let low = 0;
  let high = sent.length;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sent[middle]![0] <= number) low = middle;
    else high = middle;
  }
  return sent[low]![1];
}

export function now(): number {
  return performance.timeOrigin + performance.now();
}

/** The kernel's word on another process: fields 14 and 15 of its stat, behind the name in brackets. */
export function cpuSecondsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND;
}

export function rssOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1_024;
}

export function mib(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(0);
}
