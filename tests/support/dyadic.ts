// Exact numbers for the proofs: whole numbers over powers of two, which every double is, and sums and products of
// doubles are. Shares no code and no idea with lib/model/exact-sum.ts.

/** whole / 2^bits */
export type Dyadic = readonly [whole: bigint, bits: number];

export const ZERO: Dyadic = [0n, 0];

const view = new DataView(new ArrayBuffer(8));

export function dyadicOf(value: number): Dyadic {
  view.setFloat64(0, value);
  const pattern = view.getBigUint64(0);
  const exponent = Number((pattern >> 52n) & 0x7ffn);
  const fraction = pattern & ((1n << 52n) - 1n);
  const size = exponent === 0 ? fraction : fraction | (1n << 52n);
  const bits = 1_075 - Math.max(1, exponent);
  const whole = value < 0 ? -size : size;
  return bits >= 0 ? [whole, bits] : [whole << BigInt(-bits), 0];
}

export function plus([one, oneBits]: Dyadic, [other, otherBits]: Dyadic): Dyadic {
  if (oneBits === otherBits) return [one + other, oneBits];
  return oneBits > otherBits
    ? [one + (other << BigInt(oneBits - otherBits)), oneBits]
    : [(one << BigInt(otherBits - oneBits)) + other, otherBits];
}

export function times([one, oneBits]: Dyadic, [other, otherBits]: Dyadic): Dyadic {
  return [one * other, oneBits + otherBits];
}

/** The double nearest to the quotient (ties to even); the divisor is not zero. */
export function nearestQuotient([over, overBits]: Dyadic, [under, underBits]: Dyadic): number {
  const sign = over < 0n === under < 0n ? 1 : -1;
  const dividend = (over < 0n ? -over : over) << BigInt(underBits);
  const divisor = (under < 0n ? -under : under) << BigInt(overBits);
  if (dividend === 0n) return 0;
  const lengthOf = (whole: bigint) => whole.toString(16).length * 4;
  // At least 64 bits, of which the last also says whether anything was left: Number rounds the rest.
  const shift = Math.max(0, 72 + lengthOf(divisor) - lengthOf(dividend));
  const whole = (dividend << BigInt(shift)) / divisor;
  const isExact = whole * divisor === dividend << BigInt(shift);
  const significand = Number(isExact ? whole : whole | 1n);
  return sign * significand * 2 ** -Math.min(shift, 1_000) * 2 ** -Math.max(0, shift - 1_000);
}

/** The double nearest to the number. */
export function nearest(number: Dyadic): number {
  return nearestQuotient(number, [1n, 0]);
}
