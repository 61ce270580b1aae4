// The price line, the 15-second average and the volume bars of the chosen symbol, with uPlot. Each has a point a second.

import uPlot from "uplot";
import { LINE_SECONDS, type SecondTuple } from "../live/protocol.ts";
import { byId, colourOf, setData, setText } from "./dom.ts";
import * as format from "./format.ts";

/** Volume takes the lowest quarter, below the line. */
const VOLUME_SHARE = 4;
/** Room to the right of the newest point. */
const AHEAD_SECONDS = 4;
const PRICE_AXIS_PX = 74;

type Columns = [number[], (number | null)[], (number | null)[], (number | null)[]];

export class PriceChart {
  readonly #host = byId("price-chart");
  #chart: uPlot | null = null;
  #columns: Columns = [[], [], [], []];
  #decimals = 2;

  readonly #onFault: (error: unknown) => void;
  readonly #resizes = new ResizeObserver(() => this.#resize());

  /** `onFault`: it failed at a change of its size. */
  constructor(onFault: (error: unknown) => void) {
    this.#onFault = onFault;
    this.#host.replaceChildren();
    this.#resizes.observe(this.#host);
    this.restyle();
  }

  destroy(): void {
    this.#resizes.disconnect();
    this.#chart?.destroy();
    this.#chart = null;
  }

  /** The chart reads its colours once, so a new theme needs a new chart. */
  restyle(): void {
    this.#chart?.destroy();
    this.#chart = new uPlot(this.#options(), this.#columns, this.#host);
  }

  draw(
    seconds: ReadonlyMap<number, SecondTuple>,
    averagesByEnd: ReadonlyMap<number, number>,
    nowMs: number,
    decimals: number,
  ): void {
    const chart = this.#chart;
    if (chart === null || nowMs === 0) return;
    this.#decimals = decimals;
    const newest = Math.floor(nowMs / 1_000);
    const times: number[] = [];
    const prices: (number | null)[] = [];
    const averages: (number | null)[] = [];
    const volumes: (number | null)[] = [];
    for (let second = newest - LINE_SECONDS; second <= newest; second++) {
      const point = seconds.get(second);
      times.push(second);
      prices.push(point?.[1] ?? null);
      averages.push(averagesByEnd.get(second) ?? null);
      volumes.push(point?.[4] ?? null);
    }
    this.#columns = [times, volumes, prices, averages];
    // At once: what fails in a task of the library's own would be nobody's.
    chart.batch(() => chart.setData(this.#columns));
    if (chart.cursor.idx == null) this.#read(null);
    setData(this.#host, { averages: averages.filter((value) => value !== null).length });
  }

  /** The numbers above the chart: those under the cursor, else the newest. */
  #read(index: number | null): void {
    const [times, volumes, prices, averages] = this.#columns;
    const at = (column: readonly (number | null)[]) =>
      index === null ? column.findLastIndex((value) => value !== null) : lastAt(column, index);
    const [price, average, volume] = [at(prices), at(averages), index ?? at(volumes)];
    const show = (
      id: string,
      column: readonly (number | null)[],
      where: number,
      text: (n: number) => string,
    ) => {
      const value = column[where] ?? null;
      const output = byId(id);
      setText(output, value === null ? "–" : text(value));
      setData(output, { value, second: value === null ? null : (times[where] ?? null) });
    };
    show("read-price", prices, price, (value) => format.price(value, this.#decimals));
    show("read-average", averages, average, (value) => format.price(value, this.#decimals));
    show("read-volume", volumes, volume, format.amount);
    const second = times[index ?? price];
    setText(byId("read-time"), second === undefined ? "" : format.clock(second * 1_000));
  }

  #resize(): void {
    const { clientWidth: width, clientHeight: height } = this.#host;
    const chart = this.#chart;
    if (width === 0 || height === 0 || chart === null) return;
    try {
      chart.batch(() => chart.setSize({ width, height }));
    } catch (error) {
      this.#onFault(error);
    }
  }

  #options(): uPlot.Options {
    const quiet = colourOf("quiet");
    const accent = colourOf("accent");
    const grid = { stroke: colourOf("edge"), width: 1 };
    const font = '11px system-ui, "Segoe UI", Roboto, sans-serif';
    const axis = { stroke: quiet, font, ticks: { show: false } };
    return {
      width: this.#host.clientWidth,
      height: this.#host.clientHeight,
      padding: [8, 0, 0, 12],
      legend: { show: false },
      tzDate: (second) => uPlot.tzDate(new Date(second * 1_000), "Etc/UTC"),
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      scales: {
        x: { range: (_, __, max) => [max - LINE_SECONDS, max + AHEAD_SECONDS] },
        price: { range: priceRange },
        volume: { range: (_, __, max) => [0, (max || 1) * VOLUME_SHARE] },
      },
      axes: [
        { ...axis, grid: { show: false }, space: 70, size: 26, values: timeLabels },
        {
          ...axis,
          scale: "price",
          side: 1,
          size: PRICE_AXIS_PX,
          grid,
          space: 40,
          values: (_, values) => values.map((value) => format.price(value, this.#decimals)),
        },
      ],
      series: [
        {},
        // First, so that the bars lie behind the lines.
        {
          scale: "volume",
          fill: colourOf("volume"),
          stroke: colourOf("volume"),
          width: 0,
          paths: uPlot.paths.bars!({ size: [0.7, 6] }),
          points: { show: false },
        },
        {
          scale: "price",
          stroke: accent,
          width: 1.75,
          spanGaps: true,
          fill: (chart) => fade(chart, accent),
          points: { show: false },
        },
        { scale: "price", stroke: colourOf("average"), width: 1.5, spanGaps: true, points: { show: false } },
      ],
      hooks: { setCursor: [(chart) => this.#read(chart.cursor.idx ?? null)] },
    };
  }
}

/** At the index, or the last before it: an average stands at the end of its window only. */
function lastAt(column: readonly (number | null)[], index: number): number {
  for (let i = index; i >= 0; i--) if (column[i] != null) return i;
  return -1;
}

/** The line takes the upper three quarters; a symbol that does not move lies in the middle. */
function priceRange(_: uPlot, min: number | null, max: number | null): [number, number] {
  if (min == null || max == null) return [0, 1];
  const height = max - min || Math.abs(max) * 0.001 || 1;
  return [min - height * 0.4, max + height * 0.08];
}

function timeLabels(_: uPlot, values: number[]): string[] {
  return values.map((value) => format.clock(value * 1_000).slice(0, value % 60 === 0 ? 5 : 8));
}

function fade(chart: uPlot, colour: string): CanvasGradient | string {
  const { top, height } = chart.bbox;
  if (!Number.isFinite(top + height) || height === 0) return "transparent";
  const gradient = chart.ctx.createLinearGradient(0, top, 0, top + height);
  gradient.addColorStop(0, withAlpha(colour, 0.22));
  gradient.addColorStop(0.75, withAlpha(colour, 0));
  return gradient;
}

/** `rgb(1, 2, 3)`, as computed styles are. */
function withAlpha(colour: string, alpha: number): string {
  return colour.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);
}
