// Where the trades of this process come from: Finnhub, or the built-in simulator in its place. local and producer open
// it alike; nothing here looks at a trade.

import type { Clock } from "../base/clock.ts";
import type { Context } from "../base/command.ts";
import type { Config, Source } from "../base/config.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Feed } from "../contracts/feed.ts";
import { openFinnhubFeed } from "../finnhub/feed.ts";
import { instrumentOf } from "../simulator/listings.ts";
import { startSimulator } from "../simulator/simulator.ts";

export type Upstream = AsyncDisposable &
  Readonly<{
    /** The feed of this source. Connects at once; throws a SetupError when its address is not one. */
    openFeed(options: FeedOptions): Feed;
    /** Where its symbols are looked up. */
    apiUrl: string;
    token: string | undefined;
    simulated: boolean;
  }>;

/** What a feed is told, whichever it is. */
type FeedOptions = Readonly<{
  symbols: readonly string[];
  /** Subscriptions at a time. */
  symbolsMax: number;
  clock: Clock;
  logger: Logger;
  metrics: Metrics;
  /** When it aborts, the feed ends. */
  signal: AbortSignal;
}>;

/** The simulator accepts any token. */
const SIMULATOR_TOKEN = "simulated";

export async function openUpstream(
  source: Source,
  { finnhub, proxies }: Pick<Config, "finnhub" | "proxies">,
  { clock, logger }: Pick<Context, "clock" | "logger">,
): Promise<Upstream> {
  if (source.kind === "finnhub") {
    const { url, token } = source;
    return {
      openFeed: (options) => openFinnhubFeed({ ...options, url, token, proxies }),
      token,
      apiUrl: finnhub.apiUrl,
      simulated: false,
      async [Symbol.asyncDispose]() {},
    };
  }
  const simulator = await startSimulator({
    seed: source.seed,
    scenario: source.scenario,
    tape: source.tapePath,
    speed: source.speed,
    clock,
    logger,
    // Every ticker of the setting that could be a symbol at all is listed, so that the check finds it.
    instruments: finnhub.tickers.flatMap((symbol) => instrumentOf(symbol) ?? []),
    ledger: false,
  });
  const { seed, scenario, speed } = source;
  logger.info("a simulator plays the market", { seed, recipe: scenario ?? "ordinary", speed });
  return {
    openFeed: (options) =>
      openFinnhubFeed({ ...options, url: simulator.wsUrl, token: SIMULATOR_TOKEN, proxies }),
    apiUrl: simulator.apiUrl,
    token: SIMULATOR_TOKEN,
    simulated: true,
    [Symbol.asyncDispose]: () => simulator[Symbol.asyncDispose](),
  };
}
