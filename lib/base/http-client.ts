// Requests to other processes over HTTP, bounded in time and size. It follows no redirect.

import { byWayOf, NO_PROXIES, type Proxies, proxyFor, refusalOfProxy } from "./proxy.ts";

type HttpAnswer = Readonly<{ status: number; body: string }>;
/**
 * `login`: `user:password`; it goes into a header, never into the URL.
 * `proxies`: the rule to follow; without it the request goes directly.
 */
type RequestOptions = Readonly<{ json?: string; login?: string; proxies?: Proxies }>;

/** The beginning of the reason when no answer came in time. */
export const NO_ANSWER = "no answer";

/** A health document is some KB; /metrics some tens. */
const BODY_BYTES_MAX = 1_024 * 1_024;

/**
 * A GET, or a POST where there is JSON to send. Rejects with an Error whose message is a reason in words: `connection
 * refused`, `no answer within 3000 ms`, ... What Bun reads of proxies in the environment by itself does not count.
 */
export async function httpRequest(
  url: string,
  limitMs: number,
  { json, login, proxies = NO_PROXIES }: RequestOptions = {},
): Promise<HttpAnswer> {
  const signal = AbortSignal.timeout(limitMs);
  const proxy = proxyFor(proxies, url);
  const by = byWayOf(proxy);
  try {
    const response = await fetch(url, {
      method: json === undefined ? "GET" : "POST",
      headers: {
        ...(json !== undefined && { "content-type": "application/json" }),
        ...(login !== undefined && { authorization: `Basic ${Buffer.from(login).toString("base64")}` }),
      },
      ...(json !== undefined && { body: json }),
      redirect: "manual",
      keepalive: false, // A connection of its own: a kept one may be half closed when the next request comes.
      proxy: proxy?.url ?? false,
      signal,
    });
    const refusal = proxy === null ? null : refusalOfProxy(proxy, String(response.status));
    if (refusal !== null) throw new Error(refusal);
    return { status: response.status, body: await boundedText(response.body) };
  } catch (error) {
    if (signal.aborted) throw new Error(`${NO_ANSWER} within ${limitMs} ms${by}`, { cause: error });
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ECONNREFUSED") throw new Error(`connection refused${by}`, { cause: error });
    const message = error instanceof Error ? error.message : String(error);
    const refusal = proxy === null ? null : refusalOfProxy(proxy, message);
    if (refusal !== null) throw new Error(refusal, { cause: error });
    // What Bun adds is for whoever writes the call.
    throw new Error(message.replace(/\.? (?:For more information, pass|Is the computer able to).*/s, ""), {
      cause: error,
    });
  }
}

async function boundedText(body: ReadableStream<Uint8Array> | null): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Error(`an answer of over ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
