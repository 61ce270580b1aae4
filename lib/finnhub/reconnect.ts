// Why there is no connection to Finnhub, and how long to wait before the next attempt. It has no timer and no socket;
// chance is an argument.

import { backoffMs } from "../base/clock.ts";

export const RECONNECT_LIMITS = {
  retryFirstMs: 500,
  retryMsMax: 60_000,
  /** A wrong token does not mend itself; an operator who mends it upstream waits no longer than this. */
  unauthorizedFirstMs: 120_000,
  unauthorizedMsMax: 900_000,
  /** How long Finnhub keeps a lost session (429 until then), as one author measured it. */
  tooManyMsMin: 75_000,
} as const;

/** Why there is no connection. A closed list: it is a metric's label. */
export const DISCONNECT_REASONS = [
  "connect_timeout",
  "refused_401", // Wrong token.
  "refused_429", // Finnhub still keeps an older session, or another client has the token.
  "refused_status", // Any other answer to the upgrade.
  "unreachable", // No answer, or none that is HTTP.
  "closed", // By the other side or the network, after it was open.
  "silent", // No frame for too long.
  "stopped", // By ourselves.
] as const;
export type DisconnectReason = (typeof DISCONNECT_REASONS)[number];

/** Waits that must not be cut short are stretched by up to a quarter, so that two clients do not keep step. */
const STRETCH_MAX = 0.25;

export class ReconnectDelay {
  readonly #limits: Readonly<Record<keyof typeof RECONNECT_LIMITS, number>>;
  readonly #random: () => number;
  /** Since the last stable connection: the exponent of the back-off. */
  #failures = 0;
  /** Refusals of the token in a row. */
  #unauthorized = 0;

  constructor(limits: Readonly<Record<keyof typeof RECONNECT_LIMITS, number>>, random: () => number) {
    this.#limits = limits;
    this.#random = random;
  }

  /** The token was accepted. */
  onOpen(): void {
    this.#unauthorized = 0;
  }

  /** A connection lasted: the next failure is the first again. */
  onStable(): void {
    this.#failures = 0;
  }

  /** Counts this failure. The wait before the next attempt, in ms, not rounded. */
  next(reason: DisconnectReason): number {
    const { retryFirstMs, retryMsMax, unauthorizedFirstMs, unauthorizedMsMax, tooManyMsMin } = this.#limits;
    const stretch = 1 + STRETCH_MAX * this.#random();
    const exponent = this.#failures++;
    if (reason === "refused_401") {
      const longMs = unauthorizedFirstMs * 2 ** Math.min(this.#unauthorized++, 30);
      return Math.min(longMs, unauthorizedMsMax) * stretch;
    }
    this.#unauthorized = 0;
    if (reason === "refused_429") return tooManyMsMin * stretch;
    return backoffMs(exponent, retryFirstMs, retryMsMax, this.#random);
  }
}
