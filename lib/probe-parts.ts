// What producer, processor and admin do alike while they start: the port is open from the first moment, /health says
// what the process waits for, and engines that are still starting are waited for, however long it takes.

import { backoffMs } from "./clock.ts";
import { portOf, type ServiceName } from "./config.ts";
import { LogUnavailableError, StoreUnavailableError } from "./errors.ts";
import type { HealthDocument } from "./health.ts";
import { startingHealth } from "./health-pipeline.ts";
import type { Context } from "./lifecycle.ts";
import { createProbe } from "./web-probe.ts";
import { serveWeb } from "./web-serve.ts";

type Answer = Response | Promise<Response>;
export type App = Readonly<{
  fetch(request: Request, env: Readonly<{ server: Bun.Server<undefined> }>): Answer;
}>;

export type Start = AsyncDisposable &
  Readonly<{
    url: string;
    /** Tries until it succeeds; /health names it meanwhile. Rejects with what waiting cannot mend, or when stopped. */
    waitFor<T>(what: string, work: () => Promise<T>): Promise<T>;
    /** From now on the process answers for itself: with its health, or as admin with its own app. */
    done(health: () => HealthDocument, app?: App): void;
  }>;

const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 2_000;

export function openStart(context: Context, service: ServiceName, simulated: boolean): Start {
  const { config, clock, report, metrics, signal } = context;
  const startedAtMs = clock.now();
  let waiting: Readonly<{ what: string; problem: string | null }> = { what: "its parts", problem: null };
  let health = (): HealthDocument => startingHealth(simulated, waiting, startedAtMs, clock.now());
  let app: App = createProbe({ health: () => health(), metrics, simulated });
  const server = serveWeb({
    app: { fetch: (request, env) => app.fetch(request, env) },
    hostname: config.web.bindAddress,
    port: portOf(config, service),
    portSetting: `${service.toUpperCase()}_PORT`,
    clock,
  });
  return {
    url: server.url,
    async waitFor(what, work) {
      waiting = { what, problem: null };
      for (let attempt = 0; ; attempt++) {
        signal.throwIfAborted();
        try {
          return await work();
        } catch (error) {
          signal.throwIfAborted();
          const isTransient = error instanceof LogUnavailableError || error instanceof StoreUnavailableError;
          if (!isTransient) throw error;
          if (attempt === 0) report.warn(`waiting for ${what}`, { error });
          waiting = { what, problem: error.message };
          await clock.sleep(backoffMs(attempt, RETRY_FIRST_MS, RETRY_MAX_MS, clock.random), signal);
        }
      }
    },
    done(ownHealth, ownApp) {
      health = ownHealth;
      if (ownApp !== undefined) app = ownApp;
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
}
