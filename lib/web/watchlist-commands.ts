// What an operator may change: add a ticker, remove one. It decides what becomes of the wish and writes the record;
// who may ask, and in what words it is answered, is the web's business.

import type { Clock } from "../base/clock.ts";
import {
  type SymbolCheck,
  type SymbolCheckResult,
  symbolFault,
  type Watchlist,
  watchedSymbols,
} from "../contracts/watchlist.ts";

export type Added =
  | Readonly<{ kind: "created" }>
  /** Wanted all the same. */
  | Readonly<{ kind: "unchecked"; reason: string }>
  | Readonly<{ kind: "not_found"; suggestions: readonly string[] }>
  | Readonly<{ kind: "bad_symbol"; fault: string }>
  | Readonly<{ kind: "exists" }>
  | Readonly<{ kind: "full"; symbolsMax: number }>;

export type WatchlistCommandsDeps = Readonly<{
  wanted: Watchlist;
  /** Null: FINNHUB_VALIDATE_TICKERS=0, and every ticker is taken for one. */
  check: SymbolCheck | null;
  /** FINNHUB_MAX_SYMBOLS */
  symbolsMax: number;
  /** Wanted, but taking no place: proven not to exist. */
  rejected?: () => readonly string[];
  /** What the check said of a ticker that is about to be wanted. */
  onResult?: (symbol: string, result: SymbolCheckResult) => void;
  clock: Clock;
}>;

export type WatchlistCommands = Readonly<{
  /** Resolves when the wish is on record, or refused. Rejects with what WantedSet.put rejects with. */
  add(symbol: string): Promise<Added>;
  /** False: it is not wanted. */
  remove(symbol: string): Promise<boolean>;
}>;

/** Whoever waits for an answer is not kept longer; a ticker streams within 2 s. */
const CHECK_MS_MAX = 1_500;

export function createWatchlistCommands(deps: WatchlistCommandsDeps): WatchlistCommands {
  const { wanted, check, symbolsMax, rejected = () => [], onResult = () => {}, clock } = deps;
  /** Being added just now: they have their place already. */
  const pending = new Set<string>();

  const watchedNow = () => watchedSymbols(wanted);

  async function ask(symbol: string): Promise<SymbolCheckResult> {
    if (check === null) return { kind: "found" };
    const patience = new AbortController();
    const cancel = clock.after(CHECK_MS_MAX, () => patience.abort());
    try {
      return await check.check(symbol, patience.signal);
    } finally {
      cancel();
    }
  }

  async function addUnique(symbol: string): Promise<Added> {
    const result = await ask(symbol);
    if (result.kind === "not_found") return result;
    if (check !== null) onResult(symbol, result);
    await wanted.put({ symbol, wanted: true, changedAtMs: clock.now(), by: "operator" });
    return result.kind === "found" ? { kind: "created" } : { kind: "unchecked", reason: result.reason };
  }

  return {
    async add(symbol) {
      const fault = symbolFault(symbol);
      if (fault !== null) return { kind: "bad_symbol", fault };
      const symbols = watchedNow();
      if (symbols.includes(symbol) || pending.has(symbol)) return { kind: "exists" };
      const missing = new Set(rejected());
      const taken = symbols.filter((one) => !missing.has(one)).length + pending.size;
      if (taken >= symbolsMax) return { kind: "full", symbolsMax };
      pending.add(symbol);
      try {
        return await addUnique(symbol);
      } finally {
        pending.delete(symbol);
      }
    },
    async remove(symbol) {
      if (!watchedNow().includes(symbol)) return false;
      await wanted.put({ symbol, wanted: false, changedAtMs: clock.now(), by: "operator" });
      return true;
    },
  };
}
