// Contract: which tickers are wanted, and who says whether a ticker exists.
//
// A WantedSet keeps one record a symbol, a removal included, over restarts. `put` resolves when the record is
// durable and `list` shows it; listeners hear of every change, also of another process's, after `list` shows it.
// It rejects with StoreUnavailableError or LogUnavailableError when trying again may help. Who seeds it from the
// setting leaves every record alone that an operator made.

import { SYMBOL_LENGTH_MAX } from "../model/validate.ts";

export type WatchlistEntry = Readonly<{
  symbol: string;
  wanted: boolean;
  /** ms since 1970. The older, the sooner it gets a place where the upstream takes only so many. */
  changedAtMs: number;
  /** What the setting made, the setting may change again; an operator's word stands above it. */
  by: WatchlistAuthor;
}>;

export type WatchlistAuthor = "setting" | "operator";

export interface Watchlist {
  /** Every record, removals too, oldest change first; those of one moment in the order of their puts. */
  list(): readonly WatchlistEntry[];
  put(record: WatchlistEntry): Promise<void>;
  /** The returned function ends it. */
  onChange(listener: () => void): () => void;
}

/** In the order of the list, which is that of priority. */
export function watchedSymbols({ list }: Pick<Watchlist, "list">): string[] {
  return list().flatMap((record) => (record.wanted ? record.symbol : []));
}

export type SymbolCheckResult =
  | Readonly<{ kind: "found" }>
  /** Proven; symbols that were perhaps meant, the likeliest first. */
  | Readonly<{ kind: "not_found"; suggestions: readonly string[] }>
  /** Nothing is proven either way. The reason is a sentence without a secret. */
  | Readonly<{ kind: "unknown"; reason: string }>;

export interface SymbolCheck {
  /** Never rejects. A signal that aborts makes it `unknown`; what was being asked is finished and remembered. */
  check(symbol: string, signal: AbortSignal): Promise<SymbolCheckResult>;
}

/** Keys with this sign are the pipeline's own, beside the symbols. */
export const RESERVED_SIGN = "#";

/** What is wrong with a text as a symbol, as the end of a sentence; null: it can be one. */
export function symbolFault(symbol: string): string | null {
  if (symbol.length === 0) return "it is empty";
  if (symbol.length > SYMBOL_LENGTH_MAX) return `it is longer than ${SYMBOL_LENGTH_MAX} characters`;
  if (symbol !== symbol.trim()) return "it begins or ends with a blank";
  if (symbol.startsWith(RESERVED_SIGN)) return `it begins with ${RESERVED_SIGN}`;
  if (!symbol.isWellFormed() || /\p{Cc}/u.test(symbol)) return "it holds a character that is none";
  return null;
}
