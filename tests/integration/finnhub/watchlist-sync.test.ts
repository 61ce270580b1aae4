// The watchlist at run time, each part with real neighbours where they are cheap: the watchlist in its table, the
// seeding from the setting, the sync between watchlist and feed, and the commands that write the watchlist.

import { expect, test } from "bun:test";
import { systemClock } from "../../../lib/base/clock.ts";
import { SetupError } from "../../../lib/base/errors.ts";
import { type Fields, silentLogger } from "../../../lib/base/logger.ts";
import {
  type SymbolCheck,
  type SymbolCheckResult,
  symbolFault,
  type Watchlist,
} from "../../../lib/contracts/watchlist.ts";
import { createWatchlistSync, seedWatchlist } from "../../../lib/ingest/watchlist-sync.ts";
import { openSqliteStore } from "../../../lib/sqlite/store.ts";
import { createWatchlistCommands } from "../../../lib/web/watchlist-commands.ts";
import { NOON_MS, temporaryDirectory } from "../../support/builders.ts";
import { handClock, turns } from "../../support/feed.ts";
import { until } from "../../support/simulator.ts";

const FOUND: SymbolCheckResult = { kind: "found" };
const MISSING: SymbolCheckResult = { kind: "not_found", suggestions: ["AAPL"] };
const UNKNOWN: SymbolCheckResult = { kind: "unknown", reason: "a test has no answer" };

function openTable() {
  const directory = temporaryDirectory();
  const open = () => openSqliteStore({ directory: directory.path, sync: "normal" });
  let store = open();
  return {
    get watchlist() {
      return store.watchlist;
    },
    restart() {
      store[Symbol.dispose]();
      store = open();
      return store.watchlist;
    },
    [Symbol.dispose]() {
      store[Symbol.dispose]();
      directory[Symbol.dispose]();
    },
  };
}

const symbolsOf = (watchlist: Watchlist) => watchlist.list().flatMap((one) => (one.wanted ? one.symbol : []));

/** Verdicts by symbol, which a test may change; what was asked, in order. */
function fakeCheck(results: Record<string, SymbolCheckResult> = {}) {
  const asked: string[] = [];
  const check: SymbolCheck = {
    async check(symbol) {
      asked.push(symbol);
      return results[symbol] ?? FOUND;
    },
  };
  return { asked, results, check };
}

async function openSync(
  watchlist: Watchlist,
  results: Record<string, SymbolCheckResult> = {},
  fields: Partial<Parameters<typeof createWatchlistSync>[0]> = {},
) {
  const { asked, check } = fakeCheck(results);
  const clock = handClock(NOON_MS);
  const heard: (readonly string[])[] = [];
  const said: unknown[] = [];
  const warnings: [string, Fields | undefined][] = [];
  /** Ends the wait for the next round of checks. */
  let timeOut = () => {};
  const sync = createWatchlistSync({
    feed: { subscribe: (symbols) => heard.push(symbols) },
    watchlist,
    check,
    hasTraded: () => false,
    emitEvent: async (type, detail) => void said.push({ type, ...detail }),
    clock: {
      ...clock,
      after: (_, callback) => {
        timeOut = callback;
        return () => {};
      },
    },
    logger: { ...silentLogger, warn: (message, fields) => warnings.push([message, fields]) },
    ...fields,
  });
  const stopped = new AbortController();
  const running = sync.run(stopped.signal);
  return {
    sync,
    asked,
    heard,
    said,
    warnings,
    timeOut: () => timeOut(),
    async [Symbol.asyncDispose]() {
      stopped.abort();
      await running;
    },
  };
}

const put = (watchlist: Watchlist, symbol: string, isWanted = true, changedAtMs = NOON_MS) =>
  watchlist.put({ symbol, wanted: isWanted, changedAtMs, by: "operator" });

// --- The watchlist ---------------------------------------------------------------------------------------------

