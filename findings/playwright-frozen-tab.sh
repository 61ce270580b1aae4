#!/usr/bin/env bash
# Surprise: under Playwright no page of Chromium is ever hidden, and so none can be frozen; the command says it is.
#
# Guess of a good engineer: with another page in front a page is hidden, and the protocol's Page.setWebLifecycleState with
#   "frozen" stops its timers until "active", as the browser does with a tab in the background.
# What happens: Playwright emulates the focus of every page, so each is "visible" for ever, and a visible page is not
#   frozen. The command answers without an error, no `freeze` event comes, and the timers go on. A second session that
#   switches the emulation off changes nothing. Spoken to without Playwright, the same Chromium hides a tab behind
#   another, and freezes it: its timers stand. So a test of a hidden or frozen tab needs the raw protocol.
# Seen with: playwright-core 1.65.1, Chromium 156.
# Needs: bash, node 20 or newer, npm, a Chromium (CHROMIUM=/path, default /usr/bin/chromium).
set -euo pipefail

chromium=${CHROMIUM:-/usr/bin/chromium}
[ -x "$chromium" ] || { echo "there is no $chromium: set CHROMIUM to a Chromium" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund playwright-core@1.65.1 ws@8.18.3
cat > run.mjs <<'SCRIPT'
import { spawn } from "node:child_process";
import { chromium } from "playwright-core";
import WebSocket from "ws";

const executablePath = process.argv[2];
const START = "globalThis.turns = 0; setInterval(() => { turns += 1; }, 50); undefined";
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Turns of a timer in a second after the page was put behind another and frozen, and whether it was hidden. */
async function frozen({ evaluate, hide, freeze }) {
  await evaluate(START);
  await hide();
  await sleep(500);
  await freeze();
  await sleep(500);
  const before = await evaluate("turns");
  await sleep(1_000);
  return { visibility: await evaluate("document.visibilityState"), turns: (await evaluate("turns")) - before };
}

async function withPlaywright() {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
  const context = await browser.newContext();
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  const seen = await frozen({
    evaluate: (expression) => page.evaluate(expression),
    hide: async () => {
      await session.send("Emulation.setFocusEmulationEnabled", { enabled: false });
      await (await context.newPage()).bringToFront();
    },
    freeze: () => session.send("Page.setWebLifecycleState", { state: "frozen" }),
  });
  await browser.close();
  return seen;
}

async function withoutPlaywright() {
  const args = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"];
  const child = spawn(executablePath, [...args, `--user-data-dir=${process.cwd()}/profile`]);
  const url = await new Promise((resolve) => {
    let text = "";
    child.stderr.on("data", (bytes) => {
      text += bytes;
      const found = /listening on (ws:\S+)/.exec(text);
      if (found) resolve(found[1]);
    });
  });
  const socket = new WebSocket(url);
  await new Promise((resolve) => socket.once("open", resolve));
  const waiting = new Map();
  socket.on("message", (data) => {
    const { id, result } = JSON.parse(data);
    waiting.get(id)?.(result);
  });
  let count = 0;
  const send = (method, params = {}, sessionId = undefined) =>
    new Promise((resolve) => {
      waiting.set(++count, resolve);
      socket.send(JSON.stringify({ id: count, method, params, sessionId }));
    });
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  await send("Page.enable", {}, sessionId);
  const seen = await frozen({
    evaluate: async (expression) =>
      (await send("Runtime.evaluate", { expression }, sessionId)).result.value,
    hide: async () => {
      const other = await send("Target.createTarget", { url: "about:blank" });
      await send("Target.activateTarget", { targetId: other.targetId });
    },
    freeze: () => send("Page.setWebLifecycleState", { state: "frozen" }, sessionId),
  });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  socket.close();
  child.kill("SIGKILL");
  await ended;
  return seen;
}

const [emulated, raw] = [await withPlaywright(), await withoutPlaywright()];
console.log(`with Playwright:    ${emulated.visibility}, ${emulated.turns} turns of a timer in a second of being "frozen"`);
console.log(`without Playwright: ${raw.visibility}, ${raw.turns} turns`);
const isAsBefore =
  emulated.visibility === "visible" && emulated.turns >= 10 && raw.visibility === "hidden" && raw.turns <= 1;
process.exit(isAsBefore ? 0 : 1);
SCRIPT
node run.mjs "$chromium"
