// HTTP proxies: `local` as a user starts it, on a feed that only a proxy can find, and what is said of a proxy that does
// not do its work. The names end in .test, so no resolver knows them.

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../../lib/base/clock.ts";
import { httpRequest } from "../../lib/base/http-client.ts";
import { silentLogger } from "../../lib/base/logger.ts";
import { createMetrics } from "../../lib/base/metrics.ts";
import { readProxies } from "../../lib/base/proxy.ts";
import { openFinnhubFeed } from "../../lib/finnhub/feed.ts";
import { createRestClient } from "../../lib/finnhub/rest-client.ts";
import { startSimulator } from "../../lib/simulator/simulator.ts";
import { createRemoteHealth } from "../../lib/web/remote-health.ts";
import { eventually, temporaryDirectory } from "../support/builders.ts";
import { startProxy, startTls } from "../support/connect-proxy.ts";
import { LOCAL, runCommand, startService } from "../support/processes.ts";
import { createCertificates } from "../support/services/certificates.ts";
import { findJava } from "../support/services/java.ts";

const TEST_MS_MAX = 60_000;
const WAIT_MS_MAX = 20_000;
const FEED = "feed.example.test:9101";
const PASSWORD = "pa-5word-of-the-proxy";
const TOKEN = "tok-0123456789abcdef";
const TICKERS = '["BINANCE:BTCUSDT", "AAPL"]';
const ADMIN = [process.execPath, join(import.meta.dir, "../../admin.ts")];

const hasJava = findJava() !== null || process.env.CI === "true";
if (!hasJava)
  console.error("tests/e2e/proxy.test.ts: TLS is skipped, because there is no Java to make a certificate");

const received = (service: { metric(name: string): Promise<number> }) =>
  eventually(
    WAIT_MS_MAX,
    "trades received",
    async () => (await service.metric("feed_trades_received_total")) > 0,
  );

test(
  "a feed and its REST side that only the proxy can find are reached; its password stands nowhere",
  async () => {
    using directory = temporaryDirectory();
    await using simulator = await startSimulator({ tradesPerSecond: 100 });
    using proxy = await startProxy({ ports: { [FEED]: simulator.port }, login: `me:${PASSWORD}` });
    await using local = await startService(LOCAL, {
      HTTP_PROXY: `'${proxy.url}'`, // As docker run --env-file hands it over.
      HTTPS_PROXY: proxy.url,
      FINNHUB_WS_URL: `ws://${FEED}`,
      FINNHUB_API_URL: `http://${FEED}/api/v1`,
      FINNHUB_API_TOKEN: TOKEN,
      FINNHUB_STOCKS_TICKERS: TICKERS,
      LOG_LEVEL: "debug",
      DATA_DIR: directory.path,
    });
    await received(local);
    await eventually(WAIT_MS_MAX, "a REST call through the proxy", () =>
      proxy.requests.some((line) => line.startsWith(`GET http://${FEED}/api/v1/`)),
    );
    expect(proxy.requests).toContain(`CONNECT ${FEED}`);
    const health = JSON.stringify(await local.health());
    expect(await local.stop()).toBe(0);
    for (const text of [local.stderr(), health])
      for (const secret of [PASSWORD, btoa(`me:${PASSWORD}`), TOKEN]) expect(text).not.toContain(secret);
  },
  TEST_MS_MAX,
);

test.skipIf(!hasJava)(
  "wss: goes through the proxy of HTTPS_PROXY, with TLS from end to end",
  async () => {
    using directory = temporaryDirectory();
    using certificates = await createCertificates();
    await using simulator = await startSimulator({ tradesPerSecond: 100 });
    const key = readFileSync(certificates.keyStore);
    using tls = await startTls(simulator.port, key, certificates.keyStorePassword);
    using proxy = await startProxy({ ports: { [FEED]: tls.port } });
    await using local = await startService(LOCAL, {
      HTTPS_PROXY: `127.0.0.1:${proxy.port}`,
      NODE_EXTRA_CA_CERTS: certificates.caFile,
      FINNHUB_WS_URL: `wss://${FEED}`,
      FINNHUB_API_TOKEN: TOKEN,
      FINNHUB_STOCKS_TICKERS: TICKERS,
      DATA_DIR: directory.path,
    });
    await received(local);
    expect(new Set(proxy.requests)).toEqual(new Set([`CONNECT ${FEED}`])); // The token is inside of the tunnel.
    expect(await local.stop()).toBe(0);
  },
  TEST_MS_MAX,
);

test(
  "what is on this machine never goes through a proxy: feed, REST calls, healthcheck",
  async () => {
    using directory = temporaryDirectory();
    await using simulator = await startSimulator({ tradesPerSecond: 100 });
    using proxy = await startProxy({ answer: "403 Forbidden" });
    const proxies = {
      HTTP_PROXY: proxy.url,
      HTTPS_PROXY: proxy.url,
      ALL_PROXY: proxy.url,
      http_proxy: proxy.url,
    };
    const settings = {
      ...proxies,
      FINNHUB_WS_URL: simulator.wsUrl,
      FINNHUB_API_URL: simulator.apiUrl,
      FINNHUB_API_TOKEN: TOKEN,
      FINNHUB_STOCKS_TICKERS: TICKERS,
      DATA_DIR: directory.path,
    };
    await using local = await startService(LOCAL, settings);
    await received(local);
    await eventually(
      WAIT_MS_MAX,
      "the tickers were checked",
      async () => (await local.metric("finnhub_calls_total")) > 0,
    );
    const port = new URL(local.url).port;
    const { code, out } = await runCommand(LOCAL, ["healthcheck"], { ...settings, ADMIN_PORT: port });
    expect({ code, out }).toEqual({ code: 0, out: expect.stringContaining("answered 200") });
    expect(await local.metric("finnhub_calls_total")).toBeGreaterThan(0);
    expect(proxy.requests).toEqual([]);
  },
  TEST_MS_MAX,
);

