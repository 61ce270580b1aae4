// The operator's verification, on a real store: it finds every kind of difference, reports none that is not one, and
// repairs exactly what it was asked to. What the tables must hold comes from reference.ts.

import { expect, test } from "bun:test";
import { type Clock, systemClock } from "../../../lib/base/clock.ts";
import { StoreUnavailableError } from "../../../lib/base/errors.ts";
import {
  CLOSED_AFTER_MS,
  type Difference,
  type Skipped,
  type VerifyDeps,
  verifyWindows,
} from "../../../lib/commands/verify.ts";
import type { StoredWindow } from "../../../lib/contracts/store.ts";
import { AGGREGATES, type WindowRow } from "../../../lib/model/aggregates.ts";
import { tradeUuids } from "../../../lib/model/identity.ts";
import { DAY_MS, HOUR_MS, type Trade, type TradeRow, tradeRow } from "../../../lib/model/trade.ts";
import { windowEndMs, windowOf, windowVersion } from "../../../lib/model/windows.ts";
import { PANE_IDLE_MS } from "../../../lib/processing/partition-state.ts";
import { openSqliteStore, type SqliteStore } from "../../../lib/sqlite/store.ts";
import { windowsOf, windowsPerTrade } from "../../reference.ts";
import { NOON_MS, seeded, temporaryDirectory, trade } from "../../support/builders.ts";

const RETENTION_DAYS = 30;
const ALL = { fromMs: 0, toMs: NOON_MS + 3 * DAY_MS };
const SESSION = "0badcafe";

type Market = Disposable & { readonly store: SqliteStore; readonly rows: readonly TradeRow[] };

let sequence = 0;
function rowsOf(trades: readonly Trade[]): TradeRow[] {
  return trades.map((one) => {
    const receivedAtMs = one.tradedAtMs + 20;
    return tradeRow(one, tradeUuids(SESSION, ++sequence, receivedAtMs)(0), receivedAtMs);
  });
}

function referenceOf(rows: readonly TradeRow[]): WindowRow[] {
  const plain = rows.map((row) => ({ ...row, atMs: row.trade_timestamp }));
  return windowsOf(plain, AGGREGATES) as WindowRow[];
}

/** A store with these trades and their windows, as the reference computes them. */
async function openMarket(trades: readonly Trade[]): Promise<Market> {
  const directory = temporaryDirectory();
  const store = openSqliteStore({ directory: directory.path, sync: "normal" });
  const rows = rowsOf(trades);
  await store.putTrades(rows);
  await store.putWindows(referenceOf(rows));
  return {
    store,
    rows,
    [Symbol.dispose]() {
      store[Symbol.dispose]();
      directory[Symbol.dispose]();
    },
  };
}

type Asked = Partial<
  Pick<VerifyDeps, "repair" | "isLive" | "range" | "symbol" | "retentionDays" | "expires">
> & {
  nowMs?: number;
  /** What happens while a difference is given its time. */
  meanwhile?: () => Promise<void>;
};

async function verify(store: SqliteStore, asked: Asked = {}) {
  const { nowMs = NOON_MS + DAY_MS, meanwhile, ...parts } = asked;
  const differences: Difference[] = [];
  const skipped: Skipped[] = [];
  const waitsMs: number[] = [];
  const clock: Clock = {
    ...systemClock,
    now: () => nowMs,
    async sleep(durationMs) {
      waitsMs.push(durationMs);
      await meanwhile?.();
    },
  };
  const verified = await verifyWindows({
    store,
    clock,
    range: ALL,
    retentionDays: RETENTION_DAYS,
    expires: "rows",
    repair: "nothing",
    isLive: false,
    onDifference: (difference) => differences.push(difference),
    onSkipped: (one) => skipped.push(one),
    signal: new AbortController().signal,
    ...parts,
  });
  return { ...verified, found: differences, skipped, waitsMs };
}

const outcomes = (found: readonly Difference[]) => found.map(({ what, outcome }) => [what, outcome]);

async function storedWindow(
  store: SqliteStore,
  kind: "average" | "candle",
  atMs: number,
): Promise<StoredWindow> {
  for await (const page of store.scanWindows(kind, "AAPL", { fromMs: atMs, toMs: atMs + 1 })) return page[0]!;
  throw new Error(`no ${kind} at ${atMs}`);
}

