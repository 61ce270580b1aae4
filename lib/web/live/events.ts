// The events of the live stream as text: a whole view (`snapshot`), or what changed since a version (`delta`), and the id
// by which a client that comes back says what it has. It holds what all clients share, and knows none of them.

import type { Clock } from "../../base/clock.ts";
import type { HealthDocument } from "../../health/health.ts";
import { countsAtMs } from "../../model/last-trade.ts";
import { type FeedState, feedStateOf, symbolsOf, type TickerSets, unreceivedOf } from "../ticker-states.ts";
import type { Delta, LastTuple, OpenTuple, SeenAt, Snapshot, Status, SymbolSeconds } from "./protocol.ts";
import type { LiveView } from "./view.ts";

export type LiveEventsDeps = Readonly<{
  live: LiveView;
  clock: Clock;
  health: () => HealthDocument;
  tickers: () => TickerSets;
  simulated: boolean;
  /** Without it: the store. */
  seenAt?: SeenAt | undefined;
}>;

export class LiveEvents {
  readonly #deps: LiveEventsDeps;
  /** An id of another run says nothing about this run's versions. */
  readonly #run: string;
  #symbols: readonly string[] = [];
  #states: readonly (readonly [FeedState, unreceived: readonly [string, number] | null])[] = [];
  /** Rises when an index comes to mean another symbol: what was sent before says nothing any more. */
  #listNumber = 0;
  #status: Status | null = null;
  #statusNumber = 0;

  constructor(deps: LiveEventsDeps) {
    this.#deps = deps;
    this.#run = Math.floor(deps.clock.random() * 2 ** 32)
      .toString(16)
      .padStart(8, "0");
  }

  /** In the order of the events' indexes. */
  get symbols(): readonly string[] {
    return this.#symbols;
  }

  /** Rises with every refresh. */
  get statusNumber(): number {
    return this.#statusNumber;
  }

  /** Looks at symbols, rates, latency and health anew. True: the symbols changed, so every client needs a snapshot. */
  refresh(): boolean {
    const { live, clock, health, tickers } = this.#deps;
    this.#statusNumber += 1;
    const sets = tickers();
    const symbols = symbolsOf(sets);
    const states = symbols.map((symbol) => {
      // A connection that is lost for a moment is no news of each symbol; the health tells of it.
      const missed = unreceivedOf(symbol, { ...sets, disconnected: null });
      return [feedStateOf(symbol, sets), missed && ([missed.reason, missed.sinceMs] as const)] as const;
    });
    const isListNew =
      symbols.join("\n") !== this.#symbols.join("\n") ||
      JSON.stringify(states) !== JSON.stringify(this.#states);
    if (isListNew) {
      this.#symbols = symbols;
      this.#states = states;
      this.#listNumber += 1;
    }
    const nowMs = clock.now();
    // The second before this one is over; what was received in its last milliseconds is stored by now.
    const rateEndMs = nowMs - (nowMs % 1_000);
    const { status, reason, parts } = health();
    const warnings = Object.values(parts).flatMap(({ warning }) =>
      typeof warning === "string" ? [warning] : [],
    );
    this.#status = {
      rates: this.#symbols.map((symbol) => live.rateOf(symbol, rateEndMs)),
      rateEndMs,
      latency: live.latency(nowMs),
      health: { status, reason, warnings },
    };
    return isListNew;
  }

  /** After the first refresh. The first of the chosen is `chosen` in the event, and the rest are `others`. */
  snapshot(symbols: readonly string[], place: string): string {
    const { live, clock, simulated, seenAt = "store" } = this.#deps;
    const nowMs = clock.now();
    const [chosen = null, ...also] = symbols;
    const snapshot: Snapshot = {
      nowMs,
      simulated,
      seenAt,
      symbols: this.#symbols.map((symbol, index) => {
        const last = live.of(symbol);
        return {
          symbol,
          state: this.#states[index]![0],
          unreceived: this.#states[index]![1],
          last: last && [last.price, countsAtMs(last)],
          open: live.openOf(symbol),
          spark: live.sparkOf(symbol, nowMs),
        };
      }),
      place,
      chosen,
      seconds: chosen === null ? [] : live.secondsOf(chosen, nowMs),
      ...(also.length > 0 && { others: also.map((one): SymbolSeconds => [one, live.secondsOf(one, nowMs)]) }),
      status: this.#status!,
    };
    return this.#event("snapshot", snapshot);
  }

  /** What changed since that version, and the status where it is newer; null = nothing did. */
  delta(symbols: readonly string[], since: number, knownStatusNumber: number): string | null {
    const { live, clock } = this.#deps;
    const nowMs = clock.now();
    const last: LastTuple[] = [];
    const opens: OpenTuple[] = [];
    for (const [index, symbol] of this.#symbols.entries()) {
      if (live.isLastNewer(symbol, since)) {
        const row = live.of(symbol)!;
        last.push([index, row.price, countsAtMs(row)]);
      }
      const open = live.openOf(symbol, since);
      if (open !== null) opens.push([index, open[0], open[1]]);
    }
    const [chosen = null, ...also] = symbols;
    const seconds = chosen === null ? [] : live.secondsOf(chosen, nowMs, since);
    const others = also
      .map((one): SymbolSeconds => [one, live.secondsOf(one, nowMs, since)])
      .filter(([, changed]) => changed.length > 0);
    const status = knownStatusNumber === this.#statusNumber ? null : this.#status;
    const delta: Delta = {
      nowMs,
      ...(last.length > 0 && { last }),
      ...(opens.length > 0 && { opens }),
      ...(seconds.length > 0 && { seconds }),
      ...(others.length > 0 && { others }),
      ...(status !== null && { status }),
    };
    return Object.keys(delta).length === 1 ? null : this.#event("delta", delta);
  }

  #event(name: string, data: Snapshot | Delta): string {
    const id = `${this.#run}.${this.#listNumber}.${this.#deps.live.version()}`;
    return `event: ${name}\nid: ${id}\ndata: ${JSON.stringify(data)}\n\n`;
  }

  /** The version in an event's id; null = the id is none of this run and list. */
  versionIn(eventId: string | null): number | null {
    const [, run, list, digits] = /^([0-9a-f]{8})\.(\d{1,9})\.(\d{1,15})$/.exec(eventId ?? "") ?? [];
    const version = Number(digits);
    const isOurs = run === this.#run && Number(list) === this.#listNumber;
    return isOurs && version <= this.#deps.live.version() ? version : null;
  }
}
