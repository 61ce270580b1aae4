// What producer, processor and admin do alike while they start: the port is open from the first moment, /health says
// what the process waits for, and engines that are still starting are waited for, however long it takes.

import { backoffMs } from "../base/clock.ts";
import type { Context } from "../base/command.ts";
import { portOf, type ServiceName } from "../base/config.ts";
import { isTransient } from "../base/errors.ts";
import type { HealthDocument } from "../health/health.ts";
import { startingHealth } from "../health/pipeline.ts";
import { createHealthApp } from "../web/health-app.ts";
import { serveWeb } from "../web/server.ts";

type Answer = Response | Promise<Response>;
export type App = Readonly<{
  fetch(request: Request, env: Readonly<{ server: Bun.Server<undefined> }>): Answer;
}>;

export type Startup = AsyncDisposable &
  Readonly<{
    url: string;
    /**
     * Tries until it succeeds; /health names it meanwhile, and what work that tries by itself says of its faults.
     * Rejects with what waiting cannot mend, and at once when a stop is asked for, however long an answer takes.
     */
    waitFor<T>(what: string, work: (onFault: (error: Error) => void) => Promise<T>): Promise<T>;
    /** From now on the process answers for itself: with its health, or as admin with its own app. */
    done(health: () => HealthDocument, app?: App): void;
  }>;

const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 2_000;

export function openStartup(context: Context, service: ServiceName, simulated: boolean): Startup {
  const { config, clock, logger, metrics, signal } = context;
  const startedAtMs = clock.now();
  /** Several may be waited for at once. */
  const waits = new Map<string, string | null>();
  let health = (): HealthDocument => startingHealth(simulated, waits, startedAtMs, clock.now());
  let app: App = createHealthApp({ health: () => health(), metrics, simulated });
  const server = serveWeb({
    app: { fetch: (request, env) => app.fetch(request, env) },
    hostname: config.web.bindAddress,
    port: portOf(config, service),
    portSetting: `${service.toUpperCase()}_PORT`,
    clock,
  });
  const { promise: stopped, reject: stop } = Promise.withResolvers<never>();
  stopped.catch(() => {}); // Raced below; a start that waits for nothing has nobody to tell.
  signal.addEventListener("abort", () => stop(signal.reason), { once: true });

  async function insist<T>(what: string, work: (onFault: (error: Error) => void) => Promise<T>): Promise<T> {
    const onFault = (error: Error) => waits.set(what, error.message);
    for (let attempt = 0; ; attempt++) {
      signal.throwIfAborted();
      try {
        return await Promise.race([work(onFault), stopped]);
      } catch (error) {
        signal.throwIfAborted();
        if (!isTransient(error)) throw error;
        if (attempt === 0) logger.warn(`waiting for ${what}`, { error });
        onFault(error);
        await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), signal);
      }
    }
  }

  return {
    url: server.url,
    async waitFor(what, work) {
      waits.set(what, null);
      try {
        return await insist(what, work);
      } finally {
        waits.delete(what);
      }
    },
    done(ownHealth, ownApp) {
      health = ownHealth;
      if (ownApp !== undefined) app = ownApp;
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
}
