#!/usr/bin/env bash
# SQLite: a TRUNCATE checkpoint that waits for a reader keeps every writer out for as long as it waits.
#
# Guess: wal_checkpoint(TRUNCATE) with a busy_timeout waits quietly until the reader has gone, and takes the write lock
#   for the moment in which it cuts the file off. Readers do not block writers in WAL mode, so writers go on meanwhile.
# What happens: it takes the write lock first and waits for the reader with the lock in its hands. So one forgotten
#   reader and one nightly checkpoint with a busy_timeout of a minute stop all writing for that minute. PASSIVE never
#   does, and TRUNCATE with a busy_timeout of 0 answers busy = 1 at once: try it again later instead of waiting in it.
# Seen on: Bun 1.4.5 with SQLite 3.54.1, Linux.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" bun@1.4.5 > "$folder/npm.log"

cat > "$folder/seen.ts" <<'TYPESCRIPT'
import { Database } from "bun:sqlite";

const path = `${import.meta.dir}/seen.sqlite`;
const checkpoint = (mode: string, timeoutMs: number) => {
  const db = new Database(path);
  db.run(`PRAGMA busy_timeout = ${timeoutMs}`);
  const begunAt = performance.now();
  const { busy } = db.query<{ busy: number }, []>(`PRAGMA wal_checkpoint(${mode})`).get()!;
  db.close();
  return `${mode} with a busy_timeout of ${timeoutMs} ms: busy ${busy} after ${Math.round(performance.now() - begunAt)} ms`;
};
if (process.argv[2] === "checkpoint") {
  console.log(checkpoint("TRUNCATE", 2_000));
  process.exit(0);
}

const writer = new Database(path);
writer.run("PRAGMA journal_mode = WAL");
writer.run("CREATE TABLE t (a)");
const reader = new Database(path);
reader.run("BEGIN");
reader.query("SELECT count(*) FROM t").all();
const write = () => {
  try {
    writer.run("INSERT INTO t VALUES (1)");
    return "written";
  } catch (error) {
    return String(error);
  }
};
console.log(`Bun ${Bun.version}. A reader is there: ${write()}`);
console.log(checkpoint("PASSIVE", 0));
console.log(checkpoint("TRUNCATE", 0));
const before = write();
const other = Bun.spawn([process.execPath, "--no-env-file", import.meta.path, "checkpoint"], { stdout: "inherit" });
const during = new Set<string>();
while (other.exitCode === null) {
  during.add(write());
  await Bun.sleep(20);
}
const after = write();
reader.run("COMMIT");
console.log(`before it: ${before}; while TRUNCATE waits: ${[...during].join(" or ")}; after it: ${after}`);
const isSame =
  before === "written" && after === "written" && [...during].some((text) => text.includes("database is locked"));
console.log(isSame ? "as described" : "CHANGED");
process.exit(isSame ? 0 : 1);
TYPESCRIPT
"$folder/node_modules/.bin/bun" --no-env-file "$folder/seen.ts"
