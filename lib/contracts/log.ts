// Contract: the ordered, durable log between receipt and storage.
//
// Writing. `append` resolves when the entries are durable: that is what "received" means. Entries of one key
// land in one partition, in the order of the appends. An append that failed with LogUnavailableError may
// have been written; the caller repeats it, and readers see the copy again (same session and sequence).
//
// Reading. One consumer iterates `deliveries`. An `assigned` delivery opens an epoch: the caller forgets all
// older state, asks `position` for each partition and says with `seek` where reading starts; no batch of the
// epoch comes for a partition before that. Batches of one partition are contiguous: fromOffset is the nextOffset of
// the batch before, or the offset sought. A caller that does not ask for the next delivery holds the log back.
// The log never moves a committed position by itself; `commit` of an older epoch fails with StaleEpochError
// and changes nothing. Records below a commit may be deleted; records at or above it are kept. A log that had to
// drop some all the same (retention) opens a new epoch. An offset below a commit is never given to another record.

/** What a record's value is: Avro of schemas/trades.avsc, JSON of a feed event, or JSON of a dead letter. */
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

/** `offset` is the next record to read; `metadata` is the reader's own text of up to 1,000 characters. */
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
  /** The oldest record kept. */
  beginOffset: number;
  /** The offset that the next record will get. */
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
 * The result of one partition's batch. `refused`: some message of the batch is invalid. `too_large`: the batch as a whole
 * is. `unavailable`: temporary, unless its error is a RestartError.
 */
export type SendOutcome = Readonly<{ kind: "acknowledged" }> | Readonly<{ kind: SendFailure; error: Error }>;

export const SEND_FAILURES = ["unavailable", "too_large", "refused"] as const;
type SendFailure = (typeof SEND_FAILURES)[number];

export type SendBatch = Readonly<{ partition: PartitionId; entries: readonly LogEntry[] }>;

/**
 * The far end of the outbox relay. It sends, and never tries again by itself. A batch counts as acknowledged only if
 * its own partition acknowledged it; a batch that is not acknowledged may have been written all the same. The caller
 * sees to it that each partition has one send in flight at most.
 */
export interface PartitionSender {
  /** The same for every entry of that kind and key, as long as the sender lives. Throws before `ready` has resolved. */
  partitionOf(kind: RecordKind, key: string): PartitionId;
  /** Resolves when the topics are known; rejects with LogUnavailableError (try again) or SetupError. */
  ready(): Promise<void>;
  /** Resolves with an outcome for each batch, in their order; at most one batch a partition. Never rejects. */
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
  /** Records that wait. */
  recordCount: number;
  /** What counts against bytesMax, dead letters included. */
  bytes: number;
  bytesMax: number;
  /** When the oldest record that waits was appended, ms since 1970. */
  oldestAtMs: number | null;
  /** Records moved by `deadLetter`, or quarantined. */
  deadCount: number;
}>;

/**
 * The near end of the outbox relay: what was appended and is not yet acknowledged. Every call is synchronous. A record
 * stays, across any crash, until it is removed or becomes a dead letter; after that, a power cut may bring it back.
 */
export interface Outbox {
  /** The offset that the next record will get, or that of the first unconfirmed record, which is not shown. */
  readonly endOffset: number;
  /**
   * A page of records from that offset on, in order: up to `recordsMax` of them and some 256 KB. An empty page means
   * that there are none. Throws PipelineError when the file is damaged.
   */
  read(fromOffset: number, recordsMax: number): OutboxRecord[];
  /** Removes exactly these records, in any order of offsets. The file may follow some ticks later. */
  remove(offsets: readonly number[]): void;
  /** Brings the file up to date with every removal, at once; for the end of a run. */
  flush(): void;
  /**
   * Moves one record to the dead letters, in one step. Throws LogFullError or LogUnavailableError when it cannot, and
   * then the record stays.
   */
  deadLetter(record: OutboxRecord, reason: string): void;
  /** Calls back after every append, in its tick. A second callback replaces the first. */
  onAppend(callback: () => void): void;
  health(): OutboxHealth;
}
