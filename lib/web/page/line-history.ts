// The averages and the stored seconds of the line's five minutes, for one symbol. As with candles: it remembers up to when
// it has asked, and once a minute it asks for all of them again.

import { LINE_SECONDS, type SecondTuple } from "../live/protocol.ts";
import { AGAIN_EVERY_MS, GAP_MS } from "./candle-history.ts";
import { requestAverages, requestSeconds } from "./history.ts";

/** An average is written within seconds of its end, and amended for a while. */
const AVERAGES_REFRESHED_MS = 30_000;
const LINE_MS = LINE_SECONDS * 1_000;

export class LineHistory {
  /** By the second at which the window ends. */
  readonly averages = new Map<number, number>();
  #symbol: string | null = null;
  #averagesCoveredMs = 0;
  #averagesAgainMs = 0;
  #secondsCoveredMs = 0;
  #isAskingAverages = false;
  #isAskingSeconds = false;
  #epoch = 0;
  #gapCount = 0;

  choose(symbol: string): void {
    if (symbol === this.#symbol) return;
    this.#symbol = symbol;
    this.#epoch += 1;
    this.averages.clear();
    this.#averagesCoveredMs = 0;
    this.#secondsCoveredMs = 0;
    this.#isAskingAverages = false;
    this.#isAskingSeconds = false;
  }

  /** The stream has begun anew, perhaps that of another run: the seconds before it are in the store alone. */
  expectGap(): void {
    this.#secondsCoveredMs = 0;
    this.#averagesAgainMs = 0;
    this.#gapCount += 1;
  }

  /** False: it could not be asked. */
  async refreshAverages(nowMs: number): Promise<boolean> {
    if (this.#symbol === null || nowMs === 0 || this.#isAskingAverages) return true;
    const [epoch, gapCount] = [this.#epoch, this.#gapCount];
    this.#isAskingAverages = true;
    const isAgain =
      nowMs - this.#averagesCoveredMs > GAP_MS || nowMs - this.#averagesAgainMs >= AGAIN_EVERY_MS;
    const fromMs = nowMs - (isAgain ? LINE_MS : AVERAGES_REFRESHED_MS);
    const found = await requestAverages(this.#symbol, fromMs);
    if (epoch !== this.#epoch) return true;
    this.#isAskingAverages = false;
    if (found === null) return false;
    for (const { window_end, average_price } of found) this.averages.set(window_end / 1_000, average_price);
    for (const end of this.averages.keys()) if (end * 1_000 < nowMs - LINE_MS) this.averages.delete(end);
    this.#averagesCoveredMs = nowMs;
    if (isAgain && gapCount === this.#gapCount) this.#averagesAgainMs = nowMs;
    return true;
  }

  /** The stored seconds of the line, once after each gap; none where they are known. Null: they could not be asked. */
  async takeSeconds(nowMs: number): Promise<readonly SecondTuple[] | null> {
    if (this.#symbol === null || nowMs === 0 || this.#isAskingSeconds) return [];
    if (this.#secondsCoveredMs !== 0 && nowMs - this.#secondsCoveredMs <= GAP_MS) {
      this.#secondsCoveredMs = nowMs;
      return [];
    }
    const [epoch, gapCount] = [this.#epoch, this.#gapCount];
    this.#isAskingSeconds = true;
    const found = await requestSeconds(this.#symbol, nowMs - LINE_MS);
    if (epoch !== this.#epoch) return [];
    this.#isAskingSeconds = false;
    if (found !== null && gapCount === this.#gapCount) this.#secondsCoveredMs = nowMs;
    return found;
  }
}