test("what was put is there after a restart, removals too, oldest change first", async () => {
  using table = openTable();
  for (const [symbol, atMs] of [
    ["C", 3],
    ["A", 1],
    ["B", 1],
    ["D", 2],
  ] as const) {
    await put(table.watchlist, symbol, true, atMs);
  }
  await put(table.watchlist, "D", false, 2);
  await put(table.watchlist, "A", true, 1); // Of equal age the newer put comes later.
  const expected = [
    { symbol: "B", wanted: true, changedAtMs: 1, by: "operator" },
    { symbol: "A", wanted: true, changedAtMs: 1, by: "operator" },
    { symbol: "D", wanted: false, changedAtMs: 2, by: "operator" },
    { symbol: "C", wanted: true, changedAtMs: 3, by: "operator" },
  ] as const;
  expect(table.watchlist.list()).toEqual(expected);
  expect(table.restart().list()).toEqual(expected);
});

test("listeners hear of a change after the list shows it, until they end it", async () => {
  using table = openTable();
  const heard: string[][] = [];
  const unlisten = table.watchlist.onChange(() => heard.push(symbolsOf(table.watchlist)));
  await put(table.watchlist, "A");
  await put(table.watchlist, "A", false);
  unlisten();
  await put(table.watchlist, "B");
  expect(heard).toEqual([["A"], []]);
});

test("a text that no exchange can mean is no symbol, and one of ours is kept free", () => {
  for (const symbol of ["", "#producer", " AAPL", "AAPL ", "A\nB", "A\u0000", "\ud800", "A".repeat(129)]) {
    expect([symbol, symbolFault(symbol)]).not.toEqual([symbol, null]);
  }
  for (const symbol of ["AAPL", "IC MARKETS:1", "BRK.B", "A".repeat(128), "Ä/€:x"]) {
    expect([symbol, symbolFault(symbol)]).toEqual([symbol, null]);
  }
});

// --- The setting -----------------------------------------------------------------------------------------------

test("the setting seeds in its order, and only where no operator has spoken", async () => {
  using table = openTable();
  await put(table.watchlist, "GONE", false);
  await seedWatchlist(table.watchlist, ["B", "A", "GONE"], handClock(NOON_MS));
  expect(symbolsOf(table.watchlist)).toEqual(["B", "A"]);
  await put(table.watchlist, "B", false);
  await put(table.watchlist, "X");
  await seedWatchlist(table.watchlist, ["B", "A", "GONE"], handClock(NOON_MS));
  expect(symbolsOf(table.restart())).toEqual(["A", "X"]);
});

test("a ticker taken out of the setting goes, and comes back with it; an operator's own stays", async () => {
  using table = openTable();
  await seedWatchlist(table.watchlist, ["A", "B"], handClock(NOON_MS));
  await put(table.watchlist, "X", true, NOON_MS - 1);
  await seedWatchlist(table.watchlist, ["B"], handClock(NOON_MS + 1));
  expect(symbolsOf(table.watchlist)).toEqual(["X", "B"]);
  await seedWatchlist(table.watchlist, ["A", "B"], handClock(NOON_MS + 2));
  expect(symbolsOf(table.watchlist)).toEqual(["X", "B", "A"]);
});

test("a setting that names no possible ticker is refused before anything is written", async () => {
  using table = openTable();
  const seeding = seedWatchlist(table.watchlist, ["AAPL", "#producer"], systemClock);
  expect(await seeding.catch((error: unknown) => error)).toBeInstanceOf(SetupError);
  expect(table.watchlist.list()).toEqual([]);
});

// --- The sync --------------------------------------------------------------------------------------------------

