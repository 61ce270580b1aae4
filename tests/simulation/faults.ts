// The kinds of misfortune that a simulated run meets, how often each hit something that was in flight, and the
// record of all that happened: as a hash always, as lines when one seed is looked at.

import {
  type Faults,
  FAULT_KINDS as REQUEST_FAULTS,
  type FaultKind as RequestFault,
  type World,
} from "./world.ts";

export const KINDS = [
  // Requests to the log.
  "append_lost",
  "append_written_but_error",
  "append_partial",
  "append_written_late",
  "append_slow",
  "commit_lost",
  "commit_written_but_error",
  "commit_written_late",
  "commit_slow",
  "position_fails",
  "log_down",
  "log_full",
  "log_resend",
  "partition_down",
  "send_partial",
  "send_refused",
  "send_too_large",
  "log_poison",
  "log_trimmed",
  "log_end_lost",
  "batch_from_wrong_offset",
  // Requests to the store.
  "put_rows_lost",
  "put_rows_written_but_error",
  "put_rows_partial",
  "put_rows_written_late",
  "put_rows_slow",
  "put_windows_lost",
  "put_windows_written_but_error",
  "put_windows_partial",
  "put_windows_written_late",
  "put_windows_slow",
  "put_sides_fails",
  "row_refused",
  "scan_fails",
  "scan_fails_midway",
  "scan_slow",
  "recovery_read_fails",
  "store_down",
  "store_overloaded",
  // The group and its machines.
  "rebalance",
  "rebalance_while_asleep",
  "late_completion_of_lost_partition",
  "processor_killed",
  "processor_stopped",
  "processor_asleep",
  "producer_killed",
  "producer_stopped",
  "producer_asleep",
  "clock_jump_forward",
  "clock_jump_back",
  "extra_trigger",
  // The operator.
  "trade_deleted",
  "repair_forced",
  "trade_imported",
  // The embedded shape: one process on real SQLite files.
  "local_killed",
  "local_stopped",
  // The other side of the socket.
  "upgrade_refused",
  "upgrade_unanswered",
  "socket_reset",
  "socket_silent",
  "socket_paused",
  "symbols_over_cap",
  "frame_duplicated",
  "frame_reordered",
  "frame_garbage",
  "element_garbage",
  "trade_hour_late",
  "trade_future",
  "trade_impossible",
  "trade_burst",
] as const;

export type Kind = (typeof KINDS)[number];

/** What became of a run, as far as it happened. */
export class Chronicle {
  readonly counts: Record<Kind, number> = Object.fromEntries(KINDS.map((kind) => [kind, 0])) as never;
  /** Of all lines, in order. */
  hash = 0n;
  readonly #world: World;
  readonly #lines: string[] | null;

  constructor(world: World, lines: string[] | null) {
    this.#world = world;
    this.#lines = lines;
  }

  note(text: string): void {
    const line = `${this.#world.elapsedMs.toFixed(3)} ${text}`;
    this.hash = BigInt(Bun.hash(line, this.hash));
    this.#lines?.push(line);
  }

  fire(kind: Kind, detail = ""): void {
    this.counts[kind] += 1;
    this.note(`FAULT ${kind} ${detail}`);
  }
}

/** The kind of a request that fails in this way; null: this operation cannot fail so. */
export function kindOf(operation: string, fault: RequestFault): Kind | null {
  switch (operation) {
    case "append":
      return (
        {
          before: "append_lost",
          after: "append_written_but_error",
          partly: "append_partial",
          late: "append_written_late",
          slow: "append_slow",
        } as const
      )[fault];
    case "commit":
      return (
        {
          before: "commit_lost",
          after: "commit_written_but_error",
          partly: null,
          late: "commit_written_late",
          slow: "commit_slow",
        } as const
      )[fault];
    case "position":
      return fault === "partly" ? null : "position_fails";
    case "putTrades":
    case "putWindows": {
      const what = operation === "putTrades" ? "put_rows" : "put_windows";
      const how = {
        before: "lost",
        after: "written_but_error",
        partly: "partial",
        late: "written_late",
        slow: "slow",
      } as const;
      return `${what}_${how[fault]}`;
    }
    case "putEvents":
    case "putDead":
      return fault === "slow" ? null : "put_sides_fails";
    case "scanTrades":
      if (fault === "slow") return "scan_slow";
      return fault === "before" ? "scan_fails" : null;
    case "isEmpty":
    case "scanReceived":
      return fault === "before" ? "recovery_read_fails" : null;
    default:
      return null;
  }
}

export type Weather = {
  /** Of each kind that a request can meet: its probability. */
  rate: number;
  kinds: ReadonlySet<Kind>;
  /** Null: it is not down. */
  downAs: Kind | null;
  isOverloaded: boolean;
  isCalm: boolean;
};

/** Replaces the service's own draw: which request fails, and how, is decided here, by operation, and counted. */
export function rule<Operation extends string>(
  faults: Faults<Operation>,
  world: World,
  record: Chronicle,
  weather: Weather,
): void {
  const draw = faults.draw.bind(faults);
  faults.draw = (operation) => {
    let fault: RequestFault | undefined;
    let kind: Kind | null = null;
    if (weather.isCalm) fault = undefined;
    else if (weather.downAs !== null) {
      fault = world.chance(0.9) ? "before" : "after";
      kind = weather.downAs;
    } else {
      for (const candidate of REQUEST_FAULTS) {
        const named = kindOf(operation, candidate);
        if (named === null || !weather.kinds.has(named) || !world.chance(weather.rate)) continue;
        fault = candidate;
        kind = named;
        break;
      }
    }
    let latencyMs = world.between(...(fault === "slow" ? faults.slowMs : faults.latencyMs));
    if (weather.isOverloaded && fault === undefined) {
      latencyMs += world.between(50, 3_000);
      kind = "store_overloaded";
    }
    const backMs = world.between(...faults.latencyMs);
    // Of a read that fails, its wrapper counts how far it had come.
    if (kind === null || kind === "scan_fails") record.note(`${operation} ${fault ?? ""}`);
    else record.fire(kind, operation);
    faults.plan(operation, fault === undefined ? { latencyMs, backMs } : { fault, latencyMs, backMs });
    return draw(operation);
  };
}
