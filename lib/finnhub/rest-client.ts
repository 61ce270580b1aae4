// REST calls to Finnhub, never more than its limits allow. The token travels in a header only: it stands in no URL, no
// error and no metric. Of an answer it reads the status, the headers and the JSON, and gives the JSON no meaning.

import { type Clock, TIMED_OUT, withTimeout } from "../base/clock.ts";
import { PipelineError } from "../base/errors.ts";
import { type Metrics, startAtZero } from "../base/metrics.ts";
import {
  byWayOf,
  type HttpProxy,
  NO_PROXIES,
  type Proxies,
  proxyFor,
  refusalOfProxy,
} from "../base/proxy.ts";
import { CallLimit } from "./call-limit.ts";

/** No answer that proves anything; the message is a sentence without a secret. */
export class UnansweredError extends PipelineError {}

export type RestClientOptions = Readonly<{
  /** Up to and with `/api/v1`. */
  apiUrl: string;
  token: string | undefined;
  clock: Clock;
  metrics: Metrics;
  /** The rule to follow; without it calls go directly. */
  proxies?: Proxies | undefined;
  /** For tests; the global one otherwise. */
  fetch?: (url: string, init: BunFetchRequestInit) => Promise<Response>;
}>;

export type RestClient = Readonly<{
  /** The parsed body of a 200. Rejects with UnansweredError. */
  get(path: string, parameters: Readonly<Record<string, string>>): Promise<unknown>;
}>;

/** How a call ended. A closed list: it is a metric's label. */
const CALL_OUTCOMES = [
  "ok",
  "unauthorized",
  "limited",
  "refused",
  "server_error",
  "no_answer",
  "bad_answer",
] as const;
type CallOutcome = (typeof CALL_OUTCOMES)[number];

/** The list of all US stocks, some 10 MB, over a slow line. */
const CALL_MS_MAX = 20_000;
const BODY_BYTES_MAX = 64 * 1_024 * 1_024;

export function createRestClient(options: RestClientOptions): RestClient {
  const { apiUrl, token, clock, metrics, proxies = NO_PROXIES } = options;
  const { fetch: request = (url: string, init: BunFetchRequestInit) => fetch(url, init) } = options;
  const proxy = proxyFor(proxies, apiUrl);
  const limit = new CallLimit(clock);
  startAtZero(metrics.finnhubCallsTotal, "outcome", CALL_OUTCOMES);

  const countedError = (outcome: CallOutcome, message: string): UnansweredError => {
    metrics.finnhubCallsTotal.inc({ outcome });
    return new UnansweredError(message);
  };

  async function call(path: string, url: string, headers: Headers, signal: AbortSignal): Promise<string> {
    // A redirect would carry the token to wherever it leads. Bun's own reading of the environment does not count.
    const response = await request(url, { headers, redirect: "manual", signal, proxy: proxy?.url ?? false });
    const { status, body } = response;
    const refusal = proxy === null ? null : refusalOfProxy(proxy, String(status));
    if (refusal !== null) throw countedError("no_answer", `Finnhub cannot be reached: ${refusal}`);
    limit.observe(status, response.headers);
    if (status !== 200) {
      await body?.cancel();
      const [outcome, message] = refusalOf(status);
      throw countedError(outcome, message);
    }
    const text = await boundedText(body);
    if (text !== null) return text;
    throw countedError("bad_answer", `Finnhub's answer to ${path} is larger than ${BODY_BYTES_MAX} bytes`);
  }

  async function fetchText(path: string, url: string, headers: Headers): Promise<string> {
    try {
      const text = await withTimeout(clock, CALL_MS_MAX, (signal) => call(path, url, headers, signal));
      if (text !== TIMED_OUT) return text;
    } catch (error) {
      if (error instanceof UnansweredError) throw error;
      // The error itself stays here: its text can hold the address, and its cause the request.
      throw countedError("no_answer", `Finnhub ${faultOf(error, proxy)}`);
    }
    throw countedError(
      "no_answer",
      `Finnhub did not answer within ${CALL_MS_MAX / 1_000} s${byWayOf(proxy)}`,
    );
  }

  return {
    async get(path, parameters) {
      if (token === undefined) {
        throw new UnansweredError("Finnhub cannot be asked without a FINNHUB_API_TOKEN");
      }
      const waitMs = await limit.acquire();
      if (waitMs > 0) {
        const seconds = Math.ceil(waitMs / 1_000);
        throw new UnansweredError(`the limit of calls to Finnhub is reached; free again in ${seconds} s`);
      }
      const base = apiUrl.replace(/\/+$/, "");
      const headers = new Headers({ accept: "application/json", "x-finnhub-token": token });
      const text = await fetchText(path, `${base}${path}?${new URLSearchParams(parameters)}`, headers);
      const body = parseJson(text);
      if (body === undefined) throw countedError("bad_answer", "Finnhub's answer is not JSON");
      metrics.finnhubCallsTotal.inc({ outcome: "ok" });
      return body;
    },
  };
}

function refusalOf(status: number): readonly [CallOutcome, message: string] {
  if (status === 401) return ["unauthorized", "Finnhub refuses the token (HTTP 401)"];
  if (status === 429) return ["limited", "Finnhub's limit of calls is reached (HTTP 429)"];
  if (status >= 500) return ["server_error", `Finnhub has a fault of its own (HTTP ${status})`];
  return ["refused", `Finnhub refuses the call (HTTP ${status})`];
}

/** Null: longer than BODY_BYTES_MAX. */
async function boundedText(body: ReadableStream<Uint8Array> | null): Promise<string | null> {
  const decoder = new TextDecoder();
  let text = "";
  let byteCount = 0;
  for await (const chunk of body ?? []) {
    byteCount += chunk.byteLength;
    if (byteCount > BODY_BYTES_MAX) return null;
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** Undefined: it is not JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function faultOf(error: unknown, proxy: HttpProxy | null): string {
  const refusal = proxy !== null && error instanceof Error ? refusalOfProxy(proxy, error.message) : null;
  if (refusal !== null) return `cannot be reached: ${refusal}`;
  const code: unknown = typeof error === "object" && error !== null && "code" in error ? error.code : null;
  const isWord = typeof code === "string" && /^\w{1,40}$/.test(code);
  return `cannot be reached${isWord ? ` (${code})` : ""}${byWayOf(proxy)}`;
}
