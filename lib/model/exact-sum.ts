// Sums, products and quotients of doubles without rounding on the way: each result is the exact rational number of
// its inputs, rounded to the nearest double once, when it is read. Anybody can check it in any language with
// fractions. Values in, values out.

/**
 * A sum of doubles without rounding: non-overlapping partials, smallest first, whose exact sum is the sum
 * (Shewchuk 1997).
 */
export type ExactSum = number[];

/** Adds a double, exactly. */
export function addExactly(sum: ExactSum, value: number): void {
  let carried = value;
  let kept = 0;
  for (let index = 0; index < sum.length; index++) {
    const part = sum[index]!;
    const total = carried + part;
    // What the rounding of carried + part lost, exactly (two-sum).
    const partVirtual = total - carried;
    const lost = carried - (total - partVirtual) + (part - partVirtual);
    if (lost !== 0) sum[kept++] = lost;
    carried = total;
  }
  sum.length = kept;
  if (carried !== 0 || kept === 0) sum.push(carried);
}

/** 2^27 + 1: splits a double of 53 bits into two halves of 26 (Veltkamp). */
const SPLITTER = 134_217_729;

/**
 * Adds the product of two doubles, exactly: its rounded value and what the rounding lost. It is exact for factors up to
 * 2^996 and for products that are zero or at least 2^-960 in size.
 */
export function addProduct(sum: ExactSum, left: number, right: number): void {
  const product = left * right;
  const lost = lostInProduct(left, right, product);
  if (lost !== 0) addExactly(sum, lost);
  addExactly(sum, product);
}

/** What the rounding of a product lost, exactly (Dekker's two-product). */
function lostInProduct(left: number, right: number, product: number): number {
  const leftShifted = SPLITTER * left;
  const leftHigh = leftShifted - (leftShifted - left);
  const leftLow = left - leftHigh;
  const rightShifted = SPLITTER * right;
  const rightHigh = rightShifted - (rightShifted - right);
  const rightLow = right - rightHigh;
  return leftLow * rightLow - (product - leftHigh * rightHigh - leftLow * rightHigh - leftHigh * rightLow);
}

/**
 * The sum, rounded to the nearest double once (ties to even). Math.sumPrecise would be the same by its specification, but
 * rounds some sums below zero to a neighbour (findings/sum-precise.sh).
 */
export function rounded(sum: ExactSum): number {
  let index = sum.length - 1;
  let high = sum[index] ?? 0;
  let lost = 0;
  while (index > 0 && lost === 0) {
    const [before, part] = [high, sum[--index]!];
    high = before + part;
    lost = part - (high - before);
  }
  // A tie was rounded to the even double; what is left below it, if anything, decides in truth.
  const below = index > 0 ? sum[index - 1]! : 0;
  if (lost !== 0 && below !== 0 && lost < 0 === below < 0) {
    const doubled = lost * 2;
    const next = high + doubled;
    if (next - high === doubled) return next;
  }
  return high + 0; // Minus zero (a price below zero, no volume) is zero: one number has one text in the store.
}

/** The sum of some doubles, rounded once. */
export function sumOf(values: Iterable<number>): number {
  const sum: ExactSum = [];
  for (const value of values) addExactly(sum, value);
  return rounded(sum);
}

/**
 * The quotient of two sums, rounded to the nearest double once (ties to even); the denominator is not zero. Nearly
 * always twice the precision of a double is enough to know the nearest one; where it is not, whole numbers decide.
 */
export function quotient(numerator: ExactSum, denominator: ExactSum): number {
  const high = rounded(numerator);
  const divisor = rounded(denominator);
  const first = high / divisor;
  if (isPlain(high) && isPlain(divisor) && isPlain(first)) {
    const product = first * divisor;
    const rest = restOf(numerator, high) - first * restOf(denominator, divisor);
    const correction = (high - product - lostInProduct(first, divisor, product) + rest) / divisor;
    const margin = Math.abs(first) * CORRECTION_ERROR_MAX;
    const above = first + (correction + margin);
    if (above === first + (correction - margin)) return above;
  }
  return exactQuotient(numerator, denominator);
}

