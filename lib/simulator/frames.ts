// Trade frames as Finnhub writes them. Pure; it knows no market and no tape.

/** A trade as it stands in a frame: keys in the alphabetical order that Finnhub sends. `c` may be missing. */
export type WireTrade = Readonly<{
  c?: readonly string[] | null;
  p: number;
  s: string;
  t: number;
  v: number;
}>;

/** Finnhub's biggest frame seen. */
export const FRAME_TRADES_MAX = 30;

/** The frame's text, byte for byte in Finnhub's form. */
export function frameText(trades: readonly WireTrade[]): string {
  return `{"data":${JSON.stringify(trades)},"type":"trade"}`;
}
