// The Hono app as a value: what a browser or a program may ask of this pipeline, one file of routes/ a route. Everything
// it answers is read from the deps it is handed; nothing under web/ writes rows, and no answer holds a stack trace or a
// secret.

import { OpenAPIHono } from "@hono/zod-openapi";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { StoreReader } from "../contracts/store.ts";
import type { HealthDocument } from "../health/health.ts";
import { answerFaults, answerMisses, answerMistakes } from "./errors.ts";
import { dataHeaders, pagePolicy } from "./headers.ts";
import { createBackfill } from "./live/backfill.ts";
import type { SeenAt } from "./live/protocol.ts";
import type { LiveView } from "./live/view.ts";
import { inlineScripts } from "./page-files.ts";
import { addAverages } from "./routes/averages.ts";
import { addCandles } from "./routes/candles.ts";
import { addDoc } from "./routes/doc.ts";
import { addFeedEvents } from "./routes/feed-events.ts";
import { addHealth } from "./routes/health.ts";
import { addMetrics } from "./routes/metrics.ts";
import { addPage } from "./routes/page.ts";
import { addStream } from "./routes/stream.ts";
import { addTickerChanges, type TickerChanges } from "./routes/ticker-changes.ts";
import { addTickers } from "./routes/tickers.ts";
import { addTrades } from "./routes/trades.ts";
import type { TickerSets } from "./ticker-states.ts";

export type WebDeps = Readonly<{
  store: StoreReader;
  live: LiveView;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  health: () => HealthDocument;
  tickers: () => TickerSets;
  /** Absent: this binary takes no changes, and has no routes for them. */
  changes?: TickerChanges;
  simulated: boolean;
  /** Where the live view hears of trades; without it: the store. */
  seenAt?: SeenAt;
  /** Ends what would not end by itself: the live streams. */
  signal?: AbortSignal;
}>;

export type Web = OpenAPIHono;

export function createWeb(deps: WebDeps): Web {
  const { store, live, clock, logger, changes, simulated } = deps;
  const app = new OpenAPIHono({ defaultHook: answerMistakes });
  const backfill = createBackfill(store, live, clock, logger);

  app.use(pagePolicy(inlineScripts), dataHeaders(simulated));
  answerFaults(app, logger);

  addTrades(app, deps);
  addAverages(app, deps);
  addCandles(app, deps);
  addFeedEvents(app, deps);
  addTickers(app, { ...deps, backfill });
  if (changes !== undefined) addTickerChanges(app, { changes, clock, logger });
  addStream(app, { ...deps, backfill });
  addHealth(app, deps);
  addMetrics(app, deps);
  addPage(app);
  addDoc(app);

  answerMisses(app);
  return app;
}
