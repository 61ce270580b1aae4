// What the tickers' topic says, as a fold over its records in their order: the watchlist by symbol, and the lease of
// the feed. A key that begins with # is the pipeline's own; every other key is a symbol. It connects to nothing.

import { parseObject } from "../base/json.ts";
import {
  applyLeaseRecord,
  LEASE_KEY,
  type LeaseRecord,
  type LeaseState,
  parseLeaseRecord,
} from "../contracts/lease.ts";
import { RESERVED_SIGN, symbolFault, type WatchlistEntry } from "../contracts/watchlist.ts";

type ControlRecord = Readonly<{
  offset: number;
  timestampMs: number;
  key: string | null;
  value: Uint8Array | null;
}>;

/**
 * What became of a record. `read_before`: it was read already, after a reconnection. `reserved`: a key of the pipeline's
 * own that says nothing here.
 */
type Applied =
  | Readonly<{ kind: "read_before" | "reserved" | "unreadable" | "watchlist" }>
  | Readonly<{ kind: "lease"; record: LeaseRecord }>;

/** Entries of the watchlist: more symbols than any plan of Finnhub's accepts. */
const ENTRIES_MAX = 100_000;

export class ControlState {
  readonly #onRecreated: () => void;
  readonly #entries = new Map<string, Readonly<{ entry: WatchlistEntry; offset: number }>>();
  #lease: LeaseState | null = null;
  #lastOffset = -1;
  #lastTimestampMs = Number.NEGATIVE_INFINITY;

  /** `onRecreated` is called whenever the topic turns out to have begun again. */
  constructor(onRecreated: () => void) {
    this.#onRecreated = onRecreated;
  }

  /** Of the record read last; -1 = none was read. */
  get lastOffset(): number {
    return this.#lastOffset;
  }

  get lease(): LeaseState | null {
    return this.#lease;
  }

  /** The oldest change first; changes of one moment in the order of their offsets. */
  watchlist(): WatchlistEntry[] {
    return [...this.#entries.values()]
      .sort((a, b) => a.entry.changedAtMs - b.entry.changedAtMs || a.offset - b.offset)
      .map(({ entry }) => entry);
  }

  apply({ offset, timestampMs, key, value }: ControlRecord): Applied {
    if (offset <= this.#lastOffset) {
      // Either the topic is read again from its beginning, or it was recreated under its name.
      if (timestampMs <= this.#lastTimestampMs) return { kind: "read_before" };
      this.beginAgain();
    }
    this.#lastOffset = offset;
    this.#lastTimestampMs = Math.max(this.#lastTimestampMs, timestampMs);
    return key === LEASE_KEY ? this.#applyLease(offset, value) : this.#applyEntry(offset, key, value);
  }

  /** The topic was recreated, or its broker lost the end of it. The watchlist is kept until a restart. */
  beginAgain(): void {
    this.#onRecreated();
    this.#lease = null;
    this.#lastOffset = -1;
    this.#lastTimestampMs = Number.NEGATIVE_INFINITY;
  }

  #applyLease(offset: number, value: Uint8Array | null): Applied {
    const record = parseLeaseRecord(value);
    if (record === null) return { kind: "unreadable" };
    this.#lease = applyLeaseRecord(this.#lease, offset, record);
    return { kind: "lease", record };
  }

  #applyEntry(offset: number, key: string | null, value: Uint8Array | null): Applied {
    if (key?.startsWith(RESERVED_SIGN)) return { kind: "reserved" };
    const entry = key === null ? null : parseWatchlistEntry(key, value);
    if (entry === null) return { kind: "unreadable" };
    if (this.#entries.size >= ENTRIES_MAX && !this.#entries.has(entry.symbol)) return { kind: "unreadable" };
    this.#entries.set(entry.symbol, { entry, offset });
    return { kind: "watchlist" };
  }
}

/** The value of an entry's record; its key is the symbol. */
export function encodeWatchlistEntry({ wanted, changedAtMs, by }: WatchlistEntry): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ wanted, changedAtMs, by }));
}

/** Null: not an entry. A record that an operator wrote by hand with `wanted` alone counts as an old one of theirs. */
function parseWatchlistEntry(symbol: string, value: Uint8Array | null): WatchlistEntry | null {
  const fields = parseObject(value);
  if (symbolFault(symbol) !== null || fields === null) return null;
  const { wanted, changedAtMs = 0, by } = fields;
  if (typeof wanted !== "boolean") return null;
  if (typeof changedAtMs !== "number" || !Number.isSafeInteger(changedAtMs) || changedAtMs < 0) return null;
  return { symbol, wanted, changedAtMs, by: by === "setting" ? "setting" : "operator" };
}
