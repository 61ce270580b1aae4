// A listed symbol that Finnhub refuses for a moment, as the whole of `local` meets it: real websocket, real REST, real
// SQLite. The feed's own cases are in tests/integration/finnhub/refusals.test.ts.

import { expect, test } from "bun:test";
import { startSimulator } from "../../lib/simulator/simulator.ts";
import { eventually, temporaryDirectory } from "../support/builders.ts";
import { LOCAL, startService } from "../support/processes.ts";

const EUR = "OANDA:EUR_USD";
const REFUSED_MS = 15_000;
const STEP_MS_MAX = 20_000;
const TEST_MS_MAX = 90_000;

type Ticker = { state: string; unreceived: { since_timestamp: number; reason: string } | null };

test(
  "a symbol that is refused for 15 s is said to be missing, asked for again and stored, on the same connection",
  async () => {
    using directory = temporaryDirectory();
    const simulator = await startSimulator({ tradesPerSecond: 20, seed: 1 });
    simulator.faults.refuseSymbol(EUR, REFUSED_MS);
    const startedAtMs = Date.now();
    await using local = await startService(LOCAL, {
      DATA_DIR: directory.path,
      FINNHUB_API_TOKEN: "token-of-a-test",
      FINNHUB_API_URL: simulator.apiUrl,
      FINNHUB_STOCKS_TICKERS: JSON.stringify(["AAPL", EUR]),
      FINNHUB_WS_URL: simulator.wsUrl,
    });
    const get = async (path: string) => (await (await fetch(`${local.url}${path}`)).json()) as unknown;
    const ticker = async () => (await get(`/tickers/${encodeURIComponent(EUR)}`)) as Ticker;
    const rows = async () =>
      ((await get(`/trades?symbol=${encodeURIComponent(EUR)}&limit=5`)) as { items: unknown[] }).items;
    // Before the socket is open nothing is received, and that is told too.
    const isTold = async () => (await ticker()).unreceived?.reason.includes(`Invalid symbol ${EUR}`) ?? false;
    await eventually(STEP_MS_MAX, "the refusal is told", isTold);
    const told = (await ticker()).unreceived!;
    expect(Math.abs(told.since_timestamp - startedAtMs)).toBeLessThan(REFUSED_MS);
    const { parts } = (await get("/health")) as { parts: { feed: { warning: string } } };
    expect(parts.feed.warning).toContain(`${EUR} has not been received for`);
    expect(await rows()).toEqual([]);

    await eventually(2 * STEP_MS_MAX, "its trades are stored", async () => (await rows()).length > 0);
    await eventually(STEP_MS_MAX, "it is received", async () => (await ticker()).unreceived === null);
    expect(await ticker()).toMatchObject({ state: "subscribed", unreceived: null });
    expect(await local.metric("feed_connects_total")).toBe(1);
    console.log(`stored again ${Date.now() - startedAtMs} ms after the start, refused for ${REFUSED_MS} ms`);
    await simulator.stop();
  },
  TEST_MS_MAX,
);
