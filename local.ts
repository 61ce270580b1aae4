// local: the whole pipeline in one process on SQLite, with no server and no token. It chooses the parts, runs
// both loops until it is told to stop, and lets go of everything in reverse order; no trade is touched here.

import { startJobs } from "./lib/app/jobs.ts";
import { run } from "./lib/app/lifecycle.ts";
import { openLocalApp } from "./lib/app/local.ts";
import { portOf } from "./lib/base/config.ts";
import { printLine } from "./lib/base/logger.ts";
import { localCommands } from "./lib/commands/local.ts";
import { serveWeb } from "./lib/web/server.ts";

const usage = `Stores every trade of Finnhub's websocket, aggregates it and shows it, in one process on SQLite.
Without a token it simulates a market.`;

await run(
  { name: "local", usage },
  async (context) => {
    const { config, clock, logger } = context;
    await using parts = await openLocalApp(context);
    const { ingest, processor, watchlistSync, web, simulated } = parts;
    const { bindAddress: hostname } = config.web;
    await using server = serveWeb({ app: web, hostname, port: portOf(config, "local"), clock });
    await using _jobs = startJobs(parts.jobs, logger);

    if (simulated) logger.info("the market is simulated; set FINNHUB_API_TOKEN for the real one");
    printLine(`page: ${server.url}/`);

    // The feed ends when a stop is asked for; the second loop follows when all that the first appended is read.
    const drained = new AbortController();
    const ingesting = ingest.run().then(parts.drain);
    await Promise.all([
      ingesting.then(() => drained.abort()),
      processor.run(drained.signal),
      watchlistSync.run(context.signal),
    ]);
  },
  localCommands,
);
