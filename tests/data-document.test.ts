// docs/DATA.md, held against the program: its worked example is what the panes make of these trades, and its tables are
// those of lib/model/aggregates.ts, as sql/, cql/ and the web's answers are.

import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { AGGREGATES, SHAPES } from "../lib/model/aggregates.ts";
import { addTrade, newPane, type Pane, paneStart } from "../lib/model/panes.ts";
import { panesOfWindow, type Window, windowRow, windowsOfPane } from "../lib/model/windows.ts";
import { averagesPage } from "../lib/web/routes/averages.ts";
import { candlesPage } from "../lib/web/routes/candles.ts";

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
    ["average", "window_end | average_price"],
    ["candle", "window_start | open"],
  ] as const) {
    const said = tableOf(first);
    const computed = rows.filter((row) => row.kind === kind).map(({ row }) => row);
    expect(computed.map((row) => written(row, Object.keys(said[0]!)))).toEqual(said);
  }
});

/** The tables of a schema's text, by name: each column with its type, and the key. */
function tablesIn(schema: string): Map<string, { columns: string[]; key: string }> {
  const found = schema.matchAll(
    /CREATE TABLE IF NOT EXISTS (?:\{keyspace\}\.)?(\w+) \(([^;]*?)PRIMARY KEY ([^;]*?)\n\)/g,
  );
  return new Map(
    [...found].map(([, name, body, key]) => {
      const columns = [...body!.matchAll(/^\s+(\w+ [\w ]+),$/gm)].map(([, column]) => column!);
      return [name!, { columns, key: key! }];
    }),
  );
}

const cql = readdirSync(join(ROOT, "cql"))
  .sort()
  .map((file) => readFileSync(join(ROOT, "cql", file), "utf8"))
  .join("\n");
const cassandraTables = tablesIn(cql);
const sqliteTables = tablesIn(readFileSync(join(ROOT, "sql/market.sql"), "utf8"));
const CQL_TYPES = { text: "text", time: "timestamp", day: "date", number: "double", count: "int" } as const;
const SQL_TYPES = { text: "TEXT", time: "INTEGER", day: "TEXT", number: "REAL", count: "INTEGER" } as const;

/** A section of the document: what stands under a heading, up to the next. */
function sectionOf(heading: string): string {
  return new RegExp(`\\n#+ ${heading}\\n(.*?)(?=\\n#+ |$)`, "s").exec(text)?.[1] ?? "";
}

const cellsOf = (section: string) =>
  section
    .split("\n")
    .filter((line) => line.startsWith("| "))
    .slice(2)
    .map((line) =>
      line
        .split("|")
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );

test.each(AGGREGATES)(
  "$table has the columns and the key of its shape in SQLite and in Cassandra",
  ({ table, shape }) => {
    const { columns, bucket, time } = SHAPES[shape];
    expect(cassandraTables.get(table)).toEqual({
      columns: columns.map(({ name, type }) => `${name} ${CQL_TYPES[type]}`),
      key: `((symbol, ${bucket}), ${time})`,
    });
    expect(sqliteTables.get(table)).toEqual({
      columns: [
        ...columns.map((column) => {
          const type = `${column.name} ${SQL_TYPES[column.type]}`;
          return "isNullable" in column ? type : `${type} NOT NULL`;
        }),
        "version INTEGER NOT NULL",
      ],
      key: `(symbol, ${bucket}, ${time})`,
    });
  },
);

test("the document names every aggregate, with its shape, its width and its step", () => {
  expect(cellsOf(sectionOf("Aggregates"))).toEqual(
    AGGREGATES.map(({ table, shape, widthMs, stepMs }) => [
      table,
      `[${shape}s](#${shape}s)`,
      `${widthMs / 1_000} s`,
      `${stepMs / 1_000} s`,
    ]),
  );
});

test.each(["average", "candle"] as const)(
  "the document names every column of a %s, with its type and its unit, and the web answers with them",
  (shape) => {
    const { columns, bucket, time } = SHAPES[shape];
    const section = sectionOf(shape === "average" ? "Averages" : "Candles");
    expect(section).toContain(`Key: ((symbol, ${bucket}), ${time}).`);
    expect(cellsOf(section).map((cells) => cells.slice(0, 3))).toEqual(
      columns.map(({ name, type, unit }) => [name, CQL_TYPES[type], unit ?? ""]),
    );
    const page = shape === "average" ? averagesPage : candlesPage;
    expect(Object.keys(page.shape.items.unwrap().element.shape)).toEqual(columns.map(({ name }) => name));
  },
);

test("the document names every feed event", () => {
  const frozen = JSON.parse(readFileSync(join(import.meta.dir, "public-names.json"), "utf8")) as Record<
    string,
    string[]
  >;
  const types = new Set(frozen["feed events"]!.map((name) => name.split(" ")[0]!));
  expect(types.size).toBeGreaterThan(5);
  const named = cellsOf(sectionOf("feed_events")).flatMap(([names]) => names!.split(", "));
  expect(named.sort()).toEqual([...types].sort());
});

test("every column of another table stands under its heading", () => {
  const aggregates = AGGREGATES.map(({ table }) => table);
  const others = [...cassandraTables].filter(([name]) => !aggregates.includes(name));
  expect(others.map(([name]) => name)).toContain("trades");
  for (const [name, { columns }] of others) {
    const section = sectionOf(name);
    const unnamed = columns
      .map((column) => column.split(" ")[0]!)
      .filter((column) => !new RegExp(`\\b${column}\\b`).test(section));
    expect({ name, unnamed }).toEqual({ name, unnamed: [] });
  }
});
