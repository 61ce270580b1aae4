// processor: Kafka -> rows and aggregates in Cassandra, at any number of processes in one consumer group. It chooses
// the parts, runs the loop until it is told to stop, and lets go of everything in reverse order.

import { startJobs } from "./lib/app/jobs.ts";
import { run } from "./lib/app/lifecycle.ts";
import { openProcessorApp } from "./lib/app/processor.ts";
import { openStartup } from "./lib/app/startup.ts";
import { printLine } from "./lib/base/logger.ts";

const usage = `Stores every trade of the topic in Cassandra, and its averages and candles. Start as many as you like:
they share the partitions of the topic.`;

await run({ name: "processor", usage }, async (context) => {
  const { config, logger, signal } = context;
  await using start = openStartup(context, "processor", config.source?.kind === "simulator");
  printLine(`health: ${start.url}/health`);
  await using parts = await openProcessorApp(context, start);
  start.done(parts.health);
  await using _jobs = startJobs(parts.jobs, logger);
  await parts.processor.run(signal);
});
