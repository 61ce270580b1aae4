// The table of all symbols. Rows are made once, and then only their texts change. A sparkline is drawn at most once a
// second, however busy its symbol is.

import { LINE_SECONDS, SPARK_BUCKET_MS } from "../live/protocol.ts";
import { byId, colourOf, setData, setText } from "./dom.ts";
import * as format from "./format.ts";
import type { Model, SymbolView } from "./model.ts";

type Row = Readonly<{
  element: HTMLTableRowElement;
  last: HTMLElement;
  day: HTMLElement;
  rate: HTMLElement;
  age: HTMLElement;
  sparkline: HTMLCanvasElement;
}>;

const SPARK_WIDTH = 72;
const SPARK_HEIGHT = 24;
const FLASH_MS = 500;
/** At 60 frames a second the sparklines of fifty symbols are drawn within a tenth of a second. */
const SPARKLINES_A_FRAME = 10;

export class Table {
  readonly #body = byId("rows");
  readonly #filter = byId<HTMLInputElement>("filter");
  readonly #rows = new Map<string, Row>();
  readonly #sparklinesDue = new Set<SymbolView>();
  readonly #flashes = new Map<string, Animation>();
  readonly #choose: (symbol: string) => void;
  readonly #isStill = matchMedia("(prefers-reduced-motion: reduce)");
  #colours = { up: "", down: "", quiet: "" };
  #model: Model | null = null;
  readonly #ended = new AbortController();

  constructor(choose: (symbol: string) => void) {
    this.#choose = choose;
    this.#filter.addEventListener("input", () => this.applyFilter(), { signal: this.#ended.signal });
    this.restyle();
  }

  destroy(): void {
    this.#ended.abort();
  }

  /** Nothing was drawn into it yet. */
  get isNew(): boolean {
    return this.#model === null;
  }

  restyle(): void {
    this.#colours = { up: colourOf("up"), down: colourOf("down"), quiet: colourOf("quiet") };
  }

