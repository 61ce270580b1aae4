// What is counted, in prom-client's words. One object a process; loops and adapters get it as an argument and count a
// batch at a time. Every loss has a counter, and its reasons come from closed lists.

import { Counter, Gauge, Histogram, Registry } from "prom-client";

const LATENCY_BUCKETS_S = [
  0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 5, 30, 300,
];
/** A counter of our own code has only these; a closed list, so that a typing mistake is no new series. */
type Labelled<Label extends string> = Readonly<{ inc(labels: Record<Label, string>, value: number): void }>;

export type Metrics = ReturnType<typeof createMetrics>;

export function createMetrics() {
  const registry = new Registry();
  const makers = makersFor(registry);
  return {
    registry,
    ...feedMetrics(makers),
    ...logMetrics(makers),
    ...relayMetrics(makers),
    ...processorMetrics(makers),
    ...storeMetrics(makers),
    ...latencyMetrics(makers),
    ...processMetrics(makers),
  };
}

/**
 * Makes each value of a counter's label a series that begins at 0. A series that is born with its first loss shows no
 * increase: rate() of the one loss that matters most would be 0.
 */
export function startAtZero<Label extends string>(
  counter: Labelled<Label>,
  label: Label,
  values: readonly string[],
): void {
  for (const value of values) counter.inc({ [label]: value } as Record<Label, string>, 0);
}

type Makers = ReturnType<typeof makersFor>;

function makersFor(registry: Registry) {
  const registers = [registry];
  return {
    counter: <Label extends string = never>(name: string, help: string, labelNames: Label[] = []) =>
      new Counter<Label>({ name: `pipeline_${name}`, help, labelNames, registers }),
    gauge: <Label extends string = never>(name: string, help: string, labelNames: Label[] = []) =>
      new Gauge<Label>({ name: `pipeline_${name}`, help, labelNames, registers }),
    /** Its value is read at each scrape, so nothing can leave an old one behind. NaN: not known just now. */
    readGauge: (name: string, help: string, read?: () => number) => {
      let source = read;
      new Gauge({
        name: `pipeline_${name}`,
        help,
        registers,
        collect() {
          if (source !== undefined) this.set(source());
        },
      });
      return {
        /** Who knows the value. */
        readFrom(next: () => number): void {
          source = next;
        },
      };
    },
    /** What is only worth reading when somebody asks: `read` gives the value at each scrape. */
    readCounter: (name: string, help: string, read: () => number) => {
      let told = 0;
      return new Counter({
        name: `pipeline_${name}`,
        help,
        registers,
        collect() {
          const value = read();
          this.inc(Math.max(0, value - told));
          told = Math.max(told, value);
        },
      });
    },
    histogram: (name: string, help: string) =>
      new Histogram({ name: `pipeline_${name}`, help, buckets: LATENCY_BUCKETS_S, registers }),
  };
}

function feedMetrics({ counter }: Makers) {
  return {
    framesTotal: counter("feed_frames_total", "Frames received, by kind", ["type"]),
    tradesReceivedTotal: counter("feed_trades_received_total", "Good trades received"),
    itemsRefusedTotal: counter("feed_items_refused_total", "Frames or trades refused as dead letters", [
      "reason",
    ]),
    tradesAheadTotal: counter("feed_trades_ahead_total", "Trades dated over 60 s ahead of their receipt"),
    duplicatesSuspectedTotal: counter(
      "feed_duplicates_suspected_total",
      "Trades equal to one received up to 200 ms before; never dropped",
    ),
    pausesTotal: counter("feed_pauses_total", "Times the feed stopped reading: its queue was full"),
    connectsTotal: counter("feed_connects_total", "Connections opened"),
    disconnectsTotal: counter("feed_disconnects_total", "Connections lost or not made", ["reason"]),

    finnhubCallsTotal: counter("finnhub_calls_total", "REST calls to Finnhub, by how they ended", [
      "outcome",
    ]),
  };
}

