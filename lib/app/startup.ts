// How every binary starts: its port is open from the first moment, /health says what the process waits for, and engines
// that are still starting are waited for, however long it takes. It knows no binary's parts, only the contract App.

import type { Context } from "../base/command.ts";
import { portOf, portSettingOf, type ServiceName, sourceFor } from "../base/config.ts";
import { isTransient, StoreUnavailableError } from "../base/errors.ts";
import { outageLoop } from "../base/outages.ts";
import { type RetryOptions, retry } from "../base/retry.ts";
import type { HealthDocument } from "../health/health.ts";
import { startingHealth } from "../health/pipeline.ts";
import { createHealthApp } from "../web/health-app.ts";
import { type ServeOptions, serveWeb } from "../web/server.ts";
import type { Job } from "./jobs.ts";

type WebApp = ServeOptions["app"];

/**
 * One binary's parts, opened and connected. lifecycle.run opens it, starts its jobs, calls run once, and disposes of it
 * when run has ended, however it ended.
 */
export interface App extends AsyncDisposable {
  readonly jobs: readonly Job[];
  /** What the port answers; without it /health and /metrics alone. */
  readonly web?: WebApp;
  health(): HealthDocument;
  /** Resolves when the signal has aborted and what was in flight is finished. Rejects with what ends the process. */
  run(signal: AbortSignal): Promise<void>;
}

export type Startup = AsyncDisposable &
  Readonly<{
    /** Where the port answers, without a slash at the end. */
    url: string;
    /** What /health answers at the moment. */
    health(): HealthDocument;
    /**
     * Retries the work until it succeeds. Meanwhile /health names it, with its last fault: that of a failed attempt, or
     * what work that retries by itself reports to onFault. Rejects with a fault that waiting cannot mend, and as soon as
     * a stop is requested, however long the work takes.
     */
    waitFor<T>(what: string, work: (onFault: (error: Error) => void) => Promise<T>): Promise<T>;
    /** From now on the app's own health is served, and its web if it has one. */
    done(app: Pick<App, "health" | "web">): void;
  }>;

const SUBJECTS = ["the log", "the store"] as const;
const RETRY_FIRST_MS = 100;
const RETRY_MAX_MS = 2_000;

export function openStartup(context: Context, service: ServiceName): Startup {
  const { config, clock, metrics, signal } = context;
  const simulated = sourceFor(config, service)?.kind === "simulator";
  const startedAtMs = clock.now();
  /** What is waited for, and its last fault. There can be several at once. */
  const waits = new Map<string, string | null>();
  let health = (): HealthDocument => startingHealth(simulated, waits, startedAtMs, clock.now());
  let web: WebApp = createHealthApp({ health: () => health(), metrics, simulated });
  const server = serveWeb({
    app: { fetch: (request, env) => web.fetch(request, env) },
    hostname: config.web.bindAddress,
    port: portOf(config, service),
    portSetting: portSettingOf(service),
    clock,
  });
  const stopped = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  stopped.catch(() => {}); // Raced below; a start that waits for nothing has no listener.

  return {
    url: server.url,
    health: () => health(),
    async waitFor(what, work) {
      waits.set(what, null);
      const onFault = (error: Error) => waits.set(what, error.message);
      const options: RetryOptions = {
        clock,
        firstMs: RETRY_FIRST_MS,
        maxMs: RETRY_MAX_MS,
        isRetryable: (error) => !signal.aborted && isTransient(error),
        onFailure(error) {
          const subject = error instanceof StoreUnavailableError ? "the store" : "the log";
          outageLoop(context, subject, what).failed(error);
          if (error instanceof Error) onFault(error);
        },
        signal,
      };
      try {
        const result = await retry(options, () => Promise.race([work(onFault), stopped]));
        for (const subject of SUBJECTS) outageLoop(context, subject, what).worked();
        return result;
      } catch (error) {
        signal.throwIfAborted(); // A fault that comes with a stop is no reason to fail.
        throw error;
      } finally {
        for (const subject of SUBJECTS) outageLoop(context, subject, what).over();
        waits.delete(what);
      }
    },
    done(app) {
      health = () => app.health();
      if (app.web !== undefined) web = app.web;
    },
    [Symbol.asyncDispose]: () => server.stop(),
  };
}
