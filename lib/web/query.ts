// What the web accepts: every parameter with its limits, and a sentence for each mistake, which names the parameter
// and what is accepted and guesses the slip. It touches no data and reads no clock.

import { z } from "@hono/zod-openapi";
import { editDistance } from "../base/text.ts";
import { AGGREGATES } from "../model/aggregates.ts";
import { SYMBOL_LENGTH_MAX } from "../model/validate.ts";

/** A mistake that shows only when several parameters, or the time, are looked at together. */
export class QueryError extends Error {}

export const PAGE_ITEMS_MAX = 1_000;
export const PAGE_ITEMS_DEFAULT = 100;
/** How far a page reaches back when `from` is not given. */
export const RANGE_HOURS_DEFAULT = 24;
/** Dates beyond the year 9999 do not sort as text, which is how days are kept. */
const TIME_MS_MAX = Date.UTC(9999, 0);
/** Of what was given, said again in a sentence. */
const QUOTED_LENGTH_MAX = 60;
/** A name this close to one of ours is a slip. */
const SLIP_LETTERS_MAX = 2;
/** No name of ours is near this long; comparing letters stops here. */
const NAME_LENGTH_MAX = 32;

// --- Parameters ------------------------------------------------------------------------------------------------

type Parameter<T> = Readonly<{
  name: string;
  /** What is accepted, as an order: `give a whole number from 1 to 1000`. */
  accepts: string;
  /** Undefined: not acceptable. */
  read: (text: string) => T | undefined;
  /** What was probably meant, added to the sentence. */
  guess?: (text: string) => string | undefined;
  documented: Readonly<Record<string, unknown>>;
}>;

function parameter<T>({ name, accepts, read, guess, documented }: Parameter<T>) {
  const say = (input: unknown) => {
    if (input === undefined) return `${name} is missing: ${accepts}`;
    if (Array.isArray(input)) return `${name} is given ${input.length} times: give it once`;
    const meant = guess?.(String(input));
    return `${name} is ${quoted(String(input))}: ${accepts}${meant === undefined ? "" : ` (${meant})`}`;
  };
  return z
    .string({ error: (issue) => say(issue.input) })
    .transform((text, context): T => {
      const value = read(text);
      if (value !== undefined) return value;
      context.issues.push({ code: "custom", message: say(text), input: text });
      return z.NEVER;
    })
    .openapi({ description: `${accepts[0]?.toUpperCase()}${accepts.slice(1)}.`, ...documented });
}

const symbol = parameter({
  name: "symbol",
  accepts: `give a symbol of 1 to ${SYMBOL_LENGTH_MAX} characters, like AAPL or BINANCE:BTCUSDT`,
  read: (text) => (text.length >= 1 && text.length <= SYMBOL_LENGTH_MAX ? text : undefined),
  documented: { type: "string", minLength: 1, maxLength: SYMBOL_LENGTH_MAX, example: "AAPL" },
});

function time(name: string, meaning: string) {
  return parameter({
    name,
    accepts:
      "give milliseconds since 1970, like 1767614400000, or ISO 8601 with a zone, like 2026-01-05T12:00:00Z",
    read: readTime,
    guess: guessTime,
    documented: {
      type: "string",
      description: `${meaning} Milliseconds since 1970, or ISO 8601 with a zone.`,
      example: "2026-01-05T12:00:00Z",
    },
  }).optional();
}

const from = time(
  "from",
  `The beginning of the range, itself in it; by default ${RANGE_HOURS_DEFAULT} h before \`to\`, or before now if that is earlier.`,
);
const to = time("to", "The end of the range, itself not in it; by default a day ahead of now.");

const limit = parameter({
  name: "limit",
  accepts: `give a whole number from 1 to ${PAGE_ITEMS_MAX}`,
  read(text) {
    const count = /^\d{1,9}$/.test(text) ? Number(text) : 0;
    return count >= 1 && count <= PAGE_ITEMS_MAX ? count : undefined;
  },
  documented: { type: "integer", minimum: 1, maximum: PAGE_ITEMS_MAX, default: PAGE_ITEMS_DEFAULT },
}).optional();

/** Widths of candles that are merged from those of a minute. */
const MERGED_WIDTHS_MS = [300_000, 3_600_000];
/** The widths of the stored candles and of the merged ones, by name, narrowest first. */
export const INTERVALS_MS: Readonly<Record<string, number>> = Object.fromEntries(
  [...AGGREGATES.flatMap((one) => (one.shape === "candle" ? [one.widthMs] : [])), ...MERGED_WIDTHS_MS]
    .sort((a, b) => a - b)
    .map((widthMs) => [intervalName(widthMs), widthMs]),
);
const intervalNames = Object.keys(INTERVALS_MS);

function intervalName(widthMs: number): string {
  if (widthMs % 3_600_000 === 0) return `${widthMs / 3_600_000}h`;
  return widthMs % 60_000 === 0 ? `${widthMs / 60_000}m` : `${widthMs / 1_000}s`;
}

const interval = parameter({
  name: "interval",
  accepts: `give one of ${intervalNames.join(", ")}`,
  read: (text) => intervalNames.find((name) => name === text),
  documented: { type: "string", enum: intervalNames, default: "1m" },
}).optional();