test("what is wanted is subscribed at once, before anything is checked, in order of age", async () => {
  using table = openTable();
  await put(table.watchlist, "NEW", true, NOON_MS);
  await put(table.watchlist, "OLD", true, NOON_MS - 1);
  const { promise: silence, resolve: answer } = Promise.withResolvers<SymbolCheckResult>();
  await using sync = await openSync(table.watchlist, {}, { check: { check: () => silence } });
  expect(sync.heard).toEqual([["OLD", "NEW"]]);
  await put(table.watchlist, "OLD", false, NOON_MS + 1);
  expect(sync.heard).toEqual([["OLD", "NEW"], ["NEW"]]);
  expect(sync.sync.outcome("NEW")).toEqual({ kind: "unchecked" });
  answer(FOUND);
});

test("only what is proven missing is dropped, and that is said once", async () => {
  using table = openTable();
  for (const symbol of ["AAPL", "APPL", "MAYBE"]) await put(table.watchlist, symbol);
  await using running = await openSync(table.watchlist, { APPL: MISSING, MAYBE: UNKNOWN });
  const { sync, heard, said, warnings, asked } = running;
  await until(() => asked.length === 3 && warnings.length === 2, "the checks");
  expect(heard).toEqual([
    ["AAPL", "APPL", "MAYBE"],
    ["AAPL", "MAYBE"],
  ]);
  expect(sync.wanted()).toEqual(["AAPL", "MAYBE"]);
  expect(sync.rejected()).toEqual(["APPL"]);
  const at = { checkedAtMs: NOON_MS };
  expect(sync.outcome("APPL")).toEqual({ ...MISSING, ...at });
  expect(sync.outcome("MAYBE")).toEqual({ ...UNKNOWN, ...at });
  expect(sync.outcome("AAPL")).toEqual({ ...FOUND, ...at });
  const suggestions = ["AAPL"];
  expect(said).toEqual([
    { type: "ticker_rejected", symbol: "APPL", message: "not found at Finnhub", suggestions },
  ]);
  expect(warnings).toEqual([
    ["Finnhub does not know a ticker: it is not subscribed", { symbol: "APPL", suggestions }],
    [
      "whether tickers exist could not be checked; they are subscribed all the same",
      { reason: "a test has no answer", symbols: ["MAYBE"], symbolCount: 1 },
    ],
  ]);
  expect(symbolsOf(table.watchlist)).toContain("APPL");
});

test("what trades exists, whatever a list says", async () => {
  using table = openTable();
  await put(table.watchlist, "ODD");
  await using running = await openSync(table.watchlist, { ODD: MISSING }, { hasTraded: () => true });
  await until(() => running.sync.outcome("ODD").kind === "found", "the check");
  expect(running.heard).toEqual([["ODD"]]);
  expect(running.said).toEqual([]);
});

test("what could not be checked is tried again after a while, and what is known is not asked again", async () => {
  using table = openTable();
  for (const symbol of ["AAPL", "MAYBE"]) await put(table.watchlist, symbol);
  const results: Record<string, SymbolCheckResult> = { MAYBE: UNKNOWN };
  await using running = await openSync(table.watchlist, results);
  const { asked, sync } = running;
  await until(() => running.warnings.length === 1, "the first check");
  await put(table.watchlist, "NEW");
  await until(() => asked.includes("NEW"), "the new one's check");
  expect(asked).toEqual(["AAPL", "MAYBE", "NEW"]);
  results.MAYBE = MISSING;
  await until(() => {
    running.timeOut();
    return sync.rejected().length === 1;
  }, "the second check");
  expect(asked).toEqual(["AAPL", "MAYBE", "NEW", "MAYBE"]);
  expect(running.heard.at(-1)).toEqual(["AAPL", "NEW"]);
});

test("with fresh lists a rejected ticker is looked at again, and is subscribed as soon as they have it", async () => {
  using table = openTable();
  for (const symbol of ["AAPL", "IPO"]) await put(table.watchlist, symbol);
  const results: Record<string, SymbolCheckResult> = { IPO: MISSING };
  await using running = await openSync(table.watchlist, results);
  const { asked, heard, sync } = running;
  await until(() => sync.rejected().length === 1, "the first check");
  results.IPO = FOUND;
  sync.recheck();
  await until(() => sync.outcome("IPO").kind === "found", "the second check");
  expect(heard.at(-1)).toEqual(["AAPL", "IPO"]);
  expect(asked).toEqual(["AAPL", "IPO", "IPO"]);
});

