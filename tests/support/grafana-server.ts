// A server that answers what `admin grafana-check` asks as a Grafana 12 does that shows our dashboard, or as it is told.

import market from "../../grafana/dashboards/market.json" with { type: "json" };

export const SOURCE = "hadesarchitect-cassandra-datasource";

type Reply = { status?: number; body: unknown; delayMs?: number };
export type Replies = Record<string, Reply>;
export type Asked = { path: string; body: string }[];

export const frame = {
  schema: { name: "X", fields: [] },
  data: {
    values: [
      ["X", "X"],
      [1, 2],
      [3, 4],
    ],
  },
};

/** What a Grafana answers that shows our dashboard. */
export function right(): Replies {
  return {
    "/api/health": { body: { database: "ok", version: "12.4.10", commit: "0" } },
    "/api/user": { body: { id: 1, login: "admin" } },
    "/api/frontend/settings": { body: { minRefreshInterval: "500ms", buildInfo: {} } },
    [`/api/plugins/${SOURCE}/settings`]: { body: { id: SOURCE, info: { version: "3.3.0" } } },
    "/api/datasources/uid/cassandra": { body: { uid: "cassandra", type: SOURCE, name: "Cassandra" } },
    "/api/datasources/uid/cassandra/health": { body: { status: "OK", message: "Database connected" } },
    "/api/dashboards/uid/oaK8xaOVz": { body: { dashboard: market, meta: { provisioned: true } } },
    "/api/ds/query": { body: { results: { A: { status: 200, frames: [frame] } } } },
  };
}

export type GrafanaOptions = Readonly<{
  password: string;
  replies?: Replies;
  /** What it was asked is put there. */
  asked?: Asked;
  port?: number;
}>;

export function startGrafana({ password, replies = right(), asked = [], port = 0 }: GrafanaOptions) {
  const expected = `Basic ${Buffer.from(`admin:${password}`).toString("base64")}`;
  const server = Bun.serve({
    port,
    hostname: "127.0.0.1",
    async fetch(request) {
      // It may stand below a path.
      const path = new URL(request.url).pathname.replace(/^\/grafana/, "");
      const body = await request.text();
      asked.push({ path, body });
      if (path !== "/api/health" && request.headers.get("authorization") !== expected)
        return Response.json({ message: "Invalid username or password" }, { status: 401 });
      const reply = replies[path];
      if (reply === undefined) return Response.json({ message: "Not found" }, { status: 404 });
      if (reply.delayMs) await Bun.sleep(reply.delayMs);
      if (path !== "/api/ds/query" || reply.status)
        return Response.json(reply.body, { status: reply.status ?? 200 });
      // As Grafana does, the result stands under the question's own letter.
      const [query] = (JSON.parse(body) as { queries: { refId: string }[] }).queries;
      const [result] = Object.values((reply.body as { results: Record<string, unknown> }).results);
      return Response.json({ results: { [query!.refId]: result } });
    },
  });
  return { url: `${server.url.href}grafana`, asked, [Symbol.asyncDispose]: () => server.stop(true) };
}
