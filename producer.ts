// producer: Finnhub's websocket -> outbox on disk -> Kafka. It chooses the parts, runs them until it is told to stop,
// and lets go of everything in reverse order; no trade is touched here.

import { startJobs } from "./lib/app/jobs.ts";
import { run } from "./lib/app/lifecycle.ts";
import { openProducerApp } from "./lib/app/producer.ts";
import { openStartup } from "./lib/app/startup.ts";
import { chooseSource } from "./lib/base/config.ts";
import { printLine } from "./lib/base/logger.ts";
import { producerCommands } from "./lib/commands/producer.ts";

const usage = `Receives every trade of Finnhub's websocket, keeps it on disk, and sends it to Kafka. One producer a topic.`;

await run(
  { name: "producer", usage },
  async (context) => {
    const simulated = chooseSource(context.config, "producer").kind === "simulator";
    await using start = openStartup(context, "producer", simulated);
    printLine(`health: ${start.url}/health`);
    await using parts = await openProducerApp(context, start);
    start.done(parts.health);
    await using _jobs = startJobs(parts.jobs, context.logger);
    await parts.run();
  },
  producerCommands,
);
