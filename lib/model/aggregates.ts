// The aggregates.

/** A row of `running_averages_15_sec`: the trades of [window_end - 15 s, window_end). */
export type AverageRow = Readonly<{
  symbol: string;
  hour: number;
  window_end: number;
  /** Average of price*volume over the trades (the origin's figure), not a sum. */
  price_volume_multiply: number;
  average_price: number;
  /** sum(p*v)/sum(v); null when no volume was traded. */
  vwap: number | null;
  volume: number;
  trade_count: number;
}>;

/** A row of `candles_1_min`: the trades of [window_start, window_start + 60 s). `day` is YYYY-MM-DD, UTC. */
export type CandleRow = Readonly<{
  symbol: string;
  day: string;
  window_start: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  price_volume_sum: number;
  vwap: number | null;
  trade_count: number;
}>;

export type WindowRow =
  | Readonly<{ kind: "average"; row: AverageRow }>
  | Readonly<{ kind: "candle"; row: CandleRow }>;
