// Which other process holds a lock of a WAL database, as Linux tells it in /proc/locks. It is a help for a person: it
// decides nothing, and where the system does not tell, nobody is named.

import { readFile, stat } from "node:fs/promises";

/** The bytes of the -shm file that SQLite locks, from its file format. */
const WRITE_BYTE = 120;
const READ_BYTES = { first: 123, last: 127 };
/** In one sentence. */
const NAMED_MAX = 3;
const NAME_LENGTH_MAX = 32;

export type LockKind = "write" | "read";

/** The ids of the processes, this one too. Never rejects. */
export async function lockHolders(path: string, kind: LockKind): Promise<readonly number[]> {
  try {
    const [locks, { ino }] = await Promise.all([readFile("/proc/locks", "utf8"), stat(`${path}-shm`)]);
    return holdersIn(locks, ino, kind);
  } catch {
    return []; // No Linux, or a container that hides them.
  }
}

/** Of the text of /proc/locks: `1: POSIX  ADVISORY  WRITE 4711 fe:00:138700 120 120`. */
export function holdersIn(locks: string, inode: number, kind: LockKind): number[] {
  const range = kind === "write" ? { first: WRITE_BYTE, last: WRITE_BYTE } : READ_BYTES;
  const type = kind === "write" ? "WRITE" : "READ";
  const found = new Set<number>();
  for (const line of locks.split("\n")) {
    const [, , , held, pid, file, first, last] = line.trim().split(/\s+/);
    if (held !== type || file?.split(":")[2] !== String(inode)) continue;
    const isWithin = Number(first) <= range.last && (last === "EOF" || Number(last) >= range.first);
    if (isWithin && Number(pid) > 0) found.add(Number(pid));
  }
  return [...found];
}

/** A subject for a sentence: `another program (python3, process 4711)`. Never rejects. */
export async function describeHolders(pids: readonly number[]): Promise<string> {
  if (pids.length === 0) return "another program";
  // Its transactions are over before anything else runs, but its checkpoint is in a thread.
  if (pids.includes(process.pid)) return "this process's own checkpoint";
  const names = await Promise.all(
    pids.slice(0, NAMED_MAX).map(async (pid) => {
      const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
      // Any process may call itself anything.
      const clean = name.replace(/[^\x21-\x7e]/g, "").slice(0, NAME_LENGTH_MAX);
      return clean === "" ? `process ${pid}` : `${clean}, process ${pid}`;
    }),
  );
  return `another program (${names.join("; ")})`;
}
