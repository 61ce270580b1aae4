// The formats of other recorders: how a file of each is known, which columns it has, and what a record of it means, its
// traps included. Values in, values out: it opens no file and decides nothing about what can be true.

import {
  ASK,
  BID,
  conditionsOf,
  find,
  has,
  NAMES,
  PRICE,
  type Reading,
  reading,
  refused,
  SYMBOL,
  skipped,
  TIME,
  text,
  withId,
} from "./reading.ts";
import type { Fields } from "./records.ts";
import { midnightOf, numberOf } from "./values.ts";

/** What is known of a file before its records are read. `columns`: of its first line, or of its Parquet schema. */
export type FileShape = Readonly<{ name: string; columns: readonly string[] }>;

/** What the operator said, and what the name of the file says. */
export type Given = Readonly<{
  symbol: string | null;
  /** Our name of a field -> theirs. */
  map: Readonly<Record<string, string>>;
  name: string;
}>;

export type Format = Readonly<{
  name: string;
  /** One sentence: whose format it is, and what becomes of its traps. */
  says: string;
  /** Whether a file looks like it. */
  isIt: (shape: FileShape) => boolean;
  /** The columns of a file whose first line is a trade already. */
  headless?: readonly string[];
  /** Null: one record may hold any number of trades. */
  read: (fields: Fields, given: Given) => Reading | readonly Reading[];
}>;

const LEAN_NAME = /(?:^|\/)(\d{8})_([^_/]+)_trade/i;
const TAQ_DATE = /(\d{8})/;
const LEAN_PRICE = 10_000;
const DATABENTO_PRICE = 1e9;
const NEW_YORK = "America/New_York";

const own: Format = {
  name: "pipeline",
  says: "An export of this pipeline: rows of `trades`, whose uuid is kept.",
  isIt: ({ columns }) => has(columns, "uuid", "symbol", "trade_timestamp", "price", "volume"),
  read(fields) {
    const conditions = conditionsOf(fields.trade_conditions);
    if (conditions === undefined) return refused("trade_conditions is not a list in JSON");
    const made = reading(fields.symbol, fields.trade_timestamp, fields.price, fields.volume, conditions);
    return withId(made, fields.uuid);
  },
};

const finnhub: Format = {
  name: "finnhub",
  says: "Frames of Finnhub's websocket, one a line, as they are or as `frame` of an object.",
  isIt: ({ columns }) => has(columns, "data", "type") || has(columns, "frame"),
  read(fields) {
    const frame = typeof fields.frame === "string" ? safeObject(fields.frame) : fields;
    if (frame?.type !== "trade" || !Array.isArray(frame.data)) return skipped("a frame without trades");
    return (frame.data as Fields[]).map((one) => {
      const conditions = Array.isArray(one.c) ? (one.c as (string | null)[]) : null;
      return reading(one.s, one.t, one.p, one.v, conditions);
    });
  },
};

const binanceTrades: Format = {
  name: "binance-trades",
  says: "Binance's public trades; the exchange's ids are kept. Their times are ms until 2024 and µs since.",
  isIt: ({ name }) => /-trades-\d{4}-\d\d/i.test(name),
  headless: ["id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match"],
  read: (fields, given) =>
    withId(reading(binanceSymbol(given), fields.time, fields.price, fields.qty, null), fields.id),
};

const binanceAggregates: Format = {
  name: "binance-aggtrades",
  says: "Binance's aggregated trades, each of which may be several trades of one taker at one price.",
  isIt: ({ name }) => /-aggTrades-\d{4}-\d\d/i.test(name),
  headless: [
    "agg_trade_id",
    "price",
    "quantity",
    "first_trade_id",
    "last_trade_id",
    "transact_time",
    "is_buyer_maker",
    "is_best_match",
  ],
  read: (fields, given) =>
    withId(
      reading(
        binanceSymbol(given),
        fields.transact_time ?? fields.time,
        fields.price,
        fields.quantity ?? fields.qty,
        null,
      ),
      fields.agg_trade_id ?? fields.id,
    ),
};

