// The operator's commands of `local`, as an operator types them: real processes, a real store, the exit codes. One tape
// of real trades goes through the whole pipeline first.

import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../../lib/base/clock.ts";
import { createMetrics } from "../../lib/base/metrics.ts";
import { encodeMessage } from "../../lib/model/codec.ts";
import { openSqliteLog } from "../../lib/outbox/log.ts";
import { startSimulator } from "../../lib/simulator/simulator.ts";
import { openSqliteStore } from "../../lib/sqlite/store.ts";
import { eventually, temporaryDirectory, trade, within } from "../support/builders.ts";
import { LOCAL, runCommand, type Settings, startService } from "../support/processes.ts";
import { readTables } from "../support/tables.ts";
import { hasTapes, tapePath, tapes } from "../support/tapes.ts";

const TAPE_MS_MAX = 60_000;
/** Real data in a directory of its own: nothing is simulated by default. */
const SOURCE = { FINNHUB_API_TOKEN: "tape-token", LOG_LEVEL: "warn" };

type Ended = Awaited<ReturnType<typeof runCommand>>;

const command = (directory: string, args: readonly string[], settings: Settings = SOURCE): Promise<Ended> =>
  runCommand(LOCAL, args, { DATA_DIR: directory, ...settings });

const jsonOf = ({ out }: Ended) => JSON.parse(out.trimEnd().split("\n").at(-1)!) as Record<string, unknown>;

/** A hand in the tables. */
function tamper(directory: string, sql: string): void {
  const db = new Database(join(directory, "market.sqlite"));
  db.run(sql);
  db.close();
}

const [{ name: TAPE, tradeCount: TAPE_TRADES, symbols: TAPE_SYMBOLS }] = tapes;

test.skipIf(!hasTapes)(
  "`verify` finds nothing after a tape of real trades, also beside the running local, and finds and mends what is planted",
  async () => {
    using directory = temporaryDirectory();
    await using simulator = await startSimulator({
      tape: tapePath(TAPE),
      speed: "max",
      times: "recorded",
      ledger: false,
    });
    // The trades are of 2024, and nothing of them shall have expired.
    const settings = {
      ...SOURCE,
      FINNHUB_WS_URL: simulator.wsUrl,
      FINNHUB_STOCKS_TICKERS: JSON.stringify(TAPE_SYMBOLS),
      FINNHUB_VALIDATE_TICKERS: "0",
      RETENTION_DAYS: "3650",
    };
    {
      await using local = await startService(LOCAL, { ...settings, DATA_DIR: directory.path });
      await within(TAPE_MS_MAX, "the tape's end", () => simulator.tapeEnded);
      const areStored = async () => readTables(directory.path).trades.length >= TAPE_TRADES;
      await eventually(TAPE_MS_MAX, "every trade stored", areStored);
      const beside = await command(directory.path, ["verify", "--json"], settings);
      expect(beside).toMatchObject({ code: 0, err: "" });
      expect(jsonOf(beside)).toMatchObject({ verb: "verify", differences: 0 });
      for (const args of [
        ["verify", "--repair"],
        ["replay", "--from", "2024-01-01"],
        ["replay", "--dead"],
      ]) {
        const refused = await command(directory.path, args, settings);
        expect(refused).toMatchObject({ code: 1, out: "" });
        expect(refused.err).toContain("needs DATA_DIR to itself");
        expect(refused.err).toContain("stop local");
      }
      expect(await local.stop()).toBe(0);
    }

    const { averages, candles } = readTables(directory.path);
    const clean = await command(directory.path, ["verify", "--json"], settings);
    expect(clean).toMatchObject({ code: 0, err: "" });
    expect(jsonOf(clean)).toMatchObject({ compared: averages.length + candles.length, differences: 0 });

    tamper(directory.path, "DELETE FROM candles_1_min WHERE symbol = 'BINANCE:BTCUSDT'");
    tamper(
      directory.path,
      "UPDATE running_averages_15_sec SET volume = volume * 1.001 WHERE trade_count > 60",
    );
    const fuller = await command(directory.path, ["verify", "--repair", "--json"], settings);
    const missing = candles.filter(({ symbol }) => symbol === "BINANCE:BTCUSDT").length;
    const wrong = averages.filter(({ trade_count }) => trade_count > 60).length;
    expect(wrong).toBeGreaterThan(0);
    expect(fuller.code).toBe(1);
    expect(jsonOf(fuller)).toMatchObject({ differences: missing + wrong, missing, repaired: missing });
    expect(fuller.out).toContain("volume is ");
    const forced = await command(directory.path, ["verify", "--repair", "--force", "--json"], settings);
    expect(forced.code).toBe(1);
    expect(jsonOf(forced)).toMatchObject({ differences: wrong, missing: 0, repaired: wrong });
    expect(await command(directory.path, ["verify"], settings)).toMatchObject({ code: 0, err: "" });
    const empty = await command(
      directory.path,
      ["verify", "--from", "2001-01-01", "--to", "2001-01-02"],
      settings,
    );
    expect(empty).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^nothing was traded in that time.*\nverified 0 /),
    });
    expect(readTables(directory.path)).toMatchObject({ averages, candles });
  },
  4 * TAPE_MS_MAX,
);

