// One stream for all tabs of a browser: it holds a connection for the symbols that the visible tabs have chosen, and gives
// each tab what is its own. It runs in a SharedWorker, or in a page where there is none. A tab that says nothing for
// MEMBER_SILENT_MS_MAX is gone, frozen or asleep; when it says something again, it begins with the whole view.

import {
  CHOSEN_MAX,
  type Delta,
  type SecondTuple,
  type Snapshot,
  type SymbolSeconds,
} from "../live/protocol.ts";
import { Source, type StreamState } from "./source.ts";

/** What a tab says; `here` is said again and again. */
export type ToHub = Readonly<{ kind: "here"; symbol: string | null }> | Readonly<{ kind: "bye" }>;
export type FromHub =
  | Readonly<{ kind: "snapshot"; snapshot: Snapshot }>
  /** `symbol`: whose seconds are in it. */
  | Readonly<{ kind: "delta"; symbol: string | null; delta: Delta }>
  /** Also the answer to each `here`. */
  | Readonly<{ kind: "state"; state: StreamState }>;

/** A tab says that it is here so often. */
export const HERE_EVERY_MS = 2_000;
const MEMBER_SILENT_MS_MAX = 5 * HERE_EVERY_MS;
/** Tabs that are opened together are served by one connection. */
const GATHER_MS = 30;

type Member = {
  readonly symbol: string | null;
  readonly post: (message: FromHub) => void;
  heardAtMs: number;
  /** A delta means something only to who has the whole view that it goes on from. */
  hasView: boolean;
};

export class Hub {
  readonly #members = new Map<object, Member>();
  readonly #source = new Source({
    onSnapshot: (snapshot) =>
      this.#spread((member) => {
        member.hasView = true;
        return { kind: "snapshot", snapshot: own(snapshot, member.symbol) };
      }),
    onDelta: (delta) =>
      this.#spread(({ hasView, symbol }) => (hasView ? deltaFor(delta, this.#first, symbol) : null)),
    onState: (state) => {
      if (state === this.#state) return;
      this.#state = state;
      this.#spread(() => ({ kind: "state", state }));
    },
  });
  #state: StreamState = "connecting";
  /** The symbol whose seconds are the event's own. */
  #first: string | null = null;
  #opening: ReturnType<typeof setTimeout> | undefined;

  hear(key: object, message: ToHub, post: Member["post"]): void {
    if (message.kind === "bye") {
      this.#members.delete(key);
      this.#dropSilent();
      return;
    }
    const { symbol } = message;
    const known = this.#members.get(key);
    // The latest to choose is the last of the map, and the last to lose its seconds.
    if (known?.symbol !== symbol) this.#members.delete(key);
    if (known === undefined || known.symbol !== symbol) {
      this.#members.set(key, { symbol, heardAtMs: performance.now(), post, hasView: false });
      this.#openSoon();
    } else {
      known.heardAtMs = performance.now();
    }
    post({ kind: "state", state: this.#state });
    this.#dropSilent();
  }

  #dropSilent(): void {
    const sinceMs = performance.now() - MEMBER_SILENT_MS_MAX;
    for (const [key, { heardAtMs }] of this.#members) if (heardAtMs < sinceMs) this.#members.delete(key);
    if (this.#members.size > 0) return;
    clearTimeout(this.#opening);
    this.#opening = undefined;
    this.#source.close();
    this.#state = "connecting";
  }

  #openSoon(): void {
    this.#opening ??= setTimeout(() => {
      this.#opening = undefined;
      const chosen = [...this.#members.values()].flatMap(({ symbol }) => (symbol === null ? [] : [symbol]));
      const symbols = [...new Set(chosen.reverse())].slice(0, CHOSEN_MAX);
      this.#first = symbols[0] ?? null;
      this.#source.open(symbols);
    }, GATHER_MS);
  }

  #spread(messageFor: (member: Member) => FromHub | null): void {
    for (const member of this.#members.values()) {
      const message = messageFor(member);
      if (message !== null) member.post(message);
    }
    this.#dropSilent();
  }
}

function own({ others, ...snapshot }: Snapshot, symbol: string | null): Snapshot {
  const seconds = secondsOf(snapshot.seconds, others, snapshot.chosen, symbol);
  return { ...snapshot, chosen: symbol, seconds };
}

function deltaFor(
  { others, seconds = [], ...delta }: Delta,
  first: string | null,
  symbol: string | null,
): FromHub {
  const ours = secondsOf(seconds, others, first, symbol);
  return { kind: "delta", symbol, delta: { ...delta, ...(ours.length > 0 && { seconds: ours }) } };
}

function secondsOf(
  seconds: readonly SecondTuple[],
  others: readonly SymbolSeconds[] | undefined,
  first: string | null,
  symbol: string | null,
): readonly SecondTuple[] {
  if (symbol === null) return [];
  if (symbol === first) return seconds;
  return others?.find(([name]) => name === symbol)?.[1] ?? [];
}
