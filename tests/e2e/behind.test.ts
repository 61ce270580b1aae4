// The page behind a real nginx, below a prefix: with the examples of docs/BEHIND-A-PROXY.md as they stand there, in a real
// browser. Without nginx or Chromium these tests are skipped and say so; with CI=true they fail instead (.ci/run installs
// both).

import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { systemClock } from "../../lib/base/clock.ts";
import { serveWeb } from "../../lib/web/server.ts";
import { eventually, temporaryDirectory } from "../support/builders.ts";
import { freePort, NGINX, startNginx } from "../support/nginx.ts";
import { CHROMIUM, launchChromium } from "../support/page.ts";
import { LOCAL, type ServiceProcess, startService } from "../support/processes.ts";
import { openWeb } from "../support/web.ts";
import { documentText } from "./documents/read.ts";

const missing = [NGINX, CHROMIUM].filter((program) => !existsSync(program));
const isThere = missing.length === 0 || process.env.CI === "true";
if (!isThere)
  console.error(
    `tests/e2e/behind.test.ts is skipped: there is no ${missing.join(" and no ")} (apt-get install nginx-light chromium)`,
  );
const nginxTest = test.skipIf(!isThere);

const TEST_MS_MAX = 120_000;
const WAIT_MS_MAX = 20_000;
const TOKEN = "0123456789abcdef";
/** AWS's balancer and nginx keep an idle connection to us for so long. */
const BALANCER_IDLE_MS = 60_000;

const directory = temporaryDirectory();
let launching: Promise<Browser> | null = null;
let local: ServiceProcess;
/** When the server closed a connection that was idle after its first answer, in ms. */
let idleMs: Promise<number>;

beforeAll(async () => {
  if (!isThere) return;
  local = await startService(LOCAL, {
    FINNHUB_SIMULATE: "1",
    FINNHUB_STOCKS_TICKERS: '["BINANCE:BTCUSDT", "OANDA:EUR_USD"]',
    ADMIN_TOKEN: TOKEN,
    DATA_DIR: directory.path,
  });
  idleMs = idleUntilClosed(Number(new URL(local.url).port));
  idleMs.catch(() => {});
}, TEST_MS_MAX);
afterAll(async () => {
  await (await launching)?.close();
  await local?.stop();
  directory[Symbol.dispose]();
});

const [full = "", least = ""] = [
  ...documentText("docs/BEHIND-A-PROXY.md").matchAll(/^```nginx\n(.*?)^```$/gms),
].map(([, text]) => text);

/** The example with this test's addresses in the place of its own. */
function here(text: string, port: number): string {
  const replacements: [string, string][] = [
    ["http://127.0.0.1:8080/", `${local.url}/`],
    ["listen 443 ", `listen 127.0.0.1:${port} `],
    ["/etc/ssl/market.", "DIRECTORY/market."],
  ];
  return replacements.reduce((all, [from, to]) => all.replaceAll(from, to), text);
}

/** A key and a certificate that nobody has signed. */
function certificate(): Record<string, string> {
  const [key, pem] = ["market.key", "market.pem"].map((name) => join(directory.path, name)) as [
    string,
    string,
  ];
  const name = ["-subj", "/CN=market.example.com"];
  const made = Bun.spawnSync([
    ...["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-batch"],
    ...name,
    ...["-keyout", key, "-out", pem],
  ]);
  if (!made.success) throw new Error(`no certificate: ${made.stderr}`);
  return { "market.key": readFileSync(key, "utf8"), "market.pem": readFileSync(pem, "utf8") };
}

async function openPage(url: string) {
  launching ??= launchChromium();
  const context = await (await launching).newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS_MAX);
  const faults: string[] = [];
  const asked: string[] = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    // What could not be had stands in the list below, with its address.
    if (!message.text().startsWith("Failed to load resource")) faults.push(message.text());
  });
  page.on("response", (response) => {
    const { pathname, protocol } = new URL(response.url());
    if (protocol === "data:") return;
    asked.push(pathname);
    if (response.status() >= 400) faults.push(`${response.status()} ${response.url()}`);
  });
  await page.goto(url);
  return { page, faults, asked, [Symbol.asyncDispose]: () => context.close() };
}

