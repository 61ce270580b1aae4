#!/usr/bin/env bash
# Math.sumPrecise (ES2026) in Bun 1.4.5 rounds some sums below zero to the wrong neighbour.
#
# Guess:    Math.sumPrecise is correctly rounded by its specification, so the sum of negated numbers is the negated sum.
# Seen:     Math.sumPrecise([1.4210854715202004e-14, 372.37]) is 372.37, as it should be: the small number is a quarter of
#           the last digit's step. Math.sumPrecise of the two numbers negated is -372.37000000000006, one step too far from zero.
# Versions: bun 1.4.5 (npm).
# Matters:  sums and averages of prices or cash flows below zero (WTI at -37.63, spreads, power) are wrong in the last digit.
set -euo pipefail
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund bun@1.4.5
cat >sum.ts <<'TS'
const [small, large] = [1.4210854715202004e-14, 372.37];
console.log(Bun.version, Math.sumPrecise([small, large]), Math.sumPrecise([-small, -large]), -small + -large);
TS
seen=$(npx bun sum.ts)
echo "seen: version, sum, sum of the negated, the same by +: $seen"
[ "$seen" = "1.4.5 372.37 -372.37000000000006 -372.37" ] || {
  echo "this has changed" >&2
  exit 1
}
