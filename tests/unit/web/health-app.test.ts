// The web side of producer and processor: health as a status code, counters as text, and nothing else.

import { expect, test } from "bun:test";
import { createMetrics } from "../../../lib/base/metrics.ts";
import { healthDocument } from "../../../lib/health/health.ts";
import { createHealthApp } from "../../../lib/web/health-app.ts";

const part = { ok: true, reason: null, lastProgressAt: null, ageMs: null };

test("/health is 200 when all is well and 503 with the reason when not", async () => {
  let document = healthDocument(true, { feed: part });
  const app = createHealthApp({ health: () => document, metrics: createMetrics(), simulated: true });
  const good = await app.request("/health");
  expect(good.status).toBe(200);
  expect(good.headers.get("x-data-source")).toBe("simulated");
  document = healthDocument(true, { feed: { ...part, ok: false, reason: "silent" } });
  const bad = await app.request("/health");
  expect(bad.status).toBe(503);
  expect(await bad.json()).toMatchObject({ status: "failing", reason: "feed: silent" });
});

test("/health?pretty is the same document, a line for each value", async () => {
  const document = healthDocument(true, { feed: { ...part, ok: false, reason: "silent" } });
  const app = createHealthApp({ health: () => document, metrics: createMetrics(), simulated: true });
  const pretty = await app.request("/health?pretty");
  expect(pretty.status).toBe(503);
  expect(await pretty.text()).toBe(JSON.stringify(document, null, 2));
});

test("/metrics is the text of Prometheus; everything else is told where to go", async () => {
  const metrics = createMetrics();
  metrics.commitsTotal.inc(3);
  const app = createHealthApp({ health: () => healthDocument(false, {}), metrics, simulated: false });
  expect(await (await app.request("/metrics")).text()).toContain("pipeline_processor_commits_total 3");
  const missing = await app.request("/");
  expect(missing.status).toBe(404);
  expect(await missing.text()).toContain("/health");
});
