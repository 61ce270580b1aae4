// Question: how many messages a second go through the outbox: appended durably, read back, deleted?

import { join } from "node:path";
import { systemClock } from "../lib/base/clock.ts";
import { createMetrics } from "../lib/base/metrics.ts";
import type { LogEntry, LogReader, Position } from "../lib/contracts/log.ts";
import { encodeMessage } from "../lib/model/codec.ts";
import { openSqliteLog } from "../lib/outbox/log.ts";
import { temporaryDirectory } from "../tests/support/builders.ts";
import { OUTBOX_TABLE, openBare, outboxFloor } from "./floors.ts";
import { marketFrames, messagesOf } from "./material.ts";
import { type Figure, ratesOf } from "./measure.ts";

const TRADES_PER_SECOND = 5_000;
const BYTES_MAX = 2 ** 30;
/** A tick at 1,000 trades a second holds a message or two, at full speed some hundred. */
const SIZES = [
  { perAppend: 1, messages: 20_000 },
  { perAppend: 10, messages: 60_000 },
  { perAppend: 100, messages: 100_000 },
] as const;

export async function outbox(): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const { perAppend, messages: count } of SIZES) {
    const messages = messagesOf(marketFrames(count * 4, TRADES_PER_SECOND, Date.now())).slice(0, count);
    if (messages.length < count) throw new Error("the market made too few messages");
    const entries = messages.map(
      (message): LogEntry => ({
        kind: "trades",
        key: message.trades[0]!.symbol,
        value: encodeMessage(message),
      }),
    );
    const values = entries.map(({ value }) => value);
    figures.push(
      await ratesOf({
        name: `outbox, ${perAppend} a transaction`,
        unit: "messages/s",
        count,
        goal: { of: "ratio", atLeast: 0.6 },
        ours: () => throughLog(entries, perAppend),
        floor: () => {
          using directory = temporaryDirectory();
          const db = openBare(join(directory.path, "floor.sqlite"), OUTBOX_TABLE, true);
          outboxFloor(db, values, perAppend);
          db.close();
        },
      }),
    );
  }
  return figures;
}

/** The writer and the reader in turn, as in one process; commits are durable elsewhere, so here they are kept. */
async function throughLog(entries: readonly LogEntry[], perAppend: number): Promise<void> {
  using directory = temporaryDirectory();
  let position: Position | null = null;
  const commits = {
    load: () => position,
    save(_logId: string, saved: Position) {
      position = saved;
    },
  };
  using log = openSqliteLog({
    directory: directory.path,
    topic: "market",
    sync: "normal",
    bytesMax: BYTES_MAX,
    clock: systemClock,
    metrics: createMetrics(),
  });
  const reader = log.openReader(commits);
  const stop = new AbortController();
  const reading = readAll(reader, entries.length, stop);
  for (let from = 0; from < entries.length; from += perAppend) {
    await log.append(entries.slice(from, from + perAppend));
  }
  await reading;
}

async function readAll(reader: LogReader, count: number, stop: AbortController): Promise<void> {
  let read = 0;
  for await (const delivery of reader.deliveries(stop.signal)) {
    if (delivery.type === "assigned") {
      for (const partition of delivery.partitions) {
        const { beginOffset } = await reader.position(delivery.epoch, partition);
        reader.seek(delivery.epoch, partition, beginOffset);
      }
      continue;
    }
    const { epoch, partition, records, nextOffset } = delivery;
    read += records.length;
    await reader.commit(epoch, partition, { offset: nextOffset, metadata: "" });
    if (read >= count) stop.abort();
  }
}
