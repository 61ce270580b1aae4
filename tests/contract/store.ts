// The promises of lib/contracts/store.ts, as tests that run on every adapter: what is put, any number of times and in any
// order, is what is read, to the last bit. Written against the interface alone; what an adapter promises beyond
// the contract stands in its own test file.

import { expect, test } from "bun:test";
import { RowRefusedError } from "../../lib/base/errors.ts";
import type {
  StoredWindow,
  StoreMender,
  StoreReader,
  StoreWriter,
  TimeRange,
  WindowQuery,
} from "../../lib/contracts/store.ts";
import {
  AGGREGATES,
  type Aggregate,
  type AverageRow,
  type CandleRow,
  type WindowRow,
} from "../../lib/model/aggregates.ts";
import { type DeadLetter, WHOLE_MESSAGE } from "../../lib/model/dead-letter.ts";
import { tradeUuids } from "../../lib/model/identity.ts";
import {
  DAY_MS,
  dayOf,
  type FeedEventRow,
  HOUR_MS,
  hourOf,
  type Trade,
  type TradeRow,
  tradeRow,
} from "../../lib/model/trade.ts";
import { AMOUNT_MAX } from "../../lib/model/validate.ts";
import { timeOfRow, windowOf, windowVersion } from "../../lib/model/windows.ts";
import { NOON_MS, seeded, trade } from "../support/builders.ts";

export interface OpenStore extends AsyncDisposable {
  readonly store: StoreWriter & StoreReader;
  /** All of them, in any order: the contract has no reader of dead letters. */
  deadLetters(): Promise<readonly DeadLetter[]>;
}

export type StoreHarness = Readonly<{
  /** A fresh, empty store. */
  open(): Promise<OpenStore>;
  /** Rows of one page of a scan at most. */
  scanPageRows: number;
  /** A row that the adapter must refuse, made from a good one. */
  refusedTrade(good: TradeRow): TradeRow;
  timeoutMs: number;
}>;

const SESSION = "0badcafe";
const RECEIVED_MS = NOON_MS + 5_000;

/** The row of the trade that came as `sequence`: equal sequences are the same trade. */
export function rowOf(sequence: number, fields: Partial<Trade> = {}, receivedAtMs = RECEIVED_MS): TradeRow {
  return tradeRow(trade(fields), tradeUuids(SESSION, sequence, receivedAtMs)(0), receivedAtMs);
}

export function average(fields: Partial<AverageRow> = {}): WindowRow & { kind: "average" } {
  const window_end = fields.window_end ?? NOON_MS + 15_000;
  const row: AverageRow = {
    symbol: "AAPL",
    hour: hourOf(window_end),
    window_end,
    price_volume_multiply: 0.1,
    average_price: 1e-8,
    vwap: 1 / 3,
    volume: 0.00008,
    trade_count: 1,
    ...fields,
  };
  return { kind: "average", row };
}

export function candle(fields: Partial<CandleRow> = {}): WindowRow & { kind: "candle" } {
  const window_start = fields.window_start ?? NOON_MS;
  const row: CandleRow = {
    symbol: "AAPL",
    day: dayOf(window_start),
    window_start,
    open: 1.1,
    high: 2.2,
    low: 0.3,
    close: 1.7,
    volume: 1e-8,
    price_volume_sum: 1e15,
    vwap: 0.1,
    trade_count: 1,
    ...fields,
  };
  return { kind: "candle", row };
}

/** As the pipeline puts them: a group at a time, so many rows, so many at once. */
export async function putTrades(store: StoreWriter, rows: readonly TradeRow[]): Promise<void> {
  const groups = new Map<string, TradeRow[]>();
  for (const row of rows) {
    const name = store.groupOf(row);
    const group = groups.get(name);
    if (group) group.push(row);
    else groups.set(name, [row]);
  }
  for (const group of groups.values()) {
    for (let from = 0; from < group.length; from += store.rowsPerPutMax) {
      await store.putTrades(group.slice(from, from + store.rowsPerPutMax));
    }
  }
}

export async function scanAll(store: StoreWriter, symbol: string, range: TimeRange): Promise<TradeRow[]> {
  const rows: TradeRow[] = [];
  for await (const page of store.scanTrades(symbol, range)) rows.push(...page);
  return rows;
}

/** Newest first: the order of every list, and of anything that came in any order. */
export function newestFirst(rows: readonly TradeRow[]): TradeRow[] {
  return [...rows].sort((a, b) => b.trade_timestamp - a.trade_timestamp || (a.uuid < b.uuid ? 1 : -1));
}

const ALL_DAY: TimeRange = { fromMs: NOON_MS - DAY_MS, toMs: NOON_MS + DAY_MS };

