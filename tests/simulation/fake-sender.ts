// lib/contracts/log.ts's PartitionSender in front of the log in memory, as a broker's client would be: each partition's batch has a
// fate of its own, and one send answers when all of it has. It is honest: nothing is acknowledged that was not
// written, and what is not acknowledged may have been, now or later, whatever became of the process that sent it.

import { LogUnavailableError } from "../../lib/base/errors.ts";
import type {
  LogEntry,
  PartitionId,
  PartitionSender,
  SendBatch,
  SendOutcome,
} from "../../lib/contracts/log.ts";
import type { FakeLog } from "./fake-log.ts";
import { type Machine, request } from "./world.ts";

class TooLarge extends Error {}
class Refused extends Error {}

/** What the brokers do, whoever sends. */
export class FakeBrokers {
  readonly log: FakeLog;
  /** Of one batch. */
  batchBytesMax = Number.POSITIVE_INFINITY;
  /** Proves this entry invalid. */
  refuses: (entry: LogEntry) => boolean = () => false;
  /** Asked once a batch: whether its partition has no leader just now. */
  isDown: (partition: PartitionId) => boolean = () => false;
  onOutcomes: (batches: readonly SendBatch[], outcomes: readonly SendOutcome[]) => void = () => {};
  /** What a caller must never do. */
  readonly problems: string[] = [];
  sendCount = 0;

  constructor(log: FakeLog) {
    this.log = log;
  }

  /** The client of one process. */
  sender(machine: Machine): PartitionSender {
    const { log } = this;
    const out = new Set<PartitionId>();
    return {
      partitionOf: (_kind, key) => log.partitionOf(key),
      ready: async () => {},
      send: async (batches) => {
        this.sendCount += 1;
        for (const { partition, entries } of batches) {
          if (out.has(partition)) this.problems.push(`two sends at a time to ${partition}`);
          if (entries.length === 0) this.problems.push(`an empty batch to ${partition}`);
          if (entries.some(({ key }) => log.partitionOf(key) !== partition)) {
            this.problems.push(`an entry of another partition to ${partition}`);
          }
          out.add(partition);
        }
        const outcomes = await Promise.all(batches.map((batch) => this.#write(machine, batch)));
        for (const { partition } of batches) out.delete(partition);
        this.onOutcomes(batches, outcomes);
        return outcomes;
      },
    };
  }

  async #write(machine: Machine, { partition, entries: given }: SendBatch): Promise<SendOutcome> {
    // As they are now: a client encodes them when it is asked to.
    const entries = [...given];
    const lost = () => new LogUnavailableError(`${partition} does not answer`);
    const isDown = this.isDown(partition);
    try {
      await request(machine, this.log.faults, "append", {
        work: () => {
          if (isDown) throw lost();
          let bytes = 0;
          for (const { value } of entries) bytes += value.length;
          if (bytes > this.batchBytesMax) throw new TooLarge(`${bytes} bytes are too many`);
          if (entries.some(this.refuses)) throw new Refused("one of them is invalid");
          this.log.append(entries);
        },
        part: () => {
          if (!isDown && !entries.some(this.refuses)) {
            this.log.append(entries.slice(0, machine.world.pick(entries.length)));
          }
        },
        lost,
      });
      return { kind: "acknowledged" };
    } catch (error) {
      if (error instanceof TooLarge) return { kind: "too_large", error };
      if (error instanceof Refused) return { kind: "refused", error };
      if (error instanceof LogUnavailableError) return { kind: "unavailable", error };
      throw error;
    }
  }
}
