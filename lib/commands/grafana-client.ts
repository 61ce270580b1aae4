// Requests to somebody's Grafana over its HTTP API, and readers for its answers, in which nothing is taken for granted. It
// never rejects for an answer, and no fault holds a secret.

import { httpRequest } from "../base/http-client.ts";
import { asObject } from "../base/json.ts";
import type { Proxies } from "../base/proxy.ts";

/** The parsed body, null where it is not JSON; `fault` is a sentence, null = the answer was 200 with JSON. */
export type GrafanaAnswer = Readonly<{ body: unknown; fault: string | null }>;

/** Well above what any answer takes. */
const ANSWER_MS_MAX = 10_000;

export class GrafanaClient {
  readonly #url: string;
  /** `user:password` */
  readonly #login: string;
  readonly #proxies: Proxies;
  readonly #signal: AbortSignal;

  /** `url`: without a slash at the end. */
  constructor(url: string, login: string, proxies: Proxies, signal: AbortSignal) {
    this.#url = url;
    this.#proxies = proxies;
    this.#login = login;
    this.#signal = signal;
  }

  get(path: string): Promise<GrafanaAnswer> {
    return this.#request(path, {});
  }

  post(path: string, json: string): Promise<GrafanaAnswer> {
    return this.#request(path, { json });
  }

  /** Rejects only with the signal's reason. */
  async #request(path: string, options: Readonly<{ json?: string }>): Promise<GrafanaAnswer> {
    this.#signal.throwIfAborted();
    try {
      const all = { login: this.#login, proxies: this.#proxies, ...options };
      const { status, body } = await httpRequest(`${this.#url}${path}`, ANSWER_MS_MAX, all);
      const parsed = parsedJson(body);
      if (status === 200) return { body: parsed, fault: parsed === null ? "the answer is not JSON" : null };
      const message = textIn(parsed, "message") ?? textIn(queryErrorIn(parsed), "error");
      return { body: parsed, fault: `answered ${status}${message === null ? "" : `: ${message}`}` };
    } catch (error) {
      // The point says what was requested.
      return { body: null, fault: error instanceof Error ? error.message : String(error) };
    }
  }
}

export function fieldOf(value: unknown, name: string): unknown {
  return asObject(value)?.[name] ?? null;
}

export function textIn(value: unknown, name: string): string | null {
  const text = fieldOf(value, name);
  return typeof text === "string" ? text : null;
}

/** Empty where there is no list. */
export function listOf(value: unknown, name: string): readonly unknown[] {
  const list = fieldOf(value, name);
  return Array.isArray(list) ? list : [];
}

/** The answer of /api/ds/query holds each query's fault in its own result. */
function queryErrorIn(body: unknown): unknown {
  return Object.values(asObject(fieldOf(body, "results")) ?? {})[0] ?? null;
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
