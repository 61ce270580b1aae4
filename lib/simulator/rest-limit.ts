// Finnhub's limit of REST calls, per token. It is told the time, and keeps nothing but the counts of the latest tokens.

export type RestLimitOptions = Readonly<{
  callsPerMinuteMax: number;
  /** On top of every plan's limit: 30, says Finnhub. */
  callsPerSecondMax: number;
}>;

/** `headers`: what Finnhub tells of the limit with each answer. */
type Counted = Readonly<{ isRefused: boolean; headers: Readonly<Record<string, string>> }>;

/** Whoever sends ever new tokens must not fill the memory. */
const TOKENS_COUNTED_MAX = 1_000;

type Calls = { minute: number; inMinute: number; second: number; inSecond: number };

/** Fixed windows: all that a client sees of the limit is how much is left and when it begins anew. */
export class RestLimit {
  readonly #options: RestLimitOptions;
  readonly #callsByToken = new Map<string, Calls>();

  constructor(options: RestLimitOptions) {
    this.#options = options;
  }

  /** Counts one call, unless it is refused. */
  count(token: string, nowMs: number): Counted {
    const { callsPerMinuteMax, callsPerSecondMax } = this.#options;
    const second = Math.floor(nowMs / 1_000);
    const minute = Math.floor(second / 60);
    const calls = this.#callsOf(token, minute, second);
    const isRefused = calls.inMinute >= callsPerMinuteMax || calls.inSecond >= callsPerSecondMax;
    if (!isRefused) {
      calls.inMinute += 1;
      calls.inSecond += 1;
    }
    const headers = {
      "x-ratelimit-limit": `${callsPerMinuteMax}`,
      "x-ratelimit-remaining": `${callsPerMinuteMax - calls.inMinute}`,
      "x-ratelimit-reset": `${calls.inMinute >= callsPerMinuteMax ? (minute + 1) * 60 : second + 1}`,
    };
    return { isRefused, headers };
  }

  #callsOf(token: string, minute: number, second: number): Calls {
    const byToken = this.#callsByToken;
    const calls = byToken.get(token) ?? { minute, inMinute: 0, second, inSecond: 0 };
    byToken.delete(token);
    byToken.set(token, calls);
    for (const oldest of byToken.keys()) {
      if (byToken.size <= TOKENS_COUNTED_MAX) break;
      byToken.delete(oldest);
    }
    if (calls.minute !== minute) Object.assign(calls, { minute, inMinute: 0 });
    if (calls.second !== second) Object.assign(calls, { second, inSecond: 0 });
    return calls;
  }
}
