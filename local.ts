// local: the whole pipeline in one process on SQLite, with no server and no token. It chooses the parts, runs
// both loops until it is told to stop, and lets go of everything in reverse order; no trade is touched here.

import { startJobs } from "./lib/app/jobs.ts";
import { run } from "./lib/app/lifecycle.ts";
import { openLocal } from "./lib/app/local.ts";
import { portOf } from "./lib/base/config.ts";
import { print } from "./lib/base/logger.ts";
import { localVerbs } from "./lib/commands/local.ts";
import { serveWeb } from "./lib/web/server.ts";

const usage = `Stores every trade of Finnhub's websocket, aggregates it and shows it, in one process on SQLite.
Without a token it simulates a market.`;

await run(
  { name: "local", usage },
  async (context) => {
    const { config, clock, report } = context;
    await using parts = await openLocal(context);
    const { publisher, processor, follower, web, simulated } = parts;
    const { bindAddress: hostname } = config.web;
    await using server = serveWeb({ app: web, hostname, port: portOf(config, "local"), clock });
    await using _jobs = startJobs(parts.jobs, report);

    if (simulated) report.info("the market is simulated; set FINNHUB_API_TOKEN for the real one");
    print(`page: ${server.url}/`);

    // The feed ends when a stop is asked for; the second loop follows when all that the first appended is read.
    const drained = new AbortController();
    const publishing = publisher.run().then(parts.drain);
    await Promise.all([
      publishing.then(() => drained.abort()),
      processor.run(drained.signal),
      follower.run(context.signal),
    ]);
  },
  localVerbs,
);
