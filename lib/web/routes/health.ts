// GET /health: the health document, 200 when all is well and 503 when something fails.

import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { prettyJSON } from "hono/pretty-json";
import type { HealthDocument } from "../../health/health.ts";
import { json, timeMs } from "../schemas.ts";

const part = z.looseObject({
  ok: z.boolean(),
  reason: z.string().nullable(),
  lastProgressAt: timeMs.nullable(),
  ageMs: z.number().nullable(),
});

const document = z
  .object({
    status: z.enum(["ok", "failing"]),
    reason: z.string().nullable(),
    simulated: z.boolean(),
    parts: z.record(z.string(), part),
  })
  .openapi("Health");

const route = createRoute({
  method: "get",
  path: "/health",
  summary: "Whether everything moves that should",
  responses: { 200: json("All is well", document), 503: json("Something fails", document) },
});

export function addHealth(app: OpenAPIHono, { health }: Readonly<{ health: () => HealthDocument }>): void {
  app.use("/health", prettyJSON()); // `?pretty`: for whoever has only curl.
  app.openapi(route, (context) => {
    const found = health();
    return context.json(found, found.status === "ok" ? 200 : 503);
  });
}
