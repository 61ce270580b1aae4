// The committed position and the ends of each partition that a member was assigned, read from the brokers. A new
// assignment asks for all its partitions at once, so one answer serves every caller that asks while it is on its way.

import type { Admin } from "kafkajs";
import { LogUnavailableError } from "../base/errors.ts";
import type { PartitionId, PartitionRange } from "../contracts/log.ts";
import type { Assignment } from "./assignment.ts";
import { createKafka, type KafkaDeps } from "./client.ts";
import { kafkaError } from "./errors.ts";
import { committedOffsets, partitionId } from "./topics.ts";

type Ranges = ReadonlyMap<PartitionId, PartitionRange>;

export class Positions {
  readonly #deps: KafkaDeps;
  readonly #groupId: string;
  readonly #assignment: Assignment;
  #admin: Admin | null = null;
  #reading: Readonly<{ epoch: number; ranges: Promise<Ranges> }> | null = null;

  constructor(deps: KafkaDeps, groupId: string, assignment: Assignment) {
    this.#deps = deps;
    this.#groupId = groupId;
    this.#assignment = assignment;
  }

  /** Rejects with StaleEpochError (also when the epoch ends meanwhile), LogUnavailableError or SetupError. */
  async rangeOf(epoch: number, id: PartitionId): Promise<PartitionRange> {
    this.#assignment.place(epoch, id);
    try {
      const range = (await this.#rangesOf(epoch)).get(id);
      this.#assignment.place(epoch, id);
      if (range === undefined) throw new LogUnavailableError(`Kafka does not know ${id} just now`);
      return range;
    } catch (error) {
      this.#assignment.place(epoch, id);
      throw kafkaError(error, `the position of ${id} cannot be read`);
    }
  }

  async close(): Promise<void> {
    await this.#admin?.disconnect();
  }

  #rangesOf(epoch: number): Promise<Ranges> {
    if (this.#reading?.epoch !== epoch) {
      const ranges = this.#read(epoch).finally(() => {
        if (this.#reading?.ranges === ranges) this.#reading = null;
      });
      this.#reading = { epoch, ranges };
    }
    return this.#reading.ranges;
  }

  async #read(epoch: number): Promise<Ranges> {
    this.#admin ??= createKafka(this.#deps).admin();
    const admin = this.#admin;
    await admin.connect();
    const { partitions } = this.#assignment;
    const topics = [...new Set(partitions.map((id) => this.#assignment.place(epoch, id).topic))];
    // Before the ends, which only grow: a commit beyond an end would count as none.
    const committed = await committedOffsets(admin, this.#groupId, topics);
    const offsetsByTopic = await Promise.all(
      topics.map(async (topic) => ({ topic, offsets: await admin.fetchTopicOffsets(topic) })),
    );
    const ranges = new Map<PartitionId, PartitionRange>();
    for (const { topic, offsets } of offsetsByTopic) {
      for (const { partition, low, high } of offsets) {
        const id = partitionId(topic, partition);
        ranges.set(id, {
          committed: committed.get(id) ?? null,
          beginOffset: Number(low),
          endOffset: Number(high),
        });
      }
    }
    return ranges;
  }
}
