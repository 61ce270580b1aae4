// Question: how many stored rows a second does one core add to panes, with everything that keeps panes right?

import { PartitionState } from "../lib/processing/partition-state.ts";
import { type BareRow, panesFloor } from "./floors.ts";
import { marketFrames, messagesOf, rowsOf } from "./material.ts";
import { type Figure, ratesOf } from "./measure.ts";

const TRADES = 300_000;
const TRADES_PER_SECOND = 5_000;
/** Trades between two triggers: 5 seconds of this market. */
const DRAIN_EVERY = 25_000;

export async function panes(): Promise<Figure[]> {
  const nowMs = Date.now();
  const messages = messagesOf(marketFrames(TRADES, TRADES_PER_SECOND, nowMs));
  const rows = rowsOf(messages);
  const bare = rows.map((row) => Object.values(row) as unknown as BareRow);
  const ours = () => {
    const partition = new PartitionState(0, { maxTradeMs: Number.NEGATIVE_INFINITY, receivedSinceMs: null });
    let at = 0;
    let untilDrain = DRAIN_EVERY;
    for (const [offset, { trades, session, sequence, receivedAtMs }] of messages.entries()) {
      const isResend = partition.observeMessage(session, sequence);
      const inFlight = partition.tracker.open(offset + 1, receivedAtMs, trades.length);
      for (const { tradedAtMs } of trades) {
        partition.observeTradeTime(tradedAtMs);
        partition.acknowledgeRow({ row: rows[at++]!, inFlight, isResend }, nowMs);
      }
      untilDrain -= trades.length;
      if (untilDrain > 0) continue;
      partition.drainDirty();
      untilDrain = DRAIN_EVERY;
    }
  };
  const floor = () => void panesFloor(bare);
  // No goal: exact sums and the knowledge of resends are what it is for; the whole path has one.
  return [await ratesOf({ name: "panes", unit: "trades/s", count: rows.length, goal: null, ours, floor })];
}
