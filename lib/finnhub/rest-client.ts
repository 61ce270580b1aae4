// One REST call to Finnhub at a time or several, never more than its limits allow. The token travels in a header
// only: it stands in no URL, no error and no metric. It understands no answer beyond its status and its headers.

import type { Clock } from "../base/clock.ts";
import { PipelineError } from "../base/errors.ts";
import type { Metrics } from "../base/metrics.ts";

/** No answer that proves anything; the message is a sentence without a secret. */
export class UnansweredError extends PipelineError {}

export type RestClientOptions = Readonly<{
  /** Up to and with `/api/v1`. */
  apiUrl: string;
  token: string | undefined;
  clock: Clock;
  metrics: Metrics;
  /** For tests; the global one otherwise. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
}>;

export type RestClient = Readonly<{
  /** The parsed body of a 200. Rejects with UnansweredError. */
  get(path: string, parameters: Readonly<Record<string, string>>): Promise<unknown>;
}>;

/** How a call ended. A closed list: it is a metric's label. */
type CallOutcome =
  | "ok"
  | "unauthorized"
  | "limited"
  | "refused"
  | "server_error"
  | "no_answer"
  | "bad_answer";

/** Finnhub counts 60 a minute and 30 a second; ours stay below, since the windows of two clocks do not agree. */
export const CALLS_PER_MINUTE_MAX = 55;
export const CALLS_PER_SECOND_MAX = 25;
/** A longer wait for a free call is an answer by itself: nobody can be told within a request. */
const LIMIT_WAIT_MS_MAX = 1_100;
/** The list of all US stocks, some 10 MB, over a slow line. */
const CALL_MS_MAX = 20_000;
const BODY_BYTES_MAX = 64 * 1_024 * 1_024;
const MINUTE_MS = 60_000;
/** A limit that says no time, and the longest that a server may silence us. */
const BLOCKED_MS_MIN = 1_000;
const RESET_MS_MAX = MINUTE_MS;
const RETRY_AFTER_MS_MAX = 900_000;

