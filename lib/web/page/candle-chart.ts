// The candles of the chosen symbol on lightweight-charts: history from the store, more of it when one scrolls to
// its beginning, and the open candle with what the stream said since.

import {
  CandlestickSeries,
  createChart,
  type IChartApi,
  type ISeriesApi,
  type UTCTimestamp,
} from "lightweight-charts";
import { INTERVALS_MS, type Interval, type SecondTuple } from "../live/protocol.ts";
import { byId, colourOf, setData, setText } from "./dom.ts";
import * as format from "./format.ts";
import { type Candle, requestCandles, requestOlder } from "./history.ts";

/** A screen and a half at first, and with each scroll to the beginning. */
const CANDLES_A_PAGE = 200;
/** The newest candles are requested again, because late trades may have changed them. */
const CANDLES_REFRESHED = 5;
/** Older candles are requested when the beginning is this many candles out of view. */
const OLDER_AHEAD = 20;
const BARS_SHOWN = 90;

export class CandleChart {
  readonly #host = byId("candle-chart");
  readonly #chart: IChartApi;
  readonly #series: ISeriesApi<"Candlestick">;
  readonly #candles = new Map<number, Candle>();
  #symbol: string | null = null;
  #interval: Interval = "1m";
  #next: string | null = null;
  #isLoadingOlder = false;
  /** Rises when another symbol or interval is shown, so that an answer to an older request is dropped. */
  #epoch = 0;
  #decimals = 2;
  #hoveredMs: number | null = null;
  #shown: Candle | null = null;

