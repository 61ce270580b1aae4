// producer: Finnhub's websocket -> outbox on disk -> Kafka. One process a topic.

import { run } from "./lib/app/lifecycle.ts";
import { openProducerApp } from "./lib/app/producer.ts";
import { producerCommands } from "./lib/commands/producer.ts";

await run({
  name: "producer",
  usage: `Receives every trade of Finnhub's websocket, keeps it on disk, and sends it to Kafka. One producer a topic.`,
  open: openProducerApp,
  commands: producerCommands,
});
