// Requests to other processes over HTTP, bounded in time and size. It follows no redirect.

import { type IncomingMessage, request as requestPlain } from "node:http";
import { request as requestTls } from "node:https";

type HttpAnswer = Readonly<{ status: number; body: string }>;
/** `login`: `user:password`; it goes into a header, never into the URL. */
type RequestOptions = Readonly<{ json?: string; login?: string }>;

/** The beginning of the reason when no answer came in time. */
export const NO_ANSWER = "no answer";

/** A health document is some KB; /metrics some tens. */
const BODY_BYTES_MAX = 1_024 * 1_024;

/**
 * A GET, or a POST where there is JSON to send. Rejects with an Error whose message is a reason in words: `connection
 * refused`, `no answer within 3000 ms`, ... It does not use fetch, which would send even a request to this machine
 * through a proxy that the environment names.
 */
export async function httpRequest(
  url: string,
  limitMs: number,
  { json, login }: RequestOptions = {},
): Promise<HttpAnswer> {
  const signal = AbortSignal.timeout(limitMs);
  try {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    const request = url.startsWith("https:") ? requestTls : requestPlain;
    // A connection of its own: a kept one may be half closed when the next request comes.
    const method = json === undefined ? "GET" : "POST";
    const headers = {
      ...(json !== undefined && { "content-type": "application/json" }),
      ...(login !== undefined && { authorization: `Basic ${Buffer.from(login).toString("base64")}` }),
    };
    request(url, { signal, agent: false, method, headers }, resolve).on("error", reject).end(json);
    const response = await promise;
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > BODY_BYTES_MAX) throw new Error(`an answer of over ${BODY_BYTES_MAX} bytes`);
      chunks.push(chunk);
    }
    return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString("utf8") };
  } catch (error) {
    if (signal.aborted) throw new Error(`${NO_ANSWER} within ${limitMs} ms`, { cause: error });
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ECONNREFUSED") throw new Error("connection refused", { cause: error });
    throw error;
  }
}
