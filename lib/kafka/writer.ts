// The sender as a LogWriter, for a process that keeps no outbox: it waits for every partition's acknowledgement, and
// halves what is too large. It retries nothing else.

import assert from "node:assert/strict";
import { RowRefusedError } from "../base/errors.ts";
import type { LogEntry, LogWriter, PartitionId, PartitionSender } from "../contracts/log.ts";
import { encodeDeadLetter } from "../model/codec.ts";
import type { DeadLetter } from "../model/dead-letter.ts";

/** The size of one send; an outbox limits its own batches. */
const SEND_BYTES_MAX = 256 * 1024;

/**
 * An append resolves when every partition has acknowledged all of its entries; appends go one after another.
 * RowRefusedError when Kafka refuses an entry for good.
 */
export function createKafkaWriter(sender: PartitionSender): LogWriter {
  let last: Promise<void> = Promise.resolve();
  return {
    append(entries) {
      const appended = last.then(() => appendNow(sender, entries));
      // The next append waits for the end of this one, not for its success.
      last = appended.catch(() => {});
      return appended;
    },
  };
}

/** What a store on another engine does with its dead letters: resolves when the topic `.dead` has them. */
export function createDeadWriter(log: LogWriter): (deadLetters: readonly DeadLetter[]) => Promise<void> {
  return (deadLetters) =>
    log.append(
      deadLetters.map((deadLetter) => ({
        kind: "dead",
        key: deadLetter.session,
        value: encodeDeadLetter(deadLetter),
      })),
    );
}

async function appendNow(sender: PartitionSender, entries: readonly LogEntry[]): Promise<void> {
  await sender.ready();
  const byPartition = new Map<PartitionId, LogEntry[]>();
  for (const entry of entries) {
    const id = sender.partitionOf(entry.kind, entry.key);
    const ofPartition = byPartition.get(id);
    if (ofPartition) ofPartition.push(entry);
    else byPartition.set(id, [entry]);
  }
  // One after another: what is too large is halved, and no caller here is in a hurry.
  for (const [partition, ofPartition] of byPartition) {
    for (const group of groupsOf(ofPartition)) await sendWhole(sender, partition, group);
  }
}

async function sendWhole(
  sender: PartitionSender,
  partition: PartitionId,
  entries: readonly LogEntry[],
): Promise<void> {
  const [outcome] = await sender.send([{ partition, entries }]);
  assert(outcome !== undefined);
  switch (outcome.kind) {
    case "acknowledged":
      return;
    case "too_large": {
      const middle = Math.ceil(entries.length / 2);
      await sendWhole(sender, partition, entries.slice(0, middle));
      return sendWhole(sender, partition, entries.slice(middle));
    }
    case "refused":
      throw new RowRefusedError(outcome.error.message, "see max.message.bytes of the topic", outcome.error);
    case "unavailable":
      throw outcome.error;
  }
}

/** Every group is within the limit, except for an entry that is larger by itself. */
function groupsOf(entries: readonly LogEntry[]): LogEntry[][] {
  const groups: LogEntry[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const entry of entries) {
    if (bytes + entry.value.length > SEND_BYTES_MAX) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)?.push(entry);
    bytes += entry.value.length;
  }
  return groups;
}
