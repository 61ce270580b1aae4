// The candles of one symbol and interval as the page knows them, whatever happened to the chart, the connection or the
// tab. It remembers up to when it has asked, by the server's time: so the next question covers what was missed, however
// long the page was away, and once a minute everything is asked for again, because late trades amend old candles.

import { INTERVALS_MS, type Interval } from "../live/protocol.ts";
import { type Candle, requestAllCandles, requestCandles, requestOlder } from "./history.ts";
import { DAY_MS } from "./model.ts";

/** A screen and a half at first, and with each scroll to the beginning. */
const CANDLES_A_PAGE = 200;
/** Late trades mostly come within minutes. */
const CANDLES_REFRESHED = 5;
/** Of what one has scrolled to, so many are asked for again each minute: five pages. */
const CANDLES_AGAIN_MAX = 5_000;
export const AGAIN_EVERY_MS = 60_000;
/** Three refreshes were missed: then anything may have been amended. */
export const GAP_MS = 15_000;
/** How far back a chart can be scrolled; without it a page would hold a day. */
const CANDLES_BACK_MS = 31 * DAY_MS;

export class CandleHistory {
  symbol: string | null = null;
  interval: Interval = "1m";
  /** Rises with each change. */
  revision = 0;
  readonly #candles = new Map<number, Candle>();
  #sorted: readonly Candle[] | null = null;
  #next: string | null = null;
  /** Rises when another symbol or interval is shown, so that an answer to an older request is dropped. */
  #epoch = 0;
  /** The server's time of the last whole answer; 0 = there was none. */
  #coveredMs = 0;
  #againMs = 0;
  /** How often an answer could no longer be trusted to hold what came before it. */
  #gapCount = 0;
  #isAsking = false;
  #isLoadingOlder = false;

  get(windowStartMs: number): Candle | undefined {
    return this.#candles.get(windowStartMs);
  }

  /** Ascending, each once. */
  get sorted(): readonly Candle[] {
    this.#sorted ??= [...this.#candles.values()].sort((a, b) => a.window_start - b.window_start);
    return this.#sorted;
  }

  choose(symbol: string, interval: Interval): void {
    if (symbol === this.symbol && interval === this.interval) return;
    this.symbol = symbol;
    this.interval = interval;
    this.#epoch += 1;
    this.#candles.clear();
    this.#next = null;
    this.#coveredMs = 0;
    this.#isAsking = false;
    this.#isLoadingOlder = false;
    this.#changed();
  }

  /** The stream has begun anew: whatever was amended since it broke is asked for. */
  expectGap(): void {
    this.#gapCount += 1;
    this.#againMs = 0;
  }

  /** Asks for what is new, or may be. False: it could not be asked. */
  async refresh(nowMs: number): Promise<boolean> {
    if (this.symbol === null || nowMs === 0 || this.#isAsking) return true;
    const epoch = this.#epoch;
    this.#isAsking = true;
    const isDone = this.#coveredMs === 0 ? await this.#begin(nowMs) : await this.#goOn(nowMs);
    if (epoch === this.#epoch) this.#isAsking = false;
    return isDone;
  }

  /** More, before those that are there. */
  async loadOlder(): Promise<void> {
    if (this.#next === null || this.#isLoadingOlder) return;
    this.#isLoadingOlder = true;
    const epoch = this.#epoch;
    const page = await requestOlder(this.#next);
    if (epoch !== this.#epoch) return;
    this.#isLoadingOlder = false;
    if (page === null) return;
    this.#next = page.next;
    for (const candle of page.items) this.#candles.set(candle.window_start, candle);
    this.#changed();
  }

  async #begin(nowMs: number): Promise<boolean> {
    const [epoch, gapCount] = [this.#epoch, this.#gapCount];
    const range = { fromMs: Math.floor(nowMs) - CANDLES_BACK_MS, toMs: this.#endOf(nowMs) };
    const page = await requestCandles(this.symbol!, this.interval, range, CANDLES_A_PAGE);
    if (epoch !== this.#epoch) return true;
    if (page === null) return false;
    this.#next = page.next;
    for (const candle of page.items) this.#candles.set(candle.window_start, candle);
    this.#coveredMs = nowMs;
    if (gapCount === this.#gapCount) this.#againMs = nowMs;
    this.#changed();
    return true;
  }

  async #goOn(nowMs: number): Promise<boolean> {
    const [epoch, gapCount] = [this.#epoch, this.#gapCount];
    const widthMs = INTERVALS_MS[this.interval]!;
    const isAgain = nowMs - this.#coveredMs > GAP_MS || nowMs - this.#againMs >= AGAIN_EVERY_MS;
    const newestMs = startOf(this.#coveredMs, widthMs) - CANDLES_REFRESHED * widthMs;
    const oldest = isAgain ? (this.sorted.at(-CANDLES_AGAIN_MAX) ?? this.sorted[0]) : undefined;
    const fromMs = Math.min(newestMs, oldest?.window_start ?? newestMs);
    const range = { fromMs, toMs: this.#endOf(nowMs) };
    const candles = await requestAllCandles(this.symbol!, this.interval, range);
    if (epoch !== this.#epoch) return true;
    if (candles === null) return false;
    // What the answer leaves out of its range is no candle any more.
    for (const start of this.#candles.keys())
      if (start >= fromMs && start < range.toMs) this.#candles.delete(start);
    for (const candle of candles) this.#candles.set(candle.window_start, candle);
    this.#coveredMs = nowMs;
    if (isAgain && gapCount === this.#gapCount) this.#againMs = nowMs;
    this.#changed();
    return true;
  }

  /** The end of the open candle: one that is dated ahead waits for its time. */
  #endOf(nowMs: number): number {
    const widthMs = INTERVALS_MS[this.interval]!;
    return startOf(nowMs, widthMs) + widthMs;
  }

  #changed(): void {
    this.#sorted = null;
    this.revision += 1;
  }
}

function startOf(timeMs: number, widthMs: number): number {
  return Math.floor(timeMs / widthMs) * widthMs;
}
