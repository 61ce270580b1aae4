// The control topic of tests in virtual time: one partition that is slow, away, faulty and compacted, as each process
// reads it through lib's fold, with a watchlist beside it; and the lease journal of an outbox that holds no records.

import { LogUnavailableError } from "../../lib/base/errors.ts";
import { retryWhile } from "../../lib/base/retry.ts";
import type { LeaseTopic } from "../../lib/contracts/lease.ts";
import {
  applyLeaseRecord,
  type LeaseJournal,
  type LeaseRecord,
  type LeaseState,
  parseLeaseRecord,
} from "../../lib/contracts/lease.ts";
import type { Watchlist, WatchlistEntry } from "../../lib/contracts/watchlist.ts";
import type { ControlTopic } from "../../lib/kafka/control-topic.ts";
import type { Machine, World } from "./world.ts";

type Entry = { offset: number; atMs: number; value: Uint8Array | null };

/** The one partition, as its readers see it. Null values are looks, under a key of their own. */
export class VirtualTopic {
  entries: Entry[] = [];
  endOffset = 0;
  isAway = false;
  lastAwayMs = Number.NEGATIVE_INFINITY;
  readonly readers = new Set<() => void>();
  readonly watchlist = new Map<string, WatchlistEntry>();
  readonly watchlistListeners = new Set<() => void>();
  readonly world: World;
  faultRate: number;

  constructor(world: World, faultRate: number) {
    this.world = world;
    this.faultRate = faultRate;
  }

  append(value: Uint8Array | null): number {
    const offset = this.endOffset++;
    this.entries.push({ offset, atMs: this.world.nowMs, value });
    for (const reader of this.readers) reader();
    return offset;
  }

  /** Of each key only the last record below the offset stays. */
  compact(belowOffset: number): void {
    const keepers = new Set<number>();
    for (const isLook of [true, false]) {
      const old = this.entries.filter((one) => one.offset < belowOffset && (one.value === null) === isLook);
      const last = old.at(-1);
      if (last !== undefined) keepers.add(last.offset);
    }
    this.entries = this.entries.filter(({ offset }) => offset >= belowOffset || keepers.has(offset));
  }

  setAway(isAway: boolean): void {
    this.isAway = isAway;
    this.lastAwayMs = this.world.nowMs;
    if (!isAway) for (const reader of this.readers) reader();
  }

  /** As one process sees it. */
  connect(machine: Machine): LeaseTopic {
    const { world } = this;
    let position = 0;
    let state: LeaseState | null = null;
    let isReading = false;
    const listeners = new Set<(record: LeaseRecord, now: LeaseState | null) => void>();
    const waiting: { offset: number; resolve: () => void }[] = [];
    const read = () => {
      isReading = false;
      if (this.isAway) return;
      for (const { offset, value } of this.entries.filter((one) => one.offset >= position)) {
        position = offset + 1;
        const record = parseLeaseRecord(value);
        if (record === null) continue;
        state = applyLeaseRecord(state, offset, record);
        for (const listener of listeners) listener(record, state);
      }
      position = this.endOffset;
      for (const one of waiting) if (one.offset < position) one.resolve();
    };
    const notice = () => {
      if (isReading) return;
      isReading = true;
      machine.after(world.between(1, 300), read);
    };
    this.readers.add(notice);
    notice();
    const send = (value: Uint8Array | null) =>
      new Promise<number>((resolve, reject) => {
        const fail = () => reject(new LogUnavailableError("a test's topic is away"));
        const isFaulty = world.chance(this.faultRate);
        const isWritten = !isFaulty || world.chance(0.5);
        if (isFaulty) machine.after(world.between(10, 3_000), fail);
        world.after(isFaulty ? world.between(1, 6_000) : world.between(1, 200), () => {
          if (this.isAway) machine.after(1_000, fail);
          else if (isWritten) {
            const offset = this.append(value);
            machine.after(world.between(1, 200), () => resolve(offset));
          }
        });
      });
    return {
      put: async (value) => void (await send(value)),
      async readToEnd() {
        const offset = await send(null);
        if (position > offset) return;
        await new Promise<void>((resolve, reject) => {
          waiting.push({ offset, resolve });
          machine.after(8_000, () => reject(new LogUnavailableError("not read back")));
        });
      },
      state: () => state,
      onRecord(listener) {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    };
  }
}

/** All of the topic as one process has it. A change of the watchlist takes as long as a look, and fails as one does. */
export function connectControl(
  topic: VirtualTopic,
  machine: Machine,
  lease = topic.connect(machine),
): Pick<ControlTopic, "run" | "ready" | "lease" | "watchlist"> {
  const watchlist: Watchlist = {
    list: () => [...topic.watchlist.values()],
    async put(record) {
      await lease.readToEnd();
      topic.watchlist.set(record.symbol, record);
      for (const listener of topic.watchlistListeners) listener();
    },
    onChange(listener) {
      const hear = () => {
        if (machine.state !== "dead") listener();
      };
      topic.watchlistListeners.add(hear);
      return () => topic.watchlistListeners.delete(hear);
    },
  };
  return {
    run: untilAborted,
    async ready(signal) {
      const waits = { clock: machine.clock, firstMs: 100, maxMs: 3_000 };
      await retryWhile(() => !signal.aborted, waits, lease.readToEnd);
    },
    lease,
    watchlist,
  };
}

export async function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

/** The journal of an outbox without records. */
export function journalOf(holder: string): LeaseJournal {
  const own = new Set<string>();
  return {
    holder,
    ownerOf: (session) => (own.has(session) ? "here" : null),
    claim: (session) => void own.add(session),
    release() {},
    confirm() {},
    async quarantineUnconfirmed() {
      own.clear();
      return 0;
    },
  };
}
