// The watchlist of the embedded mode: the table `tickers` of market.sqlite. One process writes it. A put is synced
// before it resolves, so that what an operator was told survives a power cut.

import { type Database, type SyncMode, setSync, storing } from "../base/sqlite.ts";
import type { Watchlist, WatchlistAuthor, WatchlistEntry } from "../contracts/watchlist.ts";
import type { WriteLock } from "./write-lock.ts";

type TickerRow = { symbol: string; wanted: number; changed_at: number; changed_by: WatchlistAuthor };

export function openWatchlistTable(db: Database, sync: SyncMode, lock: WriteLock): Watchlist {
  const load = db.query<TickerRow, []>("SELECT * FROM tickers ORDER BY changed_at, rowid");
  const save = db.query("INSERT OR REPLACE INTO tickers VALUES (?, ?, ?, ?)"); // Replaced, a row is the newest.
  const listeners = new Set<() => void>();
  let entries = storing(() => load.all().map(entryOf));

  return {
    list: () => entries,
    async put({ symbol, wanted, changedAtMs, by }) {
      await lock.write(() => {
        setSync(db, "full");
        try {
          save.run(symbol, wanted ? 1 : 0, changedAtMs, by);
        } finally {
          setSync(db, sync);
        }
      });
      entries = storing(() => load.all().map(entryOf));
      for (const listener of listeners) listener();
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

function entryOf({ symbol, wanted, changed_at, changed_by }: TickerRow): WatchlistEntry {
  return { symbol, wanted: wanted === 1, changedAtMs: changed_at, by: changed_by };
}
