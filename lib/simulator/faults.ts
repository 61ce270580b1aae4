// Which fault the next frame or the next handshake meets, by seeded chance or because a test planned it. It only decides:
// delivery.ts and upgrade.ts carry it out.

import { seededRandom } from "../base/random.ts";

/** Chances from 0 to 1, each for ONE trade frame handed to ONE connection; the last ones for one handshake. */
export type FaultRates = Readonly<{
  /** The connection is cut after the frame, without a close frame. */
  reset?: number;
  /** A frame that is not JSON is sent before it. */
  garbage?: number;
  error?: number;
  news?: number;
  pressRelease?: number;
  /** Every trade of the frame stands in it two or three times. */
  duplicateInFrame?: number;
  /** The frame is sent once or twice again, 18 to 100 ms later. */
  duplicateLater?: number;
  /** The frame is held back by 1 to 8 ms, so that younger ones pass it. */
  holdBack?: number;
  handshake401?: number;
  handshake429?: number;
  handshake200?: number;
  handshake524?: number;
  /** The upgrade is answered after 12 s: later than a patient client waits, sooner than a test does. */
  handshakeSlow?: number;
}>;

/** What the upgrade is answered with instead of 101; all four were seen. */
export type HandshakeFault = 200 | 401 | 429 | 524;
export type ExtraFrame = "garbage" | "error" | "news" | "pr";

export type FramePlan = Readonly<{
  extras: readonly ExtraFrame[];
  /** How often each trade stands in the frame. */
  copies: number;
  /** The delay of every further copy of the whole frame. */
  againAfterMs: readonly number[];
  holdBackMs: number;
  reset: boolean;
}>;

const NO_FAULT: FramePlan = { extras: [], copies: 1, againAfterMs: [], holdBackMs: 0, reset: false };

/** As measured in 2026: the second copy came 18 to 97 ms after the first. */
const DUPLICATE_MS_MIN = 18;
const DUPLICATE_MS_MAX = 100;
const HOLD_BACK_MS_MAX = 8;
export const SLOW_HANDSHAKE_MS = 12_000;

export const EXTRA_TEXT: Readonly<Record<ExtraFrame, string>> = {
  garbage: '{"data":[{"c":null,"p":1.',
  error: '{"msg":"Internal error","type":"error"}',
  news:
    '{"data":[{"category":"company","datetime":1679920200,"headline":"Simulated headline","id":119440189,' +
    '"image":"","related":"AAPL","source":"Simulator","summary":"Nothing happened.","url":"https://example.com/"}],' +
    '"type":"news"}',
  pr:
    '{"data":[{"datetime":1637696940,"fullText":"<p>Simulated</p>","headline":"Simulated press release",' +
    '"symbol":"AAPL,IBM","url":"https://example.com/"}],"type":"pr"}',
};

export class FaultPlanner {
  readonly #rates: FaultRates;
  readonly #random: () => number;
  readonly #anyFrameRate: boolean;
  readonly #framePlans: FramePlan[] = [];
  readonly #handshakes: HandshakeFault[] = [];
  readonly #handshakeDelaysMs: number[] = [];

  constructor(rates: FaultRates, seed: number) {
    this.#rates = rates;
    this.#random = seededRandom(seed);
    const { handshake401, handshake429, handshake200, handshake524, handshakeSlow, ...frameRates } = rates;
    this.#anyFrameRate = Object.values(frameRates).some((rate) => rate > 0);
  }

  /** The next frames get these plans, in this order, whatever chance says. */
  planFrames(plan: Partial<FramePlan>, count: number) {
    for (let left = count; left > 0; left -= 1) this.#framePlans.push({ ...NO_FAULT, ...plan });
  }

  planHandshakes(status: HandshakeFault, count: number) {
    for (let left = count; left > 0; left -= 1) this.#handshakes.push(status);
  }

  planHandshakeDelays(delayMs: number, count: number) {
    for (let left = count; left > 0; left -= 1) this.#handshakeDelaysMs.push(delayMs);
  }

  nextFrame(): FramePlan {
    const planned = this.#framePlans.shift();
    if (planned !== undefined) return planned;
    if (!this.#anyFrameRate) return NO_FAULT;
    const extras: ExtraFrame[] = [];
    if (this.#happens(this.#rates.garbage)) extras.push("garbage");
    if (this.#happens(this.#rates.error)) extras.push("error");
    if (this.#happens(this.#rates.news)) extras.push("news");
    if (this.#happens(this.#rates.pressRelease)) extras.push("pr");
    return {
      extras,
      copies: this.#happens(this.#rates.duplicateInFrame) ? 2 + this.#below(2) : 1,
      againAfterMs: this.#happens(this.#rates.duplicateLater) ? this.#delays(1 + this.#below(2)) : [],
      holdBackMs: this.#happens(this.#rates.holdBack) ? 1 + this.#below(HOLD_BACK_MS_MAX) : 0,
      reset: this.#happens(this.#rates.reset),
    };
  }

  nextHandshake(): HandshakeFault | null {
    const planned = this.#handshakes.shift();
    if (planned !== undefined) return planned;
    if (this.#happens(this.#rates.handshake401)) return 401;
    if (this.#happens(this.#rates.handshake429)) return 429;
    if (this.#happens(this.#rates.handshake200)) return 200;
    return this.#happens(this.#rates.handshake524) ? 524 : null;
  }

  nextHandshakeDelayMs(): number {
    const planned = this.#handshakeDelaysMs.shift();
    if (planned !== undefined) return planned;
    return this.#happens(this.#rates.handshakeSlow) ? SLOW_HANDSHAKE_MS : 0;
  }

  #happens(rate: number | undefined): boolean {
    return rate !== undefined && rate > 0 && this.#random() < rate;
  }

  #below(bound: number): number {
    return Math.floor(this.#random() * bound);
  }

  #delays(count: number): number[] {
    const span = DUPLICATE_MS_MAX - DUPLICATE_MS_MIN + 1;
    return Array.from({ length: count }, () => DUPLICATE_MS_MIN + this.#below(span));
  }
}
