// The candles of the chosen symbol on lightweight-charts: history from the store, more of it when one scrolls to
// its beginning, and the open candle with what the stream said since.

import {
  CandlestickSeries,
  createChart,
  type IChartApi,
  type ISeriesApi,
  type UTCTimestamp,
} from "lightweight-charts";
import { INTERVALS_MS, type SecondTuple } from "../live/protocol.ts";
import { type Bar, BarSeries } from "./bar-series.ts";
import type { CandleHistory } from "./candle-history.ts";
import { byId, colourOf, setData, setText } from "./dom.ts";
import * as format from "./format.ts";
import type { Candle } from "./history.ts";

/** Older candles are requested when the beginning is this many candles out of view. */
const OLDER_AHEAD = 20;
const BARS_SHOWN = 90;
const BARS_AHEAD = 3;

export class CandleChart {
  readonly #host = byId("candle-chart");
  readonly #history: CandleHistory;
  readonly #chart: IChartApi;
  readonly #series: ISeriesApi<"Candlestick">;
  #bars: BarSeries;
  #drawn = { symbol: null as string | null, interval: "", revision: -1 };
  #decimals = 2;
  #hoveredMs: number | null = null;

  constructor(history: CandleHistory) {
    this.#history = history;
    // What a broken one left behind.
    this.#host.replaceChildren();
    this.#chart = createChart(this.#host, {
      autoSize: true,
      // Its logo would inject a style, which our policy forbids; the attribution is in the footer.
      layout: { attributionLogo: false, fontSize: 11, background: { color: "transparent" } },
      timeScale: { timeVisible: true, rightOffset: BARS_AHEAD, borderVisible: false },
      rightPriceScale: { borderVisible: false, entireTextOnly: true, minimumWidth: 74 },
      localization: {
        locale: "en-US",
        priceFormatter: (value: number) => format.price(value, this.#decimals),
      },
    });
    this.#series = this.#chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.#bars = this.#newBars();
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range !== null && range.from < OLDER_AHEAD) void this.#history.loadOlder();
    });
    this.#chart.subscribeCrosshairMove(({ time }) => {
      this.#hoveredMs = typeof time === "number" ? time * 1_000 : null;
      this.#read();
    });
    this.restyle();
  }

  destroy(): void {
    this.#chart.remove();
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

  /** What is stored, and of the open candle every second that the stream sent since. */
  draw(seconds: ReadonlyMap<number, SecondTuple>, nowMs: number, decimals: number): void {
    this.#setDecimals(decimals);
    this.#drawHistory();
    const widthMs = INTERVALS_MS[this.#history.interval]!;
    const startMs = nowMs - (nowMs % widthMs);
    // The one before may still lack its last seconds in the store.
    for (const start of [startMs - widthMs, startMs]) {
      // Seconds that are dated ahead wait for their time: the close goes on with the market.
      const endMs = Math.min(start + widthMs, nowMs + 1);
      const merged = mergeSeconds(this.#history.get(start), seconds, start, endMs);
      if (merged !== null) this.#bars.put(barOf(merged));
    }
    this.#read();
  }

  #newBars(): BarSeries {
    const series = this.#series;
    return new BarSeries({
      setData: (bars) => series.setData(bars.map((bar) => ({ ...bar, time: bar.time as UTCTimestamp }))),
      update: (bar) => series.update({ ...bar, time: bar.time as UTCTimestamp }),
    });
  }

  #drawHistory(): void {
    const { symbol, interval, revision } = this.#history;
    const isOther = symbol !== this.#drawn.symbol || interval !== this.#drawn.interval;
    if (!isOther && revision === this.#drawn.revision) return;
    const timeScale = this.#chart.timeScale();
    const isEmpty = this.#bars.bars.length === 0;
    const range = timeScale.getVisibleRange();
    const shown = timeScale.getVisibleLogicalRange();
    // Who looks at the newest goes on with it; who has scrolled back stays where he is.
    const isFollowing = shown === null || shown.to >= this.#bars.bars.length - 1;
    if (isOther) {
      this.#bars = this.#newBars();
      this.#series.setData([]);
    }
    const isMoved = this.#bars.setAll(this.#history.sorted.map(barOf));
    const { length } = this.#bars.bars;
    if (isOther || isEmpty) {
      timeScale.setVisibleLogicalRange({ from: length - BARS_SHOWN, to: length + BARS_AHEAD });
    } else if (isMoved && !isFollowing && range !== null) {
      timeScale.setVisibleRange(range);
    }
    this.#drawn = { symbol, interval, revision };
  }

  #setDecimals(decimals: number): void {
    if (decimals === this.#decimals) return;
    this.#decimals = decimals;
    const precision = Math.min(decimals, format.DECIMALS_WRITTEN_MAX);
    const priceFormat = { type: "price", precision, minMove: 10 ** -precision } as const;
    this.#series.applyOptions({ priceFormat });
  }

  #read(): void {
    const { bars } = this.#bars;
    const hovered = this.#hoveredMs === null ? undefined : this.#history.get(this.#hoveredMs);
    const candle = hovered === undefined ? bars.at(-1) : barOf(hovered);
    const startMs = candle === undefined ? null : candle.time * 1_000;
    for (const name of ["open", "high", "low", "close"] as const) {
      const output = byId(`read-${name}`);
      setText(output, candle === undefined ? "–" : format.price(candle[name], this.#decimals));
      setData(output, { value: candle?.[name] ?? null, start: startMs });
    }
    setText(byId("read-start"), startMs === null ? "" : format.dayAndClock(startMs));
    setData(this.#host, { candles: bars.length, interval: this.#history.interval });
  }
}

function barOf({ window_start, open, high, low, close }: Candle): Bar {
  return { time: window_start / 1_000, open, high, low, close };
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
