// `admin grafana-check` against a server that answers as Grafana 12 does, right, and wrong in one point after another:
// each wrong answer must be found, and named. No Grafana can be run here.

import { expect, test } from "bun:test";
import { join } from "node:path";
import market from "../../grafana/dashboards/market.json" with { type: "json" };
import { systemClock } from "../../lib/base/clock.ts";
import { NO_PROXIES } from "../../lib/base/proxy.ts";
import { checkGrafana, type Point } from "../../lib/commands/grafana-points.ts";
import { type Asked, frame, type Replies, right, SOURCE, startGrafana } from "../support/grafana-server.ts";

const ADMIN = join(import.meta.dir, "../../admin.ts");
const PASSWORD = "s3cret-of-grafana";
const TIMEOUT_MS = 60_000;
const SYMBOL = "BINANCE:BTCUSDT";

/** The points, in this process; a machine that stands still for a while makes no answer late. */
async function check(replies: Replies, asked: Asked = [], symbol = SYMBOL, panels = market.panels) {
  const isLate = Object.values(replies).some(({ delayMs }) => delayMs !== undefined);
  const clock = isLate ? systemClock : { ...systemClock, monotonic: () => 0 };
  await using server = startGrafana({ replies, password: PASSWORD, asked });
  const points: Point[] = [];
  for await (const point of checkGrafana({
    url: server.url,
    username: "admin",
    password: PASSWORD,
    dashboard: { ...market, panels },
    source: { type: SOURCE, uid: "cassandra", version: "3.3.0" },
    symbol,
    clock,
    proxies: NO_PROXIES,
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }))
    points.push(point);
  return points;
}