  constructor() {
    this.#chart = createChart(this.#host, {
      autoSize: true,
      // Its logo would inject a style, which our policy forbids; the attribution is in the footer.
      layout: { attributionLogo: false, fontSize: 11, background: { color: "transparent" } },
      timeScale: { timeVisible: true, rightOffset: 3, borderVisible: false },
      rightPriceScale: { borderVisible: false, entireTextOnly: true, minimumWidth: 74 },
      localization: {
        locale: "en-US",
        priceFormatter: (value: number) => format.price(value, this.#decimals),
      },
    });
    this.#series = this.#chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range !== null && range.from < OLDER_AHEAD) void this.#loadOlder();
    });
    this.#chart.subscribeCrosshairMove(({ time }) => {
      this.#hoveredMs = typeof time === "number" ? time * 1_000 : null;
      this.#read();
    });
  }

  get interval(): Interval {
    return this.#interval;
  }

  restyle(): void {
    const [up, down, edge] = [colourOf("up"), colourOf("down"), colourOf("edge")];
    this.#chart.applyOptions({
      layout: { textColor: colourOf("quiet") },
      grid: { vertLines: { visible: false }, horzLines: { color: edge } },
      crosshair: { vertLine: { color: colourOf("quiet") }, horzLine: { color: colourOf("quiet") } },
    });
    this.#series.applyOptions({ upColor: up, downColor: down, wickUpColor: up, wickDownColor: down });
  }

  async show(symbol: string, interval: Interval, nowMs: number): Promise<void> {
    if (symbol === this.#symbol && interval === this.#interval && this.#candles.size > 0) return;
    this.#symbol = symbol;
    this.#interval = interval;
    this.#epoch += 1;
    this.#candles.clear();
    this.#next = null;
    this.#shown = null;
    this.#series.setData([]);
    this.#read();
    await this.refresh(nowMs, CANDLES_A_PAGE);
    const { length } = this.#series.data();
    this.#chart.timeScale().setVisibleLogicalRange({ from: length - BARS_SHOWN, to: length + 3 });
  }

  /** The newest candles as they are stored now. */
  async refresh(nowMs: number, limit: number = CANDLES_REFRESHED): Promise<void> {
    const epoch = this.#epoch;
    if (this.#symbol === null) return;
    const page = await requestCandles(this.#symbol, this.#interval, nowMs, limit);
    if (page === null || epoch !== this.#epoch) return;
    if (limit === CANDLES_A_PAGE) this.#next = page.next;
    const isAllNew = this.#candles.size === 0;
    for (const candle of page.items) this.#candles.set(candle.window_start, candle);
    if (isAllNew) this.#setAll();
    else for (const candle of page.items.toReversed()) this.#update(candle);
  }

  /** The open candle: what is stored of it, and every second that the stream sent since. */
  draw(seconds: ReadonlyMap<number, SecondTuple>, nowMs: number, decimals: number): void {
    this.#setDecimals(decimals);
    const widthMs = INTERVALS_MS[this.#interval]!;
    const startMs = nowMs - (nowMs % widthMs);
    // The one before may still lack its last seconds in the store.
    for (const start of [startMs - widthMs, startMs]) {
      // Seconds that are dated ahead wait for their time: the close goes on with the market.
      const endMs = Math.min(start + widthMs, nowMs + 1);
      const merged = mergeSeconds(this.#candles.get(start), seconds, start, endMs);
      if (merged !== null) this.#update(merged);
    }
    this.#read();
  }

  #update(candle: Candle): void {
    const newest = this.#series.data().at(-1);
    const time = (candle.window_start / 1_000) as UTCTimestamp;
    if (newest !== undefined && (newest.time as number) > time) {
      this.#series.update(bar(candle), true);
    } else {
      this.#series.update(bar(candle));
      this.#shown = candle;
    }
  }

  #setAll(): void {
    const sorted = [...this.#candles.values()].sort((a, b) => a.window_start - b.window_start);
    this.#series.setData(sorted.map(bar));
    this.#shown = sorted.at(-1) ?? null;
    this.#read();
  }

  async #loadOlder(): Promise<void> {
    if (this.#next === null || this.#isLoadingOlder) return;
    this.#isLoadingOlder = true;
    const epoch = this.#epoch;
    const page = await requestOlder(this.#next);
    this.#isLoadingOlder = false;
    if (page === null || epoch !== this.#epoch) return;
    this.#next = page.next;
    for (const candle of page.items) this.#candles.set(candle.window_start, candle);
    const range = this.#chart.timeScale().getVisibleRange();
    this.#setAll();
    if (range !== null) this.#chart.timeScale().setVisibleRange(range);
  }

  #setDecimals(decimals: number): void {
    if (decimals === this.#decimals) return;
    this.#decimals = decimals;
    const precision = Math.min(decimals, format.DECIMALS_WRITTEN_MAX);
    const priceFormat = { type: "price", precision, minMove: 10 ** -precision } as const;
    this.#series.applyOptions({ priceFormat });
  }

  #read(): void {
    const hovered = this.#hoveredMs === null ? undefined : this.#candles.get(this.#hoveredMs);
    const candle = hovered ?? this.#shown;
    for (const name of ["open", "high", "low", "close"] as const) {
      const output = byId(`read-${name}`);
      setText(output, candle === null ? "–" : format.price(candle[name], this.#decimals));
      setData(output, { value: candle?.[name] ?? null, start: candle?.window_start ?? null });
    }
    setText(byId("read-start"), candle === null ? "" : format.dayAndClock(candle.window_start));
    setData(this.#host, { candles: this.#candles.size, interval: this.#interval });
  }
}

function bar({ window_start, open, high, low, close }: Candle) {
  return { time: (window_start / 1_000) as UTCTimestamp, open, high, low, close };
}

/** The two overlap and together hold every trade of the window until `endMs`: so the extremes are exact, and the newest close wins. */
function mergeSeconds(
  stored: Candle | undefined,
  seconds: ReadonlyMap<number, SecondTuple>,
  startMs: number,
  endMs: number,
): Candle | null {
  let first: SecondTuple | null = null;
  let newest: SecondTuple | null = null;
  let high = stored?.high ?? Number.NEGATIVE_INFINITY;
  let low = stored?.low ?? Number.POSITIVE_INFINITY;
  for (const point of seconds.values()) {
    if (point[0] * 1_000 < startMs || point[0] * 1_000 >= endMs) continue;
    if (first === null || point[0] < first[0]) first = point;
    if (newest === null || point[0] > newest[0]) newest = point;
    high = Math.max(high, point[2]);
    low = Math.min(low, point[3]);
  }
  if (newest === null || first === null) return null;
  // Without a stored candle the first seconds of the window may be unknown; the next refresh brings its open.
  return { window_start: startMs, open: stored?.open ?? first[1], high, low, close: newest[1] };
}
