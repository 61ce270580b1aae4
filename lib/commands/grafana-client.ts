// Whether somebody's Grafana shows what grafana/ says: asked over its HTTP API, point by point, in the order in which
// one thing needs the other. It changes nothing there, and no answer of it holds a secret.

import type { Clock } from "../base/clock.ts";
import { httpRequest } from "../base/http-client.ts";

export type Point = Readonly<{ what: string; ok: boolean; said: string }>;

/** A dashboard of ours, as far as it is asked for. */
export type ExpectedDashboard = Readonly<{
  uid: string;
  refresh: string;
  panels: readonly Readonly<{ title: string; targets: readonly ExpectedTarget[] }>[];
}>;
export type ExpectedTarget = Readonly<{ refId: string; target: string }> & Readonly<Record<string, unknown>>;

export type GrafanaCheckDeps = Readonly<{
  /** Where it is, without a slash at the end. */
  url: string;
  username: string;
  password: string;
  dashboard: ExpectedDashboard;
  source: Readonly<{ type: string; uid: string; version: string }>;
  /** What is chosen on the dashboard. */
  symbol: string;
  clock: Clock;
  signal: AbortSignal;
}>;

/** Well above any of its answers; a question that takes longer is not answered. */
const ANSWER_MS_MAX = 10_000;
const RANGE_MS = 900_000;

/** Points as they are found. It ends where the next one could only repeat a failure. */
export async function* checkGrafana(deps: GrafanaCheckDeps): AsyncGenerator<Point> {
  const { url, username, password, dashboard, source, clock, signal } = deps;
  const login = `${username}:${password}`;

  /** The parsed answer, or a failed point's sentence. */
  async function get(
    path: string,
    json?: string,
  ): Promise<Readonly<{ body: unknown; fault: string | null }>> {
    signal.throwIfAborted();
    try {
      const question = { login, ...(json !== undefined && { json }) };
      const { status, body } = await httpRequest(`${url}${path}`, ANSWER_MS_MAX, question);
      const parsed = parsedJson(body);
      if (status === 200) return { body: parsed, fault: parsed === null ? "the answer is not JSON" : null };
      const message = textIn(parsed, "message") ?? textIn(errorIn(parsed), "error");
      return { body: parsed, fault: `answered ${status}${message === null ? "" : `: ${message}`}` };
    } catch (error) {
      // What it is about, the point says.
      return { body: null, fault: error instanceof Error ? error.message : String(error) };
    }
  }
  const point = (what: string, fault: string | null, said: string): Point => ({
    what,
    ok: fault === null,
    said: fault ?? said,
  });

  const health = await get("/api/health");
  const database = textIn(health.body, "database");
  const isUp = health.fault ?? (database === "ok" ? null : `its database is ${database ?? "not told"}`);
  yield point("Grafana answers", isUp, `version ${textIn(health.body, "version") ?? "unknown"}`);
  if (isUp !== null) return;

  const user = await get("/api/user");
  yield point("the user may log in", user.fault, textIn(user.body, "login") ?? username);
  if (user.fault !== null) return;

  const settings = await get("/api/frontend/settings");
  const least = textIn(settings.body, "minRefreshInterval");
  const isLow =
    least !== null && (durationMs(least) ?? Number.POSITIVE_INFINITY) <= (durationMs(dashboard.refresh) ?? 0);
  const slow = isLow
    ? null
    : `it is ${least ?? "not told"}: set GF_DASHBOARDS_MIN_REFRESH_INTERVAL=${dashboard.refresh}`;
  yield point(`the least refresh interval allows ${dashboard.refresh}`, settings.fault ?? slow, least ?? "");

  const plugin = await get(`/api/plugins/${source.type}/settings`);
  const version = textIn(fieldOf(plugin.body, "info"), "version");
  const another = version === source.version ? null : `it is ${version ?? "not told"}`;
  yield point(
    `the plugin ${source.type} is ${source.version}`,
    plugin.fault ?? another,
    `version ${version}`,
  );

  const found = await get(`/api/datasources/uid/${source.uid}`);
  const kind = textIn(found.body, "type");
  const foreign = kind === source.type ? null : `its type is ${kind ?? "not told"}`;
  yield point(
    `the data source ${source.uid} is there`,
    found.fault ?? foreign,
    textIn(found.body, "name") ?? "",
  );
  const healthy = await get(`/api/datasources/uid/${source.uid}/health`);
  const status = textIn(healthy.body, "status");
  const ill =
    status === "OK" ? null : `its health is ${status ?? "not told"}: ${textIn(healthy.body, "message")}`;
  yield point(`the data source ${source.uid} reaches Cassandra`, healthy.fault ?? ill, status ?? "");

  const shown = await get(`/api/dashboards/uid/${dashboard.uid}`);
  const model = fieldOf(shown.body, "dashboard");
  yield point(`the dashboard ${dashboard.uid} is there`, shown.fault, textIn(model, "title") ?? "");
  if (shown.fault === null) {
    const refresh = textIn(model, "refresh");
    const wrong = refresh === dashboard.refresh ? null : `it is ${refresh ?? "off"}`;
    yield point(`it is refreshed every ${dashboard.refresh}`, wrong, refresh ?? "");
    const intervals = fieldOf(fieldOf(model, "timepicker"), "refresh_intervals");
    const isListed = Array.isArray(intervals) && intervals.includes(dashboard.refresh);
    const unlisted = isListed
      ? null
      : `${dashboard.refresh} is not in its list of intervals: its timer never starts`;
    yield point("its list of intervals has this one", unlisted, dashboard.refresh);
    const isFile = fieldOf(fieldOf(shown.body, "meta"), "provisioned") === true;
    yield point("it comes from the file", isFile ? null : "it was saved by somebody", "provisioned");
    const titles = new Set(listOf(model, "panels").map((panel) => textIn(panel, "title")));
    const missing = dashboard.panels.filter(({ title }) => !titles.has(title)).map(({ title }) => title);
    const gone = missing.length === 0 ? null : `missing: ${missing.join(", ")}`;
    yield point("it has all panels", gone, `${dashboard.panels.length} panels`);
  }

  for (const { title, targets } of dashboard.panels) {
    for (const target of targets) {
      const text = target.target.replaceAll(`\${symbol:sqlstring}`, `'${deps.symbol.replaceAll("'", "''")}'`);
      const nowMs = clock.now();
      const query = { ...target, target: text, intervalMs: 500, maxDataPoints: 1_000 };
      const body = JSON.stringify({ from: String(nowMs - RANGE_MS), to: String(nowMs), queries: [query] });
      await get("/api/ds/query", body); // The first one prepares the statement.
      const askedAtMs = clock.monotonic();
      const answer = await get("/api/ds/query", body);
      const tookMs = clock.monotonic() - askedAtMs;
      yield {
        what: `${title}, query ${target.refId}`,
        ...judged(answer, target.refId, tookMs, dashboard.refresh),
      };
    }
  }
}

