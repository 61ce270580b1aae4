// `admin grafana-check`: whether a Grafana shows the market as it should, point by point. It changes nothing there.

import market from "../../grafana/dashboards/market.json" with { type: "json" };
import type { Command } from "../base/command.ts";
import { SetupError } from "../base/errors.ts";
import { printLine } from "../base/logger.ts";
import { checkGrafana, type ExpectedDashboard } from "./grafana-points.ts";

const EXIT_OK = 0;
const EXIT_FAILED = 1;
const SOURCE = { type: "hadesarchitect-cassandra-datasource", uid: "cassandra", version: "3.3.0" } as const;
const URL_HINT = "give the address of Grafana, like --url http://localhost:3003";

export const grafanaCheckCommand: Command = {
  name: "grafana-check",
  usage:
    "check whether a Grafana shows the market: health, data source, dashboard, refresh, every panel's query.\n" +
    "It logs in with GRAFANA_USERNAME and GRAFANA_PASSWORD; exit 1 when a point fails.",
  options: [
    ["--url <url>", "the address of Grafana, like http://localhost:3003"],
    [
      "--symbol <symbol>",
      `the symbol whose panels are checked; default: ${market.templating.list[0]?.current.value}`,
    ],
  ],
  async main({ config, clock, signal }, { url, symbol }) {
    const { username, password } = config.grafana;
    // The password of a new Grafana is its user name: no secret, and a word of its answers.
    const hidden = (text: string) => (password === username ? text : text.replaceAll(password, "[secret]"));
    let failedCount = 0;
    let count = 0;
    for await (const { what, ok, said } of checkGrafana({
      url: addressOf(url),
      username,
      password,
      dashboard: market as ExpectedDashboard,
      source: SOURCE,
      symbol: typeof symbol === "string" ? symbol : (market.templating.list[0]?.current.value ?? ""),
      clock,
      proxies: config.proxies,
      signal,
    })) {
      count += 1;
      if (!ok) failedCount += 1;
      printLine(hidden(`${ok ? "ok  " : "FAIL"}  ${what}: ${said.replace(/\s+/g, " ").slice(0, 300)}`));
    }
    printLine(
      failedCount === 0 ? `all ${count} points are well` : `${failedCount} of ${count} points failed`,
    );
    return failedCount === 0 ? EXIT_OK : EXIT_FAILED;
  },
};

/** Refuses a user in it, which every log on the way would keep. */
function addressOf(given: string | true | undefined): string {
  const parsed = typeof given === "string" ? URL.parse(given) : null;
  if (parsed === null || !/^https?:$/.test(parsed.protocol))
    throw new SetupError("the address of Grafana is missing or not valid", URL_HINT);
  if (parsed.username !== "" || parsed.password !== "") {
    throw new SetupError(
      "the address of Grafana contains a user or a password",
      "set GRAFANA_USERNAME and GRAFANA_PASSWORD instead",
    );
  }
  return `${parsed.origin}${parsed.pathname.replace(/\/+$/, "")}`;
}
