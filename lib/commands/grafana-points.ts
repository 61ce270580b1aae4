// Whether somebody's Grafana shows what grafana/ defines, point by point, in the order in which one thing needs the other.
// It changes nothing there.

import type { Clock } from "../base/clock.ts";
import type { Proxies } from "../base/proxy.ts";
import { fieldOf, type GrafanaAnswer, GrafanaClient, listOf, textIn } from "./grafana-client.ts";

/** One thing that was checked; `said` is what was found, or why it is not well. */
export type Point = Readonly<{ what: string; ok: boolean; said: string }>;

/** A dashboard of ours, as far as it is checked. */
export type ExpectedDashboard = Readonly<{
  uid: string;
  refresh: string;
  panels: readonly Readonly<{ title: string; targets: readonly ExpectedTarget[] }>[];
}>;
type ExpectedTarget = Readonly<{ refId: string; target: string }> & Readonly<Record<string, unknown>>;
type ExpectedSource = Readonly<{ type: string; uid: string; version: string }>;

type GrafanaCheckDeps = Readonly<{
  /** Without a slash at the end. */
  url: string;
  username: string;
  password: string;
  dashboard: ExpectedDashboard;
  source: ExpectedSource;
  /** The one that is chosen on the dashboard. */
  symbol: string;
  clock: Clock;
  /** The rule to follow. */
  proxies: Proxies;
  signal: AbortSignal;
}>;

const RANGE_MS = 900_000;

/** Yields points as they are checked. It ends where the next one could only repeat a failure. */
export async function* checkGrafana(deps: GrafanaCheckDeps): AsyncGenerator<Point> {
  const { url, username, password, dashboard, source, proxies, signal } = deps;
  const client = new GrafanaClient(url, `${username}:${password}`, proxies, signal);

  const health = healthPoint(await client.get("/api/health"));
  yield health;
  if (!health.ok) return;
  const user = await client.get("/api/user");
  yield point("the user may log in", user.fault, textIn(user.body, "login") ?? username);
  if (user.fault !== null) return;

  yield refreshPoint(await client.get("/api/frontend/settings"), dashboard.refresh);
  yield pluginPoint(await client.get(`/api/plugins/${source.type}/settings`), source);
  yield sourcePoint(await client.get(`/api/datasources/uid/${source.uid}`), source);
  yield sourceHealthPoint(await client.get(`/api/datasources/uid/${source.uid}/health`), source);
  yield* dashboardPoints(await client.get(`/api/dashboards/uid/${dashboard.uid}`), dashboard);
  for (const { title, targets } of dashboard.panels) {
    for (const target of targets) {
      yield { what: `${title}, query ${target.refId}`, ...(await checkQuery(client, target, deps)) };
    }
  }
}

function point(what: string, fault: string | null, said: string): Point {
  return { what, ok: fault === null, said: fault ?? said };
}

function healthPoint({ body, fault }: GrafanaAnswer): Point {
  const database = textIn(body, "database");
  const down = database === "ok" ? null : `its database is ${database ?? "not told"}`;
  return point("Grafana answers", fault ?? down, `version ${textIn(body, "version") ?? "unknown"}`);
}

function refreshPoint({ body, fault }: GrafanaAnswer, refresh: string): Point {
  const least = textIn(body, "minRefreshInterval");
  const leastMs = least === null ? null : durationMs(least);
  const isLow = leastMs !== null && leastMs <= (durationMs(refresh) ?? 0);
  const slow = isLow
    ? null
    : `it is ${least ?? "not told"}: set GF_DASHBOARDS_MIN_REFRESH_INTERVAL=${refresh}`;
  return point(`the least refresh interval allows ${refresh}`, fault ?? slow, least ?? "");
}

function pluginPoint({ body, fault }: GrafanaAnswer, { type, version: expected }: ExpectedSource): Point {
  const version = textIn(fieldOf(body, "info"), "version");
  const another = version === expected ? null : `it is ${version ?? "not told"}`;
  return point(`the plugin ${type} is ${expected}`, fault ?? another, `version ${version}`);
}

