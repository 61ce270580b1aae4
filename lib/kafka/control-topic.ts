// The tickers' topic: which symbols are on the watchlist, and which producer has the lease of the feed. One process
// reads the whole topic from its beginning, without a place in any group, and goes on reading. What it has read is the
// truth; what it writes counts once it has been read back. It deletes nothing.

import { type Clock, TIMED_OUT, withTimeout } from "../base/clock.ts";
import { LogUnavailableError } from "../base/errors.ts";
import { outageLoop } from "../base/outages.ts";
import { retryWhile } from "../base/retry.ts";
import { LEASE_KEY, type LeaseTopic } from "../contracts/lease.ts";
import { RESERVED_SIGN, symbolFault, type Watchlist, type WatchlistEntry } from "../contracts/watchlist.ts";
import type { KafkaDeps } from "./client.ts";
import { type CompactedTopic, openCompactedTopic } from "./compacted-topic.ts";
import { ControlState, encodeWatchlistEntry } from "./control-state.ts";
import { type TailRecord, tailKafka } from "./tail.ts";
import { partitionId, topicNames } from "./topics.ts";

type ControlTopicOptions = KafkaDeps & Readonly<{ /** The topic of the trades. */ topic: string }>;

export interface ControlTopic extends AsyncDisposable {
  /** Follows until the signal aborts. Rejects with SetupError. Brokers that are away are waited for. */
  run(signal: AbortSignal): Promise<void>;
  /** While `run` runs: resolves when all that was there has been read, or the signal aborts. */
  ready(signal: AbortSignal): Promise<void>;
  readonly watchlist: Watchlist;
  readonly lease: LeaseTopic;
}

/** All records are in one order: however many partitions there are, only this one is written and believed. */
const PARTITION = 0;
/** The value is meaningless: reading it back proves that everything before it has been read. */
const LOOK_KEY = `${RESERVED_SIGN}look`;
/** Enough for a record to come back, including a rejoin of the group. */
const READ_BACK_MS_MAX = 10_000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 3_000;

export function openControlTopic(options: ControlTopicOptions): ControlTopic {
  const { clock, logger } = options;
  const topic = topicNames(options.topic).tickers;
  const follower = new ControlTopicFollower(options, topic);
  const outage = outageLoop({ clock, logger }, "the log", "watchlist");
  const readToEnd = () => follower.putAndRead(LOOK_KEY, uniqueValue(clock));
  return {
    run: (signal) =>
      tailKafka({
        ...options,
        topic,
        from: "begin",
        onRecords: (records) => follower.applyAll(records),
        signal,
      }),
    async ready(signal) {
      await retryWhile(
        () => !signal.aborted,
        {
          clock,
          firstMs: RETRY_FIRST_MS,
          maxMs: RETRY_MAX_MS,
          signal,
          isRetryable: (error) => error instanceof LogUnavailableError,
          outage,
        },
        readToEnd,
      );
    },
    watchlist: {
      list: () => follower.watchlist,
      async put(entry) {
        const fault = symbolFault(entry.symbol);
        if (fault !== null) throw new Error(`${JSON.stringify(entry.symbol)} is not a symbol: ${fault}`);
        await follower.putAndRead(entry.symbol, encodeWatchlistEntry(entry));
      },
      onChange: (listener) => subscribe(follower.onWatchlist, listener),
    },
    lease: {
      put: (record) => follower.put(LEASE_KEY, record),
      readToEnd,
      state: () => follower.state.lease,
      onRecord: (listener) => subscribe(follower.onLeaseRecord, listener),
    },
    [Symbol.asyncDispose]: () => follower.close(),
  };
}