function shuffled<T>(items: readonly T[], random: (below: number) => number): T[] {
  const copy = [...items];
  for (let i = copy.length - 1; i > 0; i--) {
    const j = random(i + 1);
    [copy[i], copy[j]] = [copy[j]!, copy[i]!];
  }
  return copy;
}

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item, index) =>
    permutations([...items.slice(0, index), ...items.slice(index + 1)]).map((rest) => [item, ...rest]),
  );
}

/** Names that differ, whatever a collation, a trim or a parser may think. */
const SYMBOLS = [
  "AAPL",
  "aapl",
  "AAPL ",
  " AAPL",
  "AAP",
  "BINANCE:BTCUSDT",
  "IC MARKETS:1",
  "'",
  "''",
  '"',
  "\\",
  "%",
  "_",
  "a'; DROP TABLE trades; --",
  "?",
  "é",
  "e\u0301",
  "É",
  "😀",
  "👩‍👩‍👧",
  "\u0000",
  "a\u0000",
  "a\u0000b",
  "a",
  "\n",
  "\uFFFF",
  "Ω≈ç√∫",
  "بورصة",
  "東京",
  "x".repeat(128),
  "1",
  "1.0",
  "null",
];

export function storeContract(name: string, harness: StoreHarness): void {
  const promise = (title: string, run: (open: OpenStore) => Promise<void>) =>
    test(
      `${name}: ${title}`,
      async () => {
        await using open = await harness.open();
        await run(open);
      },
      { timeout: harness.timeoutMs },
    );

  // ---- Trades -----------------------------------------------------------------------------------------------

  promise("a store is empty until it holds a trade, whatever else it holds", async ({ store }) => {
    expect(await store.isEmpty()).toBe(true);
    await store.putTrades([]);
    await store.putWindows([average(), candle()]);
    await store.putEvents([event(1)]);
    await store.putDead([deadLetter(1)]);
    expect(await store.isEmpty()).toBe(true);
    await putTrades(store, [rowOf(1)]);
    expect(await store.isEmpty()).toBe(false);
  });

  promise("a trade comes back as it was put, to the last bit", async ({ store }) => {
    const amounts = [1e-8, 5e-324, 0.1, 0.1 + 0.2, 1 / 3, 123_456.789_012_345, 2 ** 53 + 2, AMOUNT_MAX];
    const conditions = [null, [], ["1"], ["1", "12"], [null, "é'\"😀"]] as const;
    const rows = amounts.flatMap((price, i) =>
      [0, 1e-8, ...amounts].map((volume, j) =>
        rowOf(100 * i + j + 1, {
          price,
          volume,
          conditions: conditions[(i + j) % conditions.length]!,
          tradedAtMs: NOON_MS + i * 977 + j,
        }),
      ),
    );
    await putTrades(store, rows);
    const listed = await store.listTrades({ symbol: "AAPL", range: ALL_DAY, limit: 1_000 });
    expect(listed).toEqual(newestFirst(rows));
    expect(newestFirst(await scanAll(store, "AAPL", ALL_DAY))).toEqual(newestFirst(rows));
    const found = new Map(listed.map(({ uuid, trade_conditions }) => [uuid, trade_conditions]));
    for (const { uuid, trade_conditions } of rows) expect(found.get(uuid)!).toBe(trade_conditions!);
  });

  promise("any text is a symbol, and no two of them are mixed up", async ({ store }) => {
    const rows = SYMBOLS.map((symbol, index) => rowOf(index + 1, { symbol, price: index + 1 }));
    await putTrades(store, rows);
    await store.putWindows(SYMBOLS.flatMap((symbol) => [average({ symbol }), candle({ symbol })]));
    for (const [index, symbol] of SYMBOLS.entries()) {
      const query = { symbol, range: ALL_DAY, limit: 10 };
      expect(await store.listTrades(query)).toEqual([rows[index]!]);
      expect(await scanAll(store, symbol, ALL_DAY)).toEqual([rows[index]!]);
      expect(await store.listAverages(query)).toEqual([average({ symbol }).row]);
      expect(await store.listCandles(query)).toEqual([candle({ symbol }).row]);
    }
  });

  promise("what nobody traded is an empty list, and so is an empty range", async ({ store }) => {
    await putTrades(store, [rowOf(1)]);
    await store.putWindows([average(), candle()]);
    await store.putEvents([event(1)]);
    const ranges = [
      { fromMs: NOON_MS, toMs: NOON_MS },
      { fromMs: NOON_MS + 60_000, toMs: NOON_MS },
      { fromMs: NOON_MS - 60_000, toMs: NOON_MS },
      { fromMs: NOON_MS + HOUR_MS, toMs: NOON_MS + DAY_MS },
    ];
    for (const range of ranges) {
      expect(await store.listTrades({ symbol: "AAPL", range, limit: 10 })).toEqual([]);
      expect(await scanAll(store, "AAPL", range)).toEqual([]);
      expect(await store.listAverages({ symbol: "AAPL", range, limit: 10 })).toEqual([]);
      expect(await store.listCandles({ symbol: "AAPL", range, limit: 10 })).toEqual([]);
      expect(await store.listEvents({ range, limit: 10 })).toEqual([]);
    }
    expect(await store.listTrades({ symbol: "NOPE", range: ALL_DAY, limit: 10 })).toEqual([]);
    expect(await scanAll(store, "NOPE", ALL_DAY)).toEqual([]);
  });

  promise("a trade put again, alone or among others, is one row", async ({ store }) => {
    const rows = Array.from({ length: 60 }, (_, index) =>
      rowOf(index + 1, { tradedAtMs: NOON_MS + (index % 7) }),
    );
    const random = seeded(5);
    await putTrades(store, rows);
    for (let turn = 0; turn < 5; turn++) await putTrades(store, shuffled(rows, random).slice(turn * 10));
    // Twice in one put.
    await putTrades(store, [rows[3]!, rows[3]!]);
    expect(newestFirst(await scanAll(store, "AAPL", ALL_DAY))).toEqual(newestFirst(rows));
    expect(await store.listTrades({ symbol: "AAPL", range: ALL_DAY, limit: 1_000 })).toEqual(
      newestFirst(rows),
    );
  });

  promise("the order in which trades are put leaves no trace", async ({ store }) => {
    const random = seeded(6);
    const rows = Array.from({ length: 200 }, (_, index) =>
      rowOf(index + 1, { tradedAtMs: NOON_MS + random(3 * HOUR_MS), price: 1 + random(50) }),
    );
    for (const row of shuffled(rows, random)) await store.putTrades([row]);
    expect(newestFirst(await scanAll(store, "AAPL", ALL_DAY))).toEqual(newestFirst(rows));
  });

  promise("two equal prints are two trades", async ({ store }) => {
    const twins = [rowOf(1), rowOf(2)];
    await putTrades(store, twins);
    expect(await store.listTrades({ symbol: "AAPL", range: ALL_DAY, limit: 10 })).toEqual(newestFirst(twins));
    expect((await scanAll(store, "AAPL", ALL_DAY)).length).toBe(2);
  });

  promise(
    "a row that cannot be stored is refused, and does not take the others with it",
    async ({ store }) => {
      const good = [rowOf(1), rowOf(2), rowOf(3)];
      const bad = harness.refusedTrade(rowOf(4));
      await expect(store.putTrades([good[0]!, bad, good[1]!])).rejects.toBeInstanceOf(RowRefusedError);
      await expect(store.putTrades([bad])).rejects.toBeInstanceOf(RowRefusedError);
      // Tried alone, as the processor does, each tells whether it is the one; and the store goes on.
      for (const row of good) await store.putTrades([row]);
      expect(await store.listTrades({ symbol: "AAPL", range: ALL_DAY, limit: 10 })).toEqual(
        newestFirst(good),
      );
    },
  );

  // ---- Scanning ---------------------------------------------------------------------------------------------

  promise("a scan is half-open, over hours and days", async ({ store }) => {
    const midnight = Date.UTC(2026, 0, 6);
    const times = [0, 1, HOUR_MS - 1, HOUR_MS].flatMap((ms) => [midnight - ms - 1, midnight + ms]);
    const rows = times.map((tradedAtMs, index) => rowOf(index + 1, { tradedAtMs }));
    await putTrades(store, [...rows, rowOf(99, { symbol: "MSFT", tradedAtMs: midnight })]);
    const edges = [...new Set(times.flatMap((ms) => [ms, ms + 1]))].sort((a, b) => a - b);
    for (const fromMs of edges) {
      for (const toMs of edges) {
        const within = rows.filter(({ trade_timestamp: ms }) => ms >= fromMs && ms < toMs);
        expect(newestFirst(await scanAll(store, "AAPL", { fromMs, toMs }))).toEqual(newestFirst(within));
      }
    }
  });

  /** More than three pages, a page and more of them in one millisecond, over an hour's boundary. */
  function crowd(): TradeRow[] {
    const random = seeded(8);
    return Array.from({ length: Math.floor(3.3 * harness.scanPageRows) }, (_, index) => {
      const offsets = [-1, -1, 0, 0, 0, 1, 2, random(1_000)];
      return rowOf(index + 1, { tradedAtMs: NOON_MS + offsets[random(offsets.length)]!, price: 1 + index });
    });
  }

  promise(
    "a scan over many pages meets each row once, however many share a millisecond",
    async ({ store }) => {
      const rows = crowd();
      await putTrades(store, shuffled(rows, seeded(1)));
      const met = new Set<string>();
      let pages = 0;
      let count = 0;
      for await (const page of store.scanTrades("AAPL", { fromMs: NOON_MS - 1, toMs: NOON_MS + 2 })) {
        expect(page.length).toBeLessThanOrEqual(harness.scanPageRows);
        for (const { uuid } of page) met.add(uuid);
        count += page.length;
        pages += 1;
      }
      const due = rows.filter(({ trade_timestamp: ms }) => ms < NOON_MS + 2);
      expect(count).toBe(due.length);
      expect(met).toEqual(new Set(due.map(({ uuid }) => uuid)));
      expect(pages).toBeGreaterThan(2);
    },
  );

  promise("rows put while a scan runs never make it lose or repeat one", async ({ store }) => {
    const rows = crowd();
    await putTrades(store, rows);
    const random = seeded(9);
    const met = new Map<string, number>();
    let sequence = 1_000_000;
    for await (const page of store.scanTrades("AAPL", { fromMs: NOON_MS - 1, toMs: NOON_MS + 2_000 })) {
      for (const { uuid } of page) met.set(uuid, (met.get(uuid) ?? 0) + 1);
      // Before, at and behind the place that the scan has come to, and the old rows once more.
      const news = Array.from({ length: 50 }, () =>
        rowOf(++sequence, { tradedAtMs: NOON_MS - 1 + random(1_500) }, RECEIVED_MS - 1 + random(3)),
      );
      await putTrades(store, [...news, ...page.slice(0, 20)]);
    }
    expect([...met.values()].every((times) => times === 1)).toBe(true);
    expect(rows.filter(({ uuid }) => !met.has(uuid))).toEqual([]);
  });

  promise("a scan that is left early disturbs nothing", async ({ store }) => {
    const rows = crowd();
    await putTrades(store, rows);
    for await (const page of store.scanTrades("AAPL", ALL_DAY)) {
      expect(page.length).toBeGreaterThan(0);
      break;
    }
    await putTrades(store, [rowOf(5_000_000)]);
    expect((await scanAll(store, "AAPL", ALL_DAY)).length).toBe(rows.length + 1);
  });

  // ---- Lists of trades --------------------------------------------------------------------------------------

  promise(
    "trades are listed newest first, and `before` pages through them without loss",
    async ({ store }) => {
      const random = seeded(10);
      const rows = Array.from({ length: 150 }, (_, index) =>
        rowOf(index + 1, { tradedAtMs: NOON_MS - 20 + random(40) }, RECEIVED_MS + random(3)),
      );
      await putTrades(store, shuffled(rows, random));
      for (const limit of [1, 7, 50, 149, 150, 151]) {
        const listed: TradeRow[] = [];
        let before: { trade_timestamp: number; uuid: string } | undefined;
        for (;;) {
          const page = await store.listTrades({
            symbol: "AAPL",
            range: ALL_DAY,
            limit,
            ...(before && { before }),
          });
          expect(page.length).toBeLessThanOrEqual(limit);
          listed.push(...page);
          // A page that repeats itself must not page for ever.
          if (page.length < limit || listed.length > rows.length) break;
          before = page.at(-1)!;
        }
        expect(listed).toEqual(newestFirst(rows));
      }
    },
  );

  promise("trades that come while a reader pages shift nothing", async ({ store }) => {
    const rows = Array.from({ length: 60 }, (_, index) =>
      rowOf(index + 1, { tradedAtMs: NOON_MS + (index % 4) }),
    );
    await putTrades(store, rows);
    const listed: TradeRow[] = [];
    let before: { trade_timestamp: number; uuid: string } | undefined;
    for (let page = 0; page < 6; page++) {
      const query = { symbol: "AAPL", range: ALL_DAY, limit: 10 };
      const some = await store.listTrades({ ...query, ...(before && { before }) });
      listed.push(...some);
      before = some.at(-1)!;
      await putTrades(store, [rowOf(1_000 + page, { tradedAtMs: NOON_MS + 60_000 })]);
    }
    expect(listed).toEqual(newestFirst(rows));
  });

  promise("a list of trades is half-open, and `before` never widens its range", async ({ store }) => {
    const rows = [-HOUR_MS, -1, 0, 1, 2, HOUR_MS].map((ms, index) =>
      rowOf(index + 1, { tradedAtMs: NOON_MS + ms }),
    );
    await putTrades(store, rows);
    const list = async (range: TimeRange, before?: { trade_timestamp: number; uuid: string }) =>
      (await store.listTrades({ symbol: "AAPL", range, limit: 100, ...(before && { before }) })).map(
        ({ trade_timestamp }) => trade_timestamp - NOON_MS,
      );
    const range = { fromMs: NOON_MS - 1, toMs: NOON_MS + 2 };
    const uuid = rows[0]!.uuid;
    expect(await list(range)).toEqual([1, 0, -1]);
    expect(await list(range, rows.at(-1))).toEqual([1, 0, -1]);
    expect(await list(range, { trade_timestamp: range.toMs, uuid })).toEqual([1, 0, -1]);
    expect(await list(range, rows[3])).toEqual([0, -1]);
    expect(await list(range, rows[1])).toEqual([]);
    expect(await list(range, rows[0])).toEqual([]);
    // The smallest and the largest identity of a millisecond, which no row has.
    const edge = (digit: string) => "00000000-0000-7000-8000-000000000000".replace(/0/g, digit);
    const smallest = "00000000-0000-7000-8000-000000000000";
    expect(await list(range, { trade_timestamp: NOON_MS, uuid: smallest })).toEqual([-1]);
    expect(await list(range, { trade_timestamp: NOON_MS, uuid: edge("f") })).toEqual([0, -1]);
  });

  // ---- Aggregates -------------------------------------------------------------------------------------------

  const AVERAGES = [
    average({ trade_count: 1, volume: 0, vwap: null, price_volume_multiply: 0 }),
    average({ trade_count: 2, volume: 5, vwap: 7.5 }),
    average({ trade_count: 3, volume: 1e-8, vwap: 1e-8, average_price: 3 }),
  ];
  const CANDLES = [
    candle({ trade_count: 1, high: 9 }),
    candle({ trade_count: 2, high: 8, vwap: null, volume: 0, price_volume_sum: 0 }),
    candle({ trade_count: 3, high: 7, low: 1e-8 }),
  ];

  async function windowsOf(store: StoreReader): Promise<(AverageRow | CandleRow)[]> {
    const query = { symbol: "AAPL", range: ALL_DAY, limit: 100 };
    return [...(await store.listAverages(query)), ...(await store.listCandles(query))];
  }

  for (const aggregate of AGGREGATES) {
    const { kind, shape } = aggregate;
    const versions = (shape === "average" ? AVERAGES : CANDLES).map((window) => ofKind(aggregate, window));
    promise(
      `of three versions of one ${kind} the fullest stays, whole, in any order of writing`,
      async (open) => {
        for (const [turn, order] of permutations([0, 1, 2]).entries()) {
          const symbol = `${kind} ${turn}`;
          const windows = order.map((index) => withSymbol(versions[index]!, symbol));
          for (const window of windows) await open.store.putWindows([window]);
          const list = () => listOf(open.store, aggregate, { symbol, range: ALL_DAY, limit: 10 });
          expect<readonly unknown[]>(await list()).toEqual([withSymbol(versions[2]!, symbol).row]);
          // The same again, at once.
          await open.store.putWindows(windows);
          expect<readonly unknown[]>(await list()).toEqual([withSymbol(versions[2]!, symbol).row]);
        }
      },
    );
  }

  promise("a full row without vwap replaces a poorer one that had it", async ({ store }) => {
    const full = [average({ trade_count: 9, volume: 0, vwap: null }), candle({ trade_count: 9, vwap: null })];
    await store.putWindows([average(), candle()]);
    await store.putWindows(full);
    expect(await windowsOf(store)).toEqual(full.map(({ row }) => row));
  });

  promise("a version of equal count may be written again and again", async ({ store }) => {
    const windows = [...AVERAGES.slice(2), ...CANDLES.slice(2)];
    for (let turn = 0; turn < 3; turn++) await store.putWindows(windows);
    expect(await windowsOf(store)).toEqual(windows.map(({ row }) => row));
  });

  promise(
    "averages are listed by window_end and candles by window_start, newest first",
    async ({ store }) => {
      const midnight = Date.UTC(2026, 0, 6);
      const ends = [-HOUR_MS, -15_000, -5_000, 0, 5_000, 10_000, HOUR_MS - 5_000, HOUR_MS].map(
        (ms) => midnight + ms,
      );
      const starts = [-HOUR_MS, -120_000, -60_000, 0, 60_000, HOUR_MS - 60_000, HOUR_MS].map(
        (ms) => midnight + ms,
      );
      const averages = ends.map((window_end, index) => average({ window_end, trade_count: index + 1 }));
      const candles = starts.map((window_start, index) => candle({ window_start, trade_count: index + 1 }));
      await store.putWindows(shuffled([...averages, ...candles, average({ symbol: "MSFT" })], seeded(2)));
      const edges = [...new Set([...ends, ...starts].flatMap((ms) => [ms, ms + 1]))].sort((a, b) => a - b);
      for (const fromMs of edges) {
        for (const toMs of edges) {
          const isInside = (ms: number) => ms >= fromMs && ms < toMs;
          const query = { symbol: "AAPL", range: { fromMs, toMs }, limit: 100 };
          const dueAverages = averages.map(({ row }) => row).filter((row) => isInside(row.window_end));
          expect(await store.listAverages(query)).toEqual(dueAverages.reverse());
          const dueCandles = candles.map(({ row }) => row).filter((row) => isInside(row.window_start));
          expect(await store.listCandles(query)).toEqual(dueCandles.reverse());
        }
      }
      const query = { symbol: "AAPL", range: { fromMs: ends[0]!, toMs: midnight + DAY_MS }, limit: 3 };
      expect((await store.listAverages(query)).map(({ window_end }) => window_end)).toEqual(
        ends.slice(-3).reverse(),
      );
      expect((await store.listCandles(query)).map((row) => row.window_start)).toEqual(
        starts.slice(-3).reverse(),
      );
    },
  );

  promise("an aggregate comes back to the last bit", async ({ store }) => {
    const odd = [5e-324, 1e-8, 0.1 + 0.2, 1e15, 1.797e308];
    const windows = odd.flatMap((value, index) => [
      average({
        window_end: NOON_MS + 5_000 * index,
        price_volume_multiply: value,
        vwap: value,
        volume: value,
      }),
      candle({ window_start: NOON_MS + 60_000 * index, price_volume_sum: value, low: value, volume: value }),
    ]);
    await store.putWindows(windows);
    const of = (kind: "average" | "candle") =>
      windows.flatMap((window) => (window.kind === kind ? [window.row] : [])).reverse();
    expect(await windowsOf(store)).toEqual([...of("average"), ...of("candle")]);
  });

  // ---- Events and dead letters ------------------------------------------------------------------------------

  promise("events are kept once, and listed newest first over days", async ({ store }) => {
    const midnight = Date.UTC(2026, 0, 6);
    const events = [-DAY_MS, -1, 0, 0, 1, DAY_MS].map((ms, index) =>
      event(index + 1, { event_timestamp: midnight + ms, detail: JSON.stringify({ é: "😀'\"", index }) }),
    );
    for (let turn = 0; turn < 3; turn++) await store.putEvents(shuffled(events, seeded(turn)));
    const list = (fromMs: number, toMs: number, limit = 100) =>
      store.listEvents({ range: { fromMs: midnight + fromMs, toMs: midnight + toMs }, limit });
    expect(await list(-DAY_MS, DAY_MS + 1)).toEqual([...events].reverse());
    expect(await list(-DAY_MS, DAY_MS)).toEqual(events.slice(0, -1).reverse());
    expect(await list(-DAY_MS + 1, 0)).toEqual([events[1]!]);
    expect(await list(0, 1)).toEqual([events[3]!, events[2]!]);
    expect(await list(-DAY_MS, DAY_MS + 1, 2)).toEqual([events[5]!, events[4]!]);
  });

  promise("events of one millisecond differ by session and by sequence", async ({ store }) => {
    const events = [event(1), event(2), event(1, { session: "0badcaff" }), event(2 ** 32 - 1)];
    await store.putEvents(events);
    const listed = await store.listEvents({ range: ALL_DAY, limit: 10 });
    expect(listed.map(({ session, sequence }) => [session, sequence])).toEqual([
      ["0badcaff", 1],
      [SESSION, 2 ** 32 - 1],
      [SESSION, 2],
      [SESSION, 1],
    ]);
  });

  promise("dead letters are kept once, whole, byte for byte", async ({ store, deadLetters }) => {
    const every = Uint8Array.from({ length: 256 }, (_, index) => index);
    const put = [
      deadLetter(1, { payload: new Uint8Array(0) }),
      deadLetter(1, { item: 0, payload: every }),
      deadLetter(1, { item: 1023, payload: Uint8Array.of(0) }),
      deadLetter(2, { reason: "undecodable", source: "processor" }),
      deadLetter(1, { session: "0badcaff", payload: new Uint8Array(200_000).fill(7) }),
      deadLetter(2 ** 32 - 1, { payload: Buffer.from("not JSON: 😀") }),
    ];
    for (let turn = 0; turn < 3; turn++) await store.putDead(shuffled(put, seeded(turn)));
    const plain = (all: readonly DeadLetter[]) =>
      all.map((one) => ({ ...one, payload: Buffer.from(one.payload).toString("hex") })).sort(byIdentity);
    expect(plain(await deadLetters())).toEqual(plain(put));
  });
}

