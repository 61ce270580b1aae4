// The clients of GET /events. Each gets the whole view, then what changed, at most every TICK_MS. One timer serves all
// clients, and none runs without a client. Nothing is queued for anybody: an event is made when the client's socket
// takes one, from the newest state, so a slow client gets fewer and larger events, and one whose socket takes none for
// CLIENT_SLOW_MS_MAX is dropped. It reads, and writes no row.
//
// A socket takes events though nobody reads them: the two kernels between us and the client hold megabytes, which are
// hours of a quiet stream. So a client that reads says so (`confirm`), as the page does. One that has not said so for
// CLIENT_SLOW_MS_MAX, like curl, is served on, but its place is free: a newcomer gets it when there is no other.

import { LiveEvents, type LiveEventsDeps } from "./events.ts";
import { STATUS_EVERY_MS } from "./protocol.ts";

type LiveStreamDeps = LiveEventsDeps &
  Readonly<{
    /** Brings what an earlier run stored into the view; called with each status. It never rejects. */
    refresh: (symbols: readonly string[]) => Promise<void>;
    /** Ends all streams: the server is about to stop. */
    signal?: AbortSignal | undefined;
  }>;

/** Ten a second look continuous to the eye, and a page draws them without effort. */
export const TICK_MS = 100;
/** 100 pages of 50 busy symbols are 2 MB/s; each costs 20 us a tick. */
export const CLIENTS_MAX = 100;
/** Longer than a phone is without a network between two cells; after that it starts again. */
export const CLIENT_SLOW_MS_MAX = 15_000;
/** The browser's own pause before it connects again. */
const RETRY_MS = 1_000;

type Client = {
  readonly place: string;
  readonly symbols: readonly string[];
  readonly controller: ReadableStreamDefaultController<Uint8Array>;
  /** The version it holds; null = none, it needs the whole view. */
  version: number | null;
  statusNumber: number;
  /** Set while the socket takes another event. */
  taken: (() => void) | null;
  waitingSinceMs: number;
  /** When it came, or last said that it reads. */
  readAtMs: number;
};

export class LiveStreams {
  readonly #deps: LiveStreamDeps;
  readonly #events: LiveEvents;
  /** By place. */
  readonly #clients = new Map<string, Client>();
  #placeCount = 0;
  readonly #encoder = new TextEncoder();
  #cancelTick: (() => void) | null = null;
  #statusAtMs = Number.NEGATIVE_INFINITY;

  constructor(deps: LiveStreamDeps) {
    this.#deps = deps;
    this.#events = new LiveEvents(deps);
    deps.signal?.addEventListener("abort", () => {
      for (const client of [...this.#clients.values()]) this.#drop(client, "stopping");
    });
  }

  /** Null: there are CLIENTS_MAX already, and all of them read. */
  open(
    asked: Readonly<{ symbols: readonly string[]; lastEventId: string | null }>,
  ): ReadableStream<Uint8Array> | null {
    if (this.#clients.size >= CLIENTS_MAX && !this.#freePlace()) return null;
    let client: Client | undefined;
    return new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          client = this.#add(controller, asked.symbols, asked.lastEventId);
        },
        /** Called when the socket takes more; resolves when it has got it. */
        pull: () => {
          const own = client;
          if (own === undefined || !this.#clients.has(own.place)) return undefined;
          return new Promise<void>((resolve) => {
            own.taken = resolve;
          });
        },
        cancel: () => {
          if (client !== undefined) this.#drop(client, "gone");
        },
      },
      { highWaterMark: 0 },
    );
  }

  /** The client of that place reads. False: nobody has the place. */
  confirm(place: string): boolean {
    const client = this.#clients.get(place);
    if (client !== undefined) client.readAtMs = this.#deps.clock.monotonic();
    return client !== undefined;
  }

  // ---- Clients ----------------------------------------------------------------------------------------------

  #add(controller: Client["controller"], symbols: readonly string[], lastEventId: string | null): Client {
    const { clock, signal } = this.#deps;
    const atMs = clock.monotonic();
    this.#placeCount += 1;
    const client: Client = {
      // Not to be guessed: whoever confirms for somebody else would hold his place.
      place: `${this.#placeCount}-${Math.floor(clock.random() * 2 ** 48).toString(36)}`,
      symbols,
      controller,
      version: this.#events.versionIn(lastEventId),
      statusNumber: -1,
      taken: null,
      waitingSinceMs: atMs,
      readAtMs: atMs,
    };
    this.#clients.set(client.place, client);
    controller.enqueue(this.#encoder.encode(`retry: ${RETRY_MS}\n\n`));
    if (signal?.aborted) this.#drop(client, "stopping");
    else this.#schedule();
    return client;
  }

  #drop(client: Client, why: "gone" | "too slow" | "stopping"): void {
    if (!this.#clients.delete(client.place)) return;
    if (this.#clients.size === 0) {
      this.#cancelTick?.();
      this.#cancelTick = null;
    }
    client.taken?.();
    if (why === "stopping") client.controller.close();
    if (why === "too slow") client.controller.error(new Error("the client took no event for too long"));
  }

  /** Drops the client that has not said for the longest time that it reads; false = all said it lately. */
  #freePlace(): boolean {
    const sinceMs = this.#deps.clock.monotonic() - CLIENT_SLOW_MS_MAX;
    let silent: Client | null = null;
    for (const client of this.#clients.values()) {
      if (client.readAtMs <= sinceMs && client.readAtMs < (silent?.readAtMs ?? Number.POSITIVE_INFINITY))
        silent = client;
    }
    if (silent === null) return false;
    this.#drop(silent, "too slow");
    return true;
  }

  // ---- Ticks ------------------------------------------------------------------------------------------------

  #schedule(): void {
    this.#cancelTick ??= this.#deps.clock.after(TICK_MS, () => {
      this.#cancelTick = null;
      this.#tick();
      if (this.#clients.size > 0) this.#schedule();
    });
  }

  #tick(): void {
    const atMs = this.#deps.clock.monotonic();
    if (atMs - this.#statusAtMs >= STATUS_EVERY_MS) this.#refreshStatus(atMs);
    const made = new Map<string, Uint8Array | null>();
    for (const client of this.#clients.values()) {
      if (client.taken !== null) this.#serve(client, made, atMs);
      else if (atMs - client.waitingSinceMs > CLIENT_SLOW_MS_MAX) this.#drop(client, "too slow");
    }
  }

  #refreshStatus(atMs: number): void {
    this.#statusAtMs = atMs;
    const isListNew = this.#events.refresh();
    if (isListNew) for (const client of this.#clients.values()) client.version = null;
    void this.#deps.refresh(this.#events.symbols);
  }

  /** Clients that hold the same version get the same bytes, except for a whole view: `made` holds those of this tick. */
  #serve(client: Client, made: Map<string, Uint8Array | null>, atMs: number): void {
    const { symbols, version, statusNumber, place } = client;
    const events = this.#events;
    const key = `${version ?? place} ${statusNumber === events.statusNumber} ${symbols.join("\n")}`;
    let bytes = made.get(key);
    if (bytes === undefined) {
      const text =
        version === null ? events.snapshot(symbols, place) : events.delta(symbols, version, statusNumber);
      bytes = text === null ? null : this.#encoder.encode(text);
      made.set(key, bytes);
    }
    if (bytes === null) return;
    client.version = this.#deps.live.version();
    client.statusNumber = events.statusNumber;
    client.waitingSinceMs = atMs;
    const { taken } = client;
    client.taken = null;
    client.controller.enqueue(bytes);
    taken?.();
  }
}