/** The state, and who waits for what will be read. */
class ControlTopicFollower {
  readonly #options: ControlTopicOptions;
  readonly #topic: string;
  readonly #writer: CompactedTopic;
  readonly state: ControlState;
  readonly onWatchlist = new Set<() => void>();
  readonly onLeaseRecord = new Set<Parameters<LeaseTopic["onRecord"]>[0]>();
  /** By the name of a record (see nameOf): called when it has been read. */
  readonly #awaited = new Map<string, Set<() => void>>();
  #watchlist: readonly WatchlistEntry[] = [];
  #isUnreadableLogged = false;

  constructor(options: ControlTopicOptions, topic: string) {
    this.#options = options;
    this.#topic = topic;
    this.#writer = openCompactedTopic({ ...options, topic });
    this.state = new ControlState(() =>
      options.logger.warn(
        "the tickers' topic was recreated: this process keeps the earlier tickers in memory until it is restarted",
        {
          topic,
        },
      ),
    );
  }

  get watchlist(): readonly WatchlistEntry[] {
    return this.#watchlist;
  }

  applyAll(records: readonly TailRecord[]): void {
    let isChanged = false;
    for (const record of records) isChanged = this.#apply(record) || isChanged;
    if (!isChanged) return;
    this.#watchlist = this.state.watchlist();
    for (const listener of this.onWatchlist) listener();
  }

  /** Resolves when the record is acknowledged. */
  async put(key: string, value: Uint8Array): Promise<void> {
    const before = this.state.lastOffset;
    const offset = await this.#writer.put(key, value);
    // An offset below the last one read means that the topic was recreated; timestamps of a broker need not show it.
    if (offset <= before && this.state.lastOffset >= before) this.state.beginAgain();
  }

  /** Resolves when the record is acknowledged and has been read back. Rejects with LogUnavailableError. */
  async putAndRead(key: string, value: Uint8Array): Promise<void> {
    const name = nameOf(key, value);
    const { promise: read, resolve } = Promise.withResolvers<void>();
    const waiting = this.#awaited.get(name) ?? new Set();
    this.#awaited.set(name, waiting.add(resolve));
    try {
      await this.put(key, value);
      if ((await withTimeout(this.#options.clock, READ_BACK_MS_MAX, () => read)) !== TIMED_OUT) return;
      throw new LogUnavailableError(`${this.#topic} was written, but cannot be read just now`, "try again");
    } finally {
      waiting.delete(resolve);
      if (waiting.size === 0 && this.#awaited.get(name) === waiting) this.#awaited.delete(name);
    }
  }

  async close(): Promise<void> {
    await this.#writer[Symbol.asyncDispose]();
  }

  /** Whether the watchlist has changed. */
  #apply(record: TailRecord): boolean {
    if (record.partition !== partitionId(this.#topic, PARTITION)) return false;
    const applied = this.state.apply(record);
    if (applied.kind === "read_before") return false;
    if (applied.kind === "unreadable") this.#logUnreadable(record.offset);
    if (applied.kind === "lease") {
      for (const listener of this.onLeaseRecord) listener(applied.record, this.state.lease);
    }
    const { key, value } = record;
    if (key !== null && value !== null) {
      const name = nameOf(key, value);
      for (const resolve of this.#awaited.get(name) ?? []) resolve();
      this.#awaited.delete(name);
    }
    return applied.kind === "watchlist";
  }

  #logUnreadable(offset: number): void {
    if (this.#isUnreadableLogged) return;
    this.#isUnreadableLogged = true;
    this.#options.logger.warn("the tickers' topic holds an unreadable record", {
      topic: this.#topic,
      offset,
    });
  }
}

/** The returned function ends the subscription. */
function subscribe<T>(listeners: Set<T>, listener: T): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Identifies a record by its key and value. */
function nameOf(key: string, value: Uint8Array): string {
  return `${key}\n${Buffer.from(value).toString("base64")}`;
}

/** Unlike any other value, of this process or another. */
function uniqueValue(clock: Pick<Clock, "random">): Uint8Array {
  return new TextEncoder().encode(`"${clock.random()}${clock.random()}"`);
}
