// The "Pipeline" dashboard: whether everything moves, from the /metrics of the four processes as Prometheus keeps them
// (compose.yaml's profile `metrics`).

import { type Dashboard, ThresholdsConfigBuilder } from "@grafana/grafana-foundation-sdk/dashboard";
import { DataqueryBuilder } from "@grafana/grafana-foundation-sdk/prometheus";
import { PanelBuilder as TimeSeriesBuilder } from "@grafana/grafana-foundation-sdk/timeseries";
import { dashboard, legend, numbered, PROMETHEUS } from "./parts.ts";

const WIDTH = 24;
/** A counter's rate over four scrapes and more: prometheus.yaml asks every 5 s. */
const RATE = "30s";

/** Expressions by what the legend says. */
type Lines = Readonly<Record<string, string>>;

export function pipeline(): Dashboard {
  const built = dashboard("Pipeline", "finnhub-pipeline", "5s", "now-15m")
    .description(
      "From /metrics of producer, processors and admin. Start it with: docker compose --profile metrics up",
    )
    .withPanel(
      panel("Trades received and stored", "cps", {
        received: rate("pipeline_feed_trades_received_total"),
        stored: rate("pipeline_processor_rows_stored_total"),
      }).description("Rows a second. Stored is above received while a backlog is worked off."),
    )
    .withPanel(
      panel("Consumer lag", "short", {
        "records not yet committed": "sum(pipeline_consumer_lag_records)",
        "records read and not stored": "sum(pipeline_processor_records_unstored)",
      }).description("Commits come every 5 s, so some lag is always there."),
    )
    .withPanel(
      panel("Outbox", "short", { "messages waiting": 'pipeline_log_messages{job="producer"}' }).description(
        "What was received and is not yet acknowledged by Kafka.",
      ),
    )
    .withPanel(panel("Outbox size", "bytes", { bytes: 'pipeline_log_bytes{job="producer"}' }))
    .withPanel(
      panel(
        "From receipt to the stored row",
        "s",
        quantiles("pipeline_receipt_to_stored_seconds"),
      ).description("Estimated from the histogram's buckets."),
    )
    .withPanel(
      panel("From the trade to its receipt", "s", quantiles("pipeline_trade_to_receipt_seconds")).description(
        "How late Finnhub sends, and how the clocks differ.",
      ),
    )
    .withPanel(panel("From receipt to Kafka", "s", quantiles("pipeline_receipt_to_acknowledged_seconds")))
    .withPanel(
      panel("Losses and refusals", "cps", {
        "{{reason}}: trades lost": "sum by (reason) (rate(pipeline_log_trades_lost_total[5m]))",
        "{{reason}}: put aside": "sum by (reason) (rate(pipeline_processor_dead_letters_total[5m]))",
        "{{reason}}: refused at the feed": "sum by (reason) (rate(pipeline_feed_items_refused_total[5m]))",
        "{{reason}}: connection lost": "sum by (reason) (rate(pipeline_feed_disconnects_total[5m]))",
      }).description("Each should be zero."),
    )
    .withPanel(
      panel("Windows written", "cps", {
        "{{kind}}": `sum by (kind) (rate(pipeline_processor_windows_written_total[${RATE}]))`,
      }),
    )
    .withPanel(
      panel("Memory", "bytes", { "{{job}} {{instance}}": "pipeline_process_resident_memory_bytes" }),
    );
  return numbered(built);
}

function rate(counter: string): string {
  return `sum(rate(${counter}[${RATE}]))`;
}

function quantiles(histogram: string): Lines {
  const of = (share: number) =>
    `histogram_quantile(${share}, sum by (le) (rate(${histogram}_bucket[${RATE}])))`;
  return { p50: of(0.5), p99: of(0.99) };
}

/** Half of the width. */
function panel(title: string, unit: string, lines: Lines): TimeSeriesBuilder {
  const builder = new TimeSeriesBuilder()
    .title(title)
    .datasource(PROMETHEUS)
    .span(WIDTH / 2)
    .height(7)
    .unit(unit)
    .min(0)
    .thresholds(new ThresholdsConfigBuilder().steps([]))
    .legend(legend(true));
  for (const [index, [text, expression]] of Object.entries(lines).entries()) {
    const refId = String.fromCharCode("A".charCodeAt(0) + index);
    builder.withTarget(
      new DataqueryBuilder().refId(refId).datasource(PROMETHEUS).expr(expression).legendFormat(text).range(),
    );
  }
  return builder;
}
