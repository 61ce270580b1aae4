// GET /, /page.css, /page.js, /worker.js: the page, not sent again to a browser that has it, and gzipped where that is accepted.

import type { OpenAPIHono } from "@hono/zod-openapi";
import { accepts } from "hono/accepts";
import { pageFiles } from "../page-files.ts";

/** Checked again each time, so that a new version's page never runs an old version's script. */
const PAGE_CACHE = "no-cache";

export function addPage(app: OpenAPIHono): void {
  for (const { path, type, text, etag, gzipped } of pageFiles) {
    app.get(path, (context) => {
      const headers = { "content-type": type, "cache-control": PAGE_CACHE, etag, vary: "accept-encoding" };
      // Not hono/etag: it drops the 304's content-type, and takes `*` for a known version.
      if (isKnown(context.req.header("if-none-match"), etag)) return context.body(null, 304, headers);
      const encoding = accepts(context, {
        header: "Accept-Encoding",
        supports: ["gzip"],
        default: "identity",
      });
      if (encoding !== "gzip") return context.body(text, 200, headers);
      return context.body(gzipped(), 200, { ...headers, "content-encoding": "gzip" });
    });
  }
}

function isKnown(ifNoneMatch: string | undefined, etag: string): boolean {
  return (ifNoneMatch ?? "").split(",").some((tag) => tag.trim() === etag);
}