const databento: Format = {
  name: "databento",
  says: "Databento's trades: by the time of the event, fixed-point prices made decimal. Of an order-by-order file the executions (T) are taken once, without their other side (F).",
  isIt: ({ columns }) => has(columns, "ts_event", "price", "size"),
  read(fields, given) {
    const action = text(fields.action);
    if (action !== "" && action !== "T") return skipped(`no trade: action ${action}`);
    const price = text(fields.price);
    // Fixed-point where it is a whole number: nine decimals.
    const isFixed = typeof fields.price === "bigint" || /^-?\d{8,}$/.test(price);
    const value = isFixed ? Number(price) / DATABENTO_PRICE : numberOf(fields.price);
    const symbol = given.symbol ?? fields.symbol ?? fields.raw_symbol ?? fields.instrument_id;
    const sequence = text(fields.sequence);
    const made = reading(symbol, fields.ts_event, value, fields.size, null);
    // A sequence is of one publisher, and one may hold several executions; the exact time is part of the id.
    if (sequence === "") return made;
    return withId(
      made,
      `${text(fields.publisher_id)}/${sequence}/${text(fields.ts_event)}/${price}/${text(fields.size)}`,
    );
  },
};

const lean: Format = {
  name: "lean",
  says: "LEAN's ticks: ms since midnight (New York for stocks, UTC elsewhere), prices of stocks in 1/10,000. Suspicious prints are left out.",
  isIt: ({ name }) => LEAN_NAME.test(name),
  headless: ["ms", "price", "size", "exchange", "condition", "suspicious"],
  read(fields, given) {
    const [, day, ticker = ""] = LEAN_NAME.exec(given.name) ?? [];
    if (day === undefined) return refused("the name of the file has no day (20131007_spy_trade...)");
    // Only stocks have an exchange and conditions.
    const isStock = fields.exchange !== undefined && fields.exchange !== "";
    if (isStock && text(fields.suspicious) === "1") return skipped("suspicious by LEAN's word");
    const midnightMs = midnightOf(day, isStock ? NEW_YORK : "UTC");
    const [sinceMs, price] = [numberOf(fields.ms), numberOf(fields.price)];
    if (midnightMs === null || sinceMs === null) return refused("not a time of the day");
    const code = text(fields.condition);
    const conditions = isStock ? (code === "" || code === "0" ? [] : [code]) : null;
    const value = price !== null && isStock ? price / LEAN_PRICE : price;
    const symbol = given.symbol ?? ticker.toUpperCase();
    return reading(symbol, midnightMs + Math.floor(sinceMs), value, fields.size, conditions);
  },
};

const taq: Format = {
  name: "taq",
  says: "NYSE's daily TAQ trades: each character of the sale condition is a code, blanks are none; cancelled and wrong prints (corrections 7, 8, 10, 11) and records that correct others (12) are left out.",
  isIt: ({ columns }) =>
    has(columns, "Sale Condition", "Trade Price", "Trade Volume") ||
    has(columns, "TR_SCOND", "PRICE", "SIZE"),
  read(fields, given) {
    const correction = Number(text(fields["Trade Correction Indicator"] ?? fields.TR_CORR) || "0");
    if (correction > 2) return skipped(`cancelled or corrected: correction ${correction}`);
    const root = text(fields.Symbol ?? fields.SYM_ROOT);
    const symbol = given.symbol ?? [...root.split(/\s+/), text(fields.SYM_SUFFIX)].filter(Boolean).join(".");
    const day = text(fields.DATE) || (TAQ_DATE.exec(given.name)?.[1] ?? "");
    const timeMs = taqTime(day, text(fields.Time ?? fields.TIME_M));
    if (timeMs === null) return refused("no day in the name of the file, or not a time");
    const codes = [...text(fields["Sale Condition"] ?? fields.TR_SCOND)].filter(
      (code) => code !== " " && code !== "@",
    );
    const made = reading(
      symbol,
      new Date(timeMs),
      fields["Trade Price"] ?? fields.PRICE,
      fields["Trade Volume"] ?? fields.SIZE,
      codes,
    );
    const sequence = text(fields["Sequence Number"] ?? fields.TR_SEQNUM);
    return sequence === "" ? made : withId(made, `${day}/${text(fields.Exchange ?? fields.EX)}/${sequence}`);
  },
};

