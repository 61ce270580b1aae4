// The main promise on real input: each recorded tape through the simulator's websocket into `local`, once as fast
// as it is taken, and once with `local` killed five times on the way. What the tables must hold is computed from
// the tape by reference.ts, which shares no line with lib.

import { expect, test } from "bun:test";
import { startSimulator } from "../../lib/simulator/simulator.ts";
import { eventually, seeded, temporaryDirectory, within } from "../support/builders.ts";
import {
  aggregateProblems,
  counts,
  ofRow,
  ofTape,
  plainOf,
  plainOfRow,
  surplus,
  tradeProblems,
} from "../support/compare.ts";
import { LOCAL, type Settings, startService } from "../support/processes.ts";
import { readTables } from "../support/tables.ts";
import { evenly, hasTapes, tapePath, tapes, tapeTrades, tradesOfFrames } from "../support/tapes.ts";

const TAPE_MS_MAX = 60_000;

function settings(directory: string, wsUrl: string, symbols: readonly string[]): Settings {
  return {
    DATA_DIR: directory,
    FINNHUB_WS_URL: wsUrl,
    FINNHUB_API_TOKEN: "tape-token",
    FINNHUB_VALIDATE_TICKERS: "0",
    FINNHUB_STOCKS_TICKERS: JSON.stringify(symbols),
    LOG_LEVEL: "warn",
  };
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
      await using local = await startService(LOCAL, settings(directory.path, simulator.wsUrl, symbols));
      await within(TAPE_MS_MAX, "the tape's end", () => simulator.tapeEnded);
      await eventually(
        TAPE_MS_MAX,
        "every trade stored",
        async () => (await local.metric("processor_rows_stored_total")) >= tradeCount,
      );
      expect(await local.stop()).toBe(0);

      const tape = await tapeTrades(name);
      const tables = readTables(directory.path);
      expect(tape.length).toBe(tradeCount);
      expect(tradeProblems(tape.map(ofTape), tables.trades.map(ofRow))).toEqual([]);
      expect(tables.trades.length).toBe(tradeCount);
      expect(tables.deadCount).toBe(0);

      // In the order of the tape: among equal times, what came first opens and what came last closes.
      expect(aggregateProblems(tables, tape.map(plainOf))).toEqual([]);
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
      /** Of each kill: from when on what was sent may be missing, and when the process was gone. */
      const kills: { fromMs: number; goneMs: number }[] = [];
      for (let round = 0; round < KILLS; round++) {
        const sentBefore = simulator.ledger.counts().tradesSent;
        await using local = await startService(LOCAL, settings(directory.path, simulator.wsUrl, symbols));
        await eventually(TAPE_MS_MAX, "connected", async () => simulator.clients().length > 0);
        await Bun.sleep(KILL_MS_MIN + random(KILL_MS_SPREAD));
        // On a busy machine the process may just have stood still for longer than what may be in flight.
        let provenMs = 0;
        await eventually(TAPE_MS_MAX, "what was sent until now is received", async () => {
          provenMs = Date.now();
          const sentCount = simulator.ledger.counts().tradesSent - sentBefore;
          return (await local.metric("feed_trades_received_total")) >= sentCount;
        });
        const fromMs = Math.min(provenMs, Date.now() - IN_FLIGHT_MS);
        await local.kill();
        kills.push({ fromMs, goneMs: Date.now() });
      }
      await using local = await startService(LOCAL, settings(directory.path, simulator.wsUrl, symbols));
      // On a busy machine the tape may be over by then, and all of it went to those that were killed.
      const isConnected = () => simulator.ledger.connections().length > KILLS;
      await eventually(TAPE_MS_MAX, "the last one connected", isConnected);
      await within(TAPE_MS_MAX, "the tape's end", () => simulator.tapeEnded);
      const lastConnection = simulator.ledger.connections().at(-1)!.connection;
      const toLast = simulator.ledger
        .entries()
        .filter(({ sent, connection }) => sent && connection === lastConnection);
      const lastCount = tradesOfFrames(toLast.map(({ text }) => text)).length;
      // Received, not stored: after a kill the rows of the last seconds are stored once more.
      const isReceived = async () => (await local.metric("feed_trades_received_total")) >= lastCount;
      await eventually(TAPE_MS_MAX, "the rest received", isReceived);
      expect(await local.stop()).toBe(0);

      const tables = readTables(directory.path);
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
          kills.some(({ fromMs, goneMs }) => atMs >= fromMs && atMs <= goneMs + IN_FLIGHT_MS),
      );
      const sentCounts = counts(tradesOfFrames(sent.map(({ text }) => text)).map(ofTape));
      const mayMiss = counts(tradesOfFrames(inFlight.map(({ text }) => text)).map(ofTape));
      const found = counts(tables.trades.map(ofRow));
      const missing = surplus(sentCounts, found);
      console.log(
        `${name}: ${KILLS} kills, ${tables.trades.length} trades stored, ${missing.length} in flight at a kill and missing` +
          missing.map((one) => `\n  missing ${one}`).join(""),
      );
      expect(simulator.ledger.forgotten()).toBe(0);
      expect(surplus(found, sentCounts)).toEqual([]); // Nothing twice, nothing invented.
      expect(surplus(counts(missing), mayMiss)).toEqual([]); // Nothing else is missing.
      expect(tables.trades.length).toBeGreaterThan(0);
      expect(aggregateProblems(tables, tables.trades.map(plainOfRow))).toEqual([]);
    },
    3 * TAPE_MS_MAX,
  );
}
