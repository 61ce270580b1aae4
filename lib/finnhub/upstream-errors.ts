// Error messages of Finnhub that name no subscription of ours: logged and emitted as events, so many a minute at most.
// The rest is counted and told with the next one.

import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import { MINUTE_MS } from "../model/trade.ts";
import type { EmitEvent } from "./outage.ts";

const PER_MINUTE_MAX = 10;

export class UpstreamErrors {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #emitEvent: EmitEvent;
  #minuteFromMonotonicMs = 0;
  #emittedCount = 0;
  /** Since the last one that was emitted. */
  #suppressedCount = 0;

  constructor({
    clock,
    logger,
    emitEvent,
  }: Readonly<{ clock: Clock; logger: Logger; emitEvent: EmitEvent }>) {
    this.#clock = clock;
    this.#logger = logger;
    this.#emitEvent = emitEvent;
  }

  /** `message` holds no secret. */
  report(message: string): void {
    const monotonicMs = this.#clock.monotonic();
    if (monotonicMs - this.#minuteFromMonotonicMs >= MINUTE_MS) {
      this.#minuteFromMonotonicMs = monotonicMs;
      this.#emittedCount = 0;
    }
    if (this.#emittedCount >= PER_MINUTE_MAX) {
      this.#suppressedCount++;
      return;
    }
    this.#emittedCount++;
    const detail = { message, unsaidCount: this.#suppressedCount };
    this.#logger.warn("Finnhub sent an error", detail);
    this.#emitEvent("upstream_error", detail);
    this.#suppressedCount = 0;
  }
}
