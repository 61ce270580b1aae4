// This tab's place at the hub: while it is visible it is there for one symbol, and while it is hidden it is not, so a hidden
// tab costs nothing. The hub is the browser's own SharedWorker; where there is none, or where it does not answer, this
// tab has one of its own.

import { byData } from "./dom.ts";
import { type FromHub, HERE_EVERY_MS, Hub, type ToHub } from "./hub.ts";
import type { StreamHandlers } from "./source.ts";

/** A worker that leaves so many in a row without an answer is gone; a tab that was frozen has asked once. */
const UNANSWERED_MAX = 3;

export class Stream {
  readonly #handlers: StreamHandlers;
  /** Undefined before the first `open`. */
  #symbol: string | null | undefined;
  #unanswered = 0;
  /** Rises with each hub, so that a slow one that was given up is not heard any more. */
  #hubNumber = 0;
  #tell: (message: ToHub) => void;

  constructor(handlers: StreamHandlers) {
    this.#handlers = handlers;
    this.#tell = this.#connect();
    setInterval(() => this.#sayHere(), HERE_EVERY_MS);
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#leave() : this.#sayHere()));
    addEventListener("pageshow", () => this.#sayHere());
    addEventListener("pagehide", () => this.#leave());
    // It was frozen, for however long.
    document.addEventListener("resume", () => this.reopen());
  }

  /** What comes from now on is of this symbol; the whole view comes first. */
  open(symbol: string | null): void {
    this.#symbol = symbol;
    this.#sayHere();
  }

  /** The whole view again. */
  reopen(): void {
    this.#leave();
    this.#sayHere();
  }

  #sayHere(): void {
    if (this.#symbol === undefined || document.hidden) return;
    if (this.#unanswered >= UNANSWERED_MAX) this.#tell = this.#hubOfOurOwn();
    this.#unanswered += 1;
    this.#tell({ kind: "here", symbol: this.#symbol });
  }

  #leave(): void {
    this.#tell({ kind: "bye" });
    this.#unanswered = 0;
  }

  #connect(): (message: ToHub) => void {
    if (typeof SharedWorker === "undefined") return this.#hubOfOurOwn();
    try {
      // The address holds the script's version: an old page's worker is not ours.
      const worker = new SharedWorker(byData("worker"));
      const number = ++this.#hubNumber;
      worker.addEventListener("error", (event) => {
        event.preventDefault();
        if (number !== this.#hubNumber) return;
        this.#tell = this.#hubOfOurOwn();
        this.#sayHere();
      });
      worker.port.onmessage = ({ data }: MessageEvent<FromHub>) => {
        if (number === this.#hubNumber) this.#hear(data);
      };
      return (message) => worker.port.postMessage(message);
    } catch {
      return this.#hubOfOurOwn(); // Forbidden here, as in some private windows.
    }
  }

  #hubOfOurOwn(): (message: ToHub) => void {
    this.#unanswered = 0;
    this.#hubNumber += 1;
    const hub = new Hub();
    return (message) => hub.hear(this, message, (answer) => this.#hear(answer));
  }

  #hear(message: FromHub): void {
    this.#unanswered = 0;
    const { onSnapshot, onDelta, onState } = this.#handlers;
    // What was on its way when the tab was hidden, or another symbol chosen, is no longer meant.
    if (document.hidden || this.#symbol === undefined) return;
    if (message.kind === "state") onState(message.state);
    else if (message.kind === "delta") {
      if (message.symbol === this.#symbol) onDelta(message.delta);
    } else if (message.snapshot.chosen === this.#symbol) onSnapshot(message.snapshot);
  }
}
