#!/usr/bin/env bash
# SQLite: a checkpoint that copied everything leaves the -wal file as long as it was, whatever journal_size_limit says.
#
# Guess: with PRAGMA journal_size_limit = 1000000 a -wal file that a reader made grow is cut to 1 MB by the first complete
#   checkpoint after that reader's end, for example the automatic one in the next commit.
# What happens: the automatic checkpoint (and PASSIVE, and FULL) copies all frames in that one commit, whose caller waits
#   for all of it, and the file stays as long as it was. It is cut by the transaction after it, which starts the file
#   over: so a writer that has nothing more to write keeps the large file for ever. Only TRUNCATE, or the close of the
#   last connection, cuts it without another write.
# Seen on: Bun 1.4.5 with SQLite 3.54.1, Linux.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" bun@1.4.5 > "$folder/npm.log"

cat > "$folder/seen.ts" <<'TYPESCRIPT'
import { Database } from "bun:sqlite";
import { statSync } from "node:fs";

const path = `${import.meta.dir}/seen.sqlite`;
const writer = new Database(path);
writer.run("PRAGMA journal_mode = WAL");
writer.run("PRAGMA journal_size_limit = 1000000");
writer.run("CREATE TABLE t (a)");
const write = (count: number) => {
  for (let row = 0; row < count; row++) writer.run("INSERT INTO t VALUES (zeroblob(4000))");
};
const megabytes = () => Math.round(statSync(`${path}-wal`).size / 1e6);
write(1);

const reader = new Database(path);
reader.run("BEGIN");
reader.query("SELECT count(*) FROM t").all();
write(3_000);
const grown = megabytes();
console.log(`Bun ${Bun.version}: with a reader, ${grown} MB`);
reader.run("COMMIT");
reader.close();

const begunAt = performance.now();
write(1);
const afterCheckpoint = megabytes();
const checkpointMs = performance.now() - begunAt;
const left = writer.query<{ log: number; checkpointed: number }, []>("PRAGMA wal_checkpoint(PASSIVE)").get()!;
const afterPassive = megabytes();
console.log(`after the commit that copied everything (${checkpointMs.toFixed(0)} ms): ${afterCheckpoint} MB`);
console.log(`after another checkpoint, ${left.checkpointed} of ${left.log} frames: ${afterPassive} MB`);
write(1);
const afterWrite = megabytes();
console.log(`after one more write: ${afterWrite} MB`);
const isSame =
  grown > 10 && afterCheckpoint === grown && afterPassive === grown && left.log === left.checkpointed && afterWrite <= 1;
console.log(isSame ? "as described" : "CHANGED");
process.exit(isSame ? 0 : 1);
TYPESCRIPT
"$folder/node_modules/.bin/bun" --no-env-file "$folder/seen.ts"
