// The producer's command: puts back the messages that Kafka refused. It needs no Kafka; the producer sends them at its next
// start.

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "../base/command.ts";
import { chooseSource, namesOf } from "../base/config.ts";
import { SetupError } from "../base/errors.ts";
import { printLine } from "../base/logger.ts";
import { openSqliteLog } from "../outbox/log.ts";

/** Enough to see what is wrong with them. */
const LISTED_MAX = 10;

export const producerCommands: readonly Command[] = [
  {
    name: "replay",
    usage:
      "with --dead: put back what Kafka refused, to be sent at the next start; only while no producer runs here",
    options: [
      ["--dead", "the messages in outbox_dead that Kafka refused"],
      [
        "--drop-doubtful",
        "delete the messages there that were received while another producer had the lease",
      ],
    ],
    async main({ config, clock, metrics, logger }, { dead, dropDoubtful }) {
      if (!dead) {
        throw new SetupError(
          "the producer can replay only dead letters, so replay needs --dead",
          "use --dead for what Kafka refused, or `admin replay --from ... --to ...` for what is in the topic",
        );
      }
      const { dataDirectory: directory, topic } = namesOf(config, chooseSource(config, "producer"));
      if (!existsSync(join(directory, "outbox.sqlite"))) {
        throw new SetupError(
          `there is no outbox in ${directory}`,
          "set DATA_DIR as it is set for the producer",
        );
      }
      using log = openSqliteLog({ directory, topic, ...config.outbox, clock, metrics, logger });
      for (const { kind, key, bytes, reason, refusedAtMs } of log.dead.list(LISTED_MAX)) {
        printLine(
          `${kind} ${key}, ${bytes} bytes, refused ${new Date(refusedAtMs).toISOString()}: ${reason}`,
        );
      }
      const count = log.dead.requeue();
      printLine(`${count} messages put back; start the producer to send them`);
      if (dropDoubtful)
        printLine(
          `${log.dead.dropUnconfirmed()} messages deleted: another producer had the lease and may have sent its own copies`,
        );
      else if (log.dead.count > 0) {
        printLine(
          `${log.dead.count} messages stay: another producer had the lease and may have sent its own copies`,
        );
        printLine("  --drop-doubtful deletes them");
      }
      return 0;
    },
  },
];