/** Over an hour's and a day's edge, several in a millisecond, one symbol of forex. */
function busyTrades(): Trade[] {
  const random = seeded(3);
  const midnight = NOON_MS + 12 * HOUR_MS;
  return Array.from({ length: 1_500 }, (_, index) => {
    const symbol = ["AAPL", "MSFT", "OANDA:EUR_USD"][index % 3]!;
    const volume = index % 3 === 2 ? 0 : random(5);
    return trade({
      symbol,
      volume,
      price: 1 + random(9_999) / 7,
      tradedAtMs: midnight - 1_200_000 + random(2_400_000),
    });
  });
}

test("what the reference computes has no difference, over the edges of hours and of days", async () => {
  using market = await openMarket([
    ...busyTrades(),
    trade({ symbol: "EDGE", tradedAtMs: NOON_MS - 1 }),
    trade({ symbol: "EDGE", tradedAtMs: NOON_MS }),
    trade({ symbol: "LAST", tradedAtMs: NOON_MS - 1 }),
  ]);
  const { compared, differences, open, skippedExpired, waitsMs } = await verify(market.store, {
    isLive: true,
  });
  expect({ compared, differences, open, skippedExpired }).toEqual({
    compared: referenceOf(market.rows).length,
    differences: 0,
    open: 0,
    skippedExpired: 0,
  });
  expect(waitsMs).toEqual([]);
});

test("a window is missed although it ends in an hour without a trade", async () => {
  using market = await openMarket([]);
  await market.store.putTrades(rowsOf([trade({ tradedAtMs: NOON_MS - 1 })]));
  const { found } = await verify(market.store);
  const endOf = ({ window }: Difference) => windowEndMs(window) - NOON_MS;
  const missing = found.map((one) => `${one.what} ${one.window.kind} ${endOf(one)}`);
  expect(missing).toHaveLength(WINDOWS_OF_A_TRADE);
  expect(missing).toEqual(
    expect.arrayContaining([
      "missing average 0",
      "missing average 10000",
      "missing average 5000",
      "missing candle 0",
    ]),
  );
});

test("a range takes the windows that overlap it, and a symbol only its own", async () => {
  using market = await openMarket(busyTrades());
  const midnight = NOON_MS + 12 * HOUR_MS;
  const range = { fromMs: midnight - 7_000, toMs: midnight + 61_000 };
  const due = referenceOf(market.rows).filter((window) => {
    const { symbol, startMs } = windowOf(window);
    return symbol === "MSFT" && windowEndMs(windowOf(window)) > range.fromMs && startMs < range.toMs;
  });
  expect(due.length).toBeGreaterThan(10);
  expect(await verify(market.store, { range, symbol: "MSFT" })).toMatchObject({
    compared: due.length,
    differences: 0,
  });
  expect((await verify(market.store, { range, symbol: "nobody" })).compared).toBe(0);
});

/** Two trades of one symbol at noon, and one an hour later in a window of its own. */
const FEW = [
  trade({ price: 10, volume: 2, tradedAtMs: NOON_MS + 1_000 }),
  trade({ price: 13, volume: 1, tradedAtMs: NOON_MS + 1_500 }),
  trade({ price: 20, volume: 5, tradedAtMs: NOON_MS + HOUR_MS }),
];
/** Three averages and a candle, with the aggregates there are: no two of these trades but the first two share any. */
const WINDOWS_OF_A_TRADE = windowsPerTrade(AGGREGATES);
const WINDOW_COUNT_OF_FEW = 2 * WINDOWS_OF_A_TRADE;
const END_MS = NOON_MS + 5_000;

type Plant = {
  title: string;
  kind: "average" | "candle";
  atMs: number;
  plant: (store: SqliteStore, one: StoredWindow) => Promise<void>;
  what: Difference["what"];
  columns: string[];
  /** What --repair alone makes of it. */
  outcome: Difference["outcome"];
};

/** A row as it should not be, at a version of its own. */
function tampered({ window, version }: StoredWindow, fields: object, by = 0): StoredWindow {
  const row = { ...window.row, ...fields };
  return { window: { kind: window.kind, row } as WindowRow, version: version + by };
}

