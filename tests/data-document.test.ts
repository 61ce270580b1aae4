// docs/DATA.md, held against the program: its worked example is what the panes make of these trades, and it names
// every column that there is.

import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { addTrade, newPane, type Pane, paneStart } from "../lib/model/panes.ts";
import { panesOfWindow, type Window, windowRow, windowsOfPane } from "../lib/model/windows.ts";

const ROOT = join(import.meta.dir, "..");
const text = readFileSync(join(ROOT, "docs/DATA.md"), "utf8");
const DAY = "2026-01-05";

/** The rows of the document's table whose first heading begins so, by heading. */
function tableOf(first: string): Record<string, string>[] {
  const lines = text.split("\n");
  const start = lines.findIndex((line) => line.startsWith(`| ${first}`) && line.split("|").length > 4);
  const cells = (line: string) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
  const headings = cells(lines[start]!);
  const end = lines.findIndex((line, index) => index > start && !line.startsWith("|"));
  return lines
    .slice(start + 2, end)
    .map((line) => Object.fromEntries(cells(line).map((cell, index) => [headings[index]!, cell])));
}

const timeOf = (clock: string) => Date.parse(`${DAY}T${clock}Z`);

test("the worked example is what the panes and windows make of its trades", () => {
  const panes = new Map<number, Pane>();
  const trades = tableOf("trade_timestamp (2026-01-05)");
  expect(trades.length).toBeGreaterThan(4);
  for (const [index, fields] of trades.entries()) {
    const atMs = timeOf(fields["trade_timestamp (2026-01-05)"]!);
    const pane = panes.getOrInsertComputed(paneStart(atMs), newPane);
    addTrade(pane, {
      trade_timestamp: atMs,
      uuid: String(index),
      price: Number(fields.price),
      volume: Number(fields.volume),
    });
  }
  const windows = new Map<string, Window>();
  for (const start of panes.keys())
    for (const window of windowsOfPane("AAPL", start))
      windows.set(`${window.kind} ${window.startMs}`, window);
  const rows = [...windows.values()]
    .sort((a, b) => a.startMs - b.startMs)
    .map(
      (window) =>
        windowRow(
          window,
          panesOfWindow(window).flatMap((start) => panes.get(start) ?? []),
        )!,
    );
  /** As the document writes them: six places, and the time of day. */
  const written = (row: Record<string, unknown>, headings: string[]) =>
    Object.fromEntries(
      headings.map((heading) => {
        const value = Number(row[heading]);
        const isTime = heading === "window_end" || heading === "window_start";
        return [
          heading,
          isTime ? new Date(value).toISOString().slice(11, 19) : String(Number(value.toFixed(6))),
        ];
      }),
    );
  for (const [kind, first] of [
    ["average", "window_end"],
    ["candle", "window_start"],
  ] as const) {
    const said = tableOf(`${first} |`);
    const computed = rows.filter((row) => row.kind === kind).map(({ row }) => row);
    expect(computed.map((row) => written(row, Object.keys(said[0]!)))).toEqual(said);
  }
});

test("every column of a table stands under its heading", () => {
  const cql = readdirSync(join(ROOT, "cql"))
    .map((file) => readFileSync(join(ROOT, "cql", file), "utf8"))
    .join("\n");
  const tables = [...cql.matchAll(/CREATE TABLE IF NOT EXISTS \{keyspace\}\.(\w+) \(([^;]*?)PRIMARY KEY/g)];
  expect(tables.map(([, name]) => name)).toContain("candles_1_min");
  for (const [, name, body] of tables) {
    const section = new RegExp(`\\n## ${name}\\n(.*?)\\n## `, "s").exec(text)?.[1] ?? "";
    const columns = [...body!.matchAll(/^\s+(\w+) \w+,$/gm)].map(([, column]) => column!);
    expect({
      name,
      unnamed: columns.filter((column) => !new RegExp(`\\b${column}\\b`).test(section)),
    }).toEqual({
      name,
      unnamed: [],
    });
  }
});