test("a rejected ticker is looked for for ever, within the hour, and streams as soon as a list has it", async () => {
  using table = openTable();
  for (const symbol of ["AAPL", "IPO"]) await put(table.watchlist, symbol);
  const results: Record<string, SymbolCheckResult> = { IPO: MISSING };
  const clock = handClock(NOON_MS);
  await using running = await openSync(table.watchlist, results, { clock });
  const { asked, heard, sync } = running;
  const askedCount = () => asked.filter((symbol) => symbol === "IPO").length;
  await until(() => sync.rejected().length === 1, "the first check");
  const gapsMin: number[] = [];
  for (let nth = 2; nth <= 8; nth++) {
    let minutes = 0;
    // An answer that proves nothing is no answer: what was proven holds.
    results.IPO = nth === 5 ? UNKNOWN : MISSING;
    for (; askedCount() < nth && minutes <= 60; minutes++) {
      clock.advance(60_000);
      await turns(3);
    }
    gapsMin.push(minutes);
    expect(sync.rejected()).toEqual(["IPO"]);
  }
  expect(gapsMin).toEqual([5, 10, 20, 40, 60, 60, 60]);
  expect(sync.unreceived()).toMatchObject([{ symbol: "IPO", kind: "not_listed", sinceMs: NOON_MS }]);
  expect(running.warnings.length).toBe(1);
  results.IPO = FOUND;
  clock.advance(60 * 60_000);
  await until(() => sync.outcome("IPO").kind === "found", "the list that has it");
  expect(heard.at(-1)).toEqual(["AAPL", "IPO"]);
  expect(sync.unreceived()).toEqual([]);
  expect(running.said.map((event) => (event as { type: string }).type)).toEqual([
    "ticker_rejected",
    "ticker_accepted",
  ]);
});

test("a ticker removed while it is checked is neither rejected nor remembered", async () => {
  using table = openTable();
  await put(table.watchlist, "APPL");
  const { promise: result, resolve: answer } = Promise.withResolvers<SymbolCheckResult>();
  await using running = await openSync(table.watchlist, {}, { check: { check: () => result } });
  await put(table.watchlist, "APPL", false);
  answer(MISSING);
  await put(table.watchlist, "AAPL");
  await until(() => running.sync.outcome("AAPL").kind === "not_found", "the next check");
  expect(running.sync.outcome("APPL")).toEqual({ kind: "unchecked" });
  expect(running.said).toHaveLength(1);
});

test("a ticker removed and added again is asked about again", async () => {
  using table = openTable();
  await put(table.watchlist, "AAPL");
  await using running = await openSync(table.watchlist);
  await until(() => running.sync.outcome("AAPL").kind === "found", "the first check");
  await put(table.watchlist, "AAPL", false);
  expect(running.sync.outcome("AAPL").kind).toBe("unchecked");
  await put(table.watchlist, "AAPL");
  await until(() => running.asked.length === 2, "the second check");
});

test("a rejection that cannot be appended ends the sync", async () => {
  using table = openTable();
  await put(table.watchlist, "APPL");
  const sync = createWatchlistSync({
    feed: { subscribe() {} },
    watchlist: table.watchlist,
    check: { check: async () => MISSING },
    hasTraded: () => false,
    emitEvent: () => Promise.reject(new Error("a test's log is gone")),
    clock: systemClock,
    logger: silentLogger,
  });
  const ended = sync.run(new AbortController().signal);
  expect(await ended.catch((error: unknown) => String(error))).toContain("a test's log is gone");
});

