// What an operator may change on the watchlist: add a symbol, remove one. It decides what becomes of the request and
// writes the entry. Who may ask, and in what words the answer is given, is decided by the routes.

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
  /** Added all the same. */
  | Readonly<{ kind: "unchecked"; reason: string }>
  | Readonly<{ kind: "not_found"; suggestions: readonly string[] }>
  | Readonly<{ kind: "bad_symbol"; fault: string }>
  | Readonly<{ kind: "exists" }>
  | Readonly<{ kind: "full"; symbolsMax: number }>;

type WatchlistCommandsDeps = Readonly<{
  wanted: Watchlist;
  /** Null: FINNHUB_VALIDATE_TICKERS=0, and every symbol is taken for one that exists. */
  check: SymbolCheck | null;
  /** FINNHUB_MAX_SYMBOLS */
  symbolsMax: number;
  /** Symbols on the watchlist that count for nothing, because they are proven not to exist. */
  rejected?: () => readonly string[];
  /** Called with what the check found out of a symbol that is about to be added. */
  onResult?: (symbol: string, result: SymbolCheckResult) => void;
  clock: Clock;
}>;

export type WatchlistCommands = Readonly<{
  /** Resolves when the entry is written, or refused. Rejects with what Watchlist.put rejects with. */
  add(symbol: string): Promise<Added>;
  /** False: it was not on the watchlist. Rejects with what Watchlist.put rejects with. */
  remove(symbol: string): Promise<boolean>;
}>;

/** Whoever waits for an answer does not wait longer; an added ticker streams within 2 s. */
const CHECK_MS_MAX = 1_500;

export function createWatchlistCommands(deps: WatchlistCommandsDeps): WatchlistCommands {
  const { wanted: watchlist, check, symbolsMax, rejected = () => [], onResult = () => {}, clock } = deps;
  /** Being added at this moment: they have their place already. */
  const pending = new Set<string>();

  const watchedNow = () => watchedSymbols(watchlist);

  async function checked(symbol: string): Promise<SymbolCheckResult> {
    if (check === null) return { kind: "found" };
    // Not withTimeout: a check that is aborted says itself what could not be found out.
    const timeout = new AbortController();
    const cancel = clock.after(CHECK_MS_MAX, () => timeout.abort());
    try {
      return await check.check(symbol, timeout.signal);
    } finally {
      cancel();
    }
  }

  async function addUnique(symbol: string): Promise<Added> {
    const result = await checked(symbol);
    if (result.kind === "not_found") return result;
    if (check !== null) onResult(symbol, result);
    await watchlist.put({ symbol, wanted: true, changedAtMs: clock.now(), by: "operator" });
    return result.kind === "found" ? { kind: "created" } : { kind: "unchecked", reason: result.reason };
  }

  return {
    async add(symbol) {
      const fault = symbolFault(symbol);
      if (fault !== null) return { kind: "bad_symbol", fault };
      const symbols = watchedNow();
      if (symbols.includes(symbol) || pending.has(symbol)) return { kind: "exists" };
      const missing = new Set(rejected());
      const count = symbols.filter((one) => !missing.has(one)).length + pending.size;
      if (count >= symbolsMax) return { kind: "full", symbolsMax };
      pending.add(symbol);
      try {
        return await addUnique(symbol);
      } finally {
        pending.delete(symbol);
      }
    },
    async remove(symbol) {
      if (!watchedNow().includes(symbol)) return false;
      await watchlist.put({ symbol, wanted: false, changedAtMs: clock.now(), by: "operator" });
      return true;
    },
  };
}
