// New York's trading hours, as far as weekdays go: holidays are not known here. Pure, told the time.

export type Session = "pre-market" | "regular" | "post-market";

const NEW_YORK = "America/New_York";
/** Every border, and every change of New York's clock, lies on one. */
const SLICE_MS = 15 * 60_000;
const PRE_MARKET_MINUTE = 4 * 60;
const REGULAR_MINUTE = 9 * 60 + 30;
const POST_MARKET_MINUTE = 16 * 60;
const CLOSED_MINUTE = 20 * 60;

const format = new Intl.DateTimeFormat("en-US", {
  timeZone: NEW_YORK,
  weekday: "short",
  hour: "numeric",
  minute: "numeric",
  hourCycle: "h23",
});

/** Remembers the slice it was last asked about: a calendar costs more than a market's whole slot. */
export function createSessions(): (timeMs: number) => Session | null {
  let slice = Number.NaN;
  let session: Session | null = null;
  return (timeMs) => {
    const asked = Math.floor(timeMs / SLICE_MS);
    if (asked !== slice) {
      slice = asked;
      session = sessionAt(asked * SLICE_MS);
    }
    return session;
  };
}

/** Null: closed. */
export function sessionAt(timeMs: number): Session | null {
  const parts = Object.fromEntries(format.formatToParts(timeMs).map(({ type, value }) => [type, value]));
  if (parts.weekday === "Sat" || parts.weekday === "Sun") return null;
  const minute = Number(parts.hour) * 60 + Number(parts.minute);
  if (minute < PRE_MARKET_MINUTE || minute >= CLOSED_MINUTE) return null;
  if (minute < REGULAR_MINUTE) return "pre-market";
  return minute < POST_MARKET_MINUTE ? "regular" : "post-market";
}
