// Polls the broker for how far the processors are behind, and remembers for each partition when its commit last moved.
// It judges nothing; health/pipeline.ts does.

import type { Clock } from "../base/clock.ts";
import type { BrokerSnapshot, LagSnapshot } from "../health/pipeline.ts";
import type { KafkaTopics } from "./topics.ts";

export type LagMonitor = Readonly<{
  /** One round; never rejects. */
  poll(): Promise<void>;
  snapshot(): BrokerSnapshot;
}>;

export function createLagMonitor(
  topics: Pick<KafkaTopics, "lag">,
  groupId: string,
  clock: Clock,
): LagMonitor {
  let known: BrokerSnapshot = { askedAtMs: null, problem: null, lags: [] };
  return {
    async poll() {
      try {
        const asked = await topics.lag(groupId);
        const nowMs = clock.now();
        const before = new Map(known.lags.map((one) => [one.partition, one]));
        const lags = asked.map(({ partition, committed, endOffset: end, lag }): LagSnapshot => {
          const offset = committed?.offset ?? null;
          const last = before.get(partition);
          // Where no record waited at the last poll, those that came since have waited for less than one round.
          const isMoved = last === undefined || last.lag === 0 || lag === 0 || last.committed !== offset;
          return { partition, committed: offset, end, lag, movedAtMs: isMoved ? nowMs : last.movedAtMs };
        });
        known = { askedAtMs: nowMs, problem: null, lags };
      } catch (error) {
        // The health document shows it, and the next round polls again.
        known = { ...known, problem: error instanceof Error ? error.message : String(error) };
      }
    },
    snapshot: () => known,
  };
}