function judged(
  { body, fault }: Readonly<{ body: unknown; fault: string | null }>,
  refId: string,
  tookMs: number,
  refresh: string,
): Readonly<{ ok: boolean; said: string }> {
  if (fault !== null) return { ok: false, said: fault };
  const result = fieldOf(fieldOf(body, "results"), refId);
  const error = textIn(result, "error");
  if (error !== null) return { ok: false, said: error };
  const rowCount = listOf(result, "frames").reduce((sum: number, frame) => {
    const [first] = listOf(fieldOf(frame, "data"), "values");
    return sum + (Array.isArray(first) ? first.length : 0);
  }, 0);
  const said = `${rowCount} rows in ${Math.round(tookMs)} ms`;
  if (rowCount === 0) return { ok: false, said: "no rows: does the pipeline run, and the symbol trade?" };
  const limitMs = durationMs(refresh) ?? 0;
  // The next refresh drops the running question.
  return tookMs <= limitMs ? { ok: true, said } : { ok: false, said: `${said}: it would never be drawn` };
}

// --- Answers of somebody else: nothing in them is taken for granted --------------------------------------------

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}

function fieldOf(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return null;
  return (value as Readonly<Record<string, unknown>>)[name] ?? null;
}

function textIn(value: unknown, name: string): string | null {
  const text = fieldOf(value, name);
  return typeof text === "string" ? text : null;
}

function listOf(value: unknown, name: string): readonly unknown[] {
  const list = fieldOf(value, name);
  return Array.isArray(list) ? list : [];
}

/** Of /api/ds/query: each question's fault stands with its own result. */
function errorIn(body: unknown): unknown {
  const results = fieldOf(body, "results");
  return typeof results === "object" && results !== null ? (Object.values(results)[0] ?? null) : null;
}

/** `500ms`, `1s`, `5m`. */
function durationMs(text: string): number | null {
  const [, amount, unit] = /^(\d+)(ms|s|m)$/.exec(text) ?? [];
  if (unit === undefined) return null;
  return Number(amount) * (unit === "ms" ? 1 : unit === "s" ? 1_000 : 60_000);
}