// --- What is said ----------------------------------------------------------------------------------------------

/** What health says of a feed behind this proxy, after the first attempt. */
async function problemOf(proxyUrl: string): Promise<string> {
  const stopping = new AbortController();
  const feed = openFinnhubFeed({
    url: `ws://${FEED}`,
    token: TOKEN,
    symbols: ["AAPL"],
    symbolsMax: 50,
    proxies: readProxies({ HTTP_PROXY: proxyUrl }),
    limits: { connectMsMax: 1_000 },
    clock: systemClock,
    logger: silentLogger,
    metrics: createMetrics(),
    signal: stopping.signal,
  });
  try {
    await eventually(WAIT_MS_MAX, "a problem", () => feed.health().lastProblem !== null);
    return feed.health().lastProblem!;
  } finally {
    stopping.abort();
  }
}

/** And what a REST call and a request for the health of another process say. */
async function othersSay(proxyUrl: string): Promise<[string, string]> {
  const proxies = readProxies({ HTTP_PROXY: proxyUrl });
  const metrics = createMetrics();
  const apiUrl = `http://${FEED}/api/v1`;
  const rest = createRestClient({ apiUrl, token: TOKEN, proxies, clock: systemClock, metrics });
  const remote = createRemoteHealth({ producer: [`http://${FEED}`] }, systemClock, proxies);
  const [said] = await Promise.all([
    rest.get("/search", {}).catch((error: Error) => error.message),
    remote.poll(),
  ]);
  return [String(said), String(remote.snapshots()[0]?.problem)];
}

test("a proxy that wants another password is named, and what to do", async () => {
  using proxy = await startProxy({ login: `me:${PASSWORD}` });
  const wrong = `http://me:wrong-5ecret@127.0.0.1:${proxy.port}`;
  const sentence =
    `the proxy http://127.0.0.1:${proxy.port} (HTTP_PROXY) does not accept the user and the password (HTTP 407): ` +
    "put them into its URL";
  expect(await problemOf(wrong)).toBe(`unreachable: ${sentence}`);
  expect(await othersSay(wrong)).toEqual([`Finnhub cannot be reached: ${sentence}`, sentence]);
});

test("a proxy that refuses, that is not there, and that says nothing are told apart", async () => {
  using refusing = await startProxy({ answer: "403 Forbidden" });
  const named = (port: number) => `the proxy http://127.0.0.1:${port} (HTTP_PROXY)`;
  expect(await problemOf(refusing.url)).toBe(
    `unreachable: ${named(refusing.port)} refuses the connection (HTTP 403)`,
  );
  const gone = await startProxy({});
  gone[Symbol.dispose]();
  expect(await problemOf(gone.url)).toBe(`unreachable: ECONNREFUSED, by way of ${named(gone.port)}`);
  expect(await othersSay(gone.url)).toEqual([
    `Finnhub cannot be reached (ECONNREFUSED), by way of ${named(gone.port)}`,
    `connection refused, by way of ${named(gone.port)}`,
  ]);
  using silent = await startProxy({ answer: null });
  expect(await problemOf(silent.url)).toBe(
    `connect_timeout: no connection in 1 s, by way of ${named(silent.port)}`,
  );
  const waiting = httpRequest(`http://${FEED}`, 200, { proxies: readProxies({ ALL_PROXY: silent.url }) });
  await expect(waiting).rejects.toThrow(
    `no answer within 200 ms, by way of the proxy http://127.0.0.1:${silent.port} (ALL_PROXY)`,
  );
});

test(
  "the health of another process, and admin grafana-check, go by the same rule",
  async () => {
    const document = { status: "ok", reason: null, simulated: false, parts: {} };
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => Response.json(document) });
    try {
      using proxy = await startProxy({ ports: { "other.example.test": server.port!, [FEED]: server.port! } });
      const proxies = readProxies({ HTTP_PROXY: proxy.url });
      const urls = ["http://other.example.test", `http://127.0.0.1:${server.port}`];
      const remote = createRemoteHealth({ producer: urls }, systemClock, proxies);
      await remote.poll();
      expect(remote.snapshots().map(({ document: found }) => found?.status)).toEqual(["ok", "ok"]);
      expect(proxy.requests).toEqual(["GET http://other.example.test/health"]);
      const check = (url: string) =>
        runCommand(ADMIN, ["grafana-check", "--url", url], { HTTP_PROXY: proxy.url, LOG_LEVEL: "error" });
      await check(urls[1]!);
      expect(proxy.requests).toHaveLength(1);
      await check(`http://${FEED}/grafana/`);
      expect(proxy.requests[1]).toBe(`GET http://${FEED}/grafana/api/health`);
    } finally {
      await server.stop(true);
    }
  },
  TEST_MS_MAX,
);
