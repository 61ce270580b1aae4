// The live page: it connects the stream, the history and the drawing. Events change the model; a frame of the browser
// draws it, so ten events between two frames are drawn once. It sends requests to no other server than its own. Each
// part fails alone and is mended alone.

import type { Delta, Interval, Snapshot } from "../live/protocol.ts";
import { CandleChart } from "./candle-chart.ts";
import { CandleHistory } from "./candle-history.ts";
import { byId } from "./dom.ts";
import { drawBar, drawHeadline, staleReason } from "./header.ts";
import { LineHistory } from "./line-history.ts";
import { Model, type SymbolView } from "./model.ts";
import { Part } from "./part.ts";
import { PriceChart } from "./price-chart.ts";
import type { StreamState } from "./source.ts";
import { Stream } from "./stream.ts";
import { Table } from "./table.ts";
import { startTheme } from "./theme.ts";

/** Averages and candles are written every 5 s. */
const HISTORY_EVERY_MS = 5_000;
const SECOND_MS = 1_000;
const KEYS_TO_INTERVAL: Readonly<Record<string, Interval>> = { "1": "1m", "2": "5m", "3": "1h" };

const model = new Model();
const candleHistory = new CandleHistory();
const lineHistory = new LineHistory();
const moved = new Set<SymbolView>();
let connection: StreamState = "connecting";
let isFramePending = false;
let isAllDue = true;
let areChartsDue = true;
/** The model missed an event, so only a whole view makes it right. */
let isModelBroken = false;
let interval: Interval = "1m";
/** The symbol in the address, until the first snapshot tells which symbols there are. */
let asked: string | null = symbolInAddress();

/** Has no state that could break. */
const stateless = () => ({});
const theme = new Part("choice of a theme", "bar", () => startTheme(restyle));
const table = new Part("table", "market", () => new Table(choose));
const sparklines = new Part("drawing of the sparklines", "market", stateless);
const lines: Part<PriceChart> = new Part(
  "price chart",
  "lines",
  () => new PriceChart((error) => lines.fail(error)),
);
const candles = new Part("candle chart", "candles", () => new CandleChart(candleHistory));
const bar = new Part("bar", "footer", stateless);
const headline = new Part("headline", "footer", stateless);
const keys = new Part("keyboard", "footer", stateless);
const address = new Part("change of the address", "footer", stateless);
const events = new Part("reading of the stream", "bar", stateless);
const candleRequests = new Part("request for candles", "candles", stateless);
const averageRequests = new Part("request for averages", "lines", stateless);
const secondRequests = new Part("request for trades", "lines", stateless);

// What fails in a task of a library's own: the candle chart draws in frames of its own.
addEventListener("error", (event) => {
  if (!(event.error instanceof Error)) return;
  event.preventDefault();
  candles.fail(event.error);
});
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  events.fail(event.reason);
});

// Each part is started in a task of its own: together they would block the browser for so long that it can be felt.
let areStyled = false;
theme.use(() => {});
areStyled = true;
table.use(() => {});
await nextTask();
lines.use(() => {});
await nextTask();
candles.use(() => {});
await nextTask();

const stream = new Stream({
  onSnapshot: (snapshot) => take(() => takeSnapshot(snapshot)),
  onDelta(delta) {
    if (isModelBroken) askForWholeView();
    else take(() => takeDelta(delta));
  },
  onState(state) {
    if (state === connection) return;
    connection = state;
    // What was stored in the meantime is asked for.
    if (state === "connected") refreshHistory();
    requestDraw(true);
  },
});

stream.open(asked);
keys.use(listenToKeys);
setInterval(() => requestDraw(true), SECOND_MS);
setInterval(refreshHistory, HISTORY_EVERY_MS);
document.addEventListener("visibilitychange", () => requestDraw(true));

