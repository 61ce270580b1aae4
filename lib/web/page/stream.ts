// The connection to /events: one EventSource at a time, for one symbol. The browser reconnects by itself and sends the id
// of the event it saw last; where it gives up, which it does when it is refused, the page tries again.

import type { Delta, Snapshot } from "../live/protocol.ts";

export type StreamState = "connecting" | "connected" | "lost";

type StreamHandlers = Readonly<{
  onSnapshot(snapshot: Snapshot): void;
  onDelta(delta: Delta): void;
  onState(state: StreamState): void;
}>;

/** After a refusal, which is final for EventSource. */
const REOPEN_MS = 2_000;

export class Stream {
  readonly #handlers: StreamHandlers;
  #source: EventSource | null = null;
  #reopening: ReturnType<typeof setTimeout> | undefined;

  constructor(handlers: StreamHandlers) {
    this.#handlers = handlers;
  }

  open(symbol: string | null): void {
    this.#source?.close();
    clearTimeout(this.#reopening);
    const query = symbol === null ? "" : `?symbol=${encodeURIComponent(symbol)}`;
    const source = new EventSource(`events${query}`);
    this.#source = source;
    const { onSnapshot, onDelta, onState } = this.#handlers;
    source.addEventListener("snapshot", ({ data }) => {
      onState("connected");
      onSnapshot(JSON.parse(String(data)) as Snapshot);
    });
    source.addEventListener("delta", ({ data }) => {
      onState("connected");
      onDelta(JSON.parse(String(data)) as Delta);
    });
    source.addEventListener("error", () => {
      onState("lost");
      if (source.readyState !== EventSource.CLOSED) return;
      this.#reopening = setTimeout(() => this.open(symbol), REOPEN_MS);
    });
  }
}
