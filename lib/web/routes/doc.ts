// GET /doc: what every route accepts and answers, as OpenAPI 3.1.

import type { OpenAPIHono } from "@hono/zod-openapi";

export function addDoc(app: OpenAPIHono): void {
  app.doc31("/doc", {
    openapi: "3.1.0",
    // Relative to this document, as every address here is: a proxy may hand us on below a prefix.
    servers: [{ url: "." }],
    info: {
      title: "Finnhub Realtime Pipeline",
      version: "1",
      description: "Trades, running averages and candles in the column names of the tables; times in ms.",
    },
  });
}
