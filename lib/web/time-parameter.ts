// The text of a time in a query: what it means, and what was probably meant where it means nothing. Pure.

/** Dates beyond the year 9999 do not sort as text, which is how days are kept. */
export const TIME_MS_MAX = Date.UTC(9999, 0);

/** ms since 1970, from such a number or from ISO 8601 with a zone; undefined = it is neither. */
export function readTime(text: string): number | undefined {
  if (/^\d+$/.test(text)) {
    const atMs = Number(text);
    return atMs <= TIME_MS_MAX && !isProbablySeconds(atMs) ? atMs : undefined;
  }
  // A plus sign arrives as a blank in a query.
  const pattern = /^(\d{4}-\d\d-\d\d)(?:T(\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)(Z|[+\- ]\d\d:?\d\d))?$/i;
  const [, day, clock, zone] = pattern.exec(text) ?? [];
  if (day === undefined) return undefined;
  // 30 February must not become 2 March.
  const midnightMs = Date.parse(`${day}T00:00:00Z`);
  if (Number.isNaN(midnightMs) || new Date(midnightMs).toISOString().slice(0, 10) !== day) return undefined;
  const offset = zone
    ?.toUpperCase()
    .replace(/^ /, "+")
    .replace(/^(...)(\d\d)$/, "$1:$2");
  const atMs = clock === undefined ? midnightMs : Date.parse(`${day}T${clock}${offset}`);
  return atMs >= 0 && atMs <= TIME_MS_MAX ? atMs : undefined;
}

/** What was probably meant, as the end of a sentence: seconds, or a time without its zone. */
export function guessTime(text: string): string | undefined {
  const atMs = Number(text);
  if (/^\d+$/.test(text) && isProbablySeconds(atMs)) return `if these are seconds, give ${atMs * 1_000}`;
  if (/^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/.test(text)) {
    return `if this is UTC, give ${text.replace(" ", "T")}Z`;
  }
  return undefined;
}

/** As seconds 1973 to 5138; as milliseconds early 1970 to March 1973, when nothing was traded here. */
function isProbablySeconds(count: number): boolean {
  return count >= 1e8 && count < 1e11;
}
