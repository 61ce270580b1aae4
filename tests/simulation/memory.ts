// How much the processors of a run remember at its peak: read from the counts of processing/partition-state.ts at each
// row and at each drain.

import { PartitionState } from "../../lib/processing/partition-state.ts";

/** The peak of any one partition. `unwritten`: windows; `inFlights`: records read and not yet stored. */
export type Peak = { panes: number; reads: number; sessions: number; inFlights: number; unwritten: number };

let peak = newPeak();

const { acknowledgeRow, drainDirty } = PartitionState.prototype;
PartitionState.prototype.acknowledgeRow = function (pending, nowMs) {
  acknowledgeRow.call(this, pending, nowMs);
  look(this);
};
PartitionState.prototype.drainDirty = function () {
  look(this);
  return drainDirty.call(this);
};

function look({ paneCount, readCount, sessionCount, tracker, unwrittenCount }: PartitionState): void {
  peak.panes = Math.max(peak.panes, paneCount);
  peak.reads = Math.max(peak.reads, readCount);
  peak.sessions = Math.max(peak.sessions, sessionCount);
  peak.inFlights = Math.max(peak.inFlights, tracker.openCount);
  peak.unwritten = Math.max(peak.unwritten, unwrittenCount);
}

function newPeak(): Peak {
  return { panes: 0, reads: 0, sessions: 0, inFlights: 0, unwritten: 0 };
}

/** From now on, until the next call. */
export function watchMemory(): Readonly<Peak> {
  peak = newPeak();
  return peak;
}