function nextTask(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

function restyle(): void {
  if (!areStyled) return; // They read the colours when they are made.
  table.use((part) => part.restyle());
  lines.use((part) => part.restyle());
  candles.use((part) => part.restyle());
  requestDraw(true);
}

// --- Events ----------------------------------------------------------------------------------------------------

function take(work: () => void): void {
  isModelBroken = true;
  events.use(() => {
    work();
    isModelBroken = false;
  });
}

/** Once for each time the part is tried again, because until then it takes nothing. */
function askForWholeView(): void {
  events.use(() => {
    isModelBroken = false;
    stream.reopen();
  });
}

function takeSnapshot(snapshot: Snapshot): void {
  model.takeSnapshot(snapshot);
  table.use((part) => part.rebuild(model));
  const first = model.symbols[0]?.symbol;
  const isThere = asked !== null && model.bySymbol.has(asked);
  if (!isThere && first !== undefined) choose(first);
  candleHistory.expectGap();
  lineHistory.expectGap();
  refreshHistory();
  requestDraw(true);
}

function takeDelta(delta: Delta): void {
  for (const view of model.takeDelta(delta)) moved.add(view);
  requestDraw(delta.status !== undefined);
}

// --- Choosing --------------------------------------------------------------------------------------------------

/** A text that is no address stands for none. */
function symbolInAddress(): string | null {
  try {
    return decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    return null;
  }
}

function choose(symbol: string): void {
  if (symbol === asked && symbol === model.chosen) return;
  asked = symbol;
  // A browser refuses it to who does it too often; the symbol is chosen all the same.
  address.use(() => history.replaceState(null, "", `#${encodeURIComponent(symbol)}`));
  model.seconds.clear();
  model.chosen = symbol;
  stream.open(symbol);
  refreshHistory();
  requestDraw(true);
}

function chooseInterval(wanted: Interval): void {
  interval = wanted;
  for (const button of document.querySelectorAll<HTMLButtonElement>("button[data-interval]")) {
    button.ariaPressed = String(button.dataset.interval === interval);
  }
  refreshHistory();
  requestDraw(true);
}

// --- History ---------------------------------------------------------------------------------------------------

/** Asks for what may be new of the chosen symbol. Each of the three knows what it has, and fails alone. */
function refreshHistory(): void {
  const symbol = model.chosen;
  if (symbol === null || document.hidden) return;
  candleHistory.choose(symbol, interval);
  lineHistory.choose(symbol);
  if (connection !== "connected") return;
  const nowMs = model.nowMs();
  candleRequests.use(async () => answered(await candleHistory.refresh(nowMs)));
  averageRequests.use(async () => answered(await lineHistory.refreshAverages(nowMs)));
  secondRequests.use(async () => {
    const seconds = await lineHistory.takeSeconds(nowMs);
    if (seconds !== null) model.takeHistory(symbol, seconds);
    answered(seconds !== null);
  });
}

function answered(isAnswered: boolean): void {
  requestDraw(false);
  if (!isAnswered && connection === "connected") throw new Error("the server did not answer it");
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
    bar.use(() => drawBar(model, connection, nowMs));
    table.use((part) => {
      if (part.isNew) part.rebuild(model);
      part.drawAll(model);
    });
    isAllDue = false;
    moved.clear();
    requestFrame();
    return;
  }
  table.use((part) => part.drawPrices(model, moved));
  moved.clear();
  if (areChartsDue) drawChosen(nowMs);
  areChartsDue = false;
  sparklines.use(() => {
    if (table.peek()?.drawSparklines(nowMs)) requestFrame();
  });
}

function drawChosen(nowMs: number): void {
  const view = model.chosen === null ? undefined : model.bySymbol.get(model.chosen);
  if (view === undefined) return;
  headline.use(() => drawHeadline(model, view));
  // Time does not pass on a frozen chart.
  if (connection !== "connected" && staleReason(model, connection, nowMs) !== null) return;
  lines.use((part) => part.draw(model.seconds, lineHistory.averages, nowMs, view.decimals));
  candles.use((part) => part.draw(model.seconds, nowMs, view.decimals));
}

// --- Keys ------------------------------------------------------------------------------------------------------

function listenToKeys(): void {
  const help = byId<HTMLDialogElement>("help");
  byId("help-open").addEventListener("click", () => keys.use(() => help.showModal()));
  for (const button of document.querySelectorAll<HTMLButtonElement>("button[data-interval]")) {
    button.addEventListener("click", () => chooseInterval(button.dataset.interval as Interval));
  }
  document.addEventListener("keydown", (event) => keys.use(() => press(event, help)));
}

function press(event: KeyboardEvent, help: HTMLDialogElement): void {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const { key } = event;
  const isTyping = event.target instanceof HTMLInputElement;
  if (key === "Escape") table.use((part) => part.clearFilter());
  else if (key === "ArrowDown" || key === "ArrowUp") step(key === "ArrowDown" ? 1 : -1);
  else if (isTyping) return;
  else if (key === "/") table.use((part) => part.focusFilter());
  else if (key === "?") help.showModal();
  else if (key === "t") theme.use((part) => part.next());
  else if (KEYS_TO_INTERVAL[key] !== undefined) chooseInterval(KEYS_TO_INTERVAL[key]);
  else return;
  event.preventDefault();
}

function step(by: number): void {
  table.use((part) => {
    const symbol = part.step(model.chosen, by);
    if (symbol === null) return;
    choose(symbol);
    part.scrollTo(symbol);
  });
}
