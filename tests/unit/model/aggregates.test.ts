// The table of aggregates: what it may hold so that panes, stores and the verification can follow it, and what it holds
// today, said once more without it.

import { expect, test } from "bun:test";
import { AGGREGATES, aggregateOf, bucketOf, SHAPES, valuesOf } from "../../../lib/model/aggregates.ts";
import { newPane, PANE_MS } from "../../../lib/model/panes.ts";
import { HOUR_MS } from "../../../lib/model/trade.ts";
import {
  panesOfWindow,
  storedAtMs,
  timeOfRow,
  windowEndMs,
  windowOf,
  windowRow,
  windowsOfPane,
} from "../../../lib/model/windows.ts";
import { windowTimesOf } from "../../reference.ts";
import { NOON_MS } from "../../support/builders.ts";

const tradedPane = () => ({
  ...newPane(),
  count: 1,
  pv: [6],
  p: [3],
  v: [2],
  open: 3,
  high: 3,
  low: 3,
  close: 3,
});

test("there are averages of 15 seconds every 5 seconds and candles of a minute, in the tables of always", () => {
  expect(AGGREGATES.slice(0, 2)).toEqual([
    { kind: "average", table: "running_averages_15_sec", shape: "average", widthMs: 15_000, stepMs: 5_000 },
    { kind: "candle", table: "candles_1_min", shape: "candle", widthMs: 60_000, stepMs: 60_000 },
  ]);
});

test("kinds and tables are named once", () => {
  for (const names of [AGGREGATES.map(({ kind }) => kind), AGGREGATES.map(({ table }) => table)])
    expect(new Set<string>(names).size).toBe(AGGREGATES.length);
});

test.each(AGGREGATES)(
  "a $kind is made of whole panes, and of whole steps, in an hour at most",
  (aggregate) => {
    const { shape, widthMs, stepMs } = aggregate;
    expect([HOUR_MS % PANE_MS, HOUR_MS % stepMs, widthMs % stepMs, stepMs % PANE_MS]).toEqual([0, 0, 0, 0]);
    expect(widthMs).toBeLessThanOrEqual(HOUR_MS);
    // Candles do not overlap, and none lies in two hours.
    if (shape === "candle") expect([stepMs, HOUR_MS % widthMs]).toEqual([widthMs, 0]);
  },
);

test("the windows of a pane are those that the reference finds for its first and its last millisecond", () => {
  for (let pane = NOON_MS - 2 * HOUR_MS; pane < NOON_MS - 2 * HOUR_MS + 120_000; pane += PANE_MS) {
    const windows = windowsOfPane("AAPL", pane);
    for (const atMs of [pane, pane + PANE_MS - 1]) {
      const due = AGGREGATES.flatMap((aggregate) =>
        windowTimesOf(atMs, aggregate).map((time) => `${aggregate.kind} ${time}`),
      );
      expect(windows.map((window) => `${window.kind} ${storedAtMs(window)}`)).toEqual(due);
    }
    for (const window of windows) expect(panesOfWindow(window)).toContain(pane);
  }
});

test("a row names its window, its bucket and its values in the order of the columns", () => {
  for (const window of windowsOfPane("AAPL", NOON_MS)) {
    const row = windowRow(window, [tradedPane()])!;
    const { shape, widthMs } = aggregateOf(window.kind);
    expect(windowOf(row)).toEqual(window);
    expect(timeOfRow(row)).toBe(storedAtMs(window));
    expect(windowEndMs(window)).toBe(window.startMs + widthMs);
    expect(valuesOf(row).slice(0, 3)).toEqual(["AAPL", bucketOf(shape, timeOfRow(row)), timeOfRow(row)]);
    expect(Object.entries(row.row)).toEqual(
      SHAPES[shape].columns.map(({ name }, index) => [name, valuesOf(row)[index]!]),
    );
  }
});
