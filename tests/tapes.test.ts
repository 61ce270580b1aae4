// The main promise on real input: each recorded tape through the simulator's websocket into `local`, once as fast
// as it is taken, and once with `local` killed five times on the way. What the tables must hold is computed from
// the tape by reference.ts, which shares no line with lib.

import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { startSimulator } from "../lib/simulator.ts";
import { parseTape, type Tape } from "../lib/simulator-tape.ts";
import { eventually, readTables, type StoredTrade, startLocal, within } from "./local-process.ts";
import { averagesOf, candlesOf } from "./reference.ts";
import { seeded, temporaryDirectory } from "./support.ts";

const TAPES = join(import.meta.dir, "../../shared/data");
const TAPE_MS_MAX = 60_000;

const tapes = [
  { name: "crypto", tradeCount: 15_863, symbols: ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT"] },
  { name: "stocks", tradeCount: 84_293, symbols: ["IBM", "SPY"] },
  { name: "forex", tradeCount: 20_000, symbols: ["OANDA:EUR_USD"] },
] as const;

const hasTapes = existsSync(TAPES);
if (!hasTapes)
  console.error(`SKIPPED: the recorded tapes are not at ${TAPES}, so nothing is proven on real input`);

type TapeTrade = { s: string; p: number; v: number; t: number; c?: string[] | null };

function tapePath(name: string): string {
  return join(TAPES, `${name}.ndjson.gz`);
}

function tradesOfFrames(frames: readonly string[]): TapeTrade[] {
  return frames.flatMap((text) => {
    const frame = JSON.parse(text) as { type: string; data?: TapeTrade[] };
    return frame.type === "trade" ? frame.data! : [];
  });
}

async function tapeTrades(name: string): Promise<TapeTrade[]> {
  const text = new TextDecoder().decode(Bun.gunzipSync(await Bun.file(tapePath(name)).bytes()));
  return tradesOfFrames(
    text
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { frame: string }).frame),
  );
}

const fingerprint = (
  symbol: string,
  price: number,
  volume: number,
  atMs: number,
  conditions: string | null,
) => JSON.stringify([symbol, price, volume, atMs, conditions]);
const ofTape = ({ s, p, v, t, c }: TapeTrade) => fingerprint(s, p, v, t, c ? JSON.stringify(c) : null);
const ofRow = (row: StoredTrade) =>
  fingerprint(row.symbol, row.price, row.volume, row.trade_timestamp, row.trade_conditions);

function counts(fingerprints: readonly string[]): Map<string, number> {
  const result = new Map<string, number>();
  for (const one of fingerprints) result.set(one, (result.get(one) ?? 0) + 1);
  return result;
}

/** What `from` holds more often than `other`, each as often as it is more. */
function surplus(from: ReadonlyMap<string, number>, other: ReadonlyMap<string, number>): string[] {
  return [...from].flatMap(([one, count]) =>
    Array<string>(Math.max(0, count - (other.get(one) ?? 0))).fill(one),
  );
}

function settings(directory: string, wsUrl: string, symbols: readonly string[]): Record<string, string> {
  return {
    DATA_DIR: directory,
    FINNHUB_WS_URL: wsUrl,
    FINNHUB_API_TOKEN: "tape-token",
    FINNHUB_STOCKS_TICKERS: JSON.stringify(symbols),
    LOG_LEVEL: "warn",
  };
}

