// admin over a whole pipeline of compiled binaries: what it shows of trades and tickers, what it changes, and that its
// /health names whatever is gone, each by its own name, and is well again when that is back. Kafka and Cassandra are
// this file's own, because they are killed.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { Kafka } from "kafkajs";
import { type Simulator, startSimulator } from "../../lib/simulator/simulator.ts";
import { eventually, temporaryDirectory } from "../support/builders.ts";
import {
  addressesOf,
  buildBinaries,
  mustRun,
  ownNames,
  type ServiceProcess,
  type Settings,
  startService,
} from "../support/processes.ts";
import { startCassandra } from "../support/services/cassandra.ts";
import { clientOptions, startKafka } from "../support/services/kafka.ts";
import { freePort, type Server } from "../support/services/server.ts";
import { services } from "../support/services/shared.ts";

const START_MS_MAX = 180_000;
const STEP_MS_MAX = 90_000;
const TEST_MS_MAX = 400_000;
const TOKEN = "admin-token";
const BITCOIN = "BINANCE:BTCUSDT";
const ETHER = "BINANCE:ETHUSDT";
const ADDED = "BINANCE:SOLUSDT";
const SETTING = [BITCOIN, ETHER, "AAPL"];
const SUBSCRIBED_MS_MAX = 2_000;

