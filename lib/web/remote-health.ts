// Whether the other processes of the pipeline are well: each poll requests the health of all of them, and the last answer
// is remembered. It judges nothing; health/pipeline.ts does.

import type { Clock } from "../base/clock.ts";
import { httpRequest } from "../base/http-client.ts";
import { asObject, parseObject } from "../base/json.ts";
import { NO_PROXIES, type Proxies } from "../base/proxy.ts";
import type { HealthDocument } from "../health/health.ts";
import type { RemoteSnapshot } from "../health/pipeline.ts";

/** Well below the time between two polls. */
const ANSWER_MS_MAX = 1_500;

export type RemoteHealth = Readonly<{
  /** One round; never rejects. */
  poll(): Promise<void>;
  snapshots(): readonly RemoteSnapshot[];
}>;

/** `kinds`: the URLs of each kind of process. Several of one kind are numbered: `processor-1`, `processor-2`. */
export function createRemoteHealth(
  kinds: Readonly<Record<string, readonly string[]>>,
  clock: Clock,
  proxies: Proxies = NO_PROXIES,
): RemoteHealth {
  const remotes = Object.entries(kinds).flatMap(([kind, urls]) =>
    urls.map((url, index) => ({ name: urls.length > 1 ? `${kind}-${index + 1}` : kind, url })),
  );
  const known = new Map<string, RemoteSnapshot>(
    remotes.map(({ name, url }) => [name, { name, url, answeredAtMs: null, document: null, problem: null }]),
  );

  async function pollOne(name: string, url: string): Promise<void> {
    const before = known.get(name)!;
    try {
      const { status, body } = await httpRequest(`${url.replace(/\/+$/, "")}/health`, ANSWER_MS_MAX, {
        proxies,
      });
      const document = healthIn(body);
      if (document === null) throw new Error(`answered ${status} without a health document`);
      known.set(name, { ...before, answeredAtMs: clock.now(), document, problem: null });
    } catch (error) {
      // Said in the document that is asked for; a process that is away is no fault of ours.
      known.set(name, { ...before, problem: error instanceof Error ? error.message : String(error) });
    }
  }

  return {
    async poll() {
      await Promise.all(remotes.map(({ name, url }) => pollOne(name, url)));
    },
    snapshots: () => [...known.values()],
  };
}

function healthIn(body: string): HealthDocument | null {
  const document = parseObject(body);
  const parts = asObject(document?.parts);
  if (document === null || parts === null) return null;
  const isHealth =
    (document.status === "ok" || document.status === "failing") &&
    Object.values(parts).every((part) => asObject(part) !== null);
  return isHealth ? (document as HealthDocument) : null;
}
