#!/usr/bin/env bash
# Bun: whether a write to a full pipe on standard error blocks depends on where standard output goes.
#
# Guess: writeSync(2, ...) behaves alike wherever standard output goes: either it waits for the reader of a full pipe, as
#   a plain write does, or it throws EAGAIN.
# What happens: with standard output on the same pipe (2>&1 |) it throws EAGAIN, because Bun makes standard output
#   non-blocking and both share one open file. With standard error on a pipe of its own it blocks the whole process for
#   as long as nobody reads. So code that handles EAGAIN looks right in one set-up and stands still in the other.
# Seen on: Bun 1.4.5, Linux.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --silent --no-audit --no-fund --prefix "$folder" bun@1.4.5 > "$folder/npm.log"
bun="$folder/node_modules/.bin/bun"

cat > "$folder/seen.ts" <<'TYPESCRIPT'
import { writeFileSync, writeSync } from "node:fs";

process.stdout.on("error", () => {});
let outcome = "no EAGAIN";
const begunAt = performance.now();
for (let line = 0; line < 200 && outcome === "no EAGAIN"; line++) {
  try {
    writeSync(2, `${"x".repeat(999)}\n`);
  } catch (error) {
    outcome = String((error as { code?: unknown }).code);
  }
}
const isSlow = performance.now() - begunAt > 1_000;
writeFileSync(process.argv[2]!, `${outcome}, ${isSlow ? "it waited" : "at once"}`);
process.exit(0);
TYPESCRIPT

"$bun" --no-env-file "$folder/seen.ts" "$folder/both" 2>&1 | sleep 3 || true
{ "$bun" --no-env-file "$folder/seen.ts" "$folder/alone" 2>&1 >&3 3>&- | sleep 3 || true; } 3> /dev/null
both=$(cat "$folder/both")
alone=$(cat "$folder/alone")
echo "standard output on the same pipe: $both"
echo "standard error on a pipe of its own: $alone"
if [[ $both == "EAGAIN, at once" && $alone == *"it waited" ]]; then
  echo "as described"
else
  echo "CHANGED"
  exit 1
fi
