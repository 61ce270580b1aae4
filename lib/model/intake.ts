// How much of what came in the last minutes was taken, and how much was refused: for which symbols, and why. Health
// measures by it what came, since a feed of which everything is refused moves and is worth nothing. Counted by the
// minute, on a clock that nobody sets; bounded, whatever comes.

import { MINUTE_MS } from "./trade.ts";

export type IntakeSnapshot = Readonly<{
  /** Over how many minutes, the current one included. */
  minutes: number;
  taken: number;
  refused: number;
  /** Those with refusals, the most refused first. `taken`: since the first refusal that is counted here. */
  symbols: readonly RefusedSymbol[];
}>;

export type RefusedSymbol = Readonly<{
  symbol: string;
  taken: number;
  refused: number;
  /** The commonest reason. */
  reason: string;
}>;

/** Long enough that a bad minute is still seen by whoever was woken for it. */
export const INTAKE_MINUTES = 10;
/** Beyond them the rest counts without a name. */
const SYMBOLS_MAX = 1_000;

type Counts = { taken: number; reasons: Map<string, number> };
type Minute = { minute: number; taken: number; refused: number; symbols: Map<string, Counts> };

export class Intake {
  /** The newest last. */
  readonly #minutes: Minute[] = [];
  /** Symbols with refusals in one of the minutes: usually none, so that a trade costs no look-up. */
  #refusedSymbols: ReadonlySet<string> = new Set();

  /** Whether `takenOf` is worth calling. */
  get isAnyRefused(): boolean {
    return this.#refusedSymbols.size > 0;
  }

  taken(count: number, monotonicMs: number): void {
    this.#current(monotonicMs).taken += count;
  }

  /** One trade of the symbol was taken; counted by `taken` too. */
  takenOf(symbol: string, monotonicMs: number): void {
    if (!this.#refusedSymbols.has(symbol)) return;
    const counts = countsOf(this.#current(monotonicMs), symbol);
    if (counts !== null) counts.taken += 1;
  }

  /** `symbol`: null where what was refused names none. */
  refused(symbol: string | null, reason: string, monotonicMs: number): void {
    const minute = this.#current(monotonicMs);
    minute.refused += 1;
    const counts = symbol === null ? null : countsOf(minute, symbol);
    if (counts === null) return;
    counts.reasons.set(reason, (counts.reasons.get(reason) ?? 0) + 1);
    if (!this.#refusedSymbols.has(symbol!))
      this.#refusedSymbols = new Set([...this.#refusedSymbols, symbol!]);
  }

  snapshot(monotonicMs: number): IntakeSnapshot {
    this.#current(monotonicMs);
    const symbols = new Map<string, Counts>();
    for (const minute of this.#minutes) {
      for (const [symbol, { taken, reasons }] of minute.symbols) {
        const sum = symbols.get(symbol) ?? { taken: 0, reasons: new Map<string, number>() };
        sum.taken += taken;
        for (const [reason, count] of reasons)
          sum.reasons.set(reason, (sum.reasons.get(reason) ?? 0) + count);
        symbols.set(symbol, sum);
      }
    }
    return {
      minutes: INTAKE_MINUTES,
      taken: this.#minutes.reduce((sum, { taken }) => sum + taken, 0),
      refused: this.#minutes.reduce((sum, { refused }) => sum + refused, 0),
      symbols: [...symbols]
        .map(([symbol, counts]) => refusedSymbol(symbol, counts))
        .filter(({ refused }) => refused > 0)
        .sort((a, b) => b.refused - a.refused),
    };
  }

  #current(monotonicMs: number): Minute {
    const minute = Math.floor(monotonicMs / MINUTE_MS);
    const newest = this.#minutes.at(-1);
    if (newest?.minute === minute) return newest;
    const made: Minute = { minute, taken: 0, refused: 0, symbols: new Map() };
    this.#minutes.push(made);
    while (this.#minutes[0]!.minute <= minute - INTAKE_MINUTES) this.#minutes.shift();
    const kept = this.#minutes.flatMap(({ symbols }) =>
      [...symbols].filter(([, { reasons }]) => reasons.size > 0).map(([symbol]) => symbol),
    );
    this.#refusedSymbols = new Set(kept);
    return made;
  }
}

function countsOf(minute: Minute, symbol: string): Counts | null {
  const known = minute.symbols.get(symbol);
  if (known !== undefined) return known;
  if (minute.symbols.size >= SYMBOLS_MAX) return null;
  const made: Counts = { taken: 0, reasons: new Map() };
  minute.symbols.set(symbol, made);
  return made;
}

function refusedSymbol(symbol: string, { taken, reasons }: Counts): RefusedSymbol {
  const [reason = ""] = [...reasons].sort(([, a], [, b]) => b - a)[0] ?? [];
  return { symbol, taken, refused: [...reasons.values()].reduce((sum, count) => sum + count, 0), reason };
}