/** The command, as an operator starts it. */
async function runCommand(url: string, password: string, ...more: string[]) {
  const child = Bun.spawn(
    [process.execPath, "--no-env-file", ADMIN, "grafana-check", "--url", url, ...more],
    {
      env: { GRAFANA_PASSWORD: password },
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  expect(out + err).not.toContain(password);
  return { out, code, failed: out.split("\n").filter((line) => line.startsWith("FAIL")) };
}

test(
  "a Grafana that shows the market passes every point, each panel's query asked with the symbol put in",
  async () => {
    const asked: Asked = [];
    const points = await check(right(), asked, "IT'S");
    expect(points.filter(({ ok }) => !ok)).toEqual([]);
    const queries = asked.filter(({ path }) => path === "/api/ds/query").map(({ body }) => JSON.parse(body));
    const count = market.panels.flatMap(({ targets }) => targets).length;
    expect(queries).toHaveLength(2 * count);
    for (const {
      queries: [query],
    } of queries) {
      expect(query).toMatchObject({
        queryType: "query",
        rawQuery: true,
        datasource: { uid: "cassandra", type: SOURCE },
      });
      expect(query.target).toContain("'IT''S'");
      expect(query.target).not.toContain("$");
    }
  },
  TIMEOUT_MS,
);

const dashboardOf = (changes: Record<string, unknown>, meta = { provisioned: true }): Replies => ({
  "/api/dashboards/uid/oaK8xaOVz": { body: { dashboard: { ...market, ...changes }, meta } },
});
const query = (result: unknown): Replies => ({ "/api/ds/query": { body: { results: { A: result } } } });

test.each<[string, Replies, RegExp]>([
  [
    "its database is down",
    { "/api/health": { body: { database: "failing" } } },
    /Grafana answers: .*failing/,
  ],
  ["it is no Grafana", { "/api/health": { status: 404, body: {} } }, /Grafana answers: answered 404/],
  [
    "it refreshes every 5 s at most",
    { "/api/frontend/settings": { body: { minRefreshInterval: "5s" } } },
    /least refresh interval.*it is 5s.*GF_DASHBOARDS_MIN_REFRESH_INTERVAL=500ms/,
  ],
  [
    "the plugin is not installed",
    { [`/api/plugins/${SOURCE}/settings`]: { status: 404, body: { message: "Plugin not found" } } },
    /the plugin .*Plugin not found/,
  ],
  [
    "the plugin is another version",
    { [`/api/plugins/${SOURCE}/settings`]: { body: { info: { version: "2.0.0" } } } },
    /the plugin .*it is 2\.0\.0/,
  ],
  [
    "the data source is not provisioned",
    { "/api/datasources/uid/cassandra": { status: 404, body: { message: "Data source not found" } } },
    /the data source cassandra is there: .*Data source not found/,
  ],
  [
    "the data source is of another kind",
    { "/api/datasources/uid/cassandra": { body: { type: "mysql" } } },
    /the data source cassandra is there: its type is mysql/,
  ],
  [
    "the keyspace is not there",
    {
      "/api/datasources/uid/cassandra/health": {
        status: 400,
        body: { status: "ERROR", message: "Failed to create Cassandra connection" },
      },
    },
    /reaches Cassandra: .*Failed to create Cassandra connection/,
  ],
  [
    "the data source says that it is ill",
    { "/api/datasources/uid/cassandra/health": { body: { status: "ERROR", message: "no hosts" } } },
    /reaches Cassandra: .*ERROR: no hosts/,
  ],
  [
    "the dashboard is not there",
    { "/api/dashboards/uid/oaK8xaOVz": { status: 404, body: { message: "Dashboard not found" } } },
    /the dashboard oaK8xaOVz is there: .*Dashboard not found/,
  ],
  ["the refresh was raised", dashboardOf({ refresh: "5s" }), /refreshed every 500ms: it is 5s/],
  ["the refresh is off", dashboardOf({ refresh: false }), /refreshed every 500ms: it is off/],
  [
    "its list of intervals lacks 500 ms",
    dashboardOf({ timepicker: { refresh_intervals: ["5s"] } }),
    /list of intervals.*its timer never starts/,
  ],
  [
    "somebody saved another one",
    dashboardOf({}, { provisioned: false }),
    /comes from the file: somebody saved it/,
  ],
  ["a panel is missing", dashboardOf({ panels: market.panels.slice(1) }), /all panels: missing: Last price/],
  [
    "a query fails",
    query({ status: 500, error: "repo.Select: Keyspace has no table" }),
    /query A: repo\.Select/,
  ],
  [
    "the plugin takes no query",
    {
      "/api/ds/query": {
        status: 400,
        body: { results: { A: { error: "no handler found for query type ''" } } },
      },
    },
    /query A: answered 400: no handler found/,
  ],
  ["nothing is in the tables", query({ status: 200, frames: [] }), /query A: no rows/],
  [
    "the answers come too late to be drawn",
    { "/api/ds/query": { body: { results: { A: { frames: [frame] } } }, delayMs: 600 } },
    /query A: 2 rows in \d+ ms: it would never be drawn/,
  ],
])(
  "it is found and named when %s",
  async (_, wrong, named) => {
    const panels = "delayMs" in (wrong["/api/ds/query"] ?? {}) ? market.panels.slice(0, 1) : market.panels;
    const points = await check({ ...right(), ...wrong }, [], SYMBOL, panels);
    const failed = points.filter(({ ok }) => !ok);
    expect(failed.map(({ what, said }) => `${what}: ${said}`).join("\n")).toMatch(named);
    // What was not spoiled is well: one point fails, or each of the queries, which share an answer here.
    expect(new Set(failed.map(({ what }) => what.replace(/^.*, query \w+$/, "queries"))).size).toBe(1);
  },
  TIMEOUT_MS,
);

test(
  "the command prints every point, and its exit code says whether all are well",
  async () => {
    await using server = startGrafana({ password: PASSWORD });
    const { code, out, failed } = await runCommand(`${server.url}/`, PASSWORD);
    // On a machine that stands still for half a second an answer is late, and said to be.
    expect(failed.filter((line) => !line.includes("it would never be drawn"))).toEqual([]);
    expect(code).toBe(failed.length === 0 ? 0 : 1);
    for (const { title } of market.panels) expect(out).toContain(`${title}, query A: 2 rows in `);
  },
  TIMEOUT_MS,
);

test(
  "a wrong password is said, and not shown; nothing more is asked",
  async () => {
    const asked: Asked = [];
    await using server = startGrafana({ password: PASSWORD, asked });
    const { code, failed, out } = await runCommand(server.url, "another-password");
    expect(out).toContain("1 of 2 points failed");
    expect(code).toBe(1);
    expect(failed).toEqual(["FAIL  the user may log in: answered 401: Invalid username or password"]);
    expect(asked.map(({ path }) => path)).toEqual(["/api/health", "/api/user"]);
  },
  TIMEOUT_MS,
);

test.each([
  ["nothing", [], "the address of Grafana is missing or not valid"],
  ["a word", ["--url", "grafana"], "the address of Grafana is missing or not valid"],
  [
    "a password in the address",
    ["--url", "http://admin:hush-hush@127.0.0.1:1"],
    "contains a user or a password",
  ],
])(
  "an address is wanted, and %s is none",
  (_, args, said) => {
    const done = Bun.spawnSync([process.execPath, "--no-env-file", ADMIN, "grafana-check", ...args], {
      env: {},
    });
    const text = done.stdout.toString() + done.stderr.toString();
    expect({ code: done.exitCode, text }).toEqual({ code: 1, text: expect.stringContaining(said) });
    expect(text).not.toContain("hush-hush");
  },
  TIMEOUT_MS,
);

test(
  "where nobody listens the one point that fails says so",
  async () => {
    const { code, failed } = await runCommand("http://127.0.0.1:1", PASSWORD);
    expect({ code, failed }).toEqual({ code: 1, failed: ["FAIL  Grafana answers: connection refused"] });
  },
  TIMEOUT_MS,
);
