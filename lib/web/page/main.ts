// The live page: it connects the stream, the history and the drawing. Events change the model; a frame of the browser
// draws it, so ten events between two frames are drawn once. It sends requests to no other server than its own.

import { type Interval, LINE_SECONDS } from "../live/protocol.ts";
import { CandleChart } from "./candle-chart.ts";
import { byId, setData, setText } from "./dom.ts";
import * as format from "./format.ts";
import { requestAverages, requestSeconds } from "./history.ts";
import { Model, type SymbolView } from "./model.ts";
import { PriceChart } from "./price-chart.ts";
import { Stream, type StreamState } from "./stream.ts";
import { sign, Table } from "./table.ts";
import { startTheme } from "./theme.ts";

/** Five of the server's heartbeats. */
const SILENT_MS_MAX = 5_000;
/** After so long without a trade the page says that the markets may be closed. */
const QUIET_MS = 60_000;
/** Averages and candles are written every 5 s. */
const HISTORY_EVERY_MS = 5_000;
const SECOND_MS = 1_000;
const KEYS_TO_INTERVAL: Readonly<Record<string, Interval>> = { "1": "1m", "2": "5m", "3": "1h" };

const model = new Model();
const moved = new Set<SymbolView>();
let connection: StreamState = "connecting";
let isFramePending = false;
let isAllDue = true;
let areChartsDue = true;
/** The symbol in the address, until the first snapshot tells which symbols there are. */
let asked: string | null = decodeURIComponent(location.hash.slice(1)) || null;
/** The symbol whose history was requested. */
let loaded: string | null = null;

// Each part is started in a task of its own: together they would block the browser for so long that it can be felt.
const styled: { restyle(): void }[] = [];
const table = begin(new Table(choose));
await nextTask();
const theme = startTheme(() => {
  for (const part of styled) part.restyle();
  requestDraw(true);
});
const prices = begin(new PriceChart());
await nextTask();
const candles = begin(new CandleChart());
await nextTask();

const stream = new Stream({
  onSnapshot(snapshot) {
    model.takeSnapshot(snapshot);
    table.rebuild(model);
    const first = model.symbols[0]?.symbol;
    const isThere = asked !== null && model.bySymbol.has(asked);
    if (!isThere && first !== undefined) choose(first);
    else if (model.chosen !== null && loaded !== model.chosen) void loadHistory(model.chosen);
    requestDraw(true);
  },
  onDelta(delta) {
    for (const view of model.takeDelta(delta)) moved.add(view);
    requestDraw(delta.status !== undefined);
  },
  onState(state) {
    if (state === connection) return;
    // What was stored while the connection was lost is requested again.
    if (state === "lost") loaded = null;
    connection = state;
    requestDraw(true);
  },
});

stream.open(asked);
listenToKeys();
setInterval(() => requestDraw(true), SECOND_MS);
setInterval(() => {
  if (connection === "connected" && !document.hidden) void refreshHistory();
}, HISTORY_EVERY_MS);

function begin<Part extends { restyle(): void }>(part: Part): Part {
  styled.push(part);
  part.restyle();
  return part;
}

function nextTask(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

// --- Choosing --------------------------------------------------------------------------------------------------

function choose(symbol: string): void {
  if (symbol === asked && symbol === model.chosen) return;
  asked = symbol;
  history.replaceState(null, "", `#${encodeURIComponent(symbol)}`);
  loaded = null;
  prices.reset();
  model.seconds.clear();
  model.chosen = symbol;
  stream.open(symbol);
  requestDraw(true);
}

function chooseInterval(interval: Interval): void {
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-interval]")) {
    if (button.tagName === "BUTTON") button.ariaPressed = String(button.dataset.interval === interval);
  }
  if (model.chosen !== null) void candles.show(model.chosen, interval, model.nowMs());
}

async function loadHistory(symbol: string): Promise<void> {
  loaded = symbol;
  const nowMs = model.nowMs();
  const fromMs = nowMs - LINE_SECONDS * 1_000;
  const [seconds, averages] = await Promise.all([
    requestSeconds(symbol, fromMs),
    requestAverages(symbol, fromMs),
    candles.show(symbol, candles.interval, nowMs),
  ]);
  if (symbol !== model.chosen) return;
  model.takeHistory(symbol, seconds);
  prices.takeAverages(averages);
  requestDraw(true);
}

async function refreshHistory(): Promise<void> {
  const symbol = model.chosen;
  if (symbol === null) return;
  const nowMs = model.nowMs();
  const [averages] = await Promise.all([requestAverages(symbol, nowMs - 30_000), candles.refresh(nowMs)]);
  if (symbol === model.chosen) prices.takeAverages(averages);
  // In the same frame: the stored open candle closes with a trade that is dated ahead, until the seconds overwrite it.
  requestDraw(false);
}

// --- Drawing ---------------------------------------------------------------------------------------------------

function requestDraw(isAll: boolean): void {
  isAllDue ||= isAll;
  areChartsDue = true;
  requestFrame();
}

function requestFrame(): void {
  if (isFramePending) return;
  isFramePending = true;
  requestAnimationFrame(draw);
}

