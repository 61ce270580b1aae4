// Mistakes in a query: each is answered by a sentence, and none is corrected silently.

import { expect, test } from "bun:test";
import { HOUR_MS } from "../../../lib/model/trade.ts";
import { NOON_MS } from "../../support/builders.ts";
import { openWeb, uuidOf } from "../../support/web.ts";

test("each mistake in a query is one sentence that names the parameter and what is accepted", async () => {
  using web = openWeb();
  const { status, body } = await web.get("/candles?symbl=AAPL&limit=0&interval=2m&from=yesterday&to=1&to=2");
  expect(status).toBe(400);
  expect(body).toEqual({
    error: expect.any(String),
    problems: [
      "symbol is missing: give a symbol of 1 to 128 characters, like AAPL or BINANCE:BTCUSDT",
      'interval is "2m": give one of 1m, 5m, 1h',
      'from is "yesterday": give milliseconds since 1970, like 1767614400000, or ISO 8601 with a zone, like 2026-01-05T12:00:00Z',
      "to is given 2 times: give it once",
      'limit is "0": give a whole number from 1 to 1000',
      '"symbl" is not a parameter of this route: did you mean symbol? It accepts symbol, interval, from, to, limit',
    ],
  });
});

test("a limit outside 1 to 1,000 is a mistake, and is never corrected silently", async () => {
  using web = openWeb();
  for (const limit of ["0", "1001", "-1", "1.5", "1e2", "ten", "", "%20", "99999999999999999999"]) {
    expect((await web.get(`/trades?symbol=AAPL&limit=${limit}`)).status).toBe(400);
  }
});

test("a text that is not a time is a mistake, and the slip is guessed", async () => {
  using web = openWeb();
  const problem = async (from: string) => {
    const { status, body } = await web.get(`/trades?symbol=AAPL&from=${from}`);
    expect(status).toBe(400);
    return String(body.error);
  };
  expect(await problem("1767614400")).toEndWith("(if these are seconds, give 1767614400000)");
  expect(await problem("2026-01-05T12:00:00")).toEndWith("(if this is UTC, give 2026-01-05T12:00:00Z)");
  for (const text of [
    "2026-02-30",
    "2026-13-01",
    "2026-01-05T25:00Z",
    "-5",
    "1e15",
    "9999999999999999",
    "",
    "NaN",
  ]) {
    expect(await problem(text)).toContain("give milliseconds since 1970");
  }
});

test("a range that ends before it begins is a mistake", async () => {
  using web = openWeb();
  for (const path of [
    "/trades?symbol=AAPL&",
    "/averages?symbol=AAPL&",
    "/candles?symbol=AAPL&",
    "/feed-events?",
  ]) {
    const { status, body } = await web.get(`${path}from=${NOON_MS}&to=${NOON_MS}`);
    expect(status).toBe(400);
    expect(body.error).toBe(
      "from must be earlier than to: from is 2026-01-05T12:00:00.000Z, to is 2026-01-05T12:00:00.000Z",
    );
  }
  expect((await web.get(`/trades?symbol=AAPL&from=${NOON_MS + 48 * HOUR_MS}`)).status).toBe(400);
});

test("a cursor that is not one of ours is a mistake", async () => {
  using web = openWeb();
  for (const before of ["x", "1", `${NOON_MS}.`, `${NOON_MS}.${uuidOf(1)}'--`, `.${uuidOf(1)}`]) {
    expect((await web.get(`/trades?symbol=AAPL&before=${before}`)).status).toBe(400);
    expect((await web.get(`/feed-events?before=${before}`)).status).toBe(400);
  }
});

test("the names that other APIs give to a parameter are recognised", async () => {
  using web = openWeb();
  const problem = async (path: string) => (await web.get(path)).body.error;
  expect(await problem("/trades?symbol=AAPL&start=1")).toContain("did you mean from?");
  expect(await problem("/candles?symbol=AAPL&resolution=5m")).toContain("did you mean interval?");
  expect(await problem("/trades?symbol=AAPL&xyzzy=1")).toBe(
    '"xyzzy" is not a parameter of this route: it accepts symbol, from, to, limit, before',
  );
  expect(await problem("/tickers?symbol=AAPL")).toBe(
    '"symbol" is not a parameter of this route: it accepts no parameters',
  );
});
