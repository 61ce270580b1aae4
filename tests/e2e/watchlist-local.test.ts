// Tickers while the whole thing runs: `local` as a child process on the built-in simulator, changed over HTTP.

import { expect, test } from "bun:test";
import { eventually, temporaryDirectory } from "../support/builders.ts";
import { LOCAL, type ServiceProcess, startService } from "../support/processes.ts";

const TEST_MS_MAX = 60_000;
const TOKEN = "a-token-of-a-test";
/** What an operator is promised, from the answer to the first stored trade. */
const STREAMS_MS_MAX = 2_000;
const ADDED = "BINANCE:BTCUSDT";

type Item = Readonly<{ symbol: string; state: string; validation?: Readonly<{ outcome: string }> }>;

function talkTo({ url, metric }: ServiceProcess) {
  const get = async (path: string) => (await (await fetch(url + path)).json()) as { items: Item[] };
  const send = async (method: string, path: string, body?: object) => {
    const headers = { authorization: `Bearer ${TOKEN}` };
    const text = body === undefined ? {} : { body: JSON.stringify(body) };
    const response = await fetch(url + path, { method, headers, ...text });
    return { status: response.status, body: response.status === 204 ? null : await response.json() };
  };
  return {
    get,
    add: (symbol: string) => send("POST", "/tickers", { symbol }),
    remove: (symbol: string) => send("DELETE", `/tickers/${encodeURIComponent(symbol)}`),
    tickers: async () =>
      Object.fromEntries((await get("/tickers")).items.map((one) => [one.symbol, one.state])),
    trades: async (symbol: string) =>
      (await get(`/trades?symbol=${encodeURIComponent(symbol)}&limit=1000`)).items.length,
    events: async (type: string) =>
      ((await get("/feed-events")).items as unknown as { type: string; detail: string }[])
        .filter((one) => one.type === type)
        .map(({ detail }) => JSON.parse(detail) as Record<string, unknown>),
    connects: () => metric("feed_connects_total"),
  };
}

test(
  "a ticker added while it runs streams within 2 s on the same connection, stays over kill -9, and ends when removed",
  async () => {
    using directory = temporaryDirectory();
    const settings = {
      FINNHUB_SIMULATE: "1",
      FINNHUB_STOCKS_TICKERS: '["AAPL"]',
      ADMIN_TOKEN: TOKEN,
      DATA_DIR: directory.path,
    };
    {
      await using local = await startService(LOCAL, settings);
      const web = talkTo(local);
      await eventually(10_000, "trades of the setting's ticker", async () => (await web.trades("AAPL")) > 0);
      expect(await web.add("BTCUSDT")).toMatchObject({ status: 422, body: { suggestions: [ADDED] } });
      expect((await web.add(ADDED)).status).toBe(201);
      await eventually(
        STREAMS_MS_MAX,
        "trades of the added ticker",
        async () => (await web.trades(ADDED)) > 0,
      );
      expect(await web.tickers()).toEqual({ AAPL: "subscribed", [ADDED]: "subscribed" });
      expect(await web.connects()).toBe(1);
      expect(await web.add(ADDED)).toMatchObject({ status: 409 });
      await local.kill();
    }
    {
      await using local = await startService(LOCAL, settings);
      const web = talkTo(local);
      expect(Object.keys(await web.tickers())).toEqual(["AAPL", ADDED]);
      const before = await web.trades(ADDED);
      await eventually(10_000, "more of its trades", async () => (await web.trades(ADDED)) > before);
      expect((await web.remove(ADDED)).status).toBe(204);
      expect((await web.remove("AAPL")).status).toBe(204);
      expect(await web.tickers()).toEqual({});
      // What was on its way may still come; then nothing does, while another ticker streams.
      expect((await web.add("MSFT")).status).toBe(201);
      let last = -1;
      await eventually(5_000, "the end of its trades", async () => {
        const before = last;
        last = await web.trades(ADDED);
        await Bun.sleep(300);
        return before === last;
      });
      const newest = await web.trades("MSFT");
      await eventually(5_000, "trades of the other", async () => (await web.trades("MSFT")) > newest + 3);
      expect(await web.trades(ADDED)).toBe(last);
      expect(await web.connects()).toBe(1);
      expect(await local.stop()).toBe(0);
      expect(local.stderr()).not.toContain(TOKEN);
    }
    {
      // The operator's word stands above the setting's.
      await using local = await startService(LOCAL, settings);
      expect(Object.keys(await talkTo(local).tickers())).toEqual(["MSFT"]);
    }
  },
  TEST_MS_MAX,
);

test(
  "of the setting's tickers only what is proven missing is dropped, and that stands in the events",
  async () => {
    using directory = temporaryDirectory();
    await using local = await startService(LOCAL, {
      FINNHUB_SIMULATE: "1",
      FINNHUB_STOCKS_TICKERS: '["AAPL", "appl", "OANDA:EUR_USD"]',
      DATA_DIR: directory.path,
    });
    const web = talkTo(local);
    await eventually(10_000, "the rejection", async () => (await web.events("ticker_rejected")).length > 0);
    const [event] = await web.events("ticker_rejected");
    expect(event).toMatchObject({ symbol: "appl", message: "not found at Finnhub" });
    expect(event?.suggestions).toContain("AAPL");
    const subscribed = { AAPL: "subscribed", "OANDA:EUR_USD": "subscribed" };
    await eventually(5_000, "the subscriptions", async () => (await web.tickers()).appl === "rejected");
    expect(await web.tickers()).toEqual({ ...subscribed, appl: "rejected" });
    expect((await web.add("MSFT")).status).toBe(403);
    expect(local.stderr()).toContain("Finnhub does not know a ticker");
    expect(await web.connects()).toBe(1);
  },
  TEST_MS_MAX,
);

test(
  "without validation nothing is asked and nothing is dropped",
  async () => {
    using directory = temporaryDirectory();
    await using local = await startService(LOCAL, {
      FINNHUB_SIMULATE: "1",
      FINNHUB_VALIDATE_TICKERS: "0",
      FINNHUB_STOCKS_TICKERS: '["AAPL"]',
      ADMIN_TOKEN: TOKEN,
      DATA_DIR: directory.path,
    });
    const web = talkTo(local);
    expect((await web.add("appl")).status).toBe(201);
    await eventually(5_000, "the subscription", async () => (await web.tickers()).appl === "subscribed");
    expect((await web.get("/tickers/appl")) as unknown).toMatchObject({
      validation: { outcome: "unchecked" },
    });
  },
  TEST_MS_MAX,
);