/** The table's texts, the charts and the sparklines have frames of their own, so that no frame is long. */
function draw(): void {
  isFramePending = false;
  const nowMs = model.nowMs();
  if (isAllDue) {
    drawBar(nowMs);
    table.drawAll(model);
    isAllDue = false;
    moved.clear();
    requestFrame();
    return;
  }
  table.drawPrices(model, moved);
  moved.clear();
  if (areChartsDue) drawChosen(nowMs);
  areChartsDue = false;
  if (table.drawSparklines(nowMs)) requestFrame();
}

function drawChosen(nowMs: number): void {
  const view = model.chosen === null ? undefined : model.bySymbol.get(model.chosen);
  if (view === undefined) return;
  drawHeadline(view);
  if (isStale(nowMs) !== null && connection !== "connected") return; // Time does not pass on a frozen chart.
  prices.draw(model.seconds, nowMs, view.decimals);
  candles.draw(model.seconds, nowMs, view.decimals);
}

function drawHeadline(view: SymbolView): void {
  const [name, venue] = format.nameOf(view.symbol);
  setText(byId("chosen-symbol"), name);
  setText(byId("chosen-venue"), venue);
  const price = byId("chosen-price");
  setText(price, view.price === null ? "–" : format.price(view.price, view.decimals));
  setData(price, { value: view.price, at: view.price === null ? null : view.atMs });
  const change = model.changeOf(view);
  const element = byId("chosen-change");
  setText(element, change === null ? "–" : format.percent(change));
  setData(element, { value: change });
  element.className = `change ${sign(change)}`;
  document.title = `${price.textContent} ${name}${model.simulated ? " (simulated)" : ""}`;
}

function drawBar(nowMs: number): void {
  const stale = isStale(nowMs);
  const source = model.simulated ? "simulated" : "live";
  setText(byId("latency-of"), model.seenAt === "store" ? "stored in (p50)" : "on the topic in (p50)");
  const badge = byId("badge");
  if (model.symbols.length > 0 || model.status !== null) {
    badge.dataset.state = stale === null ? source : "stale";
    setText(badge, stale === null ? source : model.simulated ? "simulated, stale" : "stale");
  }
  document.body.classList.toggle("stale", stale !== null);
  const connectionElement = byId("connection");
  connectionElement.dataset.state = connection;
  setText(connectionElement, connection === "lost" ? "reconnecting" : connection);
  const warnings = model.status?.health.warnings ?? [];
  const notice = byId("notice");
  const words = stale ?? (warnings.length > 0 ? `Warning: ${warnings.join("; ")}` : "");
  notice.hidden = words === "";
  setText(notice, words);
  drawStrip();
}

function drawStrip(): void {
  const { latency, rates, rateEndMs } = model.status ?? { latency: null, rates: [], rateEndMs: null };
  for (const [id, value] of [
    ["latency-p50", latency?.p50Ms ?? null],
    ["latency-p99", latency?.p99Ms ?? null],
  ] as const) {
    setText(byId(id), value === null ? "–" : format.duration(value));
    setData(byId(id), { value });
  }
  const total = rates.reduce((sum, rate) => sum + rate, 0);
  setText(byId("rate-total"), model.status === null ? "–" : format.rate(total));
  setData(byId("rate-total"), { value: total, end: rateEndMs });
}

/** Why the data shown may be old, in a sentence; null = it is not. */
function isStale(nowMs: number): string | null {
  if (model.status === null) return null;
  const at = format.clock(nowMs - model.silentMs());
  if (connection === "lost") return `The connection is lost; the data shown is from ${at} UTC.`;
  if (model.silentMs() > SILENT_MS_MAX) return `The server has sent nothing since ${at} UTC.`;
  const { status, reason } = model.status.health;
  if (status !== "ok") return `These prices may be old: ${reason ?? "the pipeline is failing"}.`;
  const quietMs = nowMs - model.newestTradeAtMs();
  if (model.newestTradeAtMs() === 0) return null;
  return quietMs > QUIET_MS ? `No trade for ${format.age(quietMs)}: the markets may be closed.` : null;
}

// --- Keys ------------------------------------------------------------------------------------------------------

function listenToKeys(): void {
  const help = byId<HTMLDialogElement>("help");
  byId("help-open").addEventListener("click", () => help.showModal());
  for (const button of document.querySelectorAll<HTMLButtonElement>("button[data-interval]")) {
    button.addEventListener("click", () => chooseInterval(button.dataset.interval as Interval));
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const { key } = event;
    const isTyping = event.target instanceof HTMLInputElement;
    if (key === "Escape") table.clearFilter();
    else if (key === "ArrowDown" || key === "ArrowUp") step(key === "ArrowDown" ? 1 : -1);
    else if (isTyping) return;
    else if (key === "/") table.focusFilter();
    else if (key === "?") help.showModal();
    else if (key === "t") theme.next();
    else if (KEYS_TO_INTERVAL[key] !== undefined) chooseInterval(KEYS_TO_INTERVAL[key]);
    else return;
    event.preventDefault();
  });
}

function step(by: number): void {
  const symbol = table.step(model.chosen, by);
  if (symbol === null) return;
  choose(symbol);
  table.scrollTo(symbol);
}
