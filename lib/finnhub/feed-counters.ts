// The frames and trades that the feed counted in one tick of the event loop. prom-client works out a label's hash at each
// call, so these metrics are incremented once a tick and not once a trade. What is refused is rare: feed.ts counts it.

import { type Metrics, startAtZero } from "../base/metrics.ts";
import type { Frame } from "./frame.ts";

export class FeedCounters {
  readonly frames: Record<Frame["type"] | "binary", number> = {
    trade: 0,
    ping: 0,
    error: 0,
    news: 0,
    pr: 0,
    other: 0,
    refused: 0,
    binary: 0,
  };
  trades = 0;
  /** Trades of the future: their time lies too far ahead of their receipt. */
  ahead = 0;
  /** Suspected copies. */
  copies = 0;
  readonly #metrics: Metrics;
  readonly #types = Object.keys(this.frames) as (keyof FeedCounters["frames"])[];

  constructor(metrics: Metrics) {
    this.#metrics = metrics;
    startAtZero(metrics.framesTotal, "type", this.#types);
  }

  /** Adds everything to the metrics and begins again at 0. */
  flush(): void {
    const { framesTotal, tradesReceivedTotal, tradesAheadTotal, duplicatesSuspectedTotal } = this.#metrics;
    for (const type of this.#types) {
      if (this.frames[type] > 0) framesTotal.inc({ type }, this.frames[type]);
      this.frames[type] = 0;
    }
    if (this.trades > 0) tradesReceivedTotal.inc(this.trades);
    if (this.ahead > 0) tradesAheadTotal.inc(this.ahead);
    if (this.copies > 0) duplicatesSuspectedTotal.inc(this.copies);
    this.trades = this.ahead = this.copies = 0;
  }
}