const shows = (page: Page, expression: string) =>
  eventually(WAIT_MS_MAX, expression, async () => (await page.evaluate(`Boolean(${expression})`)) === true);

/** Prices that move, candles, another symbol: what only the stream and the JSON routes can bring. */
async function expectAlive(url: string, prefix: string): Promise<void> {
  await using opened = await openPage(url);
  const { page, faults, asked } = opened;
  await shows(page, "document.querySelectorAll('#rows tr').length === 2");
  await shows(page, "document.getElementById('connection').textContent === 'connected'");
  await shows(page, "Number(document.getElementById('chosen-price').dataset.value) > 0");
  await page.click("text=EUR_USD");
  await shows(page, "document.getElementById('chosen-symbol').textContent.includes('EUR')");
  await shows(page, "document.getElementById('read-close').textContent !== '–'");
  const before = await page.evaluate("document.getElementById('chosen-price').dataset.at");
  await shows(page, `document.getElementById('chosen-price').dataset.at !== ${JSON.stringify(before)}`);
  const links = await page.evaluate(
    "[...document.querySelectorAll('footer a')].map(({ pathname }) => pathname)",
  );
  expect(links).toEqual(["/", `${prefix}/doc`, `${prefix}/health`, `${prefix}/metrics`]);
  // Without its slash the browser asks ahead, before the page's first script can say where its files are.
  const ahead = url.endsWith("/") ? [] : [prefix, "/page.css", "/page.js"];
  expect(asked.filter((path) => !path.startsWith(`${prefix}/`) && !ahead.includes(path))).toEqual([]);
  // (The stream is asked for by the worker of all tabs: that it leads below the prefix is seen by prices that move.)
  for (const path of ["/page.js", "/page.css", "/trades", "/candles", "/averages"])
    expect(asked).toContain(`${prefix}${path}`);
  expect(faults.filter((fault) => !/^404 [^/]*\/\/[^/]*\/page\.(?:css|js)$/.test(fault))).toEqual([]);
}

// --- nginx -----------------------------------------------------------------------------------------------------

nginxTest(
  "below a prefix with TLS and HTTP/2, as the document says, also from the address without its slash",
  async () => {
    const port = await freePort();
    await using _nginx = await startNginx(here(full, port), port, certificate());
    await expectAlive(`https://127.0.0.1:${port}/finnhub/`, "/finnhub");
    await using opened = await openPage(`https://127.0.0.1:${port}/finnhub`); // nginx's own redirect.
    expect(new URL(opened.page.url()).pathname).toBe("/finnhub/");
  },
  TEST_MS_MAX,
);

nginxTest(
  "the least configuration works as well: nginx's defaults, no slash, everything else 404",
  async () => {
    const port = await freePort();
    const server = `server { listen 127.0.0.1:${port}; ${here(least, port)} location / { return 404; } }`;
    // Whoever compresses everything compresses the stream too, and must not hold it back.
    const compressing = `gzip on; gzip_proxied any; gzip_types *; gzip_min_length 1; ${server}`;
    await using _nginx = await startNginx(compressing, port);
    const base = `http://127.0.0.1:${port}/finnhub`;
    await expectAlive(`${base}/`, "/finnhub");
    await expectAlive(base, "/finnhub");
  },
  TEST_MS_MAX,
);

