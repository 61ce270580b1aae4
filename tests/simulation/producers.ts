// The producers of a run: lib's feed and ingest on a machine each, one after the other, and the account of
// what was handed over to each: what must be in the log, and what may be.

import { LogFullError } from "../../lib/base/errors.ts";
import type { LogEntry, LogWriter } from "../../lib/contracts/log.ts";
import { openFinnhubFeed } from "../../lib/finnhub/feed.ts";
import { createIngest } from "../../lib/ingest/ingest.ts";
import { type Host, logger, metrics } from "./hosts.ts";
import { addTo, contentOf, decode, isPossible, type Received } from "./ledger.ts";
import type { Upstream, WireTrade } from "./upstream.ts";
import type { Machine } from "./world.ts";

export type Producer = {
  readonly host: Host;
  readonly stop: () => void;
  state: "running" | "killed" | "ended" | "failed";
  error: unknown;
  /** How often each content was handed over, acknowledged by the log, refused by a full log. */
  readonly handed: Map<string, number>;
  readonly acked: Map<string, number>;
  readonly refused: Map<string, number>;
};

export type ProducerOptions = Readonly<{ symbols: readonly string[]; queueWeightMax: number }>;

/** Finnhub's waits, shortened so that a run of minutes meets them. */
const LIMITS = {
  connectMsMax: 3_000,
  silentMsMax: 25_000,
  stableMsMin: 5_000,
  retryFirstMs: 200,
  retryMsMax: 4_000,
  unauthorizedFirstMs: 4_000,
  unauthorizedMsMax: 8_000,
  tooManyMsMin: 3_000,
};

export function startProducer(
  host: Host,
  writer: LogWriter,
  upstream: Upstream,
  options: ProducerOptions,
  /** What is still to be done when all that was received is durable. */
  drain: () => Promise<void> = async () => {},
): Producer {
  const controller = new AbortController();
  const { clock } = host;
  const [handed, acked, refused] = [new Map(), new Map(), new Map()] as Map<string, number>[];
  const producer: Producer = {
    host,
    stop: () => controller.abort(),
    state: "running",
    error: null,
    handed: handed!,
    acked: acked!,
    refused: refused!,
  };
  const log: LogWriter = {
    async append(entries) {
      host.flightCount += 1;
      try {
        await writer.append(entries);
        countEntries(producer.acked, entries);
      } catch (error) {
        if (error instanceof LogFullError) countEntries(producer.refused, entries);
        throw error;
      } finally {
        host.flightCount -= 1;
      }
    },
  };
  const feed = openFinnhubFeed({
    url: "wss://x/",
    symbols: options.symbols,
    symbolsMax: 50,
    limits: { ...LIMITS, queueWeightMax: options.queueWeightMax },
    clock,
    logger,
    metrics,
    signal: controller.signal,
    openSocket: () => upstream.open(host.machine) as unknown as WebSocket,
  });
  createIngest({ feed, log, clock, logger, metrics })
    .run()
    .then(drain)
    .then(
      () => {
        producer.state = "ended";
      },
      (error: unknown) => {
        producer.state = "failed";
        producer.error = error;
        host.machine.kill();
      },
    );
  return producer;
}

/** A frame entered onmessage: what the feed must make of it. */
export function countFrame(producer: Producer, text: string): void {
  const { handed, host } = producer;
  let frame: unknown;
  try {
    frame = JSON.parse(text);
  } catch {
    frame = null;
  }
  const { type, data } = (frame ?? {}) as { type?: unknown; data?: unknown };
  if (type === "ping" || type === "error") return;
  if (type !== "trade" || !Array.isArray(data)) {
    addTo(handed, "dead", 1);
    return;
  }
  for (const element of data as unknown[]) {
    const trade = element as WireTrade;
    const isGood =
      typeof element === "object" && typeof trade.p === "number" && isPossible(trade, host.clock.now());
    addTo(handed, isGood ? contentOf(trade) : "dead", 1);
  }
}

function countEntries(counts: Map<string, number>, entries: readonly LogEntry[]): void {
  for (const { kind, value } of entries) {
    if (kind === "dead") addTo(counts, "dead", 1);
    if (kind === "trades") for (const trade of decode(value).data) addTo(counts, contentOf(trade), 1);
  }
}

export function totalOf(counts: ReadonlyMap<string, number>): number {
  let total = 0;
  for (const count of counts.values()) total += count;
  return total;
}

/** Whether everything that was handed to a living producer is in the log, or was refused by it. */
export function isDrained({ state, handed, acked, refused }: Producer): boolean {
  return state === "killed" || totalOf(handed) === totalOf(acked) + totalOf(refused);
}

/**
 * Between the feed and the log. What a producer that was not killed was handed is in the log; of one that was
 * killed, what was acknowledged is, and the rest may be. Nothing is there more often than it was handed over.
 */
export function betweenFeedAndLog(producers: readonly Producer[], received: Received) {
  const least = new Map<string, number>();
  const most = new Map<string, number>();
  for (const { state, handed, acked, refused } of producers) {
    for (const [content, count] of handed) {
      addTo(most, content, count);
      addTo(least, content, state === "killed" ? 0 : count - (refused.get(content) ?? 0));
    }
    if (state === "killed") for (const [content, count] of acked) addTo(least, content, count);
  }
  const contents = received.contents();
  let lost = 0;
  let doubled = 0;
  for (const [content, count] of least) {
    const missing = count - (contents.get(content) ?? 0);
    if (missing <= 0) continue;
    lost += missing;
    received.problem(`${missing} x "${content}" was handed over and never came into the log`);
  }
  for (const [content, count] of contents) {
    const extra = count - (most.get(content) ?? 0);
    if (extra <= 0) continue;
    doubled += extra;
    received.problem(`${extra} x "${content}" is in the log and was not handed over`);
  }
  return { lost, doubled };
}

export function producerOf(producers: readonly Producer[], machine: Machine): Producer | undefined {
  return producers.find(({ host }) => host.machine === machine);
}
