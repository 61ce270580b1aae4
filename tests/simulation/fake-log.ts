// lib/contracts/log.ts in memory, as a broker would be: partitions, epochs, reassignment at any moment, commits with
// their metadata, retention from the front, a lost end. The records outlive every process.

import { LogFullError, LogUnavailableError, StaleEpochError } from "../../lib/base/errors.ts";
import type {
  Delivery,
  LogEntry,
  LogReader,
  LogRecord,
  LogWriter,
  PartitionId,
  PartitionRange,
  Position,
} from "../../lib/contracts/log.ts";
import { Faults, type Machine, request, type World } from "./world.ts";

type FakePartition = {
  id: PartitionId;
  /** The index is the offset minus beginOffset. */
  records: LogRecord[];
  beginOffset: number;
  committed: Position | null;
};

export type FakeLogOptions = Readonly<{
  partitionCount?: number;
  /** Records of one batch. */
  batchMax?: number;
}>;

export type LogOperation = "append" | "position" | "commit";

export class FakeLog {
  readonly faults: Faults<LogOperation>;
  readonly partitions = new Map<PartitionId, FakePartition>();
  /** Probability that a batch begins where nobody asked for it. */
  misplacedRate = 0;
  /** Whether trades are refused; there is still room for events. */
  isFull = false;
  /** Called before each commit that will be accepted. It may throw: that fails the test, not the process. */
  onCommit: (id: PartitionId, position: Position, before: Position | null) => void = () => {};
  onAppend: (id: PartitionId, record: LogRecord) => void = () => {};
  readonly #world: World;
  readonly #batchMax: number;
  #epoch = 0;
  readonly #owners = new Map<PartitionId, FakeReader>();
  readonly #readers = new Set<FakeReader>();

  constructor(world: World, { partitionCount = 1, batchMax = 5 }: FakeLogOptions = {}) {
    this.#world = world;
    this.#batchMax = batchMax;
    this.faults = new Faults(world);
    for (let index = 0; index < partitionCount; index++) {
      const id = `market/${index}`;
      this.partitions.set(id, { id, records: [], beginOffset: 0, committed: null });
    }
  }

  get ids(): readonly PartitionId[] {
    return [...this.partitions.keys()];
  }

  get epoch(): number {
    return this.#epoch;
  }

  partition(id: PartitionId): FakePartition {
    const partition = this.partitions.get(id);
    if (partition === undefined) throw new Error(`no partition ${id}`);
    return partition;
  }

  endOffset(id: PartitionId): number {
    const { beginOffset, records } = this.partition(id);
    return beginOffset + records.length;
  }

  partitionOf(key: string): PartitionId {
    let sum = 0;
    for (const character of key) sum = (sum * 31 + character.charCodeAt(0)) % 1_000_003;
    return this.ids[sum % this.partitions.size]!;
  }