nginxTest(
  "addresses in answers are relative: `next`, Location and the server of /doc lead below the prefix",
  async () => {
    const port = await freePort();
    const server = `server { listen 127.0.0.1:${port}; ${here(least, port)} location / { return 404; } }`;
    await using _nginx = await startNginx(server, port);
    const base = `http://127.0.0.1:${port}/finnhub/`;
    await eventually(WAIT_MS_MAX, "three trades", async () => {
      const { items } = await json(new URL("trades?symbol=BINANCE:BTCUSDT", base));
      return (items as unknown[]).length >= 3;
    });
    let url: URL | null = new URL("trades?symbol=BINANCE:BTCUSDT&limit=1", base);
    const uuids = new Set<string>();
    for (let page = 0; page < 3 && url !== null; page++) {
      const { items, next } = await json(url);
      for (const { uuid } of items as { uuid: string }[]) uuids.add(uuid);
      url = next === null ? null : new URL(String(next), url);
    }
    expect(uuids.size).toBe(3);
    const added = await fetch(new URL("tickers", base), {
      method: "POST",
      headers: { authorization: `Bearer ${TOKEN}` },
      body: '{"symbol": "BINANCE:ETHUSDT"}',
    });
    expect(added.status).toBe(201);
    const created = new URL(added.headers.get("location")!, added.url);
    expect(created.href).toBe(`${base}tickers/BINANCE%3AETHUSDT`);
    await eventually(WAIT_MS_MAX, "the new ticker", async () => (await fetch(created)).status === 200);
    const removed = await fetch(created, { method: "DELETE", headers: { authorization: `Bearer ${TOKEN}` } });
    expect(removed.status).toBe(204);
    const doc = new URL("doc", base);
    const { servers } = (await json(doc)) as { servers?: { url: string }[] };
    expect(servers?.map((one) => new URL(one.url, doc).href)).toEqual([base]);
  },
  TEST_MS_MAX,
);

async function json(url: URL): Promise<Record<string, unknown>> {
  return (await (await fetch(url)).json()) as Record<string, unknown>;
}

nginxTest(
  "the stream of a market without a trade comes event by event, and is never silent for 3 s; balancers wait for 60",
  async () => {
    using web = openWeb({ clock: systemClock });
    await using served = serveWeb({ app: web.app, hostname: "127.0.0.1", port: 0, clock: systemClock });
    const port = await freePort();
    const location = `location / { proxy_pass ${served.url}/; proxy_read_timeout 3s; }`;
    const gzip = "gzip on; gzip_proxied any; gzip_types text/event-stream;";
    await using _nginx = await startNginx(`${gzip} server { listen 127.0.0.1:${port}; ${location} }`, port);
    const stopping = new AbortController();
    const response = await fetch(`http://127.0.0.1:${port}/events`, { signal: stopping.signal });
    expect(response.headers.get("cache-control")).toBe("no-store, no-transform");
    const arrivals: number[] = [];
    const startedMs = systemClock.monotonic();
    for await (const _chunk of response.body!) {
      arrivals.push(systemClock.monotonic() - startedMs);
      if (arrivals.at(-1)! > 8_000) break;
    }
    stopping.abort();
    const gaps = arrivals.slice(1).map((atMs, index) => atMs - arrivals[index]!);
    expect(arrivals.at(-1)).toBeGreaterThan(8_000); // It was not cut off.
    expect(Math.max(...gaps)).toBeLessThan(3_000);
    expect(gaps.length).toBeGreaterThan(5);
  },
  TEST_MS_MAX,
);

// --- Balancers -------------------------------------------------------------------------------------------------

/** One request on a connection of its own; resolves when the server closes the idle connection. */
function idleUntilClosed(port: number): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  let answeredMs = 0;
  const socket = connect(port, "127.0.0.1", () => socket.write("GET /health HTTP/1.1\r\nHost: a\r\n\r\n"));
  socket.on("data", () => {
    answeredMs = systemClock.monotonic();
  });
  socket.on("error", reject);
  socket.on("close", () => resolve(systemClock.monotonic() - answeredMs));
  return promise;
}

nginxTest(
  "an idle connection is kept for longer than a balancer keeps it",
  async () => {
    expect(await idleMs).toBeGreaterThan(BALANCER_IDLE_MS + 5_000);
  },
  TEST_MS_MAX,
);
