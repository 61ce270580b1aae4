// The metrics as Prometheus itself sees them: the real server scrapes a running `local` under every job's name and
// answers each expression of the dashboard "Pipeline"; promtool finds nothing against the conventions. Without
// Prometheus these tests are skipped and say so; with CI=true they fail instead (.ci/run installs it).

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually, temporaryDirectory } from "../../support/builders.ts";
import { freePort } from "../../support/nginx.ts";
import { LOCAL, type ServiceProcess, startService } from "../../support/processes.ts";
import { type Guard, startGuard } from "../../support/services/guard.ts";

const PROMETHEUS = Bun.which("prometheus");
const PROMTOOL = Bun.which("promtool");
const isThere = (PROMETHEUS !== null && PROMTOOL !== null) || process.env.CI === "true";
if (!isThere)
  console.error(
    "tests/integration/grafana/prometheus.test.ts is skipped: there is no Prometheus (apt-get install prometheus)",
  );

const TEST_MS_MAX = 180_000;
const WAIT_MS_MAX = 90_000;
const JOBS = ["producer", "processor", "admin"];
/** Only a processor or a producer beside Kafka and Cassandra counts these. */
const ELSEWHERE = [/^pipeline_forward_/, /^pipeline_store_(faults|rows_expired)_/];

describe.skipIf(!isThere)("Prometheus", () => {
  const directory = temporaryDirectory();
  let local: ServiceProcess;
  let guard: Guard;
  let url: string;
  /** As a scrape finds it before anything was refused or lost. */
  let text: string;

  beforeAll(async () => {
    local = await startService(LOCAL, {
      FINNHUB_SIMULATE: "1",
      FINNHUB_STOCKS_TICKERS: '["BINANCE:BTCUSDT"]',
      DATA_DIR: directory.path,
    });
    text = await (await fetch(`${local.url}/metrics`)).text();
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    guard = await startGuard(join(directory.path, "prometheus"));
    const file = join(directory.path, "prometheus.yaml");
    const target = new URL(local.url).host;
    const scrapes = JOBS.map((job) => ({ job_name: job, static_configs: [{ targets: [target] }] }));
    writeFileSync(file, JSON.stringify({ global: { scrape_interval: "1s" }, scrape_configs: scrapes })); // JSON is YAML.
    await guard.run(
      [
        PROMETHEUS!,
        `--config.file=${file}`,
        `--storage.tsdb.path=${join(directory.path, "tsdb")}`,
        `--web.listen-address=127.0.0.1:${port}`,
      ],
      join(directory.path, "prometheus.log"),
    );
  }, TEST_MS_MAX);
  afterAll(async () => {
    await guard?.[Symbol.asyncDispose]();
    await local?.stop();
    directory[Symbol.dispose]();
  }, TEST_MS_MAX);

  /** The values of an instant query; empty while Prometheus does not answer. */
  async function query(expression: string): Promise<readonly number[]> {
    const answer = await fetch(`${url}/api/v1/query?${new URLSearchParams({ query: expression })}`).catch(
      () => null,
    );
    if (answer?.status !== 200) return [];
    const { data } = (await answer.json()) as { data: { result: readonly { value: [number, string] }[] } };
    return data.result.map(({ value: [, value] }) => Number(value));
  }

  test(
    "it scrapes the endpoint, and answers every expression of the dashboard",
    async () => {
      await eventually(
        WAIT_MS_MAX,
        "each target is up",
        async () =>
          (await query("up")).length === JOBS.length && (await query("up")).every((value) => value === 1),
      );
      const dashboard = JSON.parse(
        readFileSync(join(import.meta.dir, "../../../grafana/dashboards/pipeline.json"), "utf8"),
      ) as { panels: { targets: { expr: string }[] }[] };
      const expressions = dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));
      expect(expressions.length).toBeGreaterThan(10);
      for (const expression of expressions) {
        await eventually(WAIT_MS_MAX, expression, async () => (await query(expression)).length > 0);
      }
      await eventually(WAIT_MS_MAX, "trades are received", async () => {
        const rates = await query("sum(rate(pipeline_feed_trades_received_total[30s]))");
        return rates.some((rate) => rate > 0);
      });
    },
    TEST_MS_MAX,
  );

  test(
    "a reason of a counter is a series before its first loss, so that the first one is an increase",
    () => {
      const names = [...text.matchAll(/^# TYPE (\S+_total) counter$/gm)].map(([, name]) => name!);
      const unborn = names.filter((name) => !new RegExp(`^${name}[ {]`, "m").test(text));
      expect(unborn.filter((name) => !ELSEWHERE.some((pattern) => pattern.test(name)))).toEqual([]);
      expect(text).toContain('pipeline_log_trades_lost_total{reason="log_full"} 0\n');
      expect(text).toContain('pipeline_processor_dead_letters_total{reason="bad_price"} 0\n');
      expect(text).toContain('pipeline_feed_disconnects_total{reason="silent"} 0\n');
    },
    TEST_MS_MAX,
  );

  test(
    "promtool finds nothing against the conventions",
    async () => {
      const child = Bun.spawn([PROMTOOL!, "check", "metrics"], {
        stdin: new TextEncoder().encode(text),
        stdout: "pipe",
        stderr: "pipe",
      });
      const [output, errors, code] = await Promise.all([
        child.stdout.text(),
        child.stderr.text(),
        child.exited,
      ]);
      expect({ output, errors, code }).toEqual({ output: "", errors: "", code: 0 });
    },
    TEST_MS_MAX,
  );
});
