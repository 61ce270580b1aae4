// The web as a browser or a program meets it: health, metrics, the page, the document, and what is answered where there
// is no answer.

import { expect, test } from "bun:test";
import { StoreUnavailableError } from "../../../lib/base/errors.ts";
import { type Logger, silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import { type HealthDocument, healthDocument } from "../../../lib/health/health.ts";
import { brokenStore, openWeb } from "../../support/web.ts";

// --- Health, metrics, the page, the document -------------------------------------------------------------------

test("health is 200 when ok and 503 when failing, with the same document", async () => {
  let document: HealthDocument = healthDocument(true, {});
  using web = openWeb({ health: () => document, simulated: true });
  expect(await web.get("/health")).toMatchObject({ status: 200, body: { status: "ok", simulated: true } });
  const part = { ok: false, reason: "silent", lastProgressAt: null, ageMs: null, state: "waiting" };
  document = healthDocument(true, { feed: part });
  const { status, body } = await web.get("/health");
  expect(status).toBe(503);
  expect(body).toEqual({ status: "failing", reason: "feed: silent", simulated: true, parts: { feed: part } });
  expect(await web.get("/health?pretty")).toMatchObject({
    status: 503,
    text: JSON.stringify(document, null, 2),
  });
});

test("metrics are the text of the registry, and say which parts of /health are well just now", async () => {
  const metrics = createMetrics();
  metrics.logBytes.set(42);
  const part = (ok: boolean) => ({ ok, reason: ok ? null : "silent", lastProgressAt: null, ageMs: null });
  let document = healthDocument(false, { feed: part(false), store: part(true) });
  using web = openWeb({ metrics, health: () => document });
  const { headers, text } = await web.get("/metrics");
  expect(headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
  expect(text).toContain("pipeline_log_bytes 42\n");
  expect(text).toContain('pipeline_health_ok{part="feed"} 0\npipeline_health_ok{part="store"} 1\n');
  document = healthDocument(false, { feed: part(true) });
  const { text: later } = await web.get("/metrics");
  expect(later).toContain('pipeline_health_ok{part="feed"} 1\n');
  expect(later).not.toContain('part="store"');
});

const FOREIGN = /https?:\/\/|innerHTML|style=|<script>|\son\w+=/;

test("a file that the browser has is not sent again, and gzip is used where it is accepted", async () => {
  using web = openWeb();
  const { app } = web;
  for (const path of ["/", "/page.css", "/page.js", "/worker.js"]) {
    const plain = await app.request(path);
    const text = await plain.text();
    expect(plain.headers.get("content-encoding")).toBeNull();
    const etag = plain.headers.get("etag")!;
    for (const [known, status] of [
      [etag, 304],
      [`"other", ${etag}`, 304],
      ['W/"other"', 200],
    ] as const) {
      const again = await app.request(path, { headers: { "if-none-match": known } });
      expect([again.status, (await again.text()).length > 0]).toEqual([status, status === 200]);
      expect(again.headers.get("etag")).toBe(etag);
    }
    const packed = await app.request(path, { headers: { "accept-encoding": "br, gzip;q=0.8" } });
    expect(packed.headers.get("content-encoding")).toBe("gzip");
    expect(packed.headers.get("vary")).toBe("accept-encoding");
    const bytes = Bun.gunzipSync(await packed.arrayBuffer());
    expect(new TextDecoder().decode(bytes)).toBe(text);
    const refused = await app.request(path, { headers: { "accept-encoding": "gzip;q=0, identity" } });
    expect(refused.headers.get("content-encoding")).toBeNull();
  }
});

test("the page and its files are there, each within a policy that allows nothing from elsewhere", async () => {
  using web = openWeb();
  for (const [path, type, part] of [
    ["/", "text/html; charset=utf-8", '<script src="page.js" type="module">'],
    ["/page.css", "text/css; charset=utf-8", ":root"],
    ["/page.js", "text/javascript; charset=utf-8", "EventSource"],
    ["/worker.js", "text/javascript; charset=utf-8", "EventSource"],
  ] as const) {
    const { status, headers, text } = await web.get(path);
    expect(status).toBe(200);
    expect(headers.get("content-type")).toBe(type);
    expect(text).toContain(part);
    expect(headers.get("content-security-policy")).toMatch(
      new RegExp(
        "^default-src 'none'; script-src 'self' 'sha256-[\\w+/]{43}='; style-src 'self'; connect-src 'self'; " +
          "img-src 'self' data:; base-uri 'self'; frame-ancestors 'none'; form-action 'none'$",
      ),
    );
    // The script is bundled with what it imports; tests/e2e/page.test.ts sees that it asks nobody else.
    // The one script within the page is allowed by its hash, so that no other can stand there.
    const [inline = "", script = ""] = /<script>(.*?)<\/script>/s.exec(text) ?? [];
    const hash = new Bun.CryptoHasher("sha256").update(script).digest("base64");
    if (path === "/") expect(headers.get("content-security-policy")).toContain(`'sha256-${hash}'`);
    const rest = text.replace(inline, "").replaceAll("https://www.tradingview.com/", "");
    if (path !== "/page.js") expect(rest).not.toMatch(FOREIGN);
  }
});

test("every answer says where the data is from, and JSON is never cached", async () => {
  for (const simulated of [true, false]) {
    using web = openWeb({ simulated, store: brokenStore(new Error("boom")) });
    for (const path of [
      "/",
      "/tickers",
      "/health",
      "/metrics",
      "/doc",
      "/nothing",
      "/trades",
      "/trades?symbol=A",
    ]) {
      const { headers } = await web.get(path);
      expect(headers.get("x-data-source")).toBe(simulated ? "simulated" : "finnhub");
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("cache-control")).toBe(path === "/" ? "no-cache" : "no-store");
    }
  }
});

test("the document lists every route with its parameters and limits", async () => {
  using web = openWeb();
  const { status, body } = await web.get("/doc");
  expect(status).toBe(200);
  const paths = body.paths as Record<string, { get: { parameters?: { name: string; schema: object }[] } }>;
  expect(Object.keys(paths).sort()).toEqual([
    "/averages",
    "/candles",
    "/events",
    "/events/{place}",
    "/feed-events",
    "/health",
    "/metrics",
    "/tickers",
    "/tickers/{symbol}",
    "/trades",
  ]);
  const parameters = paths["/candles"]?.get.parameters ?? [];
  expect(parameters.map(({ name }) => name)).toEqual(["symbol", "interval", "from", "to", "limit"]);
  expect(parameters.find(({ name }) => name === "limit")).toMatchObject({
    required: false,
    schema: { type: "integer", minimum: 1, maximum: 1_000, default: 100 },
  });
  expect(parameters.find(({ name }) => name === "symbol")).toMatchObject({ required: true });
});

// --- Misses and faults -----------------------------------------------------------------------------------------

test("an unknown path is 404, lists the paths and guesses the slip", async () => {
  using web = openWeb();
  const { status, body } = await web.get("/trade");
  expect(status).toBe(404);
  expect(body.error).toStartWith(
    'there is nothing at "/trade". Did you mean /trades? The paths are /trades, /averages,',
  );
  expect(body.error).toContain("/tickers/:symbol");
});

test("a wrong method is 405 and says what the path accepts; HEAD is GET without a body", async () => {
  using web = openWeb();
  for (const path of ["/trades", "/", "/tickers/AAPL"]) {
    const { status, headers, body } = await web.get(path, { method: "PUT" });
    expect(status).toBe(405);
    expect(headers.get("allow")).toBe("GET, HEAD");
    expect(body.error).toBe(`${path} does not accept PUT: it accepts GET, HEAD`);
  }
  expect(await web.get("/health", { method: "HEAD" })).toMatchObject({ status: 200, text: "" });
});

test("a store that is away is 503 with the time to come back, and its own words stay in the log", async () => {
  const said: string[] = [];
  const logger: Logger = { ...silentLogger, warn: (message) => said.push(message) };
  using web = openWeb({ store: brokenStore(new StoreUnavailableError("10.0.0.9: refused")), logger });
  for (const path of [
    "/trades?symbol=A",
    "/averages?symbol=A",
    "/candles?symbol=A&interval=5m",
    "/feed-events",
  ]) {
    const { status, headers, text } = await web.get(path);
    expect(status).toBe(503);
    expect(headers.get("retry-after")).toBe("2");
    expect(text).not.toContain("10.0.0.9");
  }
  expect(said).toHaveLength(4);
});

test("a fault of ours is 500 and logged, and the answer does not say what it was", async () => {
  const said: unknown[] = [];
  const logger: Logger = { ...silentLogger, error: (_, fields) => said.push(fields?.error) };
  using web = openWeb({ store: brokenStore(new Error("token=hunter2")), logger });
  const { status, text } = await web.get("/trades?symbol=AAPL");
  expect(status).toBe(500);
  expect(text).toBe('{"error":"internal error: see the log of this service"}');
  expect(said).toEqual([new Error("token=hunter2")]);
});
