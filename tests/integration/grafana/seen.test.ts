// What a person sees on the dashboard of the market: answers as the plugin gives them, put through Grafana's own code.
// Numbers as they are, every trade of a millisecond, no line over a time without trades.

import { beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { NOON_MS } from "../../support/builders.ts";
import { installGrafanaData, type Question, type Seen, seenOf } from "../../support/grafana-data.ts";

const SET_UP_MS_MAX = 420_000;
type Panel = Readonly<{ title: string; fieldConfig: { defaults: { unit?: string } } }>;
const { panels } = JSON.parse(
  readFileSync(join(import.meta.dir, "../../../grafana/dashboards/market.json"), "utf8"),
) as { panels: Panel[] };
const panel = (title: string) => panels.find((one) => one.title === title)!;

/** One frame of the plugin: rows newest first. */
const frame = (
  refId: string,
  column: string,
  time: string,
  rows: readonly (readonly [timeMs: number, value: number])[],
) => ({
  name: "BINANCE:BTCUSDT",
  refId,
  fields: [
    { name: column, type: "number", values: rows.map(([, value]) => value) },
    { name: time, type: "time", values: rows.map(([timeMs]) => timeMs) },
  ],
});

const PRICES = [61_602.02, 1.37633, 0.0000118, 13.78, -37.63];
const pricesAnswer = [
  frame(
    "A",
    "price",
    "trade_timestamp",
    PRICES.map((price, index) => [NOON_MS - index, price]),
  ),
];
/** Five trades in each millisecond. */
const many = Array.from({ length: 500 }, (_, n) => [NOON_MS - Math.floor(n / 5), 100 + n / 100] as const);
const windows = Array.from({ length: 100 }, (_, n) => [NOON_MS - n * 5_000, 100 + n] as const);

const QUESTIONS: Record<string, Question> = {
  prices: { panel: panel("Price"), frames: pricesAnswer },
  withoutUnit: {
    panel: { ...panel("Price"), fieldConfig: { defaults: {}, overrides: [] } },
    frames: pricesAnswer,
  },
  ...Object.fromEntries(
    PRICES.map((price) => [
      `last ${price}`,
      { panel: panel("Last price"), frames: [frame("A", "price", "trade_timestamp", [[NOON_MS, price]])] },
    ]),
  ),
  trades: { panel: panel("Price"), frames: [frame("A", "price", "trade_timestamp", many)] },
  volumes: { panel: panel("Volume of each trade"), frames: [frame("A", "volume", "trade_timestamp", many)] },
  averages: {
    panel: panel("Average price of 15 seconds"),
    frames: [frame("A", "average_price", "window_end", windows), frame("B", "vwap", "window_end", windows)],
  },
  noRate: { panel: panel("Trades per second"), frames: [] },
};

let seen: Record<string, Seen>;
beforeAll(async () => {
  const directory = await installGrafanaData();
  const answers = await seenOf(directory, Object.values(QUESTIONS));
  seen = Object.fromEntries(Object.keys(QUESTIONS).map((name, index) => [name, answers[index]!]));
}, SET_UP_MS_MAX);

test("a price is shown as it is, large and small, and would not be without its unit", () => {
  expect(seen.prices!.shown).toEqual([["-37.63", "13.78", "0.0000118", "1.37633", "61602.02"]]);
  for (const price of PRICES)
    expect(seen[`last ${price}`]!.stats).toEqual([price === 0.0000118 ? "0.0000118" : String(price)]);
  expect(seen.withoutUnit!.shown[0]).not.toContain("61602.02");
});

test("each trade of a millisecond is drawn, and a line ends where nothing was traded for a minute", () => {
  for (const name of ["trades", "volumes"]) {
    const { points, insertNulls } = seen[name]!;
    expect([name, points, insertNulls]).toEqual([name, [500], [60_000]]);
  }
  // The averages are joined: each has one value a time, so nothing is lost.
  expect(seen.averages).toMatchObject({ points: [100, 100], insertNulls: [60_000, 60_000] });
});

test("where nothing was traded lately there is no rate", () => {
  expect(seen.noRate!.stats).toEqual(["no trade"]);
});