  /** After a snapshot, which may have other symbols or another order. The texts come with the next drawAll. */
  rebuild(model: Model): void {
    const { isNew } = this;
    this.#model = model;
    this.#sparklinesDue.clear();
    const symbols = model.symbols.map(({ symbol }) => symbol);
    if (isNew || symbols.join("\n") !== [...this.#rows.keys()].join("\n")) {
      this.#rows.clear();
      for (const symbol of symbols) this.#rows.set(symbol, this.#newRow(symbol));
      this.#body.replaceChildren(...[...this.#rows.values()].map(({ element }) => element));
    }
    this.applyFilter();
  }

  /** Only the prices, and only those that moved. */
  drawPrices(model: Model, moved: Iterable<SymbolView>): void {
    for (const view of moved) {
      const row = this.#rows.get(view.symbol);
      if (row !== undefined) this.#drawPrice(model, view, row, true);
    }
  }

  /** Everything, once a second. */
  drawAll(model: Model): void {
    const nowMs = model.nowMs();
    for (const view of model.symbols) {
      const row = this.#rows.get(view.symbol);
      if (row === undefined) continue;
      this.#drawPrice(model, view, row, false);
      row.element.ariaCurrent = view.symbol === model.chosen ? "true" : null;
      const isUnsubscribed = view.state === "unsubscribed" || view.unreceived !== null;
      setText(row.rate, isUnsubscribed ? "off" : format.rate(view.rate));
      row.rate.title =
        view.unreceived === null
          ? ""
          : `not received for ${format.age(nowMs - view.unreceived[1])}: ${view.unreceived[0]}`;
      setData(row.rate, { value: view.rate, end: model.status?.rateEndMs ?? null });
      setText(row.age, view.price === null ? "–" : format.age(nowMs - view.atMs));
      this.#sparklinesDue.add(view);
    }
  }

  /** A few of the sparklines that are due since the last drawAll; true = there are more. */
  drawSparklines(nowMs: number): boolean {
    let count = 0;
    for (const view of this.#sparklinesDue) {
      if (++count > SPARKLINES_A_FRAME) return true;
      this.#sparklinesDue.delete(view);
      const row = this.#rows.get(view.symbol);
      if (row !== undefined) this.#drawSparkline(view, row.sparkline, nowMs);
    }
    return false;
  }

  focusFilter(): void {
    this.#filter.focus();
    this.#filter.select();
  }

  clearFilter(): void {
    this.#filter.value = "";
    this.#filter.blur();
    this.applyFilter();
  }

  applyFilter(): void {
    const text = this.#filter.value.trim().toLowerCase();
    let count = 0;
    for (const [symbol, { element }] of this.#rows) {
      element.hidden = !symbol.toLowerCase().includes(text);
      if (!element.hidden) count += 1;
    }
    const empty = byId("empty");
    empty.hidden = count > 0;
    if (this.#model !== null) {
      setText(empty, this.#rows.size === 0 ? "The watchlist is empty." : `No symbol contains “${text}”.`);
    }
  }

  /** The symbol so many rows further, among those that the filter shows. */
  step(from: string | null, by: number): string | null {
    const shown = [...this.#rows].filter(([, { element }]) => !element.hidden).map(([symbol]) => symbol);
    if (shown.length === 0) return null;
    const at = from === null ? -1 : shown.indexOf(from);
    if (at === -1) return shown[0] ?? null;
    return shown[Math.min(shown.length - 1, Math.max(0, at + by))] ?? null;
  }

  scrollTo(symbol: string): void {
    this.#rows.get(symbol)?.element.scrollIntoView({ block: "nearest" });
  }

  #drawPrice(model: Model, view: SymbolView, row: Row, canFlash: boolean): void {
    const { price, atMs, open, decimals, symbol } = view;
    const known = Number(row.last.dataset.value ?? Number.NaN);
    setText(row.last, price === null ? "–" : format.price(price, decimals));
    setData(row.last, { value: price, at: price === null ? null : atMs });
    const change = model.changeOf(view);
    setText(row.day, change === null ? "–" : format.percent(change));
    setData(row.day, { value: change, open: open?.[0] ?? null, openAt: open?.[1] ?? null });
    row.day.className = `number day ${sign(change)}`;
    if (canFlash && price !== null && price !== known && !Number.isNaN(known)) {
      this.#flash(symbol, row.last, price > known);
    }
  }

  /** One at a time: a busy symbol must not blink, nor cost ten animations a second. */
  #flash(symbol: string, cell: HTMLElement, isUp: boolean): void {
    if (this.#isStill.matches || this.#flashes.get(symbol)?.playState === "running") return;
    const color = isUp ? this.#colours.up : this.#colours.down;
    this.#flashes.set(symbol, cell.animate([{ color }, {}], { duration: FLASH_MS, easing: "ease-out" }));
  }

  #drawSparkline({ spark, symbol }: SymbolView, canvas: HTMLCanvasElement, nowMs: number): void {
    const row = this.#rows.get(symbol);
    if (row?.element.hidden) return;
    const scale = devicePixelRatio;
    if (canvas.width !== SPARK_WIDTH * scale) {
      canvas.width = SPARK_WIDTH * scale;
      canvas.height = SPARK_HEIGHT * scale;
    }
    const context = canvas.getContext("2d");
    if (context === null) return;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, SPARK_WIDTH, SPARK_HEIGHT);
    const fromMs = nowMs - LINE_SECONDS * 1_000;
    const points = spark.filter(([bucket]) => (bucket + 1) * SPARK_BUCKET_MS > fromMs);
    setData(canvas, { points: points.length, last: points.at(-1)?.[1] ?? null });
    const [first, newest] = [points[0], points.at(-1)];
    if (first === undefined || newest === undefined) return;
    const prices = points.map(([, price]) => price);
    const [min, max] = [Math.min(...prices), Math.max(...prices)];
    const x = (bucket: number) =>
      Math.max(1, (((bucket + 1) * SPARK_BUCKET_MS - fromMs) / (LINE_SECONDS * 1_000)) * (SPARK_WIDTH - 3));
    const y = (price: number) =>
      max === min ? SPARK_HEIGHT / 2 : SPARK_HEIGHT - 3 - ((price - min) / (max - min)) * (SPARK_HEIGHT - 6);
    context.beginPath();
    for (const [bucket, price] of points) context.lineTo(x(bucket), y(price));
    context.lineJoin = "round";
    context.lineWidth = 1.4;
    const { up, down, quiet } = this.#colours;
    const colour = newest[1] === first[1] ? quiet : newest[1] > first[1] ? up : down;
    context.strokeStyle = colour;
    context.stroke();
    context.beginPath();
    context.arc(x(newest[0]), y(newest[1]), 1.8, 0, 2 * Math.PI);
    context.fillStyle = colour;
    context.fill();
  }

  #newRow(symbol: string): Row {
    const element = document.createElement("tr");
    element.dataset.symbol = symbol;
    const head = document.createElement("th");
    head.scope = "row";
    const button = document.createElement("button");
    button.type = "button";
    button.title = symbol;
    const [name, venue] = format.nameOf(symbol);
    button.append(name);
    if (venue !== "") {
      const small = document.createElement("small");
      small.textContent = venue;
      button.append(small);
    }
    head.append(button);
    const sparkline = document.createElement("canvas");
    sparkline.className = "sparkline";
    sparkline.ariaHidden = "true";
    const [last, day, rate, age] = [newCell("last"), newCell("day"), newCell("rate"), newCell("age")];
    const sparkCell = document.createElement("td");
    sparkCell.append(sparkline);
    element.append(head, last, day, rate, age, sparkCell);
    element.addEventListener("click", () => this.#choose(symbol));
    return { element, last, day, rate, age, sparkline };
  }
}

function newCell(className: string): HTMLElement {
  const cell = document.createElement("td");
  cell.className = `number ${className}`;
  return cell;
}

export function sign(change: number | null): "up" | "down" | "" {
  if (change === null || change === 0) return "";
  return change > 0 ? "up" : "down";
}