describe.skipIf(!services.available)("admin", () => {
  let binaries: ReturnType<typeof buildBinaries>;
  let kafka: Server;
  let node: Server;
  let simulator: Simulator;
  let directory: ReturnType<typeof temporaryDirectory>;
  let settings: Settings;
  /** Each on a port of its own, so that admin finds it again after a restart. */
  const running = new Map<string, ServiceProcess>();

  beforeAll(async () => {
    binaries = buildBinaries();
    directory = temporaryDirectory();
    [kafka, node] = await Promise.all([startKafka(), startCassandra()]);
    simulator = await startSimulator({ seed: 31, tradesPerSecond: 200, ledger: false });
    const [adminPort, producerPort, processorPort] = [await freePort(), await freePort(), await freePort()];
    settings = {
      ...addressesOf(kafka, node),
      ...ownNames(),
      KAFKA_SESSION_TIMEOUT_MS: "6000",
      FINNHUB_WS_URL: simulator.wsUrl,
      FINNHUB_API_URL: simulator.apiUrl,
      FINNHUB_API_TOKEN: "feed-token",
      FINNHUB_STOCKS_TICKERS: JSON.stringify(SETTING),
      ADMIN_PORT: String(adminPort),
      PRODUCER_PORT: String(producerPort),
      PROCESSOR_PORT: String(processorPort),
      PRODUCER_URL: `http://127.0.0.1:${producerPort}`,
      PROCESSOR_URL: `http://127.0.0.1:${processorPort}`,
      ADMIN_TOKEN: TOKEN,
      LOG_LEVEL: "warn",
      DATA_DIR: directory.path,
    };
    await mustRun(binaries.path("admin"), ["init"], settings);
    await Promise.all(["processor", "producer", "admin"].map(start));
  }, START_MS_MAX);
  afterAll(async () => {
    await Promise.all([...running.values()].map((service) => service[Symbol.asyncDispose]()));
    await simulator?.stop();
    binaries?.[Symbol.dispose]();
    directory?.[Symbol.dispose]();
    await Promise.all([kafka?.[Symbol.asyncDispose](), node?.[Symbol.asyncDispose]()]);
  }, START_MS_MAX);

  async function start(name: string): Promise<void> {
    running.set(name, await startService(binaries.path(name), settings));
  }
  const the = (name: string) => running.get(name)!;

  const get = (path: string) => fetch(`${the("admin").url}${path}`);
  const items = async (path: string) => {
    const answer = await get(path);
    if (!answer.ok) return [];
    return ((await answer.json()) as { items: Record<string, unknown>[] }).items;
  };
  const change = (method: string, path: string, body?: string, token: string | null = TOKEN) =>
    fetch(`${the("admin").url}${path}`, {
      method,
      headers: { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) },
      ...(body !== undefined && { body }),
    });
  const add = (symbol: string, token?: string | null) =>
    change("POST", "/tickers", JSON.stringify({ symbol }), token);
  const remove = (symbol: string, token?: string | null) =>
    change("DELETE", `/tickers/${encodeURIComponent(symbol)}`, undefined, token);
  const subscribed = () => simulator.clients().flatMap(({ symbols }) => symbols);

  async function reason(): Promise<string> {
    const answer = await get("/health");
    const document = (await answer.json()) as { status: string; reason: string | null };
    expect(answer.status).toBe(document.status === "ok" ? 200 : 503);
    return document.reason ?? "";
  }
  const well = () =>
    eventually(STEP_MS_MAX, "admin says that all is well", async () => (await reason()) === "");

  test(
    "it serves history and the live view of another process's trades, and what it reads under it never commits",
    async () => {
      await well();
      await eventually(
        STEP_MS_MAX,
        "trades and averages",
        async () =>
          (await items(`/trades?symbol=${BITCOIN}`)).length > 0 &&
          (await items(`/averages?symbol=${BITCOIN}`)).length > 0,
      );
      const [candle] = await items(`/candles?symbol=${BITCOIN}`);
      expect(candle).toMatchObject({ symbol: BITCOIN, close: expect.any(Number) });
      const [trade] = await items(`/trades?symbol=${BITCOIN}&limit=1`);
      expect(trade).toMatchObject({ symbol: BITCOIN, uuid: expect.stringMatching(/^[0-9a-f-]{36}$/) });
      await eventually(STEP_MS_MAX, "the feed's state", async () => {
        const tickers = await items("/tickers");
        return tickers.length === SETTING.length && tickers.every(({ state }) => state === "subscribed");
      });
      const unknown = await get("/trades?symbol=NOBODY");
      expect(unknown.headers.get("x-data-source")).toBe("finnhub");
      expect(await unknown.json()).toMatchObject({ items: [] });
      expect((await get("/trades")).status).toBe(400);

      // Deltas are what came out of the topic, not the store: the snapshot's own prices do not move them.
      const stop = new AbortController();
      const stream = await fetch(`${the("admin").url}/events`, { signal: stop.signal });
      let text = "";
      for await (const chunk of stream.body!) {
        text += new TextDecoder().decode(chunk);
        if ((text.match(/^event: delta$/gm) ?? []).length >= 5) break;
      }
      stop.abort();
      expect(text).toMatch(/^event: snapshot$/m);
      expect(text).toContain(BITCOIN);

      const client = new Kafka(clientOptions(kafka.port)).admin();
      await client.connect();
      try {
        await client.describeCluster();
        const { groups } = await client.listGroups();
        const tails = groups.map(({ groupId }) => groupId).filter((id) => id.includes(".tail."));
        // Live view and tickers of admin, tickers of the producer.
        expect(tails.length).toBeGreaterThanOrEqual(3);
        for (const groupId of tails) {
          const committed = (await client.fetchOffsets({ groupId })).flatMap(({ partitions }) =>
            partitions.filter(({ offset }) => Number(offset) >= 0),
          );
          expect(committed).toEqual([]);
        }
      } finally {
        await client.disconnect();
      }
    },
    TEST_MS_MAX,
  );

  test(
    "a ticker that is added streams through the producer without a reconnection, one that is removed stops, and both last over restarts",
    async () => {
      await well();
      expect((await add(ADDED, null)).status).toBe(401);
      expect((await add(ADDED, "wrong")).status).toBe(401);
      expect((await remove(BITCOIN, null)).status).toBe(401);
      expect((await change("POST", "/tickers", "no json")).status).toBe(400);
      expect((await add(BITCOIN)).status).toBe(409);
      const unknown = await add("APPL");
      expect(unknown.status).toBe(422);
      expect(((await unknown.json()) as { suggestions: string[] }).suggestions).toContain("AAPL");
      expect((await remove("NOBODY")).status).toBe(404);
      expect(subscribed().sort()).toEqual([...SETTING].sort());

      const connects = await the("producer").metric("feed_connects_total");
      expect((await add(ADDED)).status).toBe(201);
      await eventually(SUBSCRIBED_MS_MAX, "it is subscribed", async () => subscribed().includes(ADDED));
      expect((await add(ADDED)).status).toBe(409);
      await eventually(STEP_MS_MAX, "its trades are stored and seen", async () => {
        const ticker = (await (await get(`/tickers/${ADDED}`)).json()) as Record<string, unknown>;
        const isSeen = ticker.state === "subscribed" && ticker.last_price !== null;
        return isSeen && (await items(`/trades?symbol=${ADDED}`)).length > 0;
      });
      expect((await remove(ETHER)).status).toBe(204);
      await eventually(SUBSCRIBED_MS_MAX, "it is not subscribed", async () => !subscribed().includes(ETHER));
      expect((await remove(ETHER)).status).toBe(404);
      expect(await the("producer").metric("feed_connects_total")).toBe(connects);

      await Promise.all(
        ["producer", "admin"].map(async (name) => {
          expect(await the(name).stop()).toBe(0);
          await start(name);
        }),
      );
      const expected = [BITCOIN, "AAPL", ADDED].sort();
      await eventually(
        STEP_MS_MAX,
        "the same tickers after a restart",
        async () => JSON.stringify(subscribed().sort()) === JSON.stringify(expected),
      );
      await well();
      expect((await items("/tickers")).map(({ symbol }) => symbol).sort()).toEqual(expected);
      expect((await remove(ETHER)).status).toBe(404);
      expect((await add(ADDED)).status).toBe(409);

      // Without a token in the settings nobody may change anything.
      const { ADMIN_TOKEN: _token, ...open } = settings;
      await using other = await startService(binaries.path("admin"), { ...open, ADMIN_PORT: "0" });
      await eventually(STEP_MS_MAX, "the other admin", async () => (await fetch(`${other.url}/tickers`)).ok);
      const refused = await fetch(`${other.url}/tickers`, {
        method: "POST",
        headers: { authorization: `Bearer ${TOKEN}` },
        body: JSON.stringify({ symbol: ETHER }),
      });
      expect(refused.status).toBe(403);
      expect(await refused.text()).toContain("ADMIN_TOKEN");
    },
    TEST_MS_MAX,
  );

  test(
    "whatever is gone is named on /health, and when it is back all is well again",
    async () => {
      await well();
      const named = (words: string) =>
        eventually(STEP_MS_MAX, `/health says: ${words}`, async () => (await reason()).includes(words));
      for (const name of ["producer", "processor"]) {
        const { url } = the(name);
        await the(name).kill();
        await named(`${name}: ${url} does not answer (connection refused)`);
        await start(name);
        await well();
      }
      await kafka.kill();
      await named("kafka: the broker does not answer (");
      await kafka.start();
      await well();
      await node.kill("SIGSTOP");
      await named("cassandra: no read has been answered for ");
      await node.kill("SIGCONT");
      await well();
      // And everything moves.
      const stored = () => the("processor").metric("processor_rows_stored_total");
      const before = await stored();
      await eventually(STEP_MS_MAX, "rows are stored", async () => (await stored()) > before + 500);
      for (const name of ["admin", "producer", "processor"]) expect(await the(name).stop()).toBe(0);
    },
    TEST_MS_MAX,
  );
});
