// Contract: the ordered, durable log between receipt and storage.
//
// Writing. `append` resolves when the entries are durable: that is what "received" means. Entries of one key
// land in one partition, in the order of the appends. An append that failed with LogUnavailableError may
// have been written; the caller repeats it, and readers see the copy again (same session and sequence).
//
// Reading. One consumer iterates `deliveries`. An `assigned` delivery opens an epoch: the caller forgets all
// older state, asks `position` for each partition and says with `seek` where reading starts; no batch of the
// epoch comes for a partition before that. Batches of one partition are contiguous (fromOffset = the
// nextOffset of the one before, or the offset sought). Not asking for the next delivery is the back pressure.
// The log never moves a committed position by itself; `commit` of an older epoch fails with StaleEpochError
// and changes nothing. What lies below a commit may be deleted, what lies at or above it is kept; a log that had to
// drop it all the same (retention) opens a new epoch. An offset below a commit is never given to another record.

/** What a record holds: Avro of schemas/trades.avsc, JSON of a feed event, JSON of a dead letter. */
export type RecordKind = "trades" | "event" | "dead";

export type LogEntry = Readonly<{ kind: RecordKind; key: string; value: Uint8Array }>;

export type LogRecord = Readonly<{
  kind: RecordKind;
  offset: number;
  /** When it was appended, ms since 1970. */
  timestampMs: number;
  value: Uint8Array;
}>;

/** `topic/number`, e.g. `market/0`. */
export type PartitionId = string;

/** `offset` = the next record to read; `metadata` = the reader's own words, up to 1,000 characters. */
export type Position = Readonly<{ offset: number; metadata: string }>;

export type Delivery =
  | Readonly<{ type: "assigned"; epoch: number; partitions: readonly PartitionId[] }>
  | Readonly<{
      type: "batch";
      epoch: number;
      partition: PartitionId;
      fromOffset: number;
      nextOffset: number;
      records: readonly LogRecord[];
    }>;

export type PartitionRange = Readonly<{
  committed: Position | null;
  /** The oldest record kept, and the offset the next record will get. */
  beginOffset: number;
  endOffset: number;
}>;

export interface LogWriter {
  append(entries: readonly LogEntry[]): Promise<void>;
}

export interface LogReader {
  /** Ends when the signal aborts. Iterated once. */
  deliveries(signal: AbortSignal): AsyncIterable<Delivery>;
  position(epoch: number, partition: PartitionId): Promise<PartitionRange>;
  seek(epoch: number, partition: PartitionId, offset: number): void;
  commit(epoch: number, partition: PartitionId, position: Position): Promise<void>;
}

/**
 * What became of one partition's entries. `refused` proves one message invalid; `too_large` this batch. `unavailable`
 * passes, unless its error is a RestartError.
 */
export type SendOutcome =
  | Readonly<{ kind: "acknowledged" }>
  | Readonly<{ kind: "unavailable" | "too_large" | "refused"; error: Error }>;

export type SendBatch = Readonly<{ partition: PartitionId; entries: readonly LogEntry[] }>;

/**
 * The far end of an outbox: sends, and never tries again by itself. Nothing is acknowledged that its own partition
 * did not acknowledge; what is not may have been written all the same. One send in flight a partition is the
 * caller's to keep.
 */
export interface PartitionSender {
  /** Of every entry of that kind and key, for as long as the sender lives. Throws before `ready` has resolved. */
  partitionOf(kind: RecordKind, key: string): PartitionId;
  /** Resolves when the topics are known; rejects with LogUnavailableError (try again) or SetupError. */
  ready(): Promise<void>;
  /** An outcome for each batch, in their order; at most one batch a partition. Never rejects. */
  send(batches: readonly SendBatch[]): Promise<readonly SendOutcome[]>;
}

/** A record that waits in an outbox. */
export type OutboxRecord = LogEntry &
  Readonly<{
    offset: number;
    /** When it was appended, ms since 1970. */
    timestampMs: number;
  }>;

export type OutboxHealth = Readonly<{
  recordCount: number;
  bytes: number;
  bytesMax: number;
  /** When the oldest record that waits was appended. */
  oldestAtMs: number | null;
  /** Put aside by `bury`. */
  deadCount: number;
}>;

/**
 * The near end of a forwarder: what was appended and is not yet acknowledged. Every call is synchronous. A record
 * stays, across any crash, until it is removed or buried; a power cut may bring it back after that.
 */
export interface Outbox {
  /** The offset that the next record will get. */
  readonly endOffset: number;
  /**
   * A page in the order of offsets, up to so many and to some 256 KB; [] = there is none from there on. Throws
   * PipelineError at a damaged file.
   */
  read(fromOffset: number, recordsMax: number): OutboxRecord[];
  /** Exactly these, in ascending order; the file may follow some ticks later. */
  remove(offsets: Float64Array): void;
  /** What is still to be removed, now; at the end of a run. */
  flush(): void;
  /** Puts one record aside, in one step. Throws LogFullError or LogUnavailableError when that cannot be: it stays. */
  deadLetter(record: OutboxRecord, reason: string): void;
  /** Called back after every append, in its tick; another one replaces it. */
  onAppend(callback: () => void): void;
  health(): OutboxHealth;
}
