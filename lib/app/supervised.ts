// What a supervisor such as systemd learns of a process (Type=notify, WatchdogSec): what it waits for while it starts,
// that it works, that it still makes progress, and that it stops. Without a NOTIFY_SOCKET nobody is told anything.

import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import { openSupervisor, type Supervisor } from "../base/supervisor.ts";
import { printable } from "../base/text.ts";
import type { HealthDocument } from "../health/health.ts";
import { makesProgress } from "../health/progress.ts";

/** The units' WatchdogSec is 60 s: twelve chances before a process is killed. */
const BEAT_MS = 5_000;
/** Somebody looks at a start. */
const STARTING_BEAT_MS = 1_000;
/** `systemctl status` shows a line; systemd itself takes more. */
const STATUS_LENGTH_MAX = 300;

type Deps = Readonly<{ socketPath: string | null; clock: Clock; logger: Logger; signal: AbortSignal }>;

export type Supervised = Disposable &
  Readonly<{
    /** From now on it works. A start that never gets here stays a start, for as long as it waits. */
    ready(health: () => HealthDocument): void;
  }>;

/** Tells the status again and again, and once it is ready also that there is progress; disposing ends it. */
export function startSupervised(deps: Deps, starting: () => HealthDocument): Supervised {
  const { clock, logger, signal } = deps;
  const supervisor = open(deps);
  if (supervisor === null) return { ready() {}, [Symbol.dispose]() {} };
  const startedAtMs = clock.now();
  let health = starting;
  let isReady = false;
  let isStuck = false;
  let cancel = () => {};
  const beat = () => {
    const document = health();
    const lines = [`STATUS=${printable(document.reason ?? "ok").slice(0, STATUS_LENGTH_MAX)}`];
    // A stop has a limit of its own (TimeoutStopSec), and what it does is progress.
    const isFine = signal.aborted || makesProgress(document, startedAtMs, clock.now());
    if (isReady && isFine) lines.push("WATCHDOG=1");
    if (!isFine && !isStuck) {
      logger.error("no progress, and nothing to wait for: the supervisor is to restart this process");
    }
    isStuck = !isFine;
    supervisor.tell(lines.join("\n"));
    cancel = clock.after(isReady ? BEAT_MS : STARTING_BEAT_MS, beat);
  };
  const stopping = () => supervisor.tell("STOPPING=1");
  signal.addEventListener("abort", stopping, { once: true });
  beat();
  return {
    ready(working) {
      health = working;
      isReady = true;
      if (!supervisor.tell("READY=1"))
        logger.error("the supervisor could not be told that this process works", {
          socketPath: deps.socketPath,
        });
      cancel();
      beat();
    },
    [Symbol.dispose]() {
      cancel();
      signal.removeEventListener("abort", stopping);
      supervisor[Symbol.dispose]();
    },
  };
}

function open({ socketPath, logger }: Deps): Supervisor | null {
  if (socketPath === null) return null;
  try {
    return openSupervisor(socketPath);
  } catch (error) {
    logger.error("the supervisor cannot be told anything", { socketPath, error });
    return null;
  }
}