const PLANTS: Plant[] = [
  {
    title: "a row that is missing",
    kind: "average",
    atMs: END_MS,
    // Nothing can take a row away without a trace but a hand in the tables.
    plant: async (store, one) => {
      const window = { kind: "average", symbol: "AAPL", startMs: END_MS - 15_000 } as const;
      await store.removeWindow(window, one.version - 1);
      await store.removeWindow(window, one.version + 1);
    },
    what: "missing",
    columns: [],
    outcome: "needs_force",
  },
  {
    title: "a count that is too small",
    kind: "average",
    atMs: END_MS,
    plant: (store, one) => store.putWindowAt(tampered(one, { trade_count: 1 }, 1)),
    what: "differs",
    columns: ["trade_count"],
    outcome: "needs_force",
  },
  {
    title: "a count that is too large",
    kind: "candle",
    atMs: NOON_MS,
    plant: (store, one) => store.putWindowAt(tampered(one, { trade_count: 9 }, 14)),
    what: "differs",
    columns: ["trade_count"],
    outcome: "needs_force",
  },
  ...(["open", "high", "low", "close"] as const).map(
    (column): Plant => ({
      title: `a wrong ${column}, however little`,
      kind: "candle",
      atMs: NOON_MS,
      plant: (store, one) => {
        if (one.window.kind !== "candle") throw new Error("no candle");
        return store.putWindowAt(tampered(one, { [column]: one.window.row[column] * (1 + 2 ** -52) }));
      },
      what: "differs",
      columns: [column],
      outcome: "needs_force",
    }),
  ),
  ...(
    [
      ["average", "price_volume_multiply"],
      ["average", "average_price"],
      ["average", "vwap"],
      ["average", "volume"],
      ["candle", "price_volume_sum"],
      ["candle", "vwap"],
      ["candle", "volume"],
    ] as const
  ).map(
    ([kind, column]): Plant => ({
      title: `a ${column} of a ${kind} beyond a billionth`,
      kind,
      atMs: kind === "average" ? END_MS : NOON_MS,
      plant: (store, one) => {
        const value = Number(new Map<string, unknown>(Object.entries(one.window.row)).get(column));
        return store.putWindowAt(tampered(one, { [column]: value * (1 + 1.1e-9) }));
      },
      what: "differs",
      columns: [column],
      outcome: "needs_force",
    }),
  ),
  {
    title: "a vwap that is null though there was volume",
    kind: "average",
    atMs: END_MS,
    plant: (store, one) => store.putWindowAt(tampered(one, { vwap: null })),
    what: "differs",
    columns: ["vwap"],
    outcome: "needs_force",
  },
  {
    title: "a row without any trade",
    kind: "candle",
    atMs: NOON_MS,
    plant: (store, one) => store.putWindows([tampered(one, { window_start: NOON_MS + 2 * HOUR_MS }).window]),
    what: "extra",
    columns: [],
    outcome: "needs_force",
  },
];

for (const { title, kind, atMs, plant, what, columns, outcome } of PLANTS) {
  test(`${title} is found, and mended by --repair --force`, async () => {
    using market = await openMarket(FEW);
    expect(await verify(market.store)).toMatchObject({ compared: WINDOW_COUNT_OF_FEW, differences: 0 });
    await plant(market.store, await storedWindow(market.store, kind, atMs));

    const looked = await verify(market.store);
    expect(looked).toMatchObject({
      differences: 1,
      repaired: 0,
      found: [{ what, columns, outcome: "found" }],
    });
    expect((await verify(market.store, { repair: "fuller" })).found).toMatchObject([
      { what, columns, outcome },
    ]);
    const mended = await verify(market.store, { repair: "force" });
    expect(mended).toMatchObject({ differences: 1, repaired: 1, found: [{ what, outcome: "repaired" }] });
    expect(await verify(market.store)).toMatchObject({ compared: WINDOW_COUNT_OF_FEW, differences: 0 });
  });
}

test("--repair alone brings in what is missing and what counts too little, and leaves the rest", async () => {
  using market = await openMarket([]);
  const rows = rowsOf(FEW);
  // As after a process that stored the rows and died before the windows, or wrote some of them too early.
  await market.store.putTrades(rows);
  await market.store.putWindows(referenceOf(rows.slice(0, 1)));
  const repaired = await verify(market.store, { repair: "fuller" });
  expect(repaired).toMatchObject({
    differences: WINDOW_COUNT_OF_FEW,
    repaired: WINDOW_COUNT_OF_FEW,
    missing: WINDOWS_OF_A_TRADE,
  });
  expect(await verify(market.store)).toMatchObject({ compared: WINDOW_COUNT_OF_FEW, differences: 0 });
  expect((await storedWindow(market.store, "average", END_MS)).version).toBe(END_MS * 1_000 + 4);
});