export function createRestClient(options: RestClientOptions): RestClient {
  const { apiUrl, token, clock, metrics } = options;
  const { fetch: request = (url: string, init: RequestInit) => fetch(url, init) } = options;
  /** Monotonic, of the last minute, the oldest first. */
  const calledAtMs: number[] = [];
  let blockedUntilMs = Number.NEGATIVE_INFINITY;

  function waitMs(): number {
    const nowMs = clock.monotonic();
    while (calledAtMs.length > 0 && calledAtMs[0]! <= nowMs - MINUTE_MS) calledAtMs.shift();
    const until = (count: number, spanMs: number) => {
      const at = calledAtMs.at(-count);
      return at === undefined ? 0 : at + spanMs - nowMs;
    };
    return Math.max(
      blockedUntilMs - nowMs,
      until(CALLS_PER_MINUTE_MAX, MINUTE_MS),
      until(CALLS_PER_SECOND_MAX, 1_000),
    );
  }

  async function takeTurn(): Promise<void> {
    for (;;) {
      const leftMs = waitMs();
      if (leftMs <= 0) break;
      if (leftMs > LIMIT_WAIT_MS_MAX) {
        throw new UnansweredError(
          `the limit of calls to Finnhub is reached; free again in ${Math.ceil(leftMs / 1_000)} s`,
        );
      }
      await clock.sleep(leftMs);
    }
    calledAtMs.push(clock.monotonic());
  }

  /** What the server says of its limit holds for every call that follows. */
  function heed(status: number, headers: Headers): void {
    const isSpent = status === 429;
    const retryMs = retryAfterMs(headers.get("retry-after"), clock.now());
    const resetSeconds = Number(headers.get("x-ratelimit-reset") ?? Number.NaN);
    const resetMs = Number.isFinite(resetSeconds) ? resetSeconds * 1_000 - clock.now() : null;
    const isLast = headers.get("x-ratelimit-remaining")?.trim() === "0";
    let blockedMs = 0;
    if (retryMs !== null && (isSpent || status === 503)) {
      blockedMs = clamp(retryMs, BLOCKED_MS_MIN, RETRY_AFTER_MS_MAX);
    } else if (isSpent) {
      blockedMs = clamp(resetMs ?? RESET_MS_MAX, BLOCKED_MS_MIN, RESET_MS_MAX);
    } else if (isLast && resetMs !== null) {
      blockedMs = clamp(resetMs, 0, RESET_MS_MAX);
    }
    if (blockedMs > 0) blockedUntilMs = Math.max(blockedUntilMs, clock.monotonic() + blockedMs);
  }

  async function ask(url: string): Promise<unknown> {
    const patience = new AbortController();
    const cancel = clock.after(CALL_MS_MAX, () => patience.abort());
    try {
      const headers: Record<string, string> = { accept: "application/json" };
      if (token !== undefined) headers["x-finnhub-token"] = token;
      // A redirect would carry the token to wherever it leads.
      const response = await request(url, { headers, redirect: "manual", signal: patience.signal });
      heed(response.status, response.headers);
      if (response.status !== 200) {
        await response.body?.cancel();
        throw refusal(response.status);
      }
      return parsed(await boundedText(response, url));
    } catch (error) {
      if (error instanceof UnansweredError) throw error;
      // The error itself stays here: its text can hold the address, and its cause the request.
      const fault = patience.signal.aborted
        ? `did not answer within ${CALL_MS_MAX / 1_000} s`
        : codeOf(error);
      throw counted("no_answer", `Finnhub ${fault}`);
    } finally {
      cancel();
    }
  }

  function counted(outcome: CallOutcome, message: string): UnansweredError {
    metrics.finnhubCallsTotal.inc({ outcome });
    return new UnansweredError(message);
  }

  function refusal(status: number): UnansweredError {
    if (status === 401) return counted("unauthorized", "Finnhub refuses the token (HTTP 401)");
    if (status === 429) return counted("limited", "Finnhub's limit of calls is reached (HTTP 429)");
    if (status >= 500) return counted("server_error", `Finnhub has a fault of its own (HTTP ${status})`);
    return counted("refused", `Finnhub refuses the call (HTTP ${status})`);
  }

  async function boundedText(response: Response, url: string): Promise<string> {
    const decoder = new TextDecoder();
    let text = "";
    let byteCount = 0;
    for await (const chunk of response.body ?? []) {
      byteCount += chunk.byteLength;
      if (byteCount > BODY_BYTES_MAX) {
        const { pathname } = new URL(url);
        throw counted("bad_answer", `Finnhub's answer to ${pathname} is larger than ${BODY_BYTES_MAX} bytes`);
      }
      text += decoder.decode(chunk, { stream: true });
    }
    return text + decoder.decode();
  }

  function parsed(text: string): unknown {
    try {
      const body: unknown = JSON.parse(text);
      metrics.finnhubCallsTotal.inc({ outcome: "ok" });
      return body;
    } catch {
      throw counted("bad_answer", "Finnhub's answer is no JSON");
    }
  }

  return {
    async get(path, parameters) {
      if (token === undefined) throw new UnansweredError("there is no FINNHUB_API_TOKEN to ask Finnhub with");
      await takeTurn();
      return ask(`${apiUrl.replace(/\/+$/, "")}${path}?${new URLSearchParams(parameters)}`);
    },
  };
}

/** Seconds or a date; null where there is none or it is neither. */
function retryAfterMs(header: string | null, nowMs: number): number | null {
  if (header === null) return null;
  const ms = /^\d{1,9}$/.test(header.trim()) ? Number(header) * 1_000 : Date.parse(header) - nowMs;
  return Number.isNaN(ms) ? null : ms;
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(max, Math.max(min, value));
}

function codeOf(error: unknown): string {
  const code: unknown = typeof error === "object" && error !== null && "code" in error ? error.code : null;
  const isWord = typeof code === "string" && /^\w{1,40}$/.test(code);
  return isWord ? `cannot be reached (${code})` : "cannot be reached";
}
