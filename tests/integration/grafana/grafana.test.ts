// The dashboards as they are mounted, and each of their questions to Cassandra on a real node, through a model of the
// plugin (grafana-plugin.ts). There is no Grafana here: `admin grafana-check` asks a real one.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import cassandra from "cassandra-driver";
import { createMetrics } from "../../../lib/base/metrics.ts";
import { QUERIES } from "../../../scripts/grafana/queries.ts";
import { dashboards } from "../../../scripts/grafana.ts";
import { type Keyspace, keyspaceWithTables } from "../../support/cassandra.ts";
import { ask, cqlOf, type Frame, interpolate, rowsOf, type Target } from "../../support/grafana-plugin.ts";
import { clientOptions } from "../../support/services/cassandra.ts";
import { services, sharedCassandra } from "../../support/services/shared.ts";

const DIRECTORY = join(import.meta.dir, "../../../grafana");
const CASSANDRA = "hadesarchitect-cassandra-datasource";
const TIMEOUT_MS = 60_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

type Panel = {
  id: number;
  title: string;
  type: string;
  timeFrom?: string;
  datasource: { type: string; uid: string };
  targets: (Target & { datasource: { type: string; uid: string }; expr?: string })[];
  transformations?: { id: string; options: { sort?: { field: string }[] } }[];
};
type Dashboard = {
  uid: string;
  title: string;
  refresh: string;
  schemaVersion: number;
  editable: boolean;
  timepicker: { refresh_intervals: string[] };
  templating: { list: { name: string; query: { query: string }; current: { value: string } }[] };
  annotations: { list: { target: Target; mappings: Record<string, { value: string }> }[] };
  panels: Panel[];
};

const files = readdirSync(join(DIRECTORY, "dashboards"));
const read = (path: string) => readFileSync(join(DIRECTORY, path), "utf8");
const dashboard = (name: string) => JSON.parse(read(`dashboards/${name}`)) as Dashboard;
const market = dashboard("market.json");
const pipeline = dashboard("pipeline.json");
const targets = market.panels.flatMap((panel) => panel.targets.map((target) => ({ panel, target })));
const questions = [
  ...targets.map(({ panel, target }) => ({ name: `${panel.title} ${target.refId}`, target })),
  ...market.annotations.list.map(({ target }) => ({ name: "annotations", target })),
];

test("the dashboards are what the generator writes, byte for byte", () => {
  expect(Object.fromEntries(files.map((name) => [name, read(`dashboards/${name}`)]))).toEqual(dashboards());
});

test("the market is drawn every 500 ms: the dashboard, the picker's list and Grafana's least interval agree", () => {
  const compose = Bun.YAML.parse(readFileSync(join(DIRECTORY, "../compose.yaml"), "utf8")) as {
    services: Record<string, { environment: Record<string, string> }>;
  };
  const least = compose.services.grafana!.environment.GF_DASHBOARDS_MIN_REFRESH_INTERVAL;
  expect([market.uid, market.refresh, least]).toEqual(["oaK8xaOVz", "500ms", "500ms"]);
  for (const { refresh, timepicker } of [market, pipeline])
    expect(timepicker.refresh_intervals).toContain(refresh);
});

test("the dashboards are in the classic form, and the origin's three panels are among them", () => {
  for (const { schemaVersion, editable, panels } of [market, pipeline]) {
    expect(schemaVersion).toBeLessThanOrEqual(42);
    expect(editable).toBe(false);
    expect(panels.map(({ id }) => id)).toEqual(panels.map((_, index) => index + 1));
  }
  expect(market.title).toBe("Finnhub Sample BTC Dashboard");
  expect(market.panels.map(({ title }) => title)).toEqual(
    expect.arrayContaining(["Price", "Volume", "Average price*volume from last 15 seconds"]),
  );
});

test("every panel, query, variable and annotation names a data source that is provisioned, as its kind", () => {
  const { datasources } = Bun.YAML.parse(read("provisioning/datasources/datasources.yaml")) as {
    datasources: { uid: string; type: string; editable: boolean; jsonData: Record<string, unknown> }[];
  };
  const known = datasources.map(({ uid, type }) => ({ type, uid }));
  expect(known).toEqual([
    { type: CASSANDRA, uid: "cassandra" },
    { type: "prometheus", uid: "prometheus" },
  ]);
  const named = JSON.stringify([market, pipeline]).match(/"datasource":\{[^}]*\}/g) ?? [];
  expect(named.length).toBeGreaterThan(20);
  for (const text of new Set(named)) expect(known).toContainEqual(JSON.parse(`{${text}}`).datasource);
  const [source] = datasources;
  expect(source).toMatchObject({ editable: false, jsonData: { consistency: "LOCAL_ONE" } });
  // Any other key is a slip that nobody would report.
  expect(Object.keys(source!.jsonData).sort()).toEqual(["consistency", "keyspace", "timeout", "user"]);
});

