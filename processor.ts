// processor: Kafka -> rows and aggregates in Cassandra, at any number of processes in one consumer group.

import { run } from "./lib/app/lifecycle.ts";
import { openProcessorApp } from "./lib/app/processor.ts";

await run({
  name: "processor",
  usage: `Stores every trade of the topic in Cassandra, and its averages and candles. Start as many as you like:
they share the partitions of the topic.`,
  open: openProcessorApp,
});
