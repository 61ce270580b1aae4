// Retention of market.sqlite: what was received too long ago is dropped slice by slice, some milliseconds each, so that
// nobody waits for it. It decides nothing about when: the caller has the cutoff.

import { type Database, inTransaction } from "../base/sqlite.ts";
import { AGGREGATES, SHAPES } from "../model/aggregates.ts";
import { dayOf, HOUR_MS } from "../model/trade.ts";

/** Of one slice, and pages given back to the disk with it: some ms each. */
const DROP_ROWS_MAX = 2_000;
const VACUUM_PAGES_MAX = 500;
/** A dead letter may be a frame of many MB. */
const DROP_DEAD_MAX = 20;

/**
 * The time from which retention counts back. Our clock may be ahead by weeks, and would drop everything; so it is not
 * believed beyond the newest trade, which has its date from the exchange. Where nothing new is stored nothing old needs to
 * go. Without a trade it is now.
 */
export function retentionNowMs(db: Database, nowMs: number): number {
  const newest = db.query<{ hour: number | null }, []>("SELECT max(hour) AS hour FROM trade_hours").get();
  return newest?.hour == null ? nowMs : Math.min(nowMs, newest.hour + HOUR_MS);
}

/**
 * Drops one slice of what was received before the cutoff; false when nothing is left to drop. An hour of a symbol goes as
 * a whole, with its aggregates, once its last row is old enough.
 */
export function dropReceivedBefore(db: Database, cutoffMs: number): boolean {
  const old = db
    .query<{ symbol: string; hour: number }, [number]>(
      "SELECT symbol, hour FROM trade_hours WHERE ingested_until <= ? ORDER BY ingested_until LIMIT 1",
    )
    .get(cutoffMs);
  if (old === null) {
    const isMoreLeft = dropSideRecords(db, cutoffMs);
    db.run(`PRAGMA incremental_vacuum(${VACUUM_PAGES_MAX})`);
    return isMoreLeft;
  }
  const { symbol, hour } = old;
  inTransaction(db, () => {
    const { changes } = db
      .query(
        `DELETE FROM trades WHERE symbol = ?1 AND hour = ?2 AND (trade_timestamp, uuid) IN
         (SELECT trade_timestamp, uuid FROM trades WHERE symbol = ?1 AND hour = ?2 LIMIT ?3)`,
      )
      .run(symbol, hour, DROP_ROWS_MAX);
    if (changes === DROP_ROWS_MAX) return;
    for (const { table, shape, widthMs } of AGGREGATES) {
      if (SHAPES[shape].time === "window_end") dropAverages(db, table, symbol, hour, widthMs);
      else dropCandles(db, table, symbol, hour);
    }
    db.query("DELETE FROM trade_hours WHERE symbol = ? AND hour = ?").run(symbol, hour);
  });
  db.run(`PRAGMA incremental_vacuum(${VACUUM_PAGES_MAX})`);
  return true;
}

/** True: there may be more of them. */
function dropSideRecords(db: Database, cutoffMs: number): boolean {
  const events = db
    .query(
      `DELETE FROM feed_events WHERE (day, event_timestamp, session, sequence) IN
       (SELECT day, event_timestamp, session, sequence FROM feed_events WHERE day < ? LIMIT ?)`,
    )
    .run(dayOf(cutoffMs), DROP_ROWS_MAX);
  const dead = db
    .query(
      // With a clock that was slow the trade knows better when it was received: it stands in what was refused for its time.
      `DELETE FROM dead WHERE rowid IN (SELECT rowid FROM dead WHERE received_at < ?1 AND NOT
       (reason = 'impossible_time' AND source = 'feed' AND json_valid(CAST(payload AS TEXT)) AND
       json_extract(CAST(payload AS TEXT), '$.data[0].t') >= ?1) LIMIT ?2)`,
    )
    .run(cutoffMs, DROP_DEAD_MAX);
  return events.changes === DROP_ROWS_MAX || dead.changes === DROP_DEAD_MAX;
}

/**
 * An average goes with the last of its trades: its window may begin in the hour before, and the last windows of this hour
 * end in the next one.
 */
function dropAverages(db: Database, table: string, symbol: string, hour: number, widthMs: number): void {
  /** Those of an hour that end at or after a time, or all of it where no trades of another hour are kept. */
  const drop = db.query(
    `DELETE FROM ${table} WHERE symbol = ?1 AND hour = ?2 AND (window_end >= ?3
     OR NOT EXISTS (SELECT 1 FROM trade_hours WHERE symbol = ?1 AND hour = ?4))`,
  );
  drop.run(symbol, hour, hour + widthMs, hour - HOUR_MS);
  drop.run(symbol, hour + HOUR_MS, Number.MAX_SAFE_INTEGER, hour + HOUR_MS);
}

function dropCandles(db: Database, table: string, symbol: string, hour: number): void {
  db.query(
    `DELETE FROM ${table} WHERE symbol = ? AND day = ? AND window_start >= ? AND window_start < ?`,
  ).run(symbol, dayOf(hour), hour, hour + HOUR_MS);
}