export type MenderHarness = Readonly<{
  /** A fresh, empty store. */
  open(): Promise<AsyncDisposable & { readonly store: StoreWriter & StoreReader & StoreMender }>;
  /** Windows of one page of a scan at most. */
  scanPageRows: number;
  timeoutMs: number;
}>;

/** The promises of StoreMender: what the operator's verification needs beside reading and writing. */
export function menderContract(name: string, harness: MenderHarness): void {
  type Store = StoreWriter & StoreReader & StoreMender;
  const promise = (title: string, run: (store: Store) => Promise<void>) =>
    test(
      `${name}: ${title}`,
      async () => {
        await using open = await harness.open();
        await run(open.store);
      },
      { timeout: harness.timeoutMs },
    );

  async function scan(
    store: Store,
    kind: WindowRow["kind"],
    symbol = "AAPL",
    range = ALL_DAY,
  ): Promise<StoredWindow[]> {
    const found: StoredWindow[] = [];
    for await (const page of store.scanWindows(kind, symbol, range)) {
      expect(page.length).toBeLessThanOrEqual(harness.scanPageRows);
      found.push(...page);
    }
    return found.sort((a, b) => atOf(a) - atOf(b));
  }
  const atOf = ({ window }: StoredWindow) => timeOfRow(window);
  const stored = (window: WindowRow): StoredWindow => ({ window, version: windowVersion(window) });

  async function hours(store: Store, range: TimeRange, symbol?: string): Promise<string[]> {
    const found = new Set<string>();
    for await (const page of store.scanHours(range, symbol))
      for (const held of page) found.add(`${held.symbol} ${(held.hour - NOON_MS) / HOUR_MS}`);
    return [...found].sort();
  }

  promise("every hour that holds a trade, an average or a candle is named", async (store) => {
    expect(await hours(store, ALL_DAY)).toEqual([]);
    await putTrades(store, [
      rowOf(1, { symbol: "A", tradedAtMs: NOON_MS }),
      rowOf(2, { symbol: "A", tradedAtMs: NOON_MS + 3 * HOUR_MS }),
      rowOf(3, { symbol: "A\u0000", tradedAtMs: NOON_MS + 2 * HOUR_MS - 1 }),
    ]);
    await store.putWindows([
      // It ends with the hour before the next, and so belongs to the next.
      average({ symbol: "B", window_end: NOON_MS + HOUR_MS }),
      candle({ symbol: "C", window_start: NOON_MS + 2 * HOUR_MS - 60_000 }),
      candle({ symbol: "C", window_start: NOON_MS - DAY_MS }),
    ]);
    const due = ["A 0", "A 3", "A\u0000 1", "B 1", "C -24", "C 1"];
    expect(await hours(store, ALL_DAY)).toEqual(expect.arrayContaining(due));
    expect(await hours(store, ALL_DAY, "A")).toEqual(expect.arrayContaining(["A 0", "A 3"]));
    expect((await hours(store, ALL_DAY, "A")).filter((held) => !held.startsWith("A "))).toEqual([]);
    expect(await hours(store, ALL_DAY, "nobody")).toEqual([]);
    // Whatever overlaps the range, and nothing beside it.
    const inHour = { fromMs: NOON_MS + HOUR_MS - 1, toMs: NOON_MS + HOUR_MS + 1 };
    expect(await hours(store, inHour)).toEqual(expect.arrayContaining(["A 0", "A\u0000 1", "B 1", "C 1"]));
    expect((await hours(store, inHour)).filter((held) => !/ [01]$/.test(held))).toEqual([]);
    expect(await hours(store, { fromMs: NOON_MS, toMs: NOON_MS })).toEqual([]);
  });

  promise("more hours than a page holds are all named", async (store) => {
    const hourCount = 600;
    const windows = Array.from({ length: hourCount }, (_, index) =>
      average({ window_end: NOON_MS + index * HOUR_MS }),
    );
    for (let from = 0; from < hourCount; from += 300) await store.putWindows(windows.slice(from, from + 300));
    const range = { fromMs: NOON_MS, toMs: NOON_MS + hourCount * HOUR_MS };
    const due = windows.map((_, index) => `AAPL ${index}`);
    expect(await hours(store, range)).toEqual(expect.arrayContaining(due));
    expect(await hours(store, range, "AAPL")).toEqual(expect.arrayContaining(due));
  });

  promise("windows are scanned whole, with their versions, as many as there are", async (store) => {
    const midnight = Date.UTC(2026, 0, 6);
    const count = 2 * harness.scanPageRows + 3;
    const averages = Array.from({ length: count }, (_, index) =>
      average({
        window_end: midnight + (index - 40) * 5_000,
        trade_count: index + 1,
        vwap: index % 3 === 0 ? null : 0.1 + 0.2,
      }),
    );
    const candles = Array.from({ length: 200 }, (_, index) =>
      candle({ window_start: midnight + (index - 100) * 60_000, trade_count: index + 1 }),
    );
    for (let from = 0; from < averages.length; from += 500)
      await store.putWindows(averages.slice(from, from + 500));
    await store.putWindows([...candles, average({ symbol: "MSFT" }), candle({ symbol: "MSFT" })]);
    const ever = { fromMs: midnight - DAY_MS, toMs: midnight + 30 * DAY_MS };
    expect(await scan(store, "average", "AAPL", ever)).toEqual(averages.map(stored));
    expect(await scan(store, "candle", "AAPL", ever)).toEqual(candles.map(stored));
    const edges = [-60_001, -60_000, -5_000, -1, 0, 1, 5_000, 60_000].map((ms) => midnight + ms);
    for (const fromMs of edges) {
      for (const toMs of edges) {
        const isInside = (one: StoredWindow) => atOf(one) >= fromMs && atOf(one) < toMs;
        const range = { fromMs, toMs };
        expect(await scan(store, "average", "AAPL", range)).toEqual(averages.map(stored).filter(isInside));
        expect(await scan(store, "candle", "AAPL", range)).toEqual(candles.map(stored).filter(isInside));
      }
    }
    expect(await scan(store, "average", "nobody", ever)).toEqual([]);
  });

  for (const aggregate of AGGREGATES) {
    const { kind, shape } = aggregate;
    const make = shape === "average" ? average : candle;
    const full = ofKind(aggregate, make({ trade_count: 9 }));
    const poor = ofKind(aggregate, make({ trade_count: 4, vwap: null, volume: 0 }));
    const neighbours = [
      shape === "average"
        ? average({ window_end: timeOfRow(full) + 5_000 })
        : candle({ window_start: timeOfRow(full) + 60_000 }),
    ].map((window) => ofKind(aggregate, window));
    const list = (store: Store) => listOf(store, aggregate, { symbol: "AAPL", range: ALL_DAY, limit: 10 });
    const forced = windowVersion(full) + 1;

    promise(
      `a ${kind} put at a larger version wins with all its columns, a smaller one never`,
      async (store) => {
        await store.putWindows([full]);
        await store.putWindowAt({ window: poor, version: windowVersion(full) - 1 });
        expect(await scan(store, kind)).toEqual([stored(full)]);
        await store.putWindowAt({ window: poor, version: forced });
        for (let turn = 0; turn < 2; turn++) {
          expect(await scan(store, kind)).toEqual([{ window: poor, version: forced }]);
          expect<readonly unknown[]>(await list(store)).toEqual([poor.row]);
          // What a process that remembers the older rows still writes.
          await store.putWindows([full]);
        }
      },
    );

    promise(`a removed ${kind} is gone, and only a larger version brings it back`, async (store) => {
      await store.putWindows([full, ...neighbours]);
      await store.removeWindow(windowOf(full), windowVersion(full) - 1);
      expect(await scan(store, kind)).toEqual([full, ...neighbours].map(stored));
      await store.removeWindow(windowOf(full), forced);
      for (let turn = 0; turn < 2; turn++) {
        expect(await scan(store, kind)).toEqual(neighbours.map(stored));
        expect<readonly unknown[]>(await list(store)).toEqual(neighbours.map(({ row }) => row));
        await store.putWindows([full, poor]);
      }
      const fuller = withCount(full, full.row.trade_count + 1);
      await store.putWindows([fuller]);
      expect(await scan(store, kind)).toEqual([fuller, ...neighbours].map(stored));
    });

    promise(`removing a ${kind} that is not there keeps out what comes below`, async (store) => {
      await store.removeWindow(windowOf(full), forced);
      await store.putWindows([poor, full]);
      expect(await scan(store, kind)).toEqual([]);
      expect(await list(store)).toEqual([]);
    });
  }
}

