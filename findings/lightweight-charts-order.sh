#!/usr/bin/env bash
# Surprise: what lightweight-charts refuses depends on the build, and `historicalUpdate` inserts nothing.
#
# Guess of a good engineer: setData refuses bars that are out of order, doubled or without numbers ("data must be asc
#   ordered by time" stands in the docs and in the development build), so an error would show at once; and
#   series.update(bar, true), the "historical update", takes a bar for any older time.
# What happens: the production build has no such checks. setData takes bars out of order, two of one time, null and NaN,
#   says nothing, and draws nonsense. update(bar) throws for any time before the newest bar. update(bar, true) changes an
#   older bar that exists, and throws for one that does not: also for an older time between two bars, and for a newer one.
#   So whoever has a late bar for an empty minute must call setData with all bars, and must order them himself.
# Seen with: lightweight-charts 5.2.1 (standalone production build), Chromium 156 by playwright-core 1.65.1.
# Needs: bash, node 20 or newer, npm, a Chromium (CHROMIUM=/path, default /usr/bin/chromium).
set -euo pipefail

chromium=${CHROMIUM:-/usr/bin/chromium}
[ -x "$chromium" ] || { echo "there is no $chromium: set CHROMIUM to a Chromium" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund lightweight-charts@5.2.1 playwright-core@1.65.1
cat > run.mjs <<'SCRIPT'
import { chromium } from "playwright-core";

const browser = await chromium.launch({ executablePath: process.argv[2], args: ["--no-sandbox", "--disable-gpu"] });
const page = await browser.newPage();
await page.setContent('<div id="host" style="width: 400px; height: 300px"></div>');
await page.addScriptTag({ path: "node_modules/lightweight-charts/dist/lightweight-charts.standalone.production.js" });
const seen = await page.evaluate(() => {
  const { createChart, CandlestickSeries } = LightweightCharts;
  const bar = (time, price = 1) => ({ time, open: price, high: price, low: price, close: price });
  const tried = (work) => {
    const series = createChart(document.getElementById("host")).addSeries(CandlestickSeries);
    try {
      work(series);
      return `taken: ${series.data().map(({ time }) => time).join(" ")}`;
    } catch {
      return "throws";
    }
  };
  const three = [bar(100), bar(200), bar(400)];
  const update = (...args) => tried((series) => { series.setData(three); series.update(...args); });
  return {
    "setData out of order": tried((series) => series.setData([bar(300), bar(100), bar(200)])),
    "setData with a time twice": tried((series) => series.setData([bar(100), bar(100, 2)])),
    "setData with null": tried((series) => series.setData([bar(100), bar(200, null)])),
    "setData with NaN": tried((series) => series.setData([bar(100), bar(200, Number.NaN)])),
    "update of an older bar": update(bar(200, 2)),
    "historical update of an older bar": update(bar(200, 2), true),
    "historical update between two bars": update(bar(300), true),
    "historical update after the newest bar": update(bar(500), true),
  };
});
await browser.close();
const expected = {
  "setData out of order": "taken: 300 100 200",
  "setData with a time twice": "taken: 100 100",
  "setData with null": "taken",
  "setData with NaN": "taken",
  "update of an older bar": "throws",
  "historical update of an older bar": "taken: 100 200 400",
  "historical update between two bars": "throws",
  "historical update after the newest bar": "throws",
};
let changed = 0;
for (const [what, how] of Object.entries(seen)) {
  const isAsBefore = how.startsWith(expected[what]);
  if (!isAsBefore) changed += 1;
  console.log(`${what}: ${how}${isAsBefore ? "" : `   (was: ${expected[what]})`}`);
}
process.exit(changed === 0 ? 0 : 1);
SCRIPT
node run.mjs "$chromium"
