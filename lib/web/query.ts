// What the web accepts in a query: the parameters that several routes share, each with its limits, and a sentence for
// each mistake. The sentence names the parameter and what is accepted, and guesses the slip. No data is touched and no
// clock is read here.

import { z } from "@hono/zod-openapi";
import { SYMBOL_LENGTH_MAX } from "../model/validate.ts";
import { nearest, quoted } from "./sentences.ts";
import { guessTime, readTime } from "./time-parameter.ts";

/** A mistake that shows only when several parameters, or a parameter and the time, are looked at together. */
export class QueryError extends Error {}

const PAGE_ITEMS_MAX = 1_000;
export const PAGE_ITEMS_DEFAULT = 100;
/** How far a page reaches back when `from` is not given. */
export const RANGE_HOURS_DEFAULT = 24;

// --- A parameter -----------------------------------------------------------------------------------------------

type Parameter<T> = Readonly<{
  name: string;
  /** What is accepted, as an order: `give a whole number from 1 to 1000`. */
  accepts: string;
  /** Undefined: not acceptable. */
  read: (text: string) => T | undefined;
  /** What was probably meant, added to the sentence. */
  guess?: (text: string) => string | undefined;
  /** Its schema in /doc. */
  documented: Readonly<Record<string, unknown>>;
}>;

export function parameter<T>({ name, accepts, read, guess, documented }: Parameter<T>) {
  const problemWith = (input: unknown) => {
    if (input === undefined) return `${name} is missing: ${accepts}`;
    if (Array.isArray(input)) return `${name} is given ${input.length} times: give it once`;
    const meant = guess?.(String(input));
    return `${name} is ${quoted(String(input))}: ${accepts}${meant === undefined ? "" : ` (${meant})`}`;
  };
  return z
    .string({ error: (issue) => problemWith(issue.input) })
    .transform((text, context): T => {
      const value = read(text);
      if (value !== undefined) return value;
      context.issues.push({ code: "custom", message: problemWith(text), input: text });
      return z.NEVER;
    })
    .openapi({ description: `${accepts[0]?.toUpperCase()}${accepts.slice(1)}.`, ...documented });
}

export const symbol = parameter({
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

export const from = time(
  "from",
  `The start of the range, inclusive; by default ${RANGE_HOURS_DEFAULT} h before \`to\`, or before now if that is earlier.`,
);
/** Of what a symbol has: a market may have been closed for days, so no number of hours stands for lately. */
export const fromNewest = time(
  "from",
  "The start of the range, inclusive; by default there is none: the newest there are, however old.",
);
export const to = time("to", "The end of the range, exclusive; by default a day ahead of now.");

export const limit = parameter({
  name: "limit",
  accepts: `give a whole number from 1 to ${PAGE_ITEMS_MAX}`,
  read(text) {
    const count = /^\d{1,9}$/.test(text) ? Number(text) : 0;
    return count >= 1 && count <= PAGE_ITEMS_MAX ? count : undefined;
  },
  documented: { type: "integer", minimum: 1, maximum: PAGE_ITEMS_MAX, default: PAGE_ITEMS_DEFAULT },
}).optional();

// --- A query ---------------------------------------------------------------------------------------------------

/** The parameters of one route and no others: an unknown one is a slip and answered as one. */
export function query<Shape extends z.ZodRawShape>(shape: Shape) {
  const names = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys"
        ? issue.keys.map((key) => unknownParameter(key, names)).join("\n")
        : undefined,
  });
}

export const noQuery = query({});

/** One sentence for each mistake. */
export function problemsOf(error: z.ZodError): string[] {
  return error.issues.flatMap(({ message }) => message.split("\n"));
}

/** What other APIs call our parameters. */
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
  const fault = `${quoted(name)} is not a parameter of this route`;
  const accepted = names.length === 0 ? "no parameters" : names.join(", ");
  const meant = nearest(OTHER_NAMES[name.toLowerCase()] ?? name, names);
  return meant === undefined
    ? `${fault}: it accepts ${accepted}`
    : `${fault}: did you mean ${meant}? It accepts ${accepted}`;
}
