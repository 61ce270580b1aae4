// The two tables of aggregates of market.sqlite: puts under the version rule, and what the operator's verification
// needs beside them. A removed window leaves a row of trade_count 0 at the removal's version, as Cassandra leaves a
// tombstone: nobody is shown it, and no put below that version brings the window back.

import { type Database, inTransaction, storing } from "../base/sqlite.ts";
import type { StoredWindow, StoreMender, StoreWriter, SymbolHour, TimeRange } from "../contracts/store.ts";
import type { AverageRow, CandleRow, WindowRow } from "../model/aggregates.ts";
import { dayOf, HOUR_MS, hourOf } from "../model/trade.ts";
import { WINDOW_MS, type Window, type WindowKind, windowVersion } from "../model/windows.ts";

const SCAN_PAGE_ROWS = 5_000;
const HOURS_PAGE_ROWS = 500;

type Versioned<Row> = Row & { version: number };
/** The first hour held after that one, in the order of the table. */
type NextHour = (symbol: string, hour: number) => SymbolHour | null;

export function aggregatesOf(db: Database): Pick<StoreWriter, "putWindows"> & StoreMender {
  const put = putter(db);
  const scan = scanner(db);
  const tables = hourTables(db);
  return {
    async putWindows(windows: readonly WindowRow[]): Promise<void> {
      storing(() =>
        inTransaction(db, () => {
          for (const window of windows) put(window, windowVersion(window));
        }),
      );
    },

    async putWindowAt({ window, version }: StoredWindow): Promise<void> {
      storing(() => inTransaction(db, () => put(window, version)));
    },

    async removeWindow(window: Window, version: number): Promise<void> {
      storing(() => inTransaction(db, () => put(traceOf(window), version)));
    },

    scanWindows: scan,

    async *scanHours({ fromMs, toMs }: TimeRange, symbol?: string): AsyncGenerator<readonly SymbolHour[]> {
      if (!(fromMs < toMs)) return;
      for (const next of tables) {
        let page: SymbolHour[] = [];
        for (const held of hoursOf(next, hourOf(fromMs), toMs, symbol)) {
          page.push(held);
          if (page.length < HOURS_PAGE_ROWS) continue;
          yield page;
          page = [];
        }
        if (page.length > 0) yield page;
      }
    },
  };
}

function putter(db: Database): (window: WindowRow, version: number) => void {
  const putAverage = db.query(
    `INSERT INTO running_averages_15_sec VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET price_volume_multiply = excluded.price_volume_multiply,
       average_price = excluded.average_price, vwap = excluded.vwap, volume = excluded.volume,
       trade_count = excluded.trade_count, version = excluded.version
     WHERE excluded.version >= version`,
  );
  const putCandle = db.query(
    `INSERT INTO candles_1_min VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET open = excluded.open, high = excluded.high, low = excluded.low,
       close = excluded.close, volume = excluded.volume, price_volume_sum = excluded.price_volume_sum,
       vwap = excluded.vwap, trade_count = excluded.trade_count, version = excluded.version
     WHERE excluded.version >= version`,
  );
  return (window, version) => {
    if (window.kind === "average") {
      const { row: a } = window;
      const { symbol, hour, window_end, price_volume_multiply, average_price, vwap } = a;
      putAverage.run(
        symbol,
        hour,
        window_end,
        price_volume_multiply,
        average_price,
        vwap,
        a.volume,
        a.trade_count,
        version,
      );
    } else {
      const { row: c } = window;
      const { symbol, day, window_start, open, high, low, close, volume, price_volume_sum } = c;
      putCandle.run(
        symbol,
        day,
        window_start,
        open,
        high,
        low,
        close,
        volume,
        price_volume_sum,
        c.vwap,
        c.trade_count,
        version,
      );
    }
  };
}

/** What a removed window leaves behind. */
function traceOf({ kind, symbol, startMs }: Window): WindowRow {
  const nothing = { symbol, vwap: null, volume: 0, trade_count: 0 };
  if (kind === "average") {
    const window_end = startMs + WINDOW_MS.average;
    const row = {
      ...nothing,
      hour: hourOf(window_end),
      window_end,
      price_volume_multiply: 0,
      average_price: 0,
    };
    return { kind, row };
  }
  const prices = { open: 0, high: 0, low: 0, close: 0, price_volume_sum: 0 };
  return { kind, row: { ...nothing, ...prices, day: dayOf(startMs), window_start: startMs } };
}

