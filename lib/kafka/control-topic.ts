// The tickers' topic: which tickers are wanted, and who holds the feed. One process reads all of it from its
// beginning, without a place in any group, and goes on reading; what it has read is the truth, and what it writes is
// true when it has read it back. A key that begins with # is ours, every other one is a symbol. It deletes nothing.

import { backoffMs, type Clock } from "../base/clock.ts";
import { LogUnavailableError } from "../base/errors.ts";
import { parseObject } from "../base/json.ts";
import type { LeaseTopic } from "../contracts/lease.ts";
import { applyLeaseRecord, LEASE_KEY, type LeaseState, parseLeaseRecord } from "../contracts/lease.ts";
import { RESERVED_SIGN, symbolFault, type Watchlist, type WatchlistEntry } from "../contracts/watchlist.ts";
import type { KafkaDeps } from "./client.ts";
import { openKeyedTopic, type TailRecord, tailKafka } from "./tail.ts";
import { partitionId, topicNames } from "./topics.ts";

export type ControlTopicOptions = KafkaDeps & Readonly<{ /** Of the trades. */ topic: string }>;

export interface ControlTopic extends AsyncDisposable {
  /** Follows until the signal aborts. Rejects with SetupError. Brokers that are away are waited for. */
  run(signal: AbortSignal): Promise<void>;
  /** While `run` runs: resolves when all that was there has been read, or the signal aborts. */
  ready(signal: AbortSignal): Promise<void>;
  readonly watchlist: Watchlist;
  readonly lease: LeaseTopic;
}

/** Everything of this topic is in one order: whatever its partitions, only this one is written and believed. */
const PARTITION = 0;
/** What is written here says nothing; that it was read back says that all before it was. */
const LOOK_KEY = `${RESERVED_SIGN}look`;
/** For a record to come back, a rejoining of the group included. */
const READ_BACK_MS_MAX = 10_000;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 3_000;
/** Of the wanted set: more symbols than any plan of Finnhub's takes. */
const RECORDS_MAX = 100_000;

type Kept = Readonly<{ record: WatchlistEntry; offset: number }>;

