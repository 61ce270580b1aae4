// The web side of a process that has no page: whether it moves, and what it counts. It answers nothing else and
// changes nothing.

import { OpenAPIHono } from "@hono/zod-openapi";
import { secureHeaders } from "hono/secure-headers";
import type { Metrics } from "../base/metrics.ts";
import type { HealthDocument } from "../health/health.ts";
import { dataHeaders } from "./headers.ts";
import { addHealth } from "./routes/health.ts";
import { addMetrics } from "./routes/metrics.ts";

type HealthAppDeps = Readonly<{
  health: () => HealthDocument;
  metrics: Metrics;
  simulated: boolean;
}>;

export function createHealthApp(deps: HealthAppDeps): OpenAPIHono {
  const app = new OpenAPIHono();
  app.use(secureHeaders({ strictTransportSecurity: false }), dataHeaders(deps.simulated));
  addHealth(app, deps);
  addMetrics(app, deps);
  app.notFound((context) =>
    context.json({ error: "there is nothing here but /health and /metrics; the page is admin's" }, 404),
  );
  return app;
}
