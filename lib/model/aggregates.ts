// The aggregates as data: which windows there are, in which table each is kept, and what its columns are. The stores make
// their statements from this table, and the processing, the verification, the web's intervals and the tests follow it. A new
// aggregate is one entry here, its table in sql/market.sql and cql/003-aggregates.cql, its line in docs/DATA.md, and its
// names in tests/public-names.json; `admin init` then makes the table on Cassandra.

import { DAY_MS, dayOf, HOUR_MS, hourOf } from "./trade.ts";

/**
 * text; time: ms since 1970; day: YYYY-MM-DD, UTC; number: a double; count: a whole number.
 */
type ColumnType = "text" | "time" | "day" | "number" | "count";

export type Column = Readonly<{
  name: string;
  type: ColumnType;
  unit: "ms since 1970" | "UTC" | "price" | "volume" | "price*volume" | "trades" | null;
  isNullable?: true;
  /** A sum or an average of doubles: two computations of it may differ in the last bits. */
  isRounded?: true;
}>;

const VWAP = { name: "vwap", type: "number", unit: "price", isNullable: true, isRounded: true } as const;
const VOLUME = { name: "volume", type: "number", unit: "volume", isRounded: true } as const;
const TRADE_COUNT = { name: "trade_count", type: "count", unit: "trades" } as const;

/** The first three columns are the key. */
const AVERAGE_COLUMNS = [
  { name: "symbol", type: "text", unit: null },
  { name: "hour", type: "time", unit: "ms since 1970" }, // Of window_end.
  { name: "window_end", type: "time", unit: "ms since 1970" },
  // The average of price*volume over the trades (the origin's figure), not a sum.
  { name: "price_volume_multiply", type: "number", unit: "price*volume", isRounded: true },
  { name: "average_price", type: "number", unit: "price", isRounded: true },
  VWAP, // sum(p*v)/sum(v); null when no volume was traded.
  VOLUME,
  TRADE_COUNT,
] as const satisfies readonly Column[];

const CANDLE_COLUMNS = [
  { name: "symbol", type: "text", unit: null },
  { name: "day", type: "day", unit: "UTC" }, // Of window_start.
  { name: "window_start", type: "time", unit: "ms since 1970" },
  { name: "open", type: "number", unit: "price" },
  { name: "high", type: "number", unit: "price" },
  { name: "low", type: "number", unit: "price" },
  { name: "close", type: "number", unit: "price" },
  VOLUME,
  { name: "price_volume_sum", type: "number", unit: "price*volume", isRounded: true },
  VWAP,
  TRADE_COUNT,
] as const satisfies readonly Column[];

export type Shape = "average" | "candle";

/** What all aggregates of one shape share: the columns, and the two of the key that stand behind the symbol. */
export const SHAPES = {
  average: { columns: AVERAGE_COLUMNS, bucket: "hour", bucketMs: HOUR_MS, time: "window_end" },
  candle: { columns: CANDLE_COLUMNS, bucket: "day", bucketMs: DAY_MS, time: "window_start" },
} as const satisfies Readonly<
  Record<
    Shape,
    Readonly<{
      columns: readonly Column[];
      /** The partition's part of time: the hour or the day of `time`. */
      bucket: "hour" | "day";
      bucketMs: number;
      /** An average is stored under its end, a candle under its start. */
      time: "window_end" | "window_start";
    }>
  >
>;

type Entry = Readonly<{
  /** Its name in metrics, in `verify` and in the code: for ever. */
  kind: string;
  table: string;
  shape: Shape;
  /** At most an hour. A candle's divides the hour. */
  widthMs: number;
  /** From the start of one window to that of the next: divides the width and the hour. A candle's is its width. */
  stepMs: number;
}>;

const ENTRIES = [
  { kind: "average", table: "running_averages_15_sec", shape: "average", widthMs: 15_000, stepMs: 5_000 },
  { kind: "candle", table: "candles_1_min", shape: "candle", widthMs: 60_000, stepMs: 60_000 },
] as const satisfies readonly Entry[];

type EntryOf<Of extends Shape> = Extract<(typeof ENTRIES)[number], { shape: Of }>;
export type AverageKind = EntryOf<"average">["kind"];
export type CandleKind = EntryOf<"candle">["kind"];
export type WindowKind = AverageKind | CandleKind;

type AverageAggregate = Entry & Readonly<{ kind: AverageKind; shape: "average" }>;
type CandleAggregate = Entry & Readonly<{ kind: CandleKind; shape: "candle" }>;
export type Aggregate = AverageAggregate | CandleAggregate;

export const AGGREGATES: readonly Aggregate[] = ENTRIES;

type ValueOf<One extends Column> = One extends { type: "text" | "day" }
  ? string
  : One extends { isNullable: true }
    ? number | null
    : number;
type RowOf<Columns extends readonly Column[]> = {
  readonly [One in Columns[number] as One["name"]]: ValueOf<One>;
};

/** A row of a table of averages: the trades of [window_end - width, window_end). */
export type AverageRow = RowOf<typeof AVERAGE_COLUMNS>;
/** A row of a table of candles: the trades of [window_start, window_start + width). */
export type CandleRow = RowOf<typeof CANDLE_COLUMNS>;
export type WindowRow =
  | Readonly<{ kind: AverageKind; row: AverageRow }>
  | Readonly<{ kind: CandleKind; row: CandleRow }>;

/** What a column holds. */
export type Value = string | number | null;

export function aggregateOf(kind: WindowKind): Aggregate {
  for (const aggregate of AGGREGATES) if (aggregate.kind === kind) return aggregate;
  throw new RangeError(`there is no aggregate ${kind}`);
}

/** The longest averages and the longest windows of all, in ms. */
export const AVERAGE_WIDTH_MS_MAX = widestMs(AGGREGATES.filter(({ shape }) => shape === "average"));
export const WINDOW_WIDTH_MS_MAX = widestMs(AGGREGATES);

function widestMs(aggregates: readonly Aggregate[]): number {
  return Math.max(0, ...aggregates.map(({ widthMs }) => widthMs));
}

/** The values of a row, in the order of its columns. */
export function valuesOf({ kind, row }: WindowRow): Value[] {
  const fields: Readonly<Record<string, Value>> = row;
  return SHAPES[aggregateOf(kind).shape].columns.map(({ name }) => fields[name] ?? null);
}

/** The bucket in which a row of this shape is kept that is stored under this time. */
export function bucketOf(shape: Shape, timeMs: number): string | number {
  return SHAPES[shape].bucket === "hour" ? hourOf(timeMs) : dayOf(timeMs);
}
