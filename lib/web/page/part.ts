// A part of the page: it fails alone. What it throws ends no other part; it is said in a corner of the part, and the part
// is made anew a little later, until it works again.

import { byId } from "./dom.ts";

/** Long enough to be read, and for what it stumbled over to have changed. */
const MEND_MS = 4_000;
/** A sentence is read; a library's own may be long. */
const REASON_LENGTH_MAX = 160;

export class Part<Thing extends object> {
  readonly #name: string;
  readonly #place: string;
  readonly #make: () => Thing;
  #thing: Thing | null = null;
  #failedAtMs = Number.NEGATIVE_INFINITY;
  #corner: HTMLElement | null = null;

  /** `place`: the id of the element in whose corner it says what failed. */
  constructor(name: string, place: string, make: () => Thing) {
    this.#name = name;
    this.#place = place;
    this.#make = make;
  }

  /** Does it if the part works, or can be made. */
  use(work: (thing: Thing) => unknown): void {
    if (performance.now() - this.#failedAtMs < MEND_MS) return;
    try {
      this.#thing ??= this.#make();
      const done = work(this.#thing);
      const mended = () => this.#say(null);
      if (done instanceof Promise) done.then(mended, (error: unknown) => this.fail(error));
      else mended();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Null: it does not work at the moment. */
  peek(): Thing | null {
    return this.#thing;
  }

  /** It failed, perhaps in a task of its own. */
  fail(error: unknown): void {
    this.#failedAtMs = performance.now();
    const broken = this.#thing;
    this.#thing = null;
    try {
      if (broken !== null && "destroy" in broken && typeof broken.destroy === "function") broken.destroy();
    } catch {
      // It is broken: what it leaves behind is replaced.
    }
    const reason = String(error instanceof Error ? error.message : error).slice(0, REASON_LENGTH_MAX);
    this.#say(`The ${this.#name} failed (${reason}). It is tried again within seconds.`);
  }

  /** In its corner; null = nothing. */
  #say(sentence: string | null): void {
    if (sentence === null && this.#corner === null) return;
    try {
      this.#corner ??= newCorner(this.#place);
      if (sentence === null) {
        this.#corner.remove();
        this.#corner = null;
      } else {
        this.#corner.textContent = sentence;
      }
    } catch {
      // Its place is gone, and the part with it.
    }
  }
}

function newCorner(place: string): HTMLElement {
  const corner = document.createElement("p");
  corner.className = "corner";
  corner.role = "status";
  byId(place).append(corner);
  return corner;
}