test("without validation everything is subscribed and nothing is asked", async () => {
  using table = openTable();
  await put(table.watchlist, "ANY");
  await using running = await openSync(table.watchlist, {}, { check: null });
  await put(table.watchlist, "THING");
  expect(running.heard).toEqual([["ANY"], ["ANY", "THING"]]);
  expect(running.asked).toEqual([]);
});

// --- The commands ----------------------------------------------------------------------------------------------

function openControl(
  watchlist: Watchlist,
  results: Record<string, SymbolCheckResult> = {},
  fields: Partial<Parameters<typeof createWatchlistCommands>[0]> = {},
) {
  const noted: [string, SymbolCheckResult][] = [];
  const { check, asked } = fakeCheck(results);
  const control = createWatchlistCommands({
    wanted: watchlist,
    check,
    symbolsMax: 2,
    onResult: (symbol, result) => noted.push([symbol, result]),
    clock: handClock(NOON_MS),
    ...fields,
  });
  return { control, noted, asked };
}

test("a ticker is added when it is found or cannot be checked, and refused when it is missing", async () => {
  using table = openTable();
  const { control, noted } = openControl(table.watchlist, { APPL: MISSING, MAYBE: UNKNOWN });
  expect(await control.add("AAPL")).toEqual({ kind: "created" });
  expect(await control.add("APPL")).toEqual(MISSING);
  expect(await control.add("MAYBE")).toEqual({ kind: "unchecked", reason: "a test has no answer" });
  expect(symbolsOf(table.watchlist)).toEqual(["AAPL", "MAYBE"]);
  expect(table.watchlist.list()[0]).toMatchObject({ by: "operator", changedAtMs: NOON_MS });
  expect(noted).toEqual([
    ["AAPL", FOUND],
    ["MAYBE", UNKNOWN],
  ]);
});

test("what is there, what is over the limit and what is no symbol is refused unasked", async () => {
  using table = openTable();
  const { control, asked } = openControl(table.watchlist);
  expect(await control.add("A")).toEqual({ kind: "created" });
  expect(await control.add("A")).toEqual({ kind: "exists" });
  expect(await control.add("#producer")).toMatchObject({ kind: "bad_symbol" });
  expect(await control.add("B")).toEqual({ kind: "created" });
  expect(await control.add("C")).toEqual({ kind: "full", symbolsMax: 2 });
  expect(asked).toEqual(["A", "B"]);
  expect(await control.remove("A")).toBe(true);
  expect(await control.remove("A")).toBe(false);
  expect(await control.add("C")).toEqual({ kind: "created" });
});

test("two that ask for one ticker, or for the last place, do not both get it", async () => {
  using table = openTable();
  const { control } = openControl(table.watchlist);
  const kinds = async (...symbols: string[]) =>
    (await Promise.all(symbols.map((symbol) => control.add(symbol)))).map(({ kind }) => kind);
  expect(await kinds("A", "A")).toEqual(["created", "exists"]);
  expect(await kinds("B", "C")).toEqual(["created", "full"]);
});

test("a rejected ticker takes no place", async () => {
  using table = openTable();
  await put(table.watchlist, "APPL");
  await put(table.watchlist, "AAPL");
  const { control } = openControl(table.watchlist, {}, { rejected: () => ["APPL"] });
  expect(await control.add("MSFT")).toEqual({ kind: "created" });
  expect(await control.add("TSLA")).toEqual({ kind: "full", symbolsMax: 2 });
});

test("who adds a ticker waits 1.5 s for the check and not longer", async () => {
  using table = openTable();
  const clock = handClock(NOON_MS);
  const check: SymbolCheck = {
    check: (_, signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve(UNKNOWN))),
  };
  const { control } = openControl(table.watchlist, {}, { check, clock });
  const adding = control.add("SLOW");
  clock.advance(1_500);
  expect(await adding).toEqual({ kind: "unchecked", reason: "a test has no answer" });
  expect(symbolsOf(table.watchlist)).toEqual(["SLOW"]);
});
