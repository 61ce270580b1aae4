// Texts for people: durations, what a terminal or a log may print, and how far two texts are apart.

/**
 * The fewest letters to insert, delete, replace or swap with their neighbour that make one text the other
 * (Damerau-Levenshtein, restricted). Infinity beyond `limit`, found early.
 */
export function editDistance(one: string, other: string, limit = Number.POSITIVE_INFINITY): number {
  if (Math.abs(one.length - other.length) > limit) return Number.POSITIVE_INFINITY;
  let beforeLast: number[] = [];
  let last = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let i = 1; i <= one.length; i++) {
    const row = [i];
    let least = i;
    for (let j = 1; j <= other.length; j++) {
      const isSame = one[i - 1] === other[j - 1];
      const isSwap = i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1];
      const letters = Math.min(
        last[j]! + 1,
        row[j - 1]! + 1,
        last[j - 1]! + (isSame ? 0 : 1),
        isSwap ? beforeLast[j - 2]! + 1 : Number.POSITIVE_INFINITY,
      );
      row.push(letters);
      least = Math.min(least, letters);
    }
    if (least > limit) return Number.POSITIVE_INFINITY;
    beforeLast = last;
    last = row;
  }
  const distance = last[other.length]!;
  return distance > limit ? Number.POSITIVE_INFINITY : distance;
}

/** Ends a line, moves a cursor, recolours a terminal or turns the direction of what follows. */
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;
const ESCAPES: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

/** On one line, without a character that does anything but stand there: those are written as escapes. */
export function printable(text: string): string {
  return text.replace(
    UNPRINTABLE,
    (character) => ESCAPES[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** `75 s`, `12 min`, `3 h`, `14 days`: for a person, so it is rounded down. */
export function spell(durationMs: number): string {
  if (durationMs === Number.POSITIVE_INFINITY) return "an unknown time";
  const seconds = Math.floor(Math.max(0, durationMs) / 1_000);
  if (seconds < 600) return `${seconds} s`;
  if (seconds < 36_000) return `${Math.floor(seconds / 60)} min`;
  return seconds < 259_200 ? `${Math.floor(seconds / 3_600)} h` : `${Math.floor(seconds / 86_400)} days`;
}