export function openControlTopic(options: ControlTopicOptions): ControlTopic {
  const { clock, logger } = options;
  const topic = topicNames(options.topic).tickers;
  const only = partitionId(topic, PARTITION);
  const writer = openKeyedTopic({ ...options, topic });
  const kept = new Map<string, Kept>();
  const changeListeners = new Set<() => void>();
  const recordListeners = new Set<Parameters<LeaseTopic["onRecord"]>[0]>();
  /** What was written here and is not read back yet, by key and value. */
  const awaited = new Map<string, Set<() => void>>();
  let list: readonly WatchlistEntry[] = [];
  let state: LeaseState | null = null;
  let lastOffset = -1;
  let lastTimestampMs = Number.NEGATIVE_INFINITY;
  let isUnreadableSaid = false;

  function take({ partition, offset, timestampMs, key, value }: TailRecord): boolean {
    if (partition !== only) return false;
    if (offset <= lastOffset) {
      // A topic that was read again from its beginning, or one that was made anew under its name.
      if (timestampMs <= lastTimestampMs) return false;
      beginAnew();
    }
    lastOffset = offset;
    lastTimestampMs = Math.max(lastTimestampMs, timestampMs);
    const isChange = key === LEASE_KEY ? takeHoldRecord(offset, value) : takeWanted(offset, key, value);
    if (key !== null && value !== null) {
      const name = nameOf(key, value);
      for (const resolve of awaited.get(name) ?? []) resolve();
      awaited.delete(name);
    }
    return isChange;
  }

  /** It was made anew, or its broker lost its end. */
  function beginAnew(): void {
    logger.warn("the tickers' topic begins anew: the records of before are kept until a restart", { topic });
    state = null;
    lastOffset = -1;
    lastTimestampMs = Number.NEGATIVE_INFINITY;
  }

  /** Where it lands below what has been read, that is no more; a broker's clock need not show it. */
  async function write(key: string, value: Uint8Array): Promise<void> {
    const before = lastOffset;
    const offset = await writer.put(key, value);
    if (offset <= before && lastOffset >= before) beginAnew();
  }

  function takeHoldRecord(offset: number, value: Uint8Array | null): false {
    const record = parseLeaseRecord(value);
    if (record === null) return unreadable(offset);
    state = applyLeaseRecord(state, offset, record);
    for (const listener of recordListeners) listener(record, state);
    return false;
  }

  function takeWanted(offset: number, key: string | null, value: Uint8Array | null): boolean {
    if (key?.startsWith(RESERVED_SIGN)) return false;
    const record = key === null ? null : parseWanted(key, value);
    if (record === null) return unreadable(offset);
    if (kept.size >= RECORDS_MAX && !kept.has(record.symbol)) return unreadable(offset);
    kept.set(record.symbol, { record, offset });
    return true;
  }

  function unreadable(offset: number): false {
    if (!isUnreadableSaid)
      logger.warn("the tickers' topic holds a record that is none of ours", { topic, offset });
    isUnreadableSaid = true;
    return false;
  }

  function onRecords(records: readonly TailRecord[]): void {
    let isChanged = false;
    for (const record of records) isChanged = take(record) || isChanged;
    if (!isChanged) return;
    list = [...kept.values()]
      .sort((a, b) => a.record.changedAtMs - b.record.changedAtMs || a.offset - b.offset)
      .map(({ record }) => record);
    for (const listener of changeListeners) listener();
  }

  /** Resolves when it is acknowledged and has been read here. */
  async function putAndRead(key: string, value: Uint8Array): Promise<void> {
    const name = nameOf(key, value);
    const { promise: read, resolve } = Promise.withResolvers<void>();
    const waiting = awaited.get(name) ?? new Set();
    awaited.set(name, waiting.add(resolve));
    const patience = new AbortController();
    try {
      await write(key, value);
      const isLate = await Promise.race([
        read.then(() => false),
        clock.sleep(READ_BACK_MS_MAX, patience.signal).then(() => true),
      ]);
      if (!isLate) return;
      throw new LogUnavailableError(`${topic} was written, but cannot be read just now`, "try again");
    } finally {
      patience.abort();
      waiting.delete(resolve);
      if (waiting.size === 0 && awaited.get(name) === waiting) awaited.delete(name);
    }
  }

  const readToEnd = () => putAndRead(LOOK_KEY, lookValue(clock));
  return {
    run: (signal) => tailKafka({ ...options, topic, from: "begin", onRecords, signal }),
    async ready(signal) {
      for (let attempt = 0; !signal.aborted; attempt++) {
        try {
          return await readToEnd();
        } catch (error) {
          if (!(error instanceof LogUnavailableError)) throw error;
          if (attempt === 0) logger.warn("the tickers are not known yet: Kafka cannot be read", { error });
          await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), signal);
        }
      }
    },
    watchlist: {
      list: () => list,
      async put(record) {
        const fault = symbolFault(record.symbol);
        if (fault !== null) throw new Error(`${JSON.stringify(record.symbol)} is no symbol: ${fault}`);
        await putAndRead(record.symbol, encodeWatchlistEntry(record));
      },
      onChange(listener) {
        changeListeners.add(listener);
        return () => changeListeners.delete(listener);
      },
    },
    lease: {
      put: (record) => write(LEASE_KEY, record),
      readToEnd,
      state: () => state,
      onRecord(listener) {
        recordListeners.add(listener);
        return () => recordListeners.delete(listener);
      },
    },
    [Symbol.asyncDispose]: () => writer[Symbol.asyncDispose](),
  };
}

function nameOf(key: string, value: Uint8Array): string {
  return `${key}\n${Buffer.from(value).toString("base64")}`;
}

/** Like no other one, here or elsewhere. */
function lookValue(clock: Clock): Uint8Array {
  return new TextEncoder().encode(`"${clock.random()}${clock.random()}"`);
}

function encodeWatchlistEntry({ wanted, changedAtMs, by }: WatchlistEntry): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ wanted, changedAtMs, by }));
}

/** Null: none of ours. Who writes only `wanted` by hand is taken for an operator of long ago. */
function parseWanted(symbol: string, value: Uint8Array | null): WatchlistEntry | null {
  const fields = parseObject(value);
  if (symbolFault(symbol) !== null || fields === null) return null;
  const { wanted, changedAtMs = 0, by } = fields;
  if (typeof wanted !== "boolean") return null;
  if (typeof changedAtMs !== "number" || !Number.isSafeInteger(changedAtMs) || changedAtMs < 0) return null;
  return { symbol, wanted, changedAtMs, by: by === "setting" ? "setting" : "operator" };
}