async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(new RegExp(`^pipeline_${name} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
}

for (const { name, tradeCount, symbols } of tapes) {
  test.skipIf(!hasTapes)(
    `the ${name} tape ends up in the tables: every trade once, every aggregate right`,
    async () => {
      using directory = temporaryDirectory();
      await using simulator = await startSimulator({
        tape: tapePath(name),
        speed: "max",
        times: "recorded",
        ledger: false,
      });
      await using local = await startLocal(settings(directory.path, simulator.wsUrl, symbols));
      await within(TAPE_MS_MAX, "the tape's end", () => simulator.tapeEnded);
      await eventually(
        TAPE_MS_MAX,
        "every trade stored",
        async () => (await metric(local.url, "processor_rows_stored_total")) >= tradeCount,
      );
      expect(await local.stop()).toBe(0);

      const tape = await tapeTrades(name);
      const { trades, averages, candles, deadCount } = readTables(directory.path);
      const expected = counts(tape.map(ofTape));
      const found = counts(trades.map(ofRow));
      expect(tape.length).toBe(tradeCount);
      expect({ lost: surplus(expected, found), doubled: surplus(found, expected) }).toEqual({
        lost: [],
        doubled: [],
      });
      expect(trades.length).toBe(tradeCount);
      expect(deadCount).toBe(0);

      // In the order of the tape: among equal times, what came first opens and what came last closes.
      const plain = tape.map(({ s: symbol, p: price, v: volume, t: atMs }) => ({
        symbol,
        price,
        volume,
        atMs,
      }));
      expect(averages).toEqual(averagesOf(plain));
      expect(candles).toEqual(candlesOf(plain));
    },
    2 * TAPE_MS_MAX,
  );
}

const KILLS = 5;
/** "Certainly received": what was sent this long before a kill. */
const IN_FLIGHT_MS = 100;
/** A whole day in so many seconds, five kills among them. */
const PLAY_MS = 12_000;
const KILL_MS_MIN = 700;
const KILL_MS_SPREAD = 900;

for (const { name, symbols } of tapes) {
  test.skipIf(!hasTapes)(
    `with five kills -9 on the way, the ${name} tape loses only what was in flight, and says what`,
    async () => {
      const random = seeded(name.length);
      using directory = temporaryDirectory();
      const tape = await evenly(name, PLAY_MS);
      await using simulator = await startSimulator({ tape, speed: 1, times: "recorded", ledger: 1_000_000 });
      const killedAtMs: number[] = [];
      for (let round = 0; round < KILLS; round++) {
        const sentBefore = simulator.ledger.counts().tradesSent;
        await using local = await startLocal(settings(directory.path, simulator.wsUrl, symbols));
        await eventually(TAPE_MS_MAX, "connected", async () => simulator.clients().length > 0);
        await Bun.sleep(KILL_MS_MIN + random(KILL_MS_SPREAD));
        // On a busy machine the process may just have stood still for longer than what may be in flight.
        await eventually(TAPE_MS_MAX, "what was sent until now is received", async () => {
          const sentCount = simulator.ledger.counts().tradesSent - sentBefore;
          return (await metric(local.url, "feed_trades_received_total")) >= sentCount;
        });
        await local.kill();
        killedAtMs.push(Date.now());
      }
      await using local = await startLocal(settings(directory.path, simulator.wsUrl, symbols));
      await within(TAPE_MS_MAX, "the tape's end", () => simulator.tapeEnded);
      const lastConnection = simulator.ledger.connections().at(-1)!.connection;
      const toLast = simulator.ledger
        .entries()
        .filter(({ sent, connection }) => sent && connection === lastConnection);
      const lastCount = tradesOfFrames(toLast.map(({ text }) => text)).length;
      // Received, not stored: after a kill the rows of the last seconds are stored once more.
      const isReceived = async () => (await metric(local.url, "feed_trades_received_total")) >= lastCount;
      await eventually(TAPE_MS_MAX, "the rest received", isReceived);
      expect(await local.stop()).toBe(0);

      const { trades, averages, candles } = readTables(directory.path);
      const sent = simulator.ledger.entries().filter((entry) => entry.sent);
      // A connection that a kill ended: what went into it in its last moments may have reached nobody.
      const killedConnections = new Set(
        simulator.ledger
          .connections()
          .slice(0, KILLS)
          .map(({ connection }) => connection),
      );
      const inFlight = sent.filter(
        ({ atMs, connection }) =>
          connection !== null &&
          killedConnections.has(connection) &&
          killedAtMs.some((killMs) => atMs >= killMs - IN_FLIGHT_MS && atMs <= killMs + IN_FLIGHT_MS),
      );
      const sentCounts = counts(tradesOfFrames(sent.map(({ text }) => text)).map(ofTape));
      const mayMiss = counts(tradesOfFrames(inFlight.map(({ text }) => text)).map(ofTape));
      const found = counts(trades.map(ofRow));
      const missing = surplus(sentCounts, found);
      console.log(
        `${name}: ${KILLS} kills, ${trades.length} trades stored, ${missing.length} in flight at a kill and missing` +
          missing.map((one) => `\n  missing ${one}`).join(""),
      );
      expect(simulator.ledger.forgotten()).toBe(0);
      expect(surplus(found, sentCounts)).toEqual([]); // Nothing twice, nothing invented.
      expect(surplus(counts(missing), mayMiss)).toEqual([]); // Nothing else is missing.
      expect(trades.length).toBeGreaterThan(0);

      const plain = trades.map(({ symbol, price, volume, trade_timestamp: atMs, uuid }) => ({
        symbol,
        price,
        volume,
        atMs,
        uuid,
      }));
      expect(averages).toEqual(averagesOf(plain));
      expect(candles).toEqual(candlesOf(plain));
    },
    3 * TAPE_MS_MAX,
  );
}

/**
 * The tape's frames, byte for byte, at an even pace: squeezed as they came, an opening would be hundreds of thousands
 * of trades a second, and what the socket then holds at a kill is more than what was sent in its last moments.
 */
async function evenly(name: string, durationMs: number): Promise<Tape> {
  const text = new TextDecoder().decode(Bun.gunzipSync(await Bun.file(tapePath(name)).bytes()));
  const frames = text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { at: number; frame: string });
  const startMs = frames[0]!.at;
  const paced = frames.map(({ frame }, index) =>
    JSON.stringify({ at: startMs + Math.floor((index * durationMs) / frames.length), frame }),
  );
  return parseTape(paced.join("\n"), name);
}
