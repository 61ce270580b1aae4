// Which records of the outbox are in memory: a page at its head, and a page for one partition queue that fell behind, in
// turn. A healthy queue that is full holds the head; one that fails is passed, and reads on from its own offset later.
// It sends and deletes nothing.

import type { Outbox, OutboxRecord, PartitionId, PartitionSender, RecordKind } from "../contracts/log.ts";
import { PartitionQueue } from "./partition-queue.ts";

export type OutboxReaderDeps = Readonly<{
  outbox: Outbox;
  sender: Pick<PartitionSender, "partitionOf">;
  /** The bytes of one partition in one send, and the records of one read. */
  batchBytesMax: number;
  pageRecordsMax: number;
}>;

/** Keys whose partition is remembered; beyond it they are asked for again. */
const KEYS_MAX = 10_000;

export class OutboxReader {
  readonly queues = new Map<PartitionId, PartitionQueue>();
  readonly #deps: OutboxReaderDeps;
  readonly #queueByKey: Record<RecordKind, Map<string, PartitionQueue>> = {
    trades: new Map(),
    event: new Map(),
    dead: new Map(),
  };
  /** Every offset below was looked at for the queues that were at it. A partition without a queue has none below. */
  #head = 0;
  /** The index of the queue for which a page behind the head was read last. */
  #lastCaughtUp = 0;

  constructor(deps: OutboxReaderDeps) {
    this.#deps = deps;
  }

  /**
   * Reads at most one page at the head and one behind it. True: there is more to read. While the shared send is out,
   * fewer than half a page of new records are not worth a read.
   */
  read(isSharedSendOut: boolean): boolean {
    const { outbox, pageRecordsMax } = this.#deps;
    const readAheadRecordsMin = pageRecordsMax / 2;
    const newCount = outbox.endOffset - this.#head;
    if (newCount > 0 && !(isSharedSendOut && newCount < readAheadRecordsMin) && !this.#isHeadHeld()) {
      this.#head = this.#readPage(this.#head);
    }
    const behind = this.#nextBehind();
    if (behind !== undefined) this.#readPage(behind.from);
    const isNewLeft = outbox.endOffset > this.#head && !isSharedSendOut && !this.#isHeadHeld();
    const isBacklog = outbox.endOffset - this.#head >= readAheadRecordsMin && !this.#isHeadHeld();
    return isNewLeft || isBacklog || behind !== undefined;
  }

  /** Everything was read, and nothing waits but for partitions that fail. */
  isIdle(): boolean {
    if (this.#deps.outbox.endOffset > this.#head) return false;
    for (const queue of this.queues.values()) {
      if (queue.failure === null && (!queue.isEmpty || queue.from < this.#head)) return false;
    }
    return true;
  }

  /** A page from `start` on, for every queue that has looked at everything before it and has room. */
  #readPage(start: number): number {
    const { outbox, pageRecordsMax } = this.#deps;
    for (const queue of this.queues.values()) queue.beginPage(start);
    const records = outbox.read(start, pageRecordsMax);
    for (const record of records) this.#queueFor(record).offer(record);
    const next = records.length === 0 ? outbox.endOffset : records.at(-1)!.offset + 1;
    for (const queue of this.queues.values()) queue.endPage(next);
    return next;
  }

  #queueFor({ kind, key }: OutboxRecord): PartitionQueue {
    const byKey = this.#queueByKey[kind];
    const known = byKey.get(key);
    if (known !== undefined) return known;
    const partition = this.#deps.sender.partitionOf(kind, key);
    let queue = this.queues.get(partition);
    if (queue === undefined) {
      queue = new PartitionQueue(partition, this.#head, this.#deps.batchBytesMax);
      this.queues.set(partition, queue);
    }
    if (byKey.size >= KEYS_MAX) byKey.clear();
    byKey.set(key, queue);
    return queue;
  }

  /** A healthy partition holds the others back for a round trip; one that is not is passed, and catches up later. */
  #isHeadHeld(): boolean {
    for (const queue of this.queues.values()) {
      if (queue.from >= this.#head && queue.isFull && queue.isHealthy) return true;
    }
    return false;
  }

  /** In turn, so that one with hours to catch up leaves room for one with seconds. */
  #nextBehind(): PartitionQueue | undefined {
    const all = [...this.queues.values()];
    for (let step = 1; step <= all.length; step++) {
      const index = (this.#lastCaughtUp + step) % all.length;
      const queue = all[index]!;
      if (queue.from >= this.#head || queue.isHalfFull) continue;
      this.#lastCaughtUp = index;
      return queue;
    }
    return undefined;
  }
}