/** By key, not by position: what is put meanwhile shifts nothing. */
function scanner(db: Database): StoreMender["scanWindows"] {
  const averages = db.query<Versioned<AverageRow>, [string, number, number, number, number, number]>(
    `SELECT * FROM running_averages_15_sec WHERE symbol = ? AND (hour, window_end) > (?, ?) AND hour <= ?
     AND window_end < ? AND trade_count > 0 ORDER BY hour, window_end LIMIT ?`,
  );
  const candles = db.query<Versioned<CandleRow>, [string, string, number, string, number, number]>(
    `SELECT * FROM candles_1_min WHERE symbol = ? AND (day, window_start) > (?, ?) AND day <= ?
     AND window_start < ? AND trade_count > 0 ORDER BY day, window_start LIMIT ?`,
  );

  function averagePage(symbol: string, afterMs: number, fromMs: number, toMs: number): StoredWindow[] {
    const [firstHour, lastHour] = [hourOf(Math.max(afterMs, fromMs)), hourOf(toMs - 1)];
    return averages
      .all(symbol, firstHour, afterMs, lastHour, toMs, SCAN_PAGE_ROWS)
      .map(({ version, ...row }) => ({ window: { kind: "average", row }, version }));
  }

  function candlePage(symbol: string, afterMs: number, fromMs: number, toMs: number): StoredWindow[] {
    const [firstDay, lastDay] = [dayOf(Math.max(afterMs, fromMs)), dayOf(toMs - 1)];
    return candles
      .all(symbol, firstDay, afterMs, lastDay, toMs, SCAN_PAGE_ROWS)
      .map(({ version, ...row }) => ({ window: { kind: "candle", row }, version }));
  }

  return async function* scanWindows(kind: WindowKind, symbol: string, { fromMs, toMs }: TimeRange) {
    const pageOf = kind === "average" ? averagePage : candlePage;
    let [afterMs, isLast] = [fromMs - 1, !(fromMs < toMs)];
    while (!isLast) {
      const page = storing(() => pageOf(symbol, afterMs, fromMs, toMs));
      if (page.length > 0) yield page;
      isLast = page.length < SCAN_PAGE_ROWS;
      const last = page.at(-1)?.window;
      if (last !== undefined) afterMs = last.kind === "average" ? last.row.window_end : last.row.window_start;
    }
  };
}

function hourTables(db: Database): readonly NextHour[] {
  const after = (table: string) => {
    const next = db.query<SymbolHour, [string, number]>(
      `SELECT symbol, hour FROM ${table} WHERE (symbol, hour) > (?, ?) ORDER BY symbol, hour LIMIT 1`,
    );
    return (symbol: string, hour: number) => next.get(symbol, hour);
  };
  const nextCandle = db.query<{ symbol: string; window_start: number }, [string, string, number]>(
    `SELECT symbol, window_start FROM candles_1_min WHERE (symbol, day, window_start) > (?, ?, ?)
     ORDER BY symbol, day, window_start LIMIT 1`,
  );
  return [
    // Each put of trades names its hours there, and retention forgets them last.
    after("trade_hours"),
    after("running_averages_15_sec"),
    (symbol, hour) => {
      const row = nextCandle.get(symbol, dayOf(hour), hour + HOUR_MS - 1);
      return row === null ? null : { symbol: row.symbol, hour: hourOf(row.window_start) };
    },
  ];
}

/** Seeks from hour to hour: a table of millions of rows has some hundred of them. */
function* hoursOf(next: NextHour, firstHour: number, toMs: number, only?: string): Generator<SymbolHour> {
  let [symbol, hour] = [only ?? "", firstHour - HOUR_MS];
  for (;;) {
    const held = storing(() => next(symbol, hour));
    if (held === null || (only !== undefined && held.symbol !== only)) return;
    const isWithin = held.hour >= firstHour && held.hour < toMs;
    if (isWithin) yield held;
    // The first text after a symbol is the symbol with a zero behind it.
    symbol = held.hour < toMs ? held.symbol : `${held.symbol}\u0000`;
    hour = isWithin ? held.hour : firstHour - HOUR_MS;
  }
}