test("the dashboards' provider lets nobody save over the files", () => {
  const { providers } = Bun.YAML.parse(read("provisioning/dashboards/dashboards.yaml")) as {
    providers: Record<string, unknown>[];
  };
  expect(providers).toEqual([
    expect.objectContaining({
      type: "file",
      allowUiUpdates: false,
      disableDeletion: true,
      options: { path: "/etc/grafana/dashboards" },
    }),
  ]);
});

test("every question is one the plugin takes, ends by rows, names its partitions, and is constant for a symbol", () => {
  expect(questions.length).toBeGreaterThan(10);
  for (const { name, target } of questions) {
    const early = cqlOf(target, { symbol: "X" }, { fromMs: 1, toMs: 2 });
    const late = cqlOf(target, { symbol: "X" }, { fromMs: 3, toMs: 4 });
    expect({ name, text: late }).toEqual({ name, text: early });
    expect({ name, text: early }).toEqual({
      name,
      text: expect.stringMatching(
        /^SELECT .* FROM \w+ WHERE .*(hour|day) IN \(.*PER PARTITION LIMIT \d{1,3}\b/,
      ),
    });
    // With IN, and the plugin always pages: Cassandra refuses it.
    expect(early).not.toContain("ORDER BY");
    // The plugin gives an alias to every number of a query.
    if (target.alias !== undefined) expect(early.split(" FROM ")[0]!.split(", ")).toHaveLength(3);
  }
  expect(market.templating.list[0]!.query.query).toBe(QUERIES.symbols);
});

test("the partitions that a question names hold all of its span, whenever it is asked", () => {
  for (const { name, target } of questions) {
    const text = target.target ?? "";
    const [, span] = /_(?:timestamp|end|start) > current_timestamp\(\) - (\d+[hms])/.exec(text) ?? [];
    const unitMs = { h: HOUR_MS, m: 60_000, s: 1_000 }[span?.at(-1) ?? ""] ?? Number.NaN;
    const spanMs = Number.parseInt(span ?? "", 10) * unitMs;
    // The one that it begins in and the one that it ends in: enough, since it is no longer than one of them.
    const isByHour = text.includes(
      `hour IN (floor(current_timestamp(), 1h), floor(current_timestamp() - ${span}, 1h))`,
    );
    const isByDay = text.includes(
      `day IN (to_date(current_timestamp()), to_date(current_timestamp() - ${span}))`,
    );
    const partitionMs = isByHour ? HOUR_MS : isByDay ? DAY_MS : 0;
    expect({ name, isCovered: spanMs <= partitionMs }).toEqual({ name, isCovered: true });
  }
});

test("every panel of the market sorts its rows by time, and shows its query's own span", () => {
  for (const { title, targets: asked, transformations = [], timeFrom } of market.panels) {
    const fields = transformations.flatMap(({ options }) => options.sort?.map(({ field }) => field) ?? []);
    for (const { target = "" } of asked) {
      const time = /(\w+) FROM/.exec(target)?.[1];
      expect({ title, fields }).toEqual({ title, fields: expect.arrayContaining([time]) });
    }
    const own: Record<string, string> = { Candles: "3h", "Trades per second": "30s" };
    expect({ title, timeFrom }).toEqual({ title, timeFrom: own[title] ?? "15m" });
  }
});

test("every metric that the pipeline's panels ask for is one of ours", async () => {
  const ours = new Set(
    (await createMetrics().registry.getMetricsAsJSON()).flatMap(({ name }) => [name, `${name}_bucket`]),
  );
  const asked = pipeline.panels.flatMap(({ targets: all }) =>
    all.flatMap(({ expr = "" }) => expr.match(/pipeline_\w+/g) ?? []),
  );
  expect(asked.length).toBeGreaterThan(10);
  expect(asked.filter((name) => !ours.has(name))).toEqual([]);
});

test("a symbol with a quote in it ends no text", () => {
  expect(interpolate(`a = \${symbol:sqlstring}`, { symbol: "IT'S" })).toBe("a = 'IT''S'");
});

describe.skipIf(!services.available)("on a real node", () => {
  const SYMBOL = "BINANCE:BTCUSDT";
  const RANGE = { fromMs: 0, toMs: 1 };
  let keyspace: Keyspace;
  let client: cassandra.Client;
  let nowMs: number;

  beforeAll(async () => {
    const node = await sharedCassandra();
    keyspace = await keyspaceWithTables(node);
    client = new cassandra.Client({ ...clientOptions(node.port), keyspace: keyspace.name });
    await client.connect();
    nowMs = Date.now();
    await seed();
  }, TIMEOUT_MS);
  afterAll(async () => {
    await client?.shutdown();
    await keyspace?.[Symbol.asyncDispose]();
  });

  const insert = (table: string, row: Record<string, unknown>) =>
    client.execute(
      `INSERT INTO ${table} (${Object.keys(row).join(", ")}) VALUES (${Object.keys(row).map(() => "?")})`,
      Object.values(row),
      { prepare: true },
    );

  async function putTrade(symbol: string, atMs: number, price: number, latencyMs = 7): Promise<void> {
    await insert("trades", {
      symbol,
      hour: new Date(atMs - (atMs % HOUR_MS)),
      trade_timestamp: new Date(atMs),
      uuid: cassandra.types.Uuid.random(),
      price,
      volume: price / 100,
      trade_conditions: null,
      ingest_timestamp: new Date(atMs + latencyMs),
    });
  }

  async function putWindow(endMs: number, vwap: number | null): Promise<void> {
    await insert("running_averages_15_sec", {
      symbol: SYMBOL,
      hour: new Date(endMs - (endMs % HOUR_MS)),
      window_end: new Date(endMs),
      price_volume_multiply: 5,
      average_price: 6,
      vwap,
      volume: vwap === null ? 0 : 8,
      trade_count: 30,
    });
  }

  /** Twenty trades, four windows, three candles and events; and each once where it must not be shown. */
  async function seed(): Promise<void> {
    for (let i = 0; i < 20; i++) await putTrade(SYMBOL, nowMs - i * 1_000, 100 + i);
    await putTrade(SYMBOL, nowMs - 16 * 60_000, 1);
    await putTrade("AAPL", nowMs, 2);
    const closedMs = nowMs - (nowMs % 5_000);
    for (const [index, vwap] of [6.5, null, 6.7].entries()) await putWindow(closedMs - index * 5_000, vwap);
    await putWindow(closedMs + 60_000, 1);
    await putWindow(closedMs - 16 * 60_000, 1);
    for (const [symbol, ageMs] of [
      [SYMBOL, 0],
      [SYMBOL, 60_000],
      [SYMBOL, 4 * HOUR_MS],
      ["OLD", 9 * DAY_MS],
      ["IT'S", 5 * DAY_MS],
    ] as const) {
      const startMs = nowMs - ageMs - ((nowMs - ageMs) % 60_000);
      await insert("candles_1_min", {
        symbol,
        day: cassandra.types.LocalDate.fromDate(new Date(startMs)),
        window_start: new Date(startMs),
        open: 1,
        high: 4,
        low: 0.5,
        close: 2,
        volume: 9,
        price_volume_sum: 9,
        vwap: 9,
        trade_count: 9,
      });
    }
    for (const [index, type] of ["disconnected", "connected", "ticker_rejected"].entries()) {
      const atMs = nowMs - index * 1_000;
      await insert("feed_events", {
        day: cassandra.types.LocalDate.fromDate(new Date(atMs)),
        event_timestamp: new Date(atMs),
        session: "0000002a",
        sequence: index,
        type,
        detail: `{"number":${index}}`,
      });
    }
  }

  async function framesOf(query: string, symbol = SYMBOL): Promise<Frame[]> {
    const target = { refId: "A", queryType: "query", rawQuery: true, target: query };
    return ask(client, cqlOf(target, { symbol }, RANGE));
  }

  const valuesOf = async (query: string, column: string, symbol = SYMBOL) =>
    rowsOf(await framesOf(query, symbol)).map((row) => row[column]);

  test(
    "every question of the dashboard is answered, as one frame named by the symbol",
    async () => {
      for (const { name, target } of questions) {
        const frames = await ask(client, cqlOf(target, { symbol: SYMBOL }, RANGE));
        const named = frames.map((frame) => frame.name);
        expect({ name, named }).toEqual({ name, named: [name === "annotations" ? "0000002a" : SYMBOL] });
        const times = frames[0]!.fields.filter(({ type }) => type === "time");
        expect({ name, times: times.length > 0 }).toEqual({ name, times: true });
        const numbers = frames[0]!.fields.filter(({ type }) => type === "number");
        if (target.alias !== undefined)
          expect({ name, numbers: numbers.length }).toEqual({ name, numbers: 1 });
      }
    },
    TIMEOUT_MS,
  );

  test(
    "prices are those of the last 15 minutes of this symbol, each once, with the time of the trade",
    async () => {
      const [frame] = await framesOf(QUERIES.price);
      expect(frame!.fields.map(({ name, type }) => `${name} ${type}`)).toEqual([
        "symbol string",
        "price number",
        "trade_timestamp time",
      ]);
      const rows = rowsOf([frame!]).sort((a, b) => Number(b.trade_timestamp) - Number(a.trade_timestamp));
      expect(rows).toEqual(
        Array.from({ length: 20 }, (_, i) => ({
          symbol: SYMBOL,
          price: 100 + i,
          trade_timestamp: nowMs - i * 1_000,
        })),
      );
      expect(await valuesOf(QUERIES.price, "price", "AAPL")).toEqual([2]);
      expect(await valuesOf(QUERIES.price, "price", "IT'S")).toEqual([]);
    },
    TIMEOUT_MS,
  );

  test(
    "only closed windows are shown, and a VWAP that is null is not shown as 0",
    async () => {
      const closedMs = nowMs - (nowMs % 5_000);
      const ends = (await valuesOf(QUERIES.averagePriceVolume, "window_end")) as number[];
      expect(ends.sort()).toEqual([closedMs - 10_000, closedMs - 5_000, closedMs]);
      expect(((await valuesOf(QUERIES.vwap, "vwap")) as number[]).sort()).toEqual([6.5, 6.7]);
      expect(await valuesOf(QUERIES.tradesPerSecond, "trades_per_second")).toEqual([2, 2, 2]);
    },
    TIMEOUT_MS,
  );

  test(
    "the last price, the latency, the candles, the gaps and the symbols are right",
    async () => {
      const last = rowsOf(await framesOf(QUERIES.lastPrice));
      const newest = last.sort((a, b) => Number(a.trade_timestamp) - Number(b.trade_timestamp)).at(-1);
      expect(newest).toEqual({ symbol: SYMBOL, price: 100, trade_timestamp: nowMs });
      expect(new Set(await valuesOf(QUERIES.latency, "latency_ms"))).toEqual(new Set([7]));
      const candles = rowsOf(await framesOf(QUERIES.candles));
      expect(candles).toHaveLength(2);
      expect(candles[0]).toMatchObject({ open: 1, high: 4, low: 0.5, close: 2, volume: 9 });
      expect(new Set(await valuesOf(QUERIES.gaps, "type"))).toEqual(new Set(["disconnected", "connected"]));
      // The plugin's answer for a variable is the first column; Grafana leaves equal ones out.
      expect(new Set(await valuesOf(QUERIES.symbols, "symbol"))).toEqual(new Set([SYMBOL, "IT'S"]));
    },
    TIMEOUT_MS,
  );

  test(
    "within one hour, and over the full hour, rows come once and no more than the limit of each hour",
    async () => {
      // Both terms of IN name one hour in most minutes: the node's answer must not hold its rows twice.
      const { rows } = await client.execute(
        "SELECT price FROM trades WHERE symbol = ? AND hour IN (?, ?) PER PARTITION LIMIT 500",
        ["AAPL", new Date(nowMs - (nowMs % HOUR_MS)), new Date(nowMs - (nowMs % HOUR_MS))],
        { prepare: true },
      );
      expect(rows).toHaveLength(1);
      for (let i = 0; i < 30; i++) await putTrade("MANY", nowMs - i, i + 1);
      const listed = await valuesOf(QUERIES.lastTrades, "price", "MANY");
      expect(listed.length).toBeLessThanOrEqual(40);
      expect(listed).toEqual(expect.arrayContaining(Array.from({ length: 20 }, (_, i) => i + 1)));
    },
    TIMEOUT_MS,
  );

  test("no viewer's clock or timezone is in a question: asked from New York or Kathmandu it is the same text", () => {
    const script = `
      import { cqlOf } from ${JSON.stringify(join(import.meta.dir, "../../support/grafana-plugin.ts"))};
      const questions = ${JSON.stringify(questions)};
      const range = { fromMs: Date.now() - 9e5, toMs: Date.now() };
      console.log(JSON.stringify(questions.map(({ target }) => cqlOf(target, { symbol: "X" }, range))));`;
    const texts = ["UTC", "America/New_York", "Asia/Kathmandu"].map((zone) =>
      Bun.spawnSync([process.execPath, "-e", script], {
        env: { ...process.env, TZ: zone },
      }).stdout.toString(),
    );
    expect(texts[0]).toContain("SELECT");
    expect(new Set(texts).size).toBe(1);
  });
});
