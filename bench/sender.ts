// The simulator in a process of its own, for the question `local`: it plays a tape of the seeded market on which
// each trade carries its number as its volume, and each time is a due time. One JSON line on standard output says
// where it listens; at SIGTERM a second one says which trade left when. It measures nothing.
//
// `bun bench/sender.ts <trades per second of the market> <trades> <speed>`

import { systemClock } from "../lib/base/clock.ts";
import { frameText } from "../lib/simulator/frames.ts";
import { startSimulator } from "../lib/simulator/simulator.ts";
import type { TapeFrame } from "../lib/simulator/tape.ts";
import { marketFrames, SYMBOLS } from "./material.ts";

export type SentFrame = readonly [firstTradeNumber: number, atMs: number];

/** The one whose rows are looked for: every PROBE_EVERY-th trade is its. */
export const PROBE_SYMBOL = "PROBE";
export const PROBE_EVERY = 10;

/** The frames of the market, numbered, each trade due when its frame is. */
function numbered(tradesPerSecond: number, tradeCount: number, fromMs: number) {
  const frames: TapeFrame[] = [];
  const firstNumbers: number[] = [];
  let number = 0;
  for (const { atMs, trades } of marketFrames(tradeCount, tradesPerSecond, fromMs)) {
    firstNumbers.push(number + 1);
    const probed = trades.map((trade) => {
      number++;
      return {
        ...trade,
        s: number % PROBE_EVERY === 0 ? PROBE_SYMBOL : trade.s,
        t: Math.floor(atMs),
        v: number,
      };
    });
    const symbols = [...new Set(probed.map(({ s }) => s))];
    frames.push({ atMs, text: frameText(probed), symbols, tradeCount: probed.length });
  }
  return { frames, firstNumbers, tradeCount: number };
}

if (import.meta.main) {
  const [tradesPerSecond = 0, wanted = 0] = process.argv.slice(2).map(Number);
  const speed = process.argv[4] === "max" ? "max" : 1;
  const { frames, firstNumbers, tradeCount } = numbered(tradesPerSecond, wanted, Date.now());
  const symbols = new Set([...SYMBOLS, PROBE_SYMBOL]);
  const now = () => performance.timeOrigin + performance.now(); // Finer than a millisecond.
  await using simulator = await startSimulator({
    tape: { frames, symbols },
    speed,
    // At full speed the due times are long ago or far ahead, and rewriting them is the simulator's cost.
    times: speed === "max" ? "recorded" : "present",
    ledger: speed === "max" ? false : frames.length,
    clock: { ...systemClock, now },
  });
  console.log(JSON.stringify({ wsUrl: simulator.wsUrl, tradeCount }));
  await new Promise((resolve) => process.on("SIGTERM", resolve));
  const sent = simulator.ledger
    .entries()
    .filter(({ kind, sent }) => kind === "trade" && sent)
    .map(({ atMs }, index): SentFrame => [firstNumbers[index]!, atMs]);
  console.log(JSON.stringify(sent));
}
