// Contract: which symbols are wanted, and who says whether a symbol exists.
//
// A Watchlist keeps one record a symbol, a removal included, over restarts. `put` resolves when the record is durable and
// `list` shows it; it rejects with StoreUnavailableError or LogUnavailableError when trying again may help. Listeners
// are called after every change, another process's too, once `list` shows it. Seeding from the setting leaves every
// record alone that an operator made.

import { SYMBOL_LENGTH_MAX } from "../model/validate.ts";

export type WatchlistEntry = Readonly<{
  symbol: string;
  wanted: boolean;
  /** ms since 1970. Older records come first where the upstream has a cap. */
  changedAtMs: number;
  /** The setting may change only what the setting made; an operator may change everything. */
  by: WatchlistAuthor;
}>;

export type WatchlistAuthor = "setting" | "operator";

export interface Watchlist {
  /** Every record, removals too, the oldest change first; changes of one moment in the order of their puts. */
  list(): readonly WatchlistEntry[];
  put(record: WatchlistEntry): Promise<void>;
  /** The returned function ends it. */
  onChange(listener: () => void): () => void;
}

/** The wanted symbols in the order of the list, which is that of priority. */
export function watchedSymbols({ list }: Pick<Watchlist, "list">): string[] {
  return list().flatMap((record) => (record.wanted ? record.symbol : []));
}

export type SymbolCheckResult =
  | Readonly<{ kind: "found" }>
  /** Proven. `suggestions` are symbols that were perhaps meant, the likeliest first. */
  | Readonly<{ kind: "not_found"; suggestions: readonly string[] }>
  /** Nothing is proven either way. The reason is a sentence without a secret. */
  | Readonly<{ kind: "unknown"; reason: string }>;

export interface SymbolCheck {
  /** Never rejects. When the signal aborts the result is `unknown`; a request that is out is finished and remembered. */
  check(symbol: string, signal: AbortSignal): Promise<SymbolCheckResult>;
}

/** Keys of the control topic that begin with this sign are the pipeline's own; every other key is a symbol. */
export const RESERVED_SIGN = "#";

/** What is wrong with a text as a symbol, as the end of a sentence; null: it can be a symbol. */
export function symbolFault(symbol: string): string | null {
  if (symbol.length === 0) return "it is empty";
  if (symbol.length > SYMBOL_LENGTH_MAX) return `it is longer than ${SYMBOL_LENGTH_MAX} characters`;
  if (symbol !== symbol.trim()) return "it begins or ends with a blank";
  if (symbol.startsWith(RESERVED_SIGN)) return `it begins with ${RESERVED_SIGN}`;
  if (!symbol.isWellFormed() || /\p{Cc}/u.test(symbol)) return "it contains an invalid character";
  return null;
}
