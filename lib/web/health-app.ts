// The web side of a process that has no page: whether it moves, and what it counts. It answers nothing else and
// changes nothing.

import { Hono } from "hono";
import { prettyJSON } from "hono/pretty-json";
import { secureHeaders } from "hono/secure-headers";
import type { Metrics } from "../base/metrics.ts";
import type { HealthDocument } from "../health/health.ts";

export type HealthAppDeps = Readonly<{
  health: () => HealthDocument;
  metrics: Metrics;
  simulated: boolean;
}>;

export function createHealthApp({ health, metrics, simulated }: HealthAppDeps): Hono {
  const app = new Hono();
  app.use(secureHeaders({ strictTransportSecurity: false }));
  app.use(async (context, next) => {
    await next();
    context.res.headers.set("cache-control", "no-store");
    context.res.headers.set("x-data-source", simulated ? "simulated" : "finnhub");
  });
  app.use("/health", prettyJSON()); // `?pretty`: for whoever has only curl.
  app.get("/health", (context) => {
    const document = health();
    return context.json(document, document.status === "ok" ? 200 : 503);
  });
  app.get("/metrics", async (context) => {
    const { registry } = metrics;
    return context.text(await registry.metrics(), 200, { "content-type": registry.contentType });
  });
  app.notFound((context) =>
    context.json({ error: "there is nothing here but /health and /metrics; the page is admin's" }, 404),
  );
  return app;
}
