// README.md's quick start, in a fresh copy of the tree: one process, from `npm start` to Control-C, and the days to play.

import { Database } from "bun:sqlite";
import { describe, expect } from "bun:test";
import { existsSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../../support/builders.ts";
import { queriesOf } from "./read.ts";
import {
  areTraded,
  asked,
  type Health,
  isPageOf,
  isWell,
  look,
  newWalk,
  type Page,
  ports,
  type Reader,
  type Row,
  runIn,
  SEEN_MS_MAX,
  step,
  type Tickers,
  tickerCount,
  windowsVerified,
} from "./steps.ts";
import type { Job } from "./terminal.ts";

export function quickStart({ clone, checkout }: Reader): void {
  const walk = newWalk();
  describe("README.md, quick start", () => {
    let local: Job;
    const pageUrl = () => `http://127.0.0.1:${ports["8080"]}`;
    const stopped = async (job: Job) => {
      await job.interrupt();
      expect(job.said()).toContain("stopped");
      expect(job.said()).not.toContain("asked twice");
    };

    step(walk, "npm start", async (text) => {
      expect(existsSync(join(clone, "node_modules"))).toBe(false);
      local = await checkout().start(text, /^page: http/m);
      expect(local.said()).toContain(`\npage: ${pageUrl()}/\n`);
      expect(local.said()).toContain("the market is simulated");
      const page = await fetch(`${pageUrl()}/`);
      expect({ status: page.status, type: page.headers.get("content-type") }).toEqual({
        status: 200,
        type: "text/html; charset=utf-8",
      });
      return /^page: .*$/m.exec(local.said())![0];
    });
    step(walk, "curl 'http://127.0.0.1:8080/trades?symbol=BINANCE:BTCUSDT&limit=3'", (text) =>
      asked<Page>(
        checkout(),
        text,
        (page) => isPageOf("trade_timestamp", 3)(page) && page.items.length === 3,
      ),
    );
    step(walk, "curl 'http://127.0.0.1:8080/averages?symbol=BINANCE:BTCUSDT&limit=3'", (text) =>
      asked<Page>(checkout(), text, isPageOf("window_end", 3)),
    );
    step(walk, "curl 'http://127.0.0.1:8080/candles?symbol=BINANCE:BTCUSDT&interval=1m'", (text) =>
      asked<Page>(checkout(), text, isPageOf("window_start", 100)),
    );
    step(walk, "curl 'http://127.0.0.1:8080/tickers'", (text) =>
      asked<Tickers>(checkout(), text, areTraded(tickerCount)),
    );
    step(walk, "curl 'http://127.0.0.1:8080/health?pretty'", async (text) => {
      const shown = await asked<Health>(checkout(), text, (health) => isWell(health) && health.simulated);
      expect(shown).toStartWith('{\n  "status": "ok",\n');
      return shown;
    });

    look(
      walk,
      "the queries on SQLite of docs/DATA.md answer beside it, in the columns they name",
      async () => {
        using db = new Database(join(clone, "data/simulated/market.sqlite"), { readonly: true });
        const queries = queriesOf("docs/DATA.md", "sql");
        expect(queries.length).toBeGreaterThan(0);
        for (const { title, text, columns } of queries) {
          const found = db.query<Row, []>(text).all();
          expect({ title, columns: Object.keys(found[0] ?? {}) }).toEqual({ title, columns: [...columns] });
        }
      },
    );

    step(walk, "npm start -- --check-config", async (text) => {
      writeFileSync(join(clone, ".env"), "FINNHUB_API_TOKEN=hush-hush\n");
      const { out, err } = await runIn(checkout(), text);
      rmSync(join(clone, ".env"));
      expect(out + err).not.toContain("hush-hush");
      expect(out).toContain("FINNHUB_API_TOKEN=set\n");
      expect(out).toContain("source: Finnhub\ndata: directory ./data, topic market, keyspace market\n");
      return out.slice(out.indexOf("source: "));
    });
    step(walk, "cp sample.env .env", async (text) => {
      await runIn(checkout(), text);
      // The defaults, said: nothing changes.
      const { out } = await runIn(checkout(), "npm start -- --check-config");
      rmSync(join(clone, ".env"));
      expect(out).toContain("source: the built-in simulator\n");
      return "(nothing)";
    });
    step(walk, "npm run build", async (text) => {
      const { out } = await runIn(checkout(), text);
      expect(readdirSync(join(clone, "dist")).sort()).toEqual(["admin", "local", "processor", "producer"]);
      return out.slice(out.indexOf(clone));
    });
    step(walk, "local --check-config", async (text) => (await runIn(checkout(), text)).out, {
      changes: () => [["local", "dist/local"]],
    });
    step(walk, "dist/local verify", async (text) => {
      let done = await runIn(checkout(), text);
      await eventually(SEEN_MS_MAX, "windows that are over", async () => {
        done = await runIn(checkout(), text);
        return windowsVerified(done) > 0;
      });
      return done.out;
    });
    look(walk, "Control-C ends it, with everything in flight finished", async () => {
      await stopped(local);
      expect(windowsVerified(await runIn(checkout(), "dist/local verify"))).toBeGreaterThan(0);
    });

    /** Trades a second of each recipe; the first second is that of the subscriptions. */
    const rates: Record<string, number> = {};
    for (const recipe of ["calm", "bell", "bad-day"])
      step(newWalk(), `FINNHUB_SIMULATE=1 SIMULATOR_RECIPE=${recipe} npm start`, async (text) => {
        // Where a step before failed, it runs still.
        await local?.interrupt();
        const job = await checkout().start(text, /^page: http/m);
        const looks: { atMs: number; received: number }[] = [];
        await eventually(SEEN_MS_MAX, "trades over two seconds", async () => {
          const metrics = await (await fetch(`${pageUrl()}/metrics`)).text();
          const received = Number(/^pipeline_feed_trades_received_total (\d+)$/m.exec(metrics)?.[1] ?? 0);
          looks.push({ atMs: performance.now(), received });
          return looks.at(-1)!.atMs - looks[0]!.atMs > 2_500 && received > 10;
        });
        await stopped(job);
        const [from, to] = [looks.find(({ atMs }) => atMs - looks[0]!.atMs > 1_000)!, looks.at(-1)!];
        const rate = ((to.received - from.received) / (to.atMs - from.atMs)) * 1_000;
        rates[recipe] = rate;
        // 120 times as many, where the machine has the time to make them.
        if (recipe === "bell" && rates.calm) expect(rate).toBeGreaterThan(5 * rates.calm);
        return `${/^page: .*$/m.exec(job.said())![0]}\n(${rate.toFixed(0)} trades a second)`;
      });
  });
}
