// How a new assignment begins: all its positions are asked for at once, and work that an older assignment still waits
// for changes nothing of a later one.

import { expect, test } from "bun:test";
import { systemClock } from "../../../lib/base/clock.ts";
import { StaleEpochError } from "../../../lib/base/errors.ts";
import { silentLogger } from "../../../lib/base/logger.ts";
import { createMetrics } from "../../../lib/base/metrics.ts";
import type { Delivery, LogReader, PartitionId, PartitionRange } from "../../../lib/contracts/log.ts";
import type { StoreWriter } from "../../../lib/contracts/store.ts";
import type { TradeRow } from "../../../lib/model/trade.ts";
import { createProcessor } from "../../../lib/processing/processor.ts";

const COMMITTED = { offset: 0, metadata: JSON.stringify({ maxTradeMs: null, receivedSinceMs: null }) };
const RANGE: PartitionRange = { committed: COMMITTED, beginOffset: 0, endOffset: 0 };

/** What is ready has its turns: some of them are given away in between where the machine is busy. */
async function nextTurn(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}

/** A processor whose log and store answer when the test says so. */
function openStartup() {
  const asked = new Map<PartitionId, PromiseWithResolvers<PartitionRange>>();
  const sought: string[] = [];
  const scans: PromiseWithResolvers<void>[] = [];
  const waiting: PromiseWithResolvers<Delivery>[] = [Promise.withResolvers()];
  const abort = new AbortController();
  const log: LogReader = {
    async *deliveries() {
      for (;;) {
        const delivery = await waiting.at(-1)!.promise;
        waiting.push(Promise.withResolvers());
        yield delivery;
      }
    },
    position(epoch, id) {
      const answer = Promise.withResolvers<PartitionRange>();
      asked.set(`${epoch} ${id}`, answer);
      return answer.promise;
    },
    seek: (epoch, id) => void sought.push(`${epoch} ${id}`),
    commit: async () => {},
  };
  const nothing = async () => {};
  const store: StoreWriter = {
    groupOf: ({ symbol }) => symbol,
    rowsPerPutMax: 1,
    putsInFlightMax: 1,
    putTrades: nothing,
    putWindows: nothing,
    putWindowAt: nothing,
    async *scanWindows() {},
    putEvents: nothing,
    putDead: nothing,
    isEmpty: async () => true,
    async *scanTrades(): AsyncGenerator<TradeRow[]> {},
    async *scanReceived(): AsyncGenerator<TradeRow[]> {
      const scan = Promise.withResolvers<void>();
      scans.push(scan);
      await scan.promise;
      yield [];
    },
  };
  const processor = createProcessor({
    log,
    store,
    clock: systemClock,
    logger: silentLogger,
    metrics: createMetrics(),
  });
  processor.run(abort.signal).catch(() => {});
  return {
    processor,
    asked,
    sought,
    scans,
    async assign(epoch: number, ...partitions: PartitionId[]) {
      waiting.at(-1)!.resolve({ type: "assigned", epoch, partitions });
      await nextTurn();
    },
  };
}

test("all positions are asked for at once, and each is sought when its own is known", async () => {
  const { assign, asked, sought, scans } = openStartup();
  await assign(1, "t/0", "t/1", "t/2");
  expect([...asked.keys()]).toEqual(["1 t/0", "1 t/1", "1 t/2"]);
  asked.get("1 t/2")!.resolve(RANGE);
  await nextTurn();
  scans[0]!.resolve();
  await nextTurn();
  expect(sought).toEqual(["1 t/2"]);
});

test("what an older assignment still waits for becomes no partition of a later one", async () => {
  const { assign, asked, sought, scans, processor } = openStartup();
  await assign(1, "t/0", "t/1");
  asked.get("1 t/1")!.resolve(RANGE);
  await nextTurn();
  asked.get("1 t/0")!.reject(new StaleEpochError("reassigned"));
  await nextTurn();
  await assign(2, "t/0");
  asked.get("2 t/0")!.resolve(RANGE);
  await nextTurn();
  for (const scan of scans) scan.resolve();
  await nextTurn();
  expect(sought).toContain("2 t/0");
  expect(processor.health().partitions).toEqual(["t/0"]);
});