function logMetrics({ counter, gauge }: Makers) {
  return {
    messagesAppendedTotal: counter("log_messages_appended_total", "Messages made durable"),
    tradesLostTotal: counter("log_trades_lost_total", "Trades that the full log refused", ["reason"]),
    logBytes: gauge("log_bytes", "Bytes waiting in the log"),
    logMessages: gauge("log_messages", "Records waiting in the log"),
  };
}

function relayMetrics({ counter, gauge, histogram }: Makers) {
  return {
    messagesForwardedTotal: counter("forward_messages_total", "Messages acknowledged by the log"),
    bytesForwardedTotal: counter("forward_bytes_total", "Bytes of messages acknowledged by the log"),
    sendsFailedTotal: counter("forward_sends_failed_total", "Batches that failed and are sent again", [
      "reason",
    ]),
    messagesRefusedTotal: counter(
      "forward_messages_refused_total",
      "Messages that the log refuses for good: dead letters",
    ),
    messagesInDoubtTotal: counter(
      "forward_messages_in_doubt_total",
      "Messages received without a confirmed lease",
      ["outcome"],
    ),
    partitionsFailing: gauge("forward_partitions_failing", "Partitions that cannot be written just now"),
    receiptToAcknowledgedSeconds: histogram(
      "receipt_to_acknowledged_seconds",
      "From the receipt of each batch's oldest message to the log's acknowledgement",
    ),
  };
}

function processorMetrics({ counter, readGauge }: Makers) {
  return {
    rowsStoredTotal: counter("processor_rows_stored_total", "Trade rows acknowledged by the store"),
    resendsTotal: counter("processor_resends_total", "Messages that may be copies of an earlier one"),
    deadLettersTotal: counter("processor_dead_letters_total", "Messages or trades kept as dead letters", [
      "reason",
    ]),
    storeRetriesTotal: counter(
      "processor_store_retries_total",
      "Store operations that failed and are retried",
      ["operation"],
    ),
    windowsWrittenTotal: counter("processor_windows_written_total", "Aggregate rows acknowledged", ["kind"]),
    refusedForGoodTotal: counter(
      "processor_refused_for_good_total",
      "Aggregates, events or dead letters that the store refuses",
      ["kind"],
    ),
    panesReadTotal: counter("processor_panes_read_total", "Panes read back from trades"),
    commitsTotal: counter("processor_commits_total", "Positions committed"),
    epochsTotal: counter("processor_epochs_total", "Times the partitions were assigned"),
    consumerLag: readGauge(
      "consumer_lag_records",
      "Records of the topics that the processors have not committed; NaN while Kafka does not say",
    ),
    recordsUnstored: readGauge(
      "processor_records_unstored",
      "Records read from the log and not yet wholly stored",
    ),
    windowsUnwritten: readGauge("processor_windows_unwritten", "Changed windows not yet written"),
  };
}

function storeMetrics({ counter, gauge }: Makers) {
  return {
    storeFaultsTotal: counter("store_faults_total", "Requests that the store did not carry out", ["reason"]),
    storeRowsExpiredTotal: counter(
      "store_rows_expired_total",
      "Rows not written: received longer ago than they are kept",
      ["table"],
    ),
    storeWalBytes: gauge("store_wal_bytes", "Size of market.sqlite-wal, the store's write-ahead log"),
    storeRequestsMax: gauge("store_requests_max", "Writes that may run at once: fewer under pressure"),
  };
}

function latencyMetrics({ histogram }: Makers) {
  return {
    receiptToStoredSeconds: histogram("receipt_to_stored_seconds", "From receipt to the acknowledged row"),
    tradeToReceiptSeconds: histogram("trade_to_receipt_seconds", "From the trade's own time to its receipt"),
  };
}

function processMetrics({ gauge, readGauge, readCounter }: Makers) {
  readGauge("process_resident_memory_bytes", "Resident memory", () => process.memoryUsage.rss());
  readCounter("process_cpu_seconds_total", "User and system CPU time used", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  return {
    healthOk: gauge("health_ok", "1: this part of /health is well; 0: it fails", ["part"]),
    eventLoopLagSeconds: gauge("process_event_loop_lag_seconds", "How late a timer of this process last was"),
  };
}