function sourcePoint({ body, fault }: GrafanaAnswer, { uid, type }: ExpectedSource): Point {
  const found = textIn(body, "type");
  const foreign = found === type ? null : `its type is ${found ?? "not told"}`;
  return point(`the data source ${uid} is there`, fault ?? foreign, textIn(body, "name") ?? "");
}

function sourceHealthPoint({ body, fault }: GrafanaAnswer, { uid }: ExpectedSource): Point {
  const status = textIn(body, "status");
  const ill = status === "OK" ? null : `its health is ${status ?? "not told"}: ${textIn(body, "message")}`;
  return point(`the data source ${uid} reaches Cassandra`, fault ?? ill, status ?? "");
}

function* dashboardPoints({ body, fault }: GrafanaAnswer, expected: ExpectedDashboard): Generator<Point> {
  const { uid, refresh, panels } = expected;
  const model = fieldOf(body, "dashboard");
  yield point(`the dashboard ${uid} is there`, fault, textIn(model, "title") ?? "");
  if (fault !== null) return;
  const found = textIn(model, "refresh");
  const wrong = found === refresh ? null : `it is ${found ?? "off"}`;
  yield point(`it is refreshed every ${refresh}`, wrong, found ?? "");
  const isListed = listOf(fieldOf(model, "timepicker"), "refresh_intervals").includes(refresh);
  const unlisted = isListed ? null : `${refresh} is not in its list of intervals: its timer never starts`;
  yield point("its list of intervals has this one", unlisted, refresh);
  const isFile = fieldOf(fieldOf(body, "meta"), "provisioned") === true;
  yield point("it comes from the file", isFile ? null : "it was saved by somebody", "provisioned");
  const titles = new Set(listOf(model, "panels").map((panel) => textIn(panel, "title")));
  const missing = panels.filter(({ title }) => !titles.has(title)).map(({ title }) => title);
  const gone = missing.length === 0 ? null : `missing: ${missing.join(", ")}`;
  yield point("it has all panels", gone, `${panels.length} panels`);
}

/** Runs one panel's query as the dashboard does, and takes its time. */
async function checkQuery(
  client: GrafanaClient,
  target: ExpectedTarget,
  { dashboard, symbol, clock }: GrafanaCheckDeps,
): Promise<Pick<Point, "ok" | "said">> {
  const text = target.target.replaceAll(`\${symbol:sqlstring}`, `'${symbol.replaceAll("'", "''")}'`);
  const nowMs = clock.now();
  const query = { ...target, target: text, intervalMs: 500, maxDataPoints: 1_000 };
  const json = JSON.stringify({ from: String(nowMs - RANGE_MS), to: String(nowMs), queries: [query] });
  await client.post("/api/ds/query", json); // The first one prepares the statement.
  const startedAtMs = clock.monotonic();
  const answer = await client.post("/api/ds/query", json);
  return judged(answer, target.refId, clock.monotonic() - startedAtMs, dashboard.refresh);
}

function judged(
  { body, fault }: GrafanaAnswer,
  refId: string,
  tookMs: number,
  refresh: string,
): Pick<Point, "ok" | "said"> {
  if (fault !== null) return { ok: false, said: fault };
  const result = fieldOf(fieldOf(body, "results"), refId);
  const error = textIn(result, "error");
  if (error !== null) return { ok: false, said: error };
  const rowCount = listOf(result, "frames").reduce((sum: number, frame) => {
    const [first] = listOf(fieldOf(frame, "data"), "values");
    return sum + (Array.isArray(first) ? first.length : 0);
  }, 0);
  const said = `${rowCount} rows in ${Math.round(tookMs)} ms`;
  if (rowCount === 0)
    return { ok: false, said: "no rows: does the pipeline run, and does the symbol trade?" };
  const limitMs = durationMs(refresh) ?? 0;
  // The next refresh drops the query that is running.
  return tookMs <= limitMs ? { ok: true, said } : { ok: false, said: `${said}: it would never be drawn` };
}

/** `500ms`, `1s`, `5m`; null for anything else. */
function durationMs(text: string): number | null {
  const [, amount, unit] = /^(\d+)(ms|s|m)$/.exec(text) ?? [];
  if (unit === undefined) return null;
  return Number(amount) * (unit === "ms" ? 1 : unit === "s" ? 1_000 : 60_000);
}