  /** Appends at once and without faults. Answers the offset of each entry. */
  append(entries: readonly LogEntry[]): { id: PartitionId; offset: number }[] {
    const places = entries.map(({ kind, key, value }) => {
      const id = this.partitionOf(key);
      const offset = this.endOffset(id);
      const record = { kind, offset, timestampMs: this.#world.nowMs, value };
      this.partition(id).records.push(record);
      this.onAppend(id, record);
      return { id, offset };
    });
    for (const reader of this.#readers) reader.notice();
    return places;
  }

  writer(machine: Machine): LogWriter {
    return {
      append: (entries) =>
        request(machine, this.faults, "append", {
          work: () => {
            if (this.isFull && entries.some(({ kind }) => kind !== "event")) {
              throw new LogFullError("the fake log is full");
            }
            this.append(entries);
          },
          part: () => void this.append(entries.slice(0, this.#world.pick(entries.length))),
          lost: unavailable,
        }),
    };
  }

  /** Retention: everything below the offset is gone. */
  dropBelow(id: PartitionId, offset: number): void {
    const partition = this.partition(id);
    partition.records = partition.records.slice(offset - partition.beginOffset);
    partition.beginOffset = offset;
  }

  /** A power cut: everything from the offset on is lost. */
  loseFrom(id: PartitionId, offset: number): void {
    const partition = this.partition(id);
    partition.records = partition.records.slice(0, offset - partition.beginOffset);
  }

  /** Offsets below a commit are never used again, even when their records were lost, as in outbox/log.ts. */
  useUp(id: PartitionId, offset: number): void {
    if (this.endOffset(id) >= offset) return;
    const partition = this.partition(id);
    partition.records = [];
    partition.beginOffset = offset;
  }

  /** One consumer of the group. It gets nothing before `assign` names it. */
  reader(machine: Machine): FakeReader {
    const reader = new FakeReader(this, machine, this.#batchMax);
    this.#readers.add(reader);
    return reader;
  }

  /** Reassigns the partitions. A reader that is not named keeps working for an epoch that is over. */
  assign(shares: ReadonlyMap<FakeReader, readonly PartitionId[]>): void {
    this.#epoch += 1;
    this.#owners.clear();
    for (const [reader, ids] of shares) {
      this.#readers.add(reader);
      for (const id of ids) this.#owners.set(id, reader);
      reader.hearAssigned(this.#epoch, ids);
    }
  }

  /** The reader left, or the group gave it up: it hears of nothing until `assign` names it again. */
  forget(reader: FakeReader): void {
    this.#readers.delete(reader);
  }

  checkOwner(reader: FakeReader, epoch: number, id: PartitionId): void {
    if (epoch !== this.#epoch || this.#owners.get(id) !== reader) {
      throw new StaleEpochError(`epoch ${epoch} of the fake log has ended`);
    }
  }

  commit(id: PartitionId, position: Position): void {
    const partition = this.partition(id);
    if (position.metadata.length > 1_000) throw new Error("metadata may have up to 1,000 characters");
    this.onCommit(id, position, partition.committed);
    partition.committed = position;
  }
}

type Fetching = { epoch: number; offset: number; isBusy: boolean };

export class FakeReader implements LogReader {
  readonly #log: FakeLog;
  readonly #machine: Machine;
  readonly #batchMax: number;
  /** The epoch as this client knows it; the broker may be further. */
  #epoch = -1;
  readonly #fetches = new Map<PartitionId, Fetching>();
  #inbox: Delivery[] = [];
  #wake: (() => void) | null = null;

  constructor(log: FakeLog, machine: Machine, batchMax: number) {
    this.#log = log;
    this.#machine = machine;
    this.#batchMax = batchMax;
  }

  hearAssigned(epoch: number, partitions: readonly PartitionId[]): void {
    this.#machine.after(this.#latencyMs(), () => {
      if (epoch <= this.#epoch) return;
      this.#epoch = epoch;
      this.#fetches.clear();
      this.#receive({ type: "assigned", epoch, partitions });
    });
  }

  async *deliveries(signal: AbortSignal): AsyncGenerator<Delivery> {
    signal.addEventListener("abort", () => this.#wake?.());
    while (!signal.aborted) {
      const delivery = this.#inbox.shift();
      if (delivery === undefined) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        continue;
      }
      const fetching = delivery.type === "batch" ? this.#fetches.get(delivery.partition) : undefined;
      yield delivery;
      if (delivery.type === "batch" && fetching !== undefined) {
        fetching.isBusy = false;
        this.#fetch(delivery.partition);
      }
    }
    this.#log.forget(this);
  }

  position(epoch: number, id: PartitionId): Promise<PartitionRange> {
    return request(this.#machine, this.#log.faults, "position", {
      work: () => {
        this.#log.checkOwner(this, epoch, id);
        const { committed, beginOffset } = this.#log.partition(id);
        return { committed, beginOffset, endOffset: this.#log.endOffset(id) };
      },
      lost: unavailable,
    });
  }

  seek(epoch: number, id: PartitionId, offset: number): void {
    if (epoch !== this.#epoch) throw new StaleEpochError(`epoch ${epoch} of this reader has ended`);
    // What is on its way for the old place is dropped, because the new place is another object.
    this.#inbox = this.#inbox.filter((delivery) => delivery.type !== "batch" || delivery.partition !== id);
    this.#fetches.set(id, { epoch, offset, isBusy: false });
    this.#fetch(id);
  }

  commit(epoch: number, id: PartitionId, position: Position): Promise<void> {
    return request(this.#machine, this.#log.faults, "commit", {
      work: () => {
        this.#log.checkOwner(this, epoch, id);
        this.#log.commit(id, position);
      },
      lost: unavailable,
    });
  }

  /** New records. */
  notice(): void {
    for (const id of this.#fetches.keys()) this.#fetch(id);
  }

  #latencyMs(): number {
    return this.#machine.world.between(...this.#log.faults.latencyMs);
  }

  /** One batch per partition is on its way; the next one is asked for when it has been consumed. */
  #fetch(id: PartitionId): void {
    const fetching = this.#fetches.get(id);
    if (fetching === undefined || fetching.isBusy || this.#log.endOffset(id) <= fetching.offset) return;
    fetching.isBusy = true;
    const { world } = this.#machine;
    world.after(this.#latencyMs(), () => {
      const { records, beginOffset } = this.#log.partition(id);
      let fromOffset = fetching.offset;
      if (world.chance(this.#log.misplacedRate)) fromOffset += world.pick(7) - 3;
      // What the reader has not read is kept: a reader below the beginning waits for its next epoch.
      if (fetching.offset < beginOffset) return;
      // Never at the end: an empty batch would skip records that were never delivered.
      fromOffset = Math.max(Math.min(fromOffset, this.#log.endOffset(id) - 1), beginOffset);
      const count = 1 + world.pick(this.#batchMax);
      const taken = records.slice(fromOffset - beginOffset, fromOffset - beginOffset + count);
      const nextOffset = fromOffset + taken.length;
      fetching.offset = nextOffset;
      if (taken.length === 0) {
        fetching.isBusy = false;
        return;
      }
      const batch = {
        type: "batch",
        epoch: fetching.epoch,
        partition: id,
        fromOffset,
        nextOffset,
        records: taken,
      } as const;
      this.#machine.after(this.#latencyMs(), () => {
        const isSoughtElsewhere = fetching.epoch === this.#epoch && this.#fetches.get(id) !== fetching;
        if (!isSoughtElsewhere) this.#receive(batch);
      });
    });
  }

  #receive(delivery: Delivery): void {
    this.#inbox.push(delivery);
    this.#wake?.();
  }
}

function unavailable(): Error {
  return new LogUnavailableError("the fake log does not answer");
}
