// What the page hands to its candle chart. The library throws at an update that is older than its newest bar; at bars that
// are not ascending only its development build does, and its production build draws nonsense.

import { expect, test } from "bun:test";
import { type Bar, BarSeries } from "../../../lib/web/page/bar-series.ts";
import { seeded } from "../../support/builders.ts";

const bar = (time: number, close = 1): Bar => ({ time, open: 1, high: 2, low: 0, close });

/** As strict as the library, and a bit more. */
function strictSeries() {
  const series = {
    bars: [] as Bar[],
    setCount: 0,
    setData(bars: Bar[]) {
      for (const [index, { time }] of bars.entries()) {
        if (index > 0 && time <= bars[index - 1]!.time) throw new Error("data must be ascending");
      }
      series.setCount += 1;
      series.bars = bars.slice();
    },
    update(one: Bar) {
      const newest = series.bars.at(-1);
      if (newest !== undefined && one.time < newest.time) throw new Error("Cannot update oldest data");
      if (![one.time, one.open, one.high, one.low, one.close].every(Number.isFinite)) throw new Error("NaN");
      if (newest?.time === one.time) series.bars.pop();
      series.bars.push(one);
    },
  };
  return series;
}

test("whatever comes in whatever order, the chart holds each time once, ascending, with its latest bar", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seeded(seed);
    const series = strictSeries();
    const bars = new BarSeries(series);
    let expected = new Map<number, Bar>();
    for (let step = 0; step < 60; step++) {
      const one = bar(random(20), random(5));
      if (random(4) > 0) {
        bars.put(one);
        expected.set(one.time, one);
      } else {
        const all = Array.from({ length: random(25) }, () => bar(random(20), random(5)));
        // Often it is nearly what there is.
        if (random(2) === 0) all.unshift(...expected.values());
        bars.setAll(all);
        expected = new Map(all.map((each) => [each.time, each]));
      }
      expect(series.bars).toEqual([...expected.values()].sort((a, b) => a.time - b.time));
      expect(bars.bars).toEqual(series.bars);
    }
  }
});

test("a bar that is no number is left out, and the rest is there", () => {
  const series = strictSeries();
  const bars = new BarSeries(series);
  const broken = [
    { ...bar(2), open: Number.NaN },
    { ...bar(3), time: Number.NaN },
    { ...bar(4), low: null as never },
  ];
  bars.setAll([bar(1), ...broken, bar(5)]);
  for (const one of broken) bars.put(one);
  expect(series.bars).toEqual([bar(1), bar(5)]);
});

test("the newest bar and those after it are updates, which keep what one has scrolled to; a bar between is not", () => {
  const series = strictSeries();
  const bars = new BarSeries(series);
  expect(bars.setAll([bar(1), bar(2)])).toBe(true);
  expect(bars.setAll([bar(1), bar(2, 5), bar(3), bar(4)])).toBe(false);
  bars.put(bar(4, 7));
  bars.put(bar(5));
  expect(series.setCount).toBe(1);
  bars.put(bar(3, 9));
  expect(series.setCount).toBe(2);
});
