// Numbers and times as a person reads them. Prices are shown whole: with as many decimals as they came with, and a tiny
// price with its first digits.

const formats = new Map<number, Intl.NumberFormat>();
/** More are the noise of a double, except behind a tiny price's zeros. */
const DECIMALS_MAX = 8;
const DECIMALS_MIN = 2;
/** Of a price below 1: enough for a change of a thousandth of a percent to be seen. */
const DIGITS_MAX = 6;
/** A price with more is written as 3.7e-17. The candle chart's scale is exact up to here. */
export const DECIMALS_WRITTEN_MAX = 15;

export function price(value: number, decimals: number): string {
  if (decimals > DECIMALS_WRITTEN_MAX) return scientific(value);
  let format = formats.get(decimals);
  if (format === undefined) {
    format = new Intl.NumberFormat("en-US", {
      minimumFractionDigits: decimals,
      maximumFractionDigits: decimals,
      signDisplay: "negative", // A spread's average of a little below zero is 0.00, not -0.00.
    });
    formats.set(decimals, format);
  }
  return format.format(value);
}

/** As few digits as tell it from its neighbours, DIGITS_MAX at most. */
function scientific(value: number): string {
  return Number(value.toPrecision(DIGITS_MAX)).toExponential();
}

/** How many decimals show this price whole, or DIGITS_MAX digits of it where these reach further than DECIMALS_MAX. */
export function decimalsOf(value: number): number {
  const magnitude = value === 0 ? 0 : Math.floor(Math.log10(Math.abs(value)));
  const decimalsMax = Math.min(Math.max(DECIMALS_MAX, DIGITS_MAX - 1 - magnitude), DECIMALS_WRITTEN_MAX + 1);
  for (let decimals = DECIMALS_MIN; decimals < decimalsMax; decimals++) {
    if (Number(value.toFixed(decimals)) === value) return decimals;
  }
  return decimalsMax;
}

export function percent(ratio: number): string {
  const value = (Math.abs(ratio) * 100).toFixed(2);
  if (value === "0.00") return "0.00 %";
  return `${ratio > 0 ? "+" : "−"}${value} %`;
}

const amountFormat = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 6 });
export function amount(value: number): string {
  return amountFormat.format(value);
}

export function rate(perSecond: number): string {
  if (perSecond === 0) return "0";
  return perSecond < 100 ? perSecond.toFixed(1) : perSecond.toFixed(0);
}

export function age(durationMs: number): string {
  const seconds = Math.max(0, Math.floor(durationMs / 1_000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3_600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

export function duration(ms: number): string {
  return ms < 10_000 ? `${ms} ms` : `${Math.round(ms / 1_000)} s`;
}

/** `14:05:09`, UTC. */
export function clock(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(11, 19);
}

/** `21 Nov 14:05`, UTC. */
export function dayAndClock(timeMs: number): string {
  const [, month, day] = new Date(timeMs).toISOString().slice(0, 10).split("-");
  const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  return `${Number(day)} ${months[Number(month) - 1]} ${clock(timeMs).slice(0, 5)}`;
}

/** `BINANCE:BTCUSDT` -> its name and where it trades. */
export function nameOf(symbol: string): readonly [name: string, venue: string] {
  const colon = symbol.indexOf(":");
  return colon === -1 ? [symbol, ""] : [symbol.slice(colon + 1), symbol.slice(0, colon)];
}
