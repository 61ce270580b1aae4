// Finnhub's lists of exchanges and symbols, in memory and on disk. A list is the answer to one call: it is replaced as a
// whole and never mended. A damaged file counts as missing; a list that cannot be written stays in memory.

import { mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { asObject } from "../base/json.ts";
import type { Logger } from "../base/logger.ts";
import { SYMBOL_LENGTH_MAX } from "../model/validate.ts";
import { type RestClient, UnansweredError } from "./rest-client.ts";

export type ListSource = Readonly<{ path: string; exchange: string | null }>;

/** Symbols (or exchanges) by name, each with its display name: `BINANCE:BTCUSDT` with `BTC/USDT`. */
export type List = Readonly<{ fetchedAtMs: number; items: ReadonlyMap<string, string> }>;

export type SymbolLists = Readonly<{
  /** The list in memory or on disk, however old; null = there is none. */
  known(source: ListSource): Promise<List | null>;
  /** A list of at most that age, fetched now if need be. Rejects with UnansweredError. */
  get(source: ListSource, ageMsMax: number): Promise<List>;
  /** Fetches every list in memory again that is older than that; where the call fails, the old one stays. */
  refresh(ageMsMax: number, signal: AbortSignal): Promise<void>;
  ageMs(list: List): number;
}>;

type SymbolListsDeps = Readonly<{
  directory: string;
  calls: RestClient;
  clock: Clock;
  logger: Logger;
}>;

/** The largest, of US stocks, has some 30,000. */
const ITEMS_MAX = 500_000;
const FILE_BYTES_MAX = 128 * 1_024 * 1_024;
/** In one log line: what ails one list ails the others. */
const LISTS_LOGGED_MAX = 5;
/** In memory: Finnhub has some 40 exchanges of all kinds. */
const LISTS_MAX = 200;

export function createSymbolLists({ directory, calls, clock, logger }: SymbolListsDeps): SymbolLists {
  const inMemory = new Map<string, Readonly<{ source: ListSource; list: List }>>();
  /** A list is fetched once, however many wait for it. */
  const fetches = new Map<string, Promise<List>>();
  const lookedOnDisk = new Set<string>();
  const nameOf = ({ path, exchange }: ListSource) =>
    `${path.slice(1).replaceAll("/", "-")}${exchange === null ? "" : `-${encodeURIComponent(exchange.toLowerCase())}`}`;
  const fileOf = (name: string) => join(directory, `${name}.json`);

  function ageMs(list: List): number {
    const age = clock.now() - list.fetchedAtMs;
    return age < 0 ? Number.POSITIVE_INFINITY : age; // From a clock that was wrong.
  }

  function keep(name: string, source: ListSource, list: List): void {
    inMemory.delete(name);
    inMemory.set(name, { source, list });
    if (inMemory.size <= LISTS_MAX) return;
    for (const oldest of inMemory.keys()) {
      inMemory.delete(oldest);
      break;
    }
  }

  async function known(source: ListSource): Promise<List | null> {
    const name = nameOf(source);
    const kept = inMemory.get(name);
    if (kept !== undefined) return kept.list;
    if (lookedOnDisk.has(name)) return null;
    const list = await readList(fileOf(name), logger);
    if (list !== null) keep(name, source, list);
    else if (lookedOnDisk.size < LISTS_MAX) lookedOnDisk.add(name);
    return list;
  }

  async function fetchList(name: string, source: ListSource): Promise<List> {
    const { path, exchange } = source;
    const items = itemsOf(await calls.get(path, exchange === null ? {} : { exchange }));
    const list = { fetchedAtMs: clock.now(), items };
    if (items.size === 0) return list; // An outage, or no such exchange: nothing to keep.
    keep(name, source, list);
    await writeList(directory, fileOf(name), list, logger);
    return list;
  }

  function fetchOnce(source: ListSource): Promise<List> {
    const name = nameOf(source);
    const fetching = fetches.get(name) ?? fetchList(name, source).finally(() => fetches.delete(name));
    fetches.set(name, fetching);
    return fetching;
  }

  return {
    known,
    ageMs,
    async get(source, ageMsMax) {
      const list = await known(source);
      return list !== null && ageMs(list) <= ageMsMax ? list : fetchOnce(source);
    },
    async refresh(ageMsMax, signal) {
      const failed: string[] = [];
      let lastError: UnansweredError | null = null;
      for (const [name, { source, list }] of [...inMemory]) {
        if (signal.aborted) return;
        if (ageMs(list) <= ageMsMax) continue;
        try {
          await fetchOnce(source);
        } catch (error) {
          if (!(error instanceof UnansweredError)) throw error;
          failed.push(name);
          lastError = error;
        }
      }
      if (lastError === null) return;
      const lists = failed.slice(0, LISTS_LOGGED_MAX);
      const fields = { lists, listCount: failed.length, error: lastError };
      logger.warn("lists of Finnhub's symbols were not refreshed; the old ones stay until they are", fields);
    },
  };
}

/** Every answer is a list: of names of exchanges, or of symbols with their display names. */
function itemsOf(body: unknown): ReadonlyMap<string, string> {
  if (!Array.isArray(body)) throw new UnansweredError("Finnhub's answer is not a list");
  const items = new Map<string, string>();
  for (const item of body.slice(0, ITEMS_MAX) as unknown[]) {
    if (typeof item === "string") {
      if (isName(item)) items.set(item, item);
      continue;
    }
    const { symbol, displaySymbol } = asObject(item) ?? {};
    if (isName(symbol)) items.set(symbol, isName(displaySymbol) ? displaySymbol : symbol);
  }
  if (items.size === 0 && body.length > 0) throw new UnansweredError("Finnhub's list holds no symbol");
  return items;
}

function isName(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= SYMBOL_LENGTH_MAX;
}

// --- On disk: a first line with the time and the checksum of the rest ---------------------------------------------

type Header = Readonly<{ fetchedAtMs: number; crc: number }>;

async function writeList(directory: string, path: string, list: List, logger: Logger): Promise<void> {
  const rest = JSON.stringify([...list.items]);
  const header: Header = { fetchedAtMs: list.fetchedAtMs, crc: Bun.hash.crc32(rest) };
  const unfinished = `${path}.${process.pid}.tmp`;
  try {
    await mkdir(directory, { recursive: true });
    await writeFile(unfinished, `${JSON.stringify(header)}\n${rest}`);
    await rename(unfinished, path);
  } catch (error) {
    logger.warn("a list of Finnhub's symbols was not written to disk; it will be fetched again", { error });
    await rm(unfinished, { force: true }).catch((leftover: unknown) =>
      logger.debug("an unfinished list stays on disk", { error: leftover }),
    );
  }
}

async function readList(path: string, logger: Logger): Promise<List | null> {
  try {
    const { size } = await stat(path);
    if (size > FILE_BYTES_MAX) throw new Error(`${size} bytes are too many`);
    return listOf(await readFile(path, "utf8"));
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "ENOENT";
    if (!isMissing) logger.warn("a list of Finnhub's symbols on disk is not usable", { path, error });
    return null;
  }
}

function listOf(text: string): List {
  const end = text.indexOf("\n");
  const rest = text.slice(end + 1);
  const header: unknown = JSON.parse(text.slice(0, Math.max(0, end)));
  if (!isHeader(header) || header.crc !== Bun.hash.crc32(rest)) throw new Error("the file is damaged");
  return { fetchedAtMs: header.fetchedAtMs, items: new Map(JSON.parse(rest) as [string, string][]) };
}

function isHeader(value: unknown): value is Header {
  return (
    typeof value === "object" &&
    value !== null &&
    "fetchedAtMs" in value &&
    Number.isSafeInteger(value.fetchedAtMs) &&
    "crc" in value
  );
}