/** More than the correction can be wrong by, relative to the quotient: that is some units of 2^-104. */
const CORRECTION_ERROR_MAX = 2 ** -98;

/** Whether neither a split nor a product of such numbers leaves the range in which it is exact. */
function isPlain(value: number): boolean {
  const size = Math.abs(value);
  return size > 1e-130 && size < 1e130;
}

/** What the rounding of a sum lost, to the precision of a double. */
function restOf(sum: ExactSum, high: number): number {
  if (sum.length === 1) return 0;
  let rest = 0;
  // The largest partials cancel against the rounded sum; the smaller ones are added from the small end.
  for (let index = 0; index < sum.length - 1; index++) rest += sum[index]!;
  return sum.at(-1)! - high + rest;
}

// ---- By whole numbers -----------------------------------------------------------------------------------------

/** Bits of a double's significand; the smallest exponent that its last bit can have. */
const SIGNIFICAND_BITS = 53;
const EXPONENT_MIN = -1_074;

const view = new DataView(new ArrayBuffer(8));

/** value = significand x 2^exponent, exactly. */
function partsOf(value: number): { significand: bigint; exponent: number } {
  view.setFloat64(0, value);
  const bits = view.getBigUint64(0);
  const biased = Number((bits >> 52n) & 0x7ffn);
  const fraction = bits & 0xf_ffff_ffff_ffffn;
  const size = biased === 0 ? fraction : fraction | (1n << 52n);
  return { significand: value < 0 ? -size : size, exponent: Math.max(biased, 1) - 1_075 };
}

/** The sum as a whole number times 2^exponent. */
function wholeOf(sum: ExactSum): { whole: bigint; exponent: number } {
  const parts = sum.map(partsOf);
  const exponent = Math.min(0, ...parts.map((part) => part.exponent));
  let whole = 0n;
  for (const part of parts) whole += part.significand << BigInt(part.exponent - exponent);
  return { whole, exponent };
}

function exactQuotient(numerator: ExactSum, denominator: ExactSum): number {
  const over = wholeOf(numerator);
  const under = wholeOf(denominator);
  if (over.whole === 0n) return 0;
  const isNegative = over.whole < 0n !== under.whole < 0n;
  const dividend = over.whole < 0n ? -over.whole : over.whole;
  const divisor = under.whole < 0n ? -under.whole : under.whole;
  // Shifted so that the whole quotient has one bit more than a significand, at least: that bit and the rest round it.
  const shift = SIGNIFICAND_BITS + 2 + bitsOf(divisor) - bitsOf(dividend);
  const exponent = over.exponent - under.exponent - shift;
  const shifted = shift >= 0 ? dividend << BigInt(shift) : dividend;
  const by = shift >= 0 ? divisor : divisor << BigInt(-shift);
  const whole = shifted / by;
  const isInexact = whole * by !== shifted;
  // A result below the normal range has fewer bits; one above has as many as it has too many.
  const drop = Math.max(bitsOf(whole) - SIGNIFICAND_BITS, EXPONENT_MIN - exponent);
  const kept = whole >> BigInt(drop);
  const left = whole - (kept << BigInt(drop));
  const half = 1n << BigInt(drop - 1);
  const isUp = left > half || (left === half && (isInexact || (kept & 1n) === 1n));
  const size = scaled(Number(isUp ? kept + 1n : kept), exponent + drop);
  return isNegative ? -size : size;
}

function bitsOf(whole: bigint): number {
  return whole.toString(2).length;
}

/** significand x 2^exponent, which is known to be a double: in steps, since 2^exponent alone need not be one. */
function scaled(significand: number, exponent: number): number {
  let size = significand;
  let left = exponent;
  while (left > 1_000) {
    size *= 2 ** 1_000;
    left -= 1_000;
  }
  while (left < -1_000) {
    size *= 2 ** -1_000;
    left += 1_000;
  }
  return size * 2 ** left;
}