const quotes: Format = {
  name: "quotes",
  says: "Quotes, as Dukascopy's ticks, are no trades. Each is taken as a price without volume, its bid, which is what forex charts are drawn from.",
  isIt: ({ columns }) =>
    find(columns, BID) !== undefined &&
    find(columns, ASK) !== undefined &&
    find(columns, PRICE) === undefined,
  read(fields, given) {
    const columns = Object.keys(fields);
    const time = fields[find(columns, TIME) ?? ""];
    const symbol = given.symbol ?? fields[find(columns, SYMBOL) ?? ""];
    return {
      ...reading(symbol, dayFirst(time), fields[find(columns, BID)!], 0, null),
      note: "quotes, taken at the bid without volume",
    } as Reading;
  },
};

const bitstamp: Format = {
  name: "bitstamp",
  says: "Three columns without names: time in seconds, price, amount, as Bitcoincharts has them.",
  isIt: ({ columns }) => columns.length === 3 && columns.every((column) => numberOf(column) !== null),
  headless: ["time", "price", "amount"],
  read: (fields, given) => reading(given.symbol, fields.time, fields.price, fields.amount, null),
};

const generic: Format = {
  name: "columns",
  says: "Any file with columns for time, price and size under usual names, or as --map says. Negative sizes (sold) are taken by their amount.",
  isIt: () => true,
  read(fields, given) {
    const columns = Object.keys(fields);
    const of = (name: keyof typeof NAMES) => {
      const column = given.map[name] ?? find(columns, NAMES[name]);
      return column === undefined ? undefined : fields[column];
    };
    const size = numberOf(of("volume"));
    const isSold = size !== null && size < 0;
    const conditions = of("conditions") === undefined ? null : conditionsOf(of("conditions"));
    if (conditions === undefined) return refused("conditions are not a list in JSON");
    const made = reading(
      given.symbol ?? of("symbol"),
      of("time"),
      of("price"),
      isSold ? -size : of("volume"),
      conditions,
    );
    const told =
      isSold && made.kind === "trade" ? { ...made, note: "negative sizes, taken by their amount" } : made;
    const id = text(of("id"));
    return id === "" ? told : withId(told, id);
  },
};

/** In the order in which a file is asked for them. */
export const FORMATS: readonly Format[] = [
  own,
  finnhub,
  binanceTrades,
  binanceAggregates,
  databento,
  lean,
  taq,
  quotes,
  bitstamp,
  generic,
];

function safeObject(json: string): Fields | null {
  try {
    return JSON.parse(json) as Fields;
  } catch {
    return null;
  }
}

/** `BTCUSDT-trades-2024-01-01.csv` is Finnhub's BINANCE:BTCUSDT. */
function binanceSymbol({ symbol, name }: Given): string {
  return symbol ?? `BINANCE:${/([^/]+?)-(?:trades|aggTrades)-/i.exec(name)?.[1] ?? ""}`;
}

/** HHMMSS and a fraction of up to nine digits, or H:MM:SS.fraction, of a day in New York. */
function taqTime(day: string, time: string): number | null {
  const digits = /^(\d{1,2}):(\d\d):(\d\d)(?:\.(\d+))?$/.exec(time) ?? /^(\d\d)(\d\d)(\d\d)(\d*)$/.exec(time);
  const midnightMs = midnightOf(day.replaceAll("-", ""), NEW_YORK);
  if (digits === null || midnightMs === null) return null;
  const [, hours, minutes, seconds, fraction = ""] = digits;
  const ms = Number(fraction.slice(0, 3).padEnd(3, "0"));
  return midnightMs + ((Number(hours) * 60 + Number(minutes)) * 60 + Number(seconds)) * 1_000 + ms;
}

/** Dukascopy writes `07.05.2014 00:00:00.123`, in GMT. */
function dayFirst(time: unknown): unknown {
  const [, day, month, year, rest] = /^(\d\d)\.(\d\d)\.(\d{4})(.*)$/.exec(text(time)) ?? [];
  return year === undefined ? time : `${year}-${month}-${day}${rest}`;
}
