// What the candle chart holds: ascending, each time once, and numbers alone. Its library throws at an update that is older
// than its newest bar; here a bar may come for any time, and it is decided what the library is told.

export type Bar = Readonly<{ time: number; open: number; high: number; low: number; close: number }>;

/** As far as lightweight-charts is needed. */
type Series = Readonly<{ setData(bars: Bar[]): void; update(bar: Bar): void }>;

export class BarSeries {
  readonly #series: Series;
  #bars: Bar[] = [];
  /** Of the newest that the library holds. */
  #lastTime: number | null = null;

  constructor(series: Series) {
    this.#series = series;
  }

  get bars(): readonly Bar[] {
    return this.#bars;
  }

  /** These and no others, in any order; of two for one time the latter counts. True: more changed than the end. */
  setAll(bars: readonly Bar[]): boolean {
    const byTime = new Map(bars.filter(isNumeric).map((bar) => [bar.time, bar]));
    const wanted = [...byTime.values()].sort((a, b) => a.time - b.time);
    const same = wanted.findIndex((bar, index) => !isEqual(bar, this.#bars[index]));
    const firstNew = same === -1 ? wanted.length : same;
    const known = this.#bars.length;
    this.#bars = wanted;
    // The newest may be updated, and newer ones added; anything else is a new series.
    const isTail = wanted.length >= known && known > 0 && firstNew >= known - 1;
    const isSameTime = firstNew >= known || wanted[firstNew]?.time === this.#lastTime;
    if (isTail && isSameTime) for (const bar of wanted.slice(firstNew)) this.#series.update(bar);
    else this.#series.setData([...wanted]);
    this.#lastTime = wanted.at(-1)?.time ?? null;
    return !(isTail && isSameTime);
  }

  /** One bar, for whatever time. */
  put(bar: Bar): void {
    if (!isNumeric(bar)) return;
    const newest = this.#bars.at(-1);
    if (newest === undefined || bar.time > newest.time) {
      this.#bars.push(bar);
    } else if (bar.time === newest.time) {
      if (isEqual(bar, newest)) return;
      this.#bars[this.#bars.length - 1] = bar;
    } else {
      const known = this.#bars.find(({ time }) => time === bar.time);
      if (!isEqual(bar, known)) this.setAll([...this.#bars, bar]);
      return;
    }
    this.#lastTime = bar.time;
    this.#series.update(bar);
  }
}

function isNumeric(bar: Bar): boolean {
  return [bar.time, bar.open, bar.high, bar.low, bar.close].every(Number.isFinite);
}

function isEqual(one: Bar, other: Bar | undefined): boolean {
  return (
    other !== undefined &&
    one.time === other.time &&
    one.open === other.open &&
    one.high === other.high &&
    one.low === other.low &&
    one.close === other.close
  );
}