const beforeTrade = parameter({
  name: "before",
  accepts: "give the `before` of a `next` link unchanged (<trade_timestamp>.<uuid>), or leave it out",
  read(text) {
    const [, atMs, uuid] = /^(\d{1,15})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/.exec(text) ?? [];
    if (atMs === undefined || uuid === undefined || Number(atMs) > TIME_MS_MAX) return undefined;
    return { trade_timestamp: Number(atMs), uuid };
  },
  documented: { type: "string", description: "Continues a page: only trades that sort after this one." },
}).optional();

const beforeEvent = parameter({
  name: "before",
  accepts:
    "give the `before` of a `next` link unchanged (<event_timestamp>.<session>.<sequence>), or leave it out",
  read(text) {
    const [, atMs, session, sequence] = /^(\d{1,15})\.([0-9a-f]{1,32})\.(\d{1,15})$/.exec(text) ?? [];
    if (atMs === undefined || session === undefined || Number(atMs) > TIME_MS_MAX) return undefined;
    return { event_timestamp: Number(atMs), session, sequence: Number(sequence) };
  },
  documented: { type: "string", description: "Continues a page: only events that sort after this one." },
}).optional();

/** The parameters of one route and no others: an unknown one is a slip, and said. */
function query<Shape extends z.ZodRawShape>(shape: Shape) {
  const names = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys"
        ? issue.keys.map((key) => unknownParameter(key, names)).join("\n")
        : undefined,
  });
}

export const noQuery = query({});
export const tradesQuery = query({ symbol, from, to, limit, before: beforeTrade });
export const averagesQuery = query({ symbol, from, to, limit });
export const candlesQuery = query({ symbol, interval, from, to, limit });
export const eventsQuery = query({ from, to, limit, before: beforeEvent });
export const liveQuery = query({ symbol: symbol.optional() });
export const tickerParams = z.object({
  symbol: z.string().openapi({ param: { name: "symbol", in: "path" }, example: "AAPL" }),
});

export type TradesQuery = z.output<typeof tradesQuery>;
export type AveragesQuery = z.output<typeof averagesQuery>;
export type CandlesQuery = z.output<typeof candlesQuery>;
export type EventsQuery = z.output<typeof eventsQuery>;

/** One sentence a mistake. */
export function problemsOf(error: z.ZodError): string[] {
  return error.issues.flatMap(({ message }) => message.split("\n"));
}

// --- What a text means -----------------------------------------------------------------------------------------

function readTime(text: string): number | undefined {
  if (/^\d+$/.test(text)) {
    const atMs = Number(text);
    return atMs <= TIME_MS_MAX && !isProbablySeconds(atMs) ? atMs : undefined;
  }
  // In a query a plus sign arrives as a blank.
  const pattern = /^(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(Z|[+\- ]\d\d:?\d\d))?$/i;
  const [, day, clock, zone] = pattern.exec(text) ?? [];
  if (day === undefined) return undefined;
  // 30 February must not become the 2nd of March.
  const midnightMs = Date.parse(`${day}T00:00:00Z`);
  if (Number.isNaN(midnightMs) || new Date(midnightMs).toISOString().slice(0, 10) !== day) return undefined;
  const offset = zone
    ?.toUpperCase()
    .replace(/^ /, "+")
    .replace(/^(...)(\d\d)$/, "$1:$2");
  const atMs = clock === undefined ? midnightMs : Date.parse(`${day}T${clock}${offset}`);
  return atMs >= 0 && atMs <= TIME_MS_MAX ? atMs : undefined;
}

function guessTime(text: string): string | undefined {
  const atMs = Number(text);
  if (/^\d+$/.test(text) && isProbablySeconds(atMs)) return `for these seconds ${atMs * 1_000}`;
  if (/^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/.test(text)) {
    return `in UTC ${text.replace(" ", "T")}Z`;
  }
  return undefined;
}

/** 1973 to 5138 in seconds; in milliseconds the first days of 1970 to March 1973, when nothing was traded here. */
function isProbablySeconds(count: number): boolean {
  return count >= 1e8 && count < 1e11;
}

/** What other APIs call it. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  ticker: "symbol",
  s: "symbol",
  start: "from",
  since: "from",
  end: "to",
  until: "to",
  count: "limit",
  size: "limit",
  n: "limit",
  resolution: "interval",
  cursor: "before",
};

function unknownParameter(name: string, names: readonly string[]): string {
  const meant = nearest(OTHER_NAMES[name.toLowerCase()] ?? name, names);
  const guess = meant === undefined ? "" : `: did you mean ${meant}?`;
  const accepted = names.length === 0 ? "this route takes none" : `accepted are ${names.join(", ")}`;
  return `${quoted(name)} is no parameter here${guess === "" ? ":" : guess} ${accepted}`;
}

/** The word that was probably meant: a slip is two letters at most, and less than half of the word. */
export function nearest(word: string, words: readonly string[]): string | undefined {
  const given = word.toLowerCase();
  if (given.length > NAME_LENGTH_MAX) return undefined;
  let best: { word: string; letters: number } | undefined;
  for (const candidate of words) {
    if (candidate.length > NAME_LENGTH_MAX) continue;
    const letters = editDistance(given, candidate.toLowerCase());
    if (letters > SLIP_LETTERS_MAX || letters * 2 > candidate.length) continue;
    if (best === undefined || letters < best.letters) best = { word: candidate, letters };
  }
  return best?.word;
}

export function quoted(text: string): string {
  return JSON.stringify(text.length <= QUOTED_LENGTH_MAX ? text : `${text.slice(0, QUOTED_LENGTH_MAX)}...`);
}