/** The same row as one of another aggregate of its shape. */
function ofKind({ kind }: Aggregate, { row }: WindowRow): WindowRow {
  return { kind, row } as WindowRow;
}

async function listOf(
  store: StoreReader,
  aggregate: Aggregate,
  query: WindowQuery,
): Promise<readonly unknown[]> {
  return aggregate.shape === "average"
    ? await store.listAverages(query, aggregate.kind)
    : await store.listCandles(query, aggregate.kind);
}

function withCount(window: WindowRow, trade_count: number): WindowRow {
  return { ...window, row: { ...window.row, trade_count } } as WindowRow;
}

type Identity = Readonly<{ session: string; sequence: number; item: number }>;

function byIdentity(a: Identity, b: Identity): number {
  return a.session.localeCompare(b.session) || a.sequence - b.sequence || a.item - b.item;
}

function withSymbol(window: WindowRow, symbol: string): WindowRow {
  return { ...window, row: { ...window.row, symbol } } as WindowRow;
}

export function event(sequence: number, fields: Partial<FeedEventRow> = {}): FeedEventRow {
  const event_timestamp = fields.event_timestamp ?? NOON_MS + 30_000;
  return {
    day: dayOf(event_timestamp),
    event_timestamp,
    session: SESSION,
    sequence,
    type: "connected",
    detail: "{}",
    ...fields,
  };
}

export function deadLetter(sequence: number, fields: Partial<DeadLetter> = {}): DeadLetter {
  return {
    session: SESSION,
    sequence,
    item: WHOLE_MESSAGE,
    receivedAtMs: RECEIVED_MS,
    reason: "garbage_frame",
    source: "feed",
    payload: Uint8Array.of(1, 2, 3),
    ...fields,
  };
}