test("sums within a billionth are equal", async () => {
  using market = await openMarket(FEW);
  const one = await storedWindow(market.store, "average", END_MS);
  if (one.window.kind !== "average") throw new Error("no average");
  const { vwap, volume } = one.window.row;
  const nearly = 1 + 0.9e-9;
  await market.store.putWindowAt(tampered(one, { vwap: vwap! * nearly, volume: volume * nearly }));
  expect((await verify(market.store)).differences).toBe(0);
});

test("after a bad print was deleted by hand, force writes the poorer row at the next odd version", async () => {
  using market = await openMarket(FEW);
  const before = await storedWindow(market.store, "average", END_MS);
  using other = await openMarket([FEW[0]!, FEW[2]!]);
  // The store without the bad print, with the windows that still count it.
  await other.store.putWindows(referenceOf(market.rows));
  expect(outcomes((await verify(other.store, { repair: "fuller" })).found)).toEqual(
    Array(WINDOWS_OF_A_TRADE).fill(["differs", "needs_force"]),
  );
  expect((await verify(other.store, { repair: "force" })).repaired).toBe(WINDOWS_OF_A_TRADE);
  expect(await storedWindow(other.store, "average", END_MS)).toMatchObject({
    version: before.version + 1,
    window: { row: { trade_count: 1, vwap: 10 } },
  });
  // What a process that remembers the bad print writes again changes nothing.
  await other.store.putWindows(referenceOf(market.rows));
  expect((await verify(other.store)).differences).toBe(0);
  // By force again: the next odd one.
  await other.store.putWindowAt(tampered(await storedWindow(other.store, "average", END_MS), { vwap: 11 }));
  await verify(other.store, { repair: "force" });
  expect((await storedWindow(other.store, "average", END_MS)).version).toBe(before.version + 3);
});

test("a window that was removed by force and traded in afterwards is brought back by force", async () => {
  using market = await openMarket(FEW);
  for (const one of referenceOf(market.rows)) {
    // As a removal of far fuller rows would leave it.
    await market.store.removeWindow(windowOf(one), windowVersion(one) + 2_001);
  }
  expect(await verify(market.store, { repair: "fuller" })).toMatchObject({
    missing: WINDOW_COUNT_OF_FEW,
    repaired: 0,
  });
  expect(await verify(market.store, { repair: "force" })).toMatchObject({
    missing: WINDOW_COUNT_OF_FEW,
    repaired: WINDOW_COUNT_OF_FEW,
  });
  expect((await verify(market.store)).differences).toBe(0);
});

test("what a processor is about to write is no difference: it is read again before it is reported", async () => {
  using market = await openMarket(FEW);
  const late = rowsOf([trade({ price: 11, tradedAtMs: NOON_MS + 1_700 })]);
  await market.store.putTrades(late);
  const meanwhile = () => market.store.putWindows(referenceOf([...market.rows, ...late]));
  const seen = await verify(market.store, { isLive: true, meanwhile });
  expect(seen).toMatchObject({ compared: WINDOW_COUNT_OF_FEW, differences: 0, found: [] });
  expect(seen.waitsMs).toHaveLength(1);
  expect(seen.waitsMs[0]).toBeGreaterThan(2 * 5_000);
});

test("a difference that moves is given more time, and not for ever", async () => {
  using market = await openMarket(FEW);
  const lateTrade = async () => market.store.putTrades(rowsOf([trade({ tradedAtMs: NOON_MS + 1_700 })]));
  await lateTrade();
  let turns = 0;
  const untilWritten = async () => {
    if (++turns < 3) await lateTrade();
    else await verify(market.store, { repair: "fuller" });
  };
  expect((await verify(market.store, { isLive: true, meanwhile: untilWritten })).differences).toBe(0);
  await lateTrade();
  const restless = await verify(market.store, { isLive: true, meanwhile: lateTrade });
  expect(restless.differences).toBe(WINDOWS_OF_A_TRADE);
  expect(restless.waitsMs).toHaveLength(4);
});

