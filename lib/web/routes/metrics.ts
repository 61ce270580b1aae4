// GET /metrics: counters and gauges for Prometheus.

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Metrics } from "../../base/metrics.ts";

const route = createRoute({
  method: "get",
  path: "/metrics",
  summary: "Counters and gauges in the text format of Prometheus",
  responses: {
    200: { description: "The metrics", content: { "text/plain": { schema: z.string() } } },
  },
});

type MetricsDeps = Readonly<{
  metrics: Metrics;
  /** Called before each answer: for gauges that nobody sets in passing. */
  refreshGauges?: (() => void) | undefined;
}>;

export function addMetrics(app: OpenAPIHono, { metrics, refreshGauges }: MetricsDeps): void {
  app.openapi(route, async (context) => {
    refreshGauges?.();
    const { registry } = metrics;
    return context.text(await registry.metrics(), 200, { "content-type": registry.contentType });
  });
}
