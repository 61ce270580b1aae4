// grafana/alarms.yaml, judged by Prometheus' own promtool: each alarm rings once for a fault that is played as series,
// and none rings on a pipeline that is well. Without promtool these tests are skipped and say so; with CI=true they fail
// instead (.ci/run installs it).

import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createMetrics } from "../../../lib/base/metrics.ts";
import { temporaryDirectory } from "../../support/builders.ts";

const ROOT = join(import.meta.dir, "../../..");
const ALARMS = join(ROOT, "grafana/alarms.yaml");
const PROMTOOL = Bun.which("promtool");
const isThere = PROMTOOL !== null || process.env.CI === "true";
if (!isThere)
  console.error(
    "tests/integration/grafana/alarms.test.ts is skipped: there is no promtool (apt-get install prometheus)",
  );

type Series = Readonly<Record<string, string>>;
type Rule = Readonly<{
  alert: string;
  expr: string;
  annotations: { summary: string; runbook_url: string };
}>;

const rules = (
  Bun.YAML.parse(readFileSync(ALARMS, "utf8")) as { groups: { rules: Rule[] }[] }
).groups.flatMap((group) => group.rules);
const MINUTES = 60;
const PRODUCER = 'job="producer", instance="a"';

/** An hour of one sample a minute, as promtool writes it. At rest: */
const WELL: Series = {
  'up{job="producer", instance="a"}': `1x${MINUTES}`,
  [`pipeline_health_ok{${PRODUCER}, part="feed"}`]: `1x${MINUTES}`,
  [`pipeline_log_trades_lost_total{${PRODUCER}, reason="log_full"}`]: `0x${MINUTES}`,
  [`pipeline_feed_items_refused_total{${PRODUCER}, reason="bad_price"}`]: `0+1x${MINUTES}`,
  [`pipeline_feed_trades_received_total{${PRODUCER}}`]: `0+6000x${MINUTES}`,
  [`pipeline_log_messages{${PRODUCER}}`]: `40x${MINUTES}`,
  'pipeline_consumer_lag_records{job="admin", instance="a"}': `300x${MINUTES}`,
  'pipeline_processor_dead_letters_total{job="processor", instance="a", reason="bad_price"}': `0x${MINUTES}`,
  [`pipeline_forward_messages_refused_total{${PRODUCER}}`]: `0x${MINUTES}`,
  [`pipeline_forward_messages_in_doubt_total{${PRODUCER}, outcome="set_aside"}`]: `0x${MINUTES}`,
  'pipeline_processor_refused_for_good_total{job="processor", instance="a", kind="window"}': `0x${MINUTES}`,
  'pipeline_store_rows_expired_total{job="processor", instance="a", table="trades"}': `0x${MINUTES}`,
  [`pipeline_feed_disconnects_total{${PRODUCER}, reason="closed"}`]: `0x30 1x${MINUTES - 31}`,
  [`pipeline_process_event_loop_lag_seconds{${PRODUCER}}`]: `0.002x${MINUTES}`,
};
/** What rings each alarm at the end of the hour: the series of WELL that begins so, with other values. */
const FAULTS: Readonly<Record<string, readonly [series: string, values: string]>> = {
  ProcessDown: ["up", `1x55 0x${MINUTES - 56}`],
  HealthFailing: ["pipeline_health_ok", `1x55 0x${MINUTES - 56}`],
  TradesLost: ["pipeline_log_trades_lost_total", `0x58 7x${MINUTES - 59}`],
  TradesRefused: ["pipeline_feed_items_refused_total", `0+6000x${MINUTES}`],
  OutboxGrows: ["pipeline_log_messages", `0+500x${MINUTES}`],
  LagGrows: ["pipeline_consumer_lag_records", `0+5000x${MINUTES}`],
  DeadLetters: ["pipeline_processor_dead_letters_total", `0x58 1x${MINUTES - 59}`],
  MessagesRefused: ["pipeline_forward_messages_refused_total", `0x58 1x${MINUTES - 59}`],
  TradesInDoubt: ["pipeline_forward_messages_in_doubt_total", `0x58 1x${MINUTES - 59}`],
  RowsRefused: ["pipeline_processor_refused_for_good_total", `0x58 1x${MINUTES - 59}`],
  RowsExpired: ["pipeline_store_rows_expired_total", `0x58 1x${MINUTES - 59}`],
  FeedUnstable: ["pipeline_feed_disconnects_total", `0+1x${MINUTES}`],
  LoopBlocked: ["pipeline_process_event_loop_lag_seconds", `0.002x55 3x${MINUTES - 56}`],
};

describe.skipIf(!isThere)("the alarms", () => {
  test("promtool finds nothing wrong in the rules", async () => {
    expect(await promtool(["check", "rules", ALARMS])).toContain(`SUCCESS: ${rules.length} rules found`);
  });

  test("each rings for its fault and for nothing else, and none rings on a pipeline that is well", async () => {
    expect(Object.keys(FAULTS)).toEqual(rules.map(({ alert }) => alert));
    using directory = temporaryDirectory();
    const file = join(directory.path, "test.yaml");
    const quiet = hour("a quiet hour", WELL, []);
    const faults = Object.entries(FAULTS).map(([alarm, [name, values]]) => {
      const series = Object.entries(WELL).map(([key, well]) => [key, key.startsWith(name) ? values : well]);
      return hour(alarm, Object.fromEntries(series), [alarm]);
    });
    writeFileSync(file, JSON.stringify({ rule_files: [ALARMS], tests: [quiet, ...faults] })); // JSON is YAML.
    expect(await promtool(["test", "rules", file])).toContain("SUCCESS");
  });
});

test("each alarm speaks of metrics that exist, and has a section in docs/OPERATIONS.md", () => {
  const names = new Set(
    createMetrics()
      .registry.getMetricsAsArray()
      .map(({ name }) => name),
  );
  const headings = readFileSync(join(ROOT, "docs/OPERATIONS.md"), "utf8").match(/^## .+$/gm);
  for (const { alert, expr, annotations } of rules) {
    expect(expr.match(/pipeline_\w+/g)?.filter((name) => !names.has(name)) ?? []).toEqual([]);
    expect(headings).toContain(`## ${alert}`);
    expect(annotations.runbook_url).toBe(`docs/OPERATIONS.md#${alert.toLowerCase()}`);
  }
});

/** One test of promtool: after this hour these alarms ring, once each, and no others. */
function hour(name: string, series: Series, alarms: readonly string[]) {
  return {
    name,
    interval: "1m",
    input_series: Object.entries(series).map(([key, values]) => ({ series: key, values })),
    promql_expr_test: [
      {
        expr: 'count by (alertname) (ALERTS{alertstate="firing"})',
        eval_time: `${MINUTES}m`,
        exp_samples: alarms.map((alarm) => ({ labels: `{alertname="${alarm}"}`, value: 1 })),
      },
    ],
  };
}

async function promtool(args: readonly string[]): Promise<string> {
  const child = Bun.spawn([PROMTOOL!, ...args], { stdout: "pipe", stderr: "pipe" });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  expect({ errors, output: code === 0 ? "" : output, code }).toEqual({ errors: "", output: "", code: 0 });
  return output;
}