/** What `local` would have left behind: received and in the log, the first message stored, no window written. */
async function leftovers(directory: string): Promise<{ receivedAtMs: number; tradedAtMs: number }> {
  const receivedAtMs = Date.now() - 600_000;
  const tradedAtMs = receivedAtMs - 40;
  const options = { directory, sync: "normal" } as const;
  using store = openSqliteStore(options);
  using log = openSqliteLog({
    ...options,
    topic: "market",
    bytesMax: 1e8,
    clock: systemClock,
    metrics: createMetrics(),
  });
  const message = (sequence: number, trades: Parameters<typeof trade>[0][]) =>
    encodeMessage({
      session: "0badcafe",
      sequence,
      receivedAtMs,
      trades: trades.map((fields) => trade({ tradedAtMs, ...fields })),
    });
  const mixed = message(2, [{ price: 20 }, { symbol: "MSFT", price: 30 }]);
  await store.putDead([
    {
      session: "0badcafe",
      sequence: 2,
      item: -1,
      receivedAtMs,
      reason: "several_symbols",
      source: "processor",
      payload: mixed,
    },
  ]);
  await log.append([{ kind: "trades", key: "AAPL", value: message(1, [{ price: 10 }, { price: 12 }]) }]);
  return { receivedAtMs, tradedAtMs };
}

const pricesIn = (directory: string) =>
  readTables(directory)
    .trades.map(({ symbol, price }) => `${symbol} ${price}`)
    .sort();
const positionsIn = (directory: string) => {
  const db = new Database(join(directory, "market.sqlite"), { readonly: true });
  const rows = db.query("SELECT offset FROM commits").all();
  db.close();
  return rows;
};

test("`replay` stores what the log holds without committing, and `replay --dead` brings its trades in once", async () => {
  using directory = temporaryDirectory();
  const { receivedAtMs } = await leftovers(directory.path);
  const range = ["--from", String(receivedAtMs), "--to", new Date(receivedAtMs + 1).toISOString()];
  const before = ["--from", String(receivedAtMs - 5_000), "--to", String(receivedAtMs)];
  const outside = await command(directory.path, ["replay", ...before, "--json"]);
  expect(outside).toMatchObject({ code: 0, err: "" });
  expect(jsonOf(outside)).toMatchObject({ records: 1, messages: 0, rows: 0, windows: 0 });
  for (let turn = 0; turn < 2; turn++) {
    const replayed = await command(directory.path, ["replay", ...range, "--json"]);
    expect(replayed).toMatchObject({ code: 0, err: "" });
    expect(jsonOf(replayed)).toMatchObject({ verb: "replay", messages: 1, rows: 2, windows: 4 });
    expect(pricesIn(directory.path)).toEqual(["AAPL 10", "AAPL 12"]);
    expect(positionsIn(directory.path)).toEqual([]);
  }
  for (let turn = 0; turn < 2; turn++) {
    const dead = await command(directory.path, ["replay", "--dead", "--json"]);
    expect(dead).toMatchObject({ code: 0, err: "" });
    expect(jsonOf(dead)).toMatchObject({ letters: 1, taken: 1, messages: 2, trades: 2, unfit: {} });
    expect(pricesIn(directory.path)).toEqual(["AAPL 10", "AAPL 12", "AAPL 20", "MSFT 30"]);
  }
  expect(positionsIn(directory.path)).toHaveLength(1);
  const verified = await command(directory.path, ["verify", "--json"]);
  expect(verified).toMatchObject({ code: 0, err: "" });
  // AAPL and MSFT traded in one pane each.
  expect(jsonOf(verified)).toMatchObject({ compared: 8, differences: 0 });
}, 60_000);