test("windows that are not closed for long enough are left out, and counted", async () => {
  using market = await openMarket([]);
  const rows = rowsOf([trade({ tradedAtMs: NOON_MS }), trade({ tradedAtMs: NOON_MS + DAY_MS })]);
  await market.store.putTrades(rows);
  const endsMs = referenceOf(rows.slice(0, 1)).map((window) => windowEndMs(windowOf(window)));
  const of = async (nowMs: number) => {
    const { missing, open } = await verify(market.store, { nowMs });
    return { missing, open };
  };
  const firstEndMs = Math.min(...endsMs);
  const closedCount = endsMs.filter((endMs) => endMs === firstEndMs).length;
  expect((await of(firstEndMs + CLOSED_AFTER_MS - 1)).missing).toBe(0);
  expect(await of(firstEndMs + CLOSED_AFTER_MS)).toEqual({
    missing: closedCount,
    open: WINDOWS_OF_A_TRADE - closedCount,
  });
  expect(await of(NOON_MS + 60_000 + CLOSED_AFTER_MS)).toEqual({ missing: WINDOWS_OF_A_TRADE, open: 0 });
});

test("of an old window only a row that counts more than the table is skipped, and named; all else is a difference", async () => {
  using market = await openMarket(FEW);
  const [average, candle] = [
    await storedWindow(market.store, "average", END_MS),
    await storedWindow(market.store, "candle", NOON_MS),
  ];
  const nowMs = NOON_MS + HOUR_MS + RETENTION_DAYS * DAY_MS;
  const found = async (expires: VerifyDeps["expires"], parts: Asked = {}) => {
    const {
      found: differences,
      skippedExpired,
      compared,
    } = await verify(market.store, { nowMs, expires, ...parts });
    return [compared + skippedExpired, skippedExpired, outcomes(differences)];
  };
  const all = WINDOW_COUNT_OF_FEW;
  expect(await found("rows")).toEqual([all, 0, []]);
  // A hand in a row is seen, however old its trades are, if they came a minute ago.
  await market.store.putWindowAt(tampered(average, { average_price: 99 }, 14));
  expect(await found("rows")).toEqual([all, 0, [["differs", "found"]]]);
  // A row that counts more may be right: the other trades have expired by themselves.
  await market.store.putWindowAt(tampered(candle, { trade_count: 9 }, 14));
  expect(await found("rows")).toEqual([all, 1, [["differs", "found"]]]);
  // Where hours expire as a whole, none of an hour that has trades has.
  expect((await found("hours"))[1]).toBe(0);
  await market.store.removeWindow(
    { kind: "candle", symbol: "AAPL", startMs: NOON_MS },
    Number.MAX_SAFE_INTEGER,
  );
  expect(await found("rows", { symbol: "AAPL" })).toEqual([
    all,
    0,
    [
      ["differs", "found"],
      ["missing", "found"],
    ],
  ]);
});

test("force leaves alone what a process may hold in memory, and what may only have expired", async () => {
  using market = await openMarket(FEW);
  const one = await storedWindow(market.store, "average", END_MS);
  await market.store.putWindowAt(tampered(one, { trade_count: 9 }, 14));
  const of = async (nowMs: number, isLive: boolean) =>
    outcomes((await verify(market.store, { nowMs, isLive, repair: "force", symbol: "AAPL" })).found);
  expect(await of(END_MS + PANE_IDLE_MS, true)).toEqual([["differs", "too_young"]]);
  const nearlyExpiredMs = NOON_MS + (RETENTION_DAYS - 0.5) * DAY_MS;
  expect(await of(nearlyExpiredMs, true)).toEqual([["differs", "may_have_expired"]]);
  expect(await of(END_MS + PANE_IDLE_MS, false)).toEqual([["differs", "repaired"]]);
});

test("a store that is away for a moment is asked again, and one that stays away is said", async () => {
  using market = await openMarket(FEW);
  const { scanTrades } = market.store;
  let failures = 0;
  const failing = (count: number): SqliteStore => ({
    ...market.store,
    async *scanTrades(...query) {
      if (failures++ < count) throw new StoreUnavailableError("away");
      yield* scanTrades(...query);
    },
  });
  expect(await verify(failing(3))).toMatchObject({ compared: WINDOW_COUNT_OF_FEW, differences: 0 });
  failures = 0;
  await expect(verify(failing(1e9))).rejects.toBeInstanceOf(StoreUnavailableError);
  expect(failures).toBeLessThan(50);
});

test("a verification that is told to stop ends, and says so by the signal's reason", async () => {
  using market = await openMarket(FEW);
  const stop = new AbortController();
  stop.abort(new Error("enough"));
  const running = verifyWindows({
    store: market.store,
    clock: systemClock,
    range: ALL,
    retentionDays: RETENTION_DAYS,
    expires: "rows",
    repair: "nothing",
    isLive: false,
    onDifference: () => {},
    onSkipped: () => {},
    signal: stop.signal,
  });
  await expect(running).rejects.toThrow("enough");
});
