// GET /metrics: counters and gauges for Prometheus.

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Metrics } from "../../base/metrics.ts";
import type { HealthDocument } from "../../health/health.ts";

const route = createRoute({
  method: "get",
  path: "/metrics",
  summary: "Counters and gauges in the text format of Prometheus",
  responses: {
    200: { description: "The metrics", content: { "text/plain": { schema: z.string() } } },
  },
});

type MetricsDeps = Readonly<{ metrics: Metrics; health: () => HealthDocument }>;

export function addMetrics(app: OpenAPIHono, { metrics, health }: MetricsDeps): void {
  app.openapi(route, async (context) => {
    const { registry, healthOk } = metrics;
    // A part that is gone, like a process that admin no longer asks, leaves no old value behind.
    healthOk.reset();
    for (const [part, { ok }] of Object.entries(health().parts)) healthOk.set({ part }, ok ? 1 : 0);
    return context.text(await registry.metrics(), 200, { "content-type": registry.contentType });
  });
}
