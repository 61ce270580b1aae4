// The simulator's record of what it sent to whom and when, so that a test can tell which trades a client may have missed.
// It keeps and counts, and decides nothing. "Sent" means handed to the socket: what was in flight when a client died was
// sent, and `takenIndex` says how far the client is known to have read.

export type FrameKind = "trade" | "ping" | "error" | "news" | "pr" | "garbage" | "other";

/** Why trades were not sent. A closed list. */
export type UnsentReason =
  | "no client" // The market went on while nobody was connected.
  | "not subscribed"
  | "stalled" // The connection was made to hang.
  | "client too slow"; // Its buffer was full; the connection was reset.

export type SentFault = "duplicate" | "held back" | "injected";

type LedgerEntry = Readonly<{
  /** 0, 1, 2 ... in the order in which things were handed over; unsent ones count too. */
  index: number;
  /** The simulator's clock when it was handed to the socket, or was not. */
  atMs: number;
  kind: FrameKind;
  text: string;
  tradeCount: number;
  sent: boolean;
  /** Null when it was sent. */
  reason: UnsentReason | null;
  /** Null when there was no client. */
  connection: number | null;
  fault: SentFault | null;
}>;

export type LedgerConnection = Readonly<{
  /** 1, 2, 3 ... */
  connection: number;
  openedAtMs: number;
  /** Null while it is open. */
  closedAtMs: number | null;
  /** `client`: it closed or vanished; the others are the simulator's doing. */
  closeReason: "client" | "reset" | "kicked" | "client too slow" | "stopped" | null;
  /** Every frame of this connection up to this index was read by the client (known at speed "max" only); or -1. */
  takenIndex: number;
}>;

type LedgerCounts = Readonly<{
  framesSent: number;
  tradesSent: number;
  framesUnsent: number;
  tradesUnsent: number;
}>;

export interface Ledger {
  /** The newest ones, oldest first; empty when the ledger only counts. */
  entries(): readonly LedgerEntry[];
  /** Entries that the limit pushed out. */
  forgotten(): number;
  connections(): readonly LedgerConnection[];
  counts(): LedgerCounts;
}

/** The recorded tapes have up to 48,000 frames; at about half a kilobyte each this is some 50 MB. */
export const LEDGER_ENTRIES_MAX = 100_000;
/** A client that reconnects for ever must not fill the memory. */
const CONNECTIONS_MAX = 10_000;

type Writable<T> = { -readonly [Key in keyof T]: T[Key] };

export class LedgerBook implements Ledger {
  readonly #entriesMax: number;
  readonly #entries: LedgerEntry[] = [];
  readonly #connections = new Map<number, Writable<LedgerConnection>>();
  readonly #counts: Writable<LedgerCounts> = {
    framesSent: 0,
    tradesSent: 0,
    framesUnsent: 0,
    tradesUnsent: 0,
  };
  #forgotten = 0;
  #indexNext = 0;

  constructor(entriesMax: number) {
    this.#entriesMax = entriesMax;
  }

  add(entry: Omit<LedgerEntry, "index">): number {
    const index = this.#indexNext++;
    if (entry.sent) {
      this.#counts.framesSent += 1;
      this.#counts.tradesSent += entry.tradeCount;
    } else {
      this.#counts.framesUnsent += 1;
      this.#counts.tradesUnsent += entry.tradeCount;
    }
    if (this.#entriesMax === 0) return index;
    this.#entries.push({ index, ...entry });
    // In quarters, so that forgetting costs next to nothing an entry.
    if (this.#entries.length >= this.#entriesMax * 1.25) {
      this.#forgotten += this.#entries.splice(0, this.#entries.length - this.#entriesMax).length;
    }
    return index;
  }

  /** The index that the next entry will have. */
  nextIndex(): number {
    return this.#indexNext;
  }

  opened(connection: number, openedAtMs: number) {
    this.#connections.set(connection, {
      connection,
      openedAtMs,
      closedAtMs: null,
      closeReason: null,
      takenIndex: -1,
    });
    for (const [oldest, { closedAtMs }] of this.#connections) {
      if (this.#connections.size <= CONNECTIONS_MAX) break;
      if (closedAtMs !== null) this.#connections.delete(oldest);
    }
  }

  taken(connection: number, index: number) {
    const open = this.#connections.get(connection);
    if (open !== undefined) open.takenIndex = Math.max(open.takenIndex, index);
  }

  closed(connection: number, closedAtMs: number, reason: NonNullable<LedgerConnection["closeReason"]>) {
    const open = this.#connections.get(connection);
    if (open === undefined) return;
    open.closedAtMs = closedAtMs;
    open.closeReason = reason;
  }

  entries(): readonly LedgerEntry[] {
    return this.#entries;
  }

  forgotten(): number {
    return this.#forgotten;
  }

  connections(): readonly LedgerConnection[] {
    return [...this.#connections.values()];
  }

  counts(): LedgerCounts {
    return this.#counts;
  }
}
