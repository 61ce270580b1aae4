// What one field of another recorder says: a number, a time, a symbol. Values in, values out; null where the text says
// nothing of the kind. No value is rounded but times, which are cut to the millisecond that our trades have.

const MS_DIGITS = 13;
/** `20240102` is a day, and no time since 1970 that a trade could have. */
const DAY_DIGITS = 8;

export function numberOf(value: unknown): number | null {
  if (typeof value === "number") return Number.isFinite(value) ? value : null;
  if (typeof value === "bigint") return Number(value);
  if (typeof value !== "string") return null;
  const text = value.trim();
  const number = /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
  return Number.isFinite(number) ? number : null;
}

/**
 * A time in ms since 1970. A number is taken by its size for seconds, ms, µs or ns, which no two can be mistaken for between
 * 1973 and 2286. A text is ISO 8601 with or without its T, in UTC unless it names a zone.
 */
export function timeOf(value: unknown): number | null {
  if (value instanceof Date) return Number.isFinite(value.getTime()) ? value.getTime() : null;
  const text = typeof value === "string" ? value.trim() : String(value);
  const [, whole, fraction = ""] = /^(\d+)(?:\.(\d+))?$/.exec(text) ?? [];
  if (whole !== undefined && whole.length !== DAY_DIGITS) return msOfDigits(whole, fraction);
  if (typeof value !== "string") return null;
  const found =
    /^(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s*(Z|UTC|[+-]\d\d:?\d\d)?)?$/.exec(
      text,
    );
  if (found === null) return null;
  const [, year, month, day, hour = "00", minute = "00", second = "00", part = "", zone = "Z"] = found;
  const offset = zone === "UTC" ? "Z" : zone.replace(/^([+-]\d\d)(\d\d)$/, "$1:$2");
  const ms = part.slice(0, 3).padEnd(3, "0");
  const timeMs = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}.${ms}${offset}`);
  const isDay = new Date(Date.parse(`${year}-${month}-${day}`) || 0)
    .toISOString()
    .startsWith(`${year}-${month}`);
  return Number.isFinite(timeMs) && isDay ? timeMs : null;
}

/** By how many digits the whole part has: 9 to 11 are seconds, up to 14 ms, up to 17 µs, up to 19 ns. */
function msOfDigits(whole: string, fraction: string): number | null {
  const digits = whole.replace(/^0+/, "").length;
  if (digits < 9 || digits > 19) return null;
  if (digits <= 11) return Number(whole + fraction.slice(0, 3).padEnd(3, "0"));
  if (digits <= MS_DIGITS + 1) return Number(whole);
  return Number(whole.slice(0, digits <= 17 ? -3 : -6));
}

/** Midnight of a day (`YYYYMMDD`) in a time zone, in ms since 1970; null = no such day. */
export function midnightOf(day: string, timeZone: string): number | null {
  const utcMs = timeOf(day);
  if (utcMs === null) return null;
  // The zone's offset at midnight is found by looking at the clock there, twice: the first look may lie on the other side of a change.
  let guessMs = utcMs;
  for (let look = 0; look < 2; look++) guessMs = utcMs - offsetMs(guessMs, timeZone);
  return guessMs;
}

function offsetMs(atMs: number, timeZone: string): number {
  const parts = new Intl.DateTimeFormat("en-US", {
    timeZone,
    hourCycle: "h23",
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  }).formatToParts(atMs);
  const of = (type: string) => parts.find((part) => part.type === type)?.value ?? "00";
  const shown = Date.parse(
    `${of("year")}-${of("month")}-${of("day")}T${of("hour")}:${of("minute")}:${of("second")}Z`,
  );
  return shown - Math.floor(atMs / 1_000) * 1_000;
}