test("more dead letters than the log has room for are taken all the same", async () => {
  using directory = temporaryDirectory();
  const { receivedAtMs, tradedAtMs } = await leftovers(directory.path);
  const symbol = "X".repeat(120);
  const letterCount = 20;
  {
    using store = openSqliteStore({ directory: directory.path, sync: "normal" });
    for (let sequence = 10; sequence < 10 + letterCount; sequence++) {
      const trades = Array.from({ length: 1_000 }, () => trade({ symbol, tradedAtMs }));
      // As after a mistake of ours about good messages.
      const payload = encodeMessage({ session: "0badcafe", sequence, receivedAtMs, trades });
      await store.putDead([
        {
          session: "0badcafe",
          sequence,
          item: -1,
          receivedAtMs,
          reason: "undecodable",
          source: "processor",
          payload,
        },
      ]);
    }
  }
  const settings = { ...SOURCE, OUTBOX_MAX_BYTES: String(1024 * 1024) };
  const dead = await command(directory.path, ["replay", "--dead", "--json"], settings);
  expect(dead).toMatchObject({ code: 0, err: "" });
  expect(jsonOf(dead)).toMatchObject({ letters: letterCount + 1, taken: letterCount + 1, unfit: {} });
  expect(readTables(directory.path).trades.filter((row) => row.symbol === symbol)).toHaveLength(20_000);
  expect(await command(directory.path, ["verify"], settings)).toMatchObject({ code: 0 });
}, 60_000);

test("what makes no sense on the command line is said in a sentence, with exit code 1", async () => {
  using directory = temporaryDirectory();
  using empty = temporaryDirectory();
  await leftovers(directory.path);
  const cases: [string[], string][] = [
    [["verify", "--from", "yesterday"], "--from yesterday is not a time"],
    [["verify", "--from", "2026-02-31"], "--from 2026-02-31 is not a time"],
    [["verify", "--to", "1767614400"], "1767614400000"],
    [["verify", "--from", "2026-01-05", "--to", "2026-01-05T00:00:00Z"], "is not before"],
    [["verify", "--force"], "--force without --repair"],
    [["verify", "--frm", "2026-01-05"], "--frm"],
    [["verify", "2026-01-05"], "see local --help"],
    [["replay"], "--from is missing"],
    [["replay", "--dead", "--from", "2026-01-05"], "--dead takes every dead letter"],
  ];
  const ended = await Promise.all(cases.map(([args]) => command(directory.path, args)));
  for (const [index, [, words]] of cases.entries()) {
    expect(ended[index]).toMatchObject({ code: 1, out: "" });
    expect(ended[index]!.err).toContain(words);
  }
  const nothing = await command(empty.path, ["verify"]);
  expect(nothing).toMatchObject({ code: 1, out: "" });
  expect(nothing.err).toContain("there is no store of real data");
  expect(existsSync(join(empty.path, "market.sqlite"))).toBe(false);
  const help = await command(directory.path, ["replay", "--help"]);
  expect(help).toMatchObject({ code: 0, err: "" });
  expect(help.out).toContain("keeps only what is");
}, 60_000);
