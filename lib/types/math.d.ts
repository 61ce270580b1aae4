// Math.sumPrecise (ES2026) is in Bun; TypeScript's library does not name it yet.
interface Math {
  /** The sum of the values, exact and rounded once. */
  sumPrecise(values: Iterable<number>): number;
}
