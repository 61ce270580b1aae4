// One connection to /events for a set of symbols. It is opened anew whenever it breaks, is refused or falls silent, and
// then begins with the whole view; so nothing that was missed stays missing. It says to the server that it reads.

import { type Delta, READING_EVERY_MS, type Snapshot } from "../live/protocol.ts";

export type StreamState = "connecting" | "connected" | "lost";

export type StreamHandlers = Readonly<{
  onSnapshot(snapshot: Snapshot): void;
  onDelta(delta: Delta): void;
  onState(state: StreamState): void;
}>;

/** After an error or a refusal: the server starts again, or has no place. */
const REOPEN_MS = 1_000;
/** Eight heartbeats. A wire that was cut says nothing, and a browser waits minutes for it. */
const SILENT_MS_MAX = 8_000;
const WATCH_EVERY_MS = 1_000;

export class Source {
  readonly #handlers: StreamHandlers;
  #address: string | null = null;
  #source: EventSource | null = null;
  #reopening: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  #place: string | null = null;
  /** When an event came, or the connection was opened: by the monotonic clock, and by the one that runs in sleep. */
  #heardAtMs = 0;
  #heardAtWallMs = 0;
  #saidAtMs = 0;

  constructor(handlers: StreamHandlers) {
    this.#handlers = handlers;
    // The network is back: sooner than the silence would tell.
    globalThis.addEventListener?.("online", () => this.#reopen());
  }

  /** Also where it is open already: it begins with the whole view. */
  open(symbols: readonly string[]): void {
    const [symbol, ...also] = symbols;
    const query = new URLSearchParams();
    if (symbol !== undefined) query.set("symbol", symbol);
    if (also.length > 0) query.set("also", JSON.stringify(also));
    this.#address = `events?${query}`;
    this.#reopen();
    this.#watch ??= setInterval(() => this.#look(), WATCH_EVERY_MS);
  }

  close(): void {
    this.#address = null;
    this.#end();
    clearInterval(this.#watch);
    this.#watch = undefined;
  }

  #end(): void {
    this.#source?.close();
    this.#source = null;
    this.#place = null;
    clearTimeout(this.#reopening);
  }

  #reopen(): void {
    if (this.#address === null) return;
    this.#end();
    this.#heard();
    const source = new EventSource(this.#address);
    this.#source = source;
    const { onSnapshot, onDelta, onState } = this.#handlers;
    this.#listen<Snapshot>(source, "snapshot", (snapshot) => {
      this.#place = snapshot.place ?? null;
      onState("connected");
      onSnapshot(snapshot);
    });
    this.#listen<Delta>(source, "delta", (delta) => {
      onState("connected");
      onDelta(delta);
    });
    source.addEventListener("error", () => {
      if (source === this.#source) this.#lose();
    });
  }

  #listen<Data>(source: EventSource, name: string, take: (data: Data) => void): void {
    source.addEventListener(name, ({ data }) => {
      if (source !== this.#source) return;
      this.#heard();
      try {
        take(JSON.parse(String(data)) as Data);
      } catch {
        this.#lose(); // Half an event is no view: the next connection brings a whole one.
      }
    });
  }

  #lose(): void {
    this.#end();
    this.#handlers.onState("lost");
    this.#reopening = setTimeout(() => this.#reopen(), REOPEN_MS);
  }

  #heard(): void {
    this.#heardAtMs = performance.now();
    this.#heardAtWallMs = Date.now();
  }

  #look(): void {
    const nowMs = performance.now();
    // In sleep the monotonic clock of some systems stands.
    const silentMs = Math.max(nowMs - this.#heardAtMs, Date.now() - this.#heardAtWallMs);
    if (silentMs > SILENT_MS_MAX) {
      this.#handlers.onState("lost");
      this.#reopen();
    } else if (this.#place !== null && nowMs - this.#saidAtMs >= READING_EVERY_MS) {
      this.#saidAtMs = nowMs;
      // Whether it arrives does not matter: it is said again.
      fetch(`events/${this.#place}`, { method: "POST", signal: AbortSignal.timeout(READING_EVERY_MS) }).catch(
        () => {},
      );
    }
  }
}
