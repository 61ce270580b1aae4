// The wanted set of the embedded mode: the table `tickers` of market.sqlite. One process writes it; what a put
// resolved for is synced, so that an operator's word outlives a power cut.

import { type Database, type SyncMode, setSync, storing } from "../base/sqlite.ts";
import type { Watchlist, WatchlistAuthor, WatchlistEntry } from "../contracts/watchlist.ts";

type Row = { symbol: string; wanted: number; changed_at: number; changed_by: WatchlistAuthor };

export function openWatchlistTable(db: Database, sync: SyncMode): Watchlist {
  const load = db.query<Row, []>("SELECT * FROM tickers ORDER BY changed_at, rowid");
  const save = db.query("INSERT OR REPLACE INTO tickers VALUES (?, ?, ?, ?)"); // Replaced, a row is the newest.
  const listeners = new Set<() => void>();
  let records = storing(() => load.all().map(recordOf));

  return {
    list: () => records,
    async put({ symbol, wanted, changedAtMs, by }) {
      storing(() => {
        setSync(db, "full");
        try {
          save.run(symbol, wanted ? 1 : 0, changedAtMs, by);
        } finally {
          setSync(db, sync);
        }
      });
      records = storing(() => load.all().map(recordOf));
      for (const listener of listeners) listener();
    },
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

function recordOf({ symbol, wanted, changed_at, changed_by }: Row): WatchlistEntry {
  return { symbol, wanted: wanted === 1, changedAtMs: changed_at, by: changed_by };
}
