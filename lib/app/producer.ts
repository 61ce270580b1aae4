// The parts of the producer, chosen and connected: feed -> outbox -> Kafka, the tickers' topic, and the hold that
// keeps a second producer away. It decides nothing about a trade.

import { hostname } from "node:os";
import type { Context } from "../base/command.ts";
import { chooseSource, namesOf } from "../base/config.ts";
import { LogUnavailableError } from "../base/errors.ts";
import { wantedSymbols } from "../contracts/watchlist.ts";
import { openFinnhubFeed } from "../finnhub/feed.ts";
import type { HealthDocument } from "../health/health.ts";
import { producerHealth } from "../health/pipeline.ts";
import { createPublisher } from "../ingest/ingest.ts";
import { createLastTrades } from "../ingest/last-values.ts";
import { HeldElsewhereError, type Hold, takeHold } from "../ingest/lease.ts";
import { createForwarder } from "../ingest/relay.ts";
import { giveWay } from "../ingest/step-down.ts";
import { checkTickers, seedWanted } from "../ingest/watchlist-sync.ts";
import { openKafkaSender } from "../kafka/consumer.ts";
import { openKafkaTickers } from "../kafka/control-topic.ts";
import { newSession } from "../model/identity.ts";
import { openSqliteLog } from "../outbox/log.ts";
import type { Job } from "./jobs.ts";
import type { Start } from "./startup.ts";
import { openUpstream } from "./upstream.ts";
import { openSymbolCheck, openTickers, tickerJobs } from "./watchlist.ts";

export type ProducerParts = AsyncDisposable &
  Readonly<{
    jobs: readonly Job[];
    health: () => HealthDocument;
    /**
     * Until a stop is asked for and what was received is sent, as far as that can be done in some seconds. Rejects with
     * HeldElsewhereError, and what else ends the process.
     */
    run(): Promise<void>;
  }>;

/** A release that does not arrive costs the next producer its 15 s; a stop does not wait for it. */
const RELEASE_MS_MAX = 3_000;

export async function openProducer(context: Context, start: Start): Promise<ProducerParts> {
  const { config, clock, report, metrics, signal } = context;
  const source = chooseSource(config, "producer");
  const { dataDirectory: directory, topic } = namesOf(config, source);
  const kafka = { settings: config.kafka, clientId: "producer", clock, report, topic };
  const { tickers: setting, symbolsMax } = config.finnhub;
  checkTickers(setting);
  await using opened = new AsyncDisposableStack();

  const log = opened.use(openSqliteLog({ directory, topic, ...config.outbox, clock, metrics, report }));
  const outbox = log.openForwarder();
  // What is received while the hold is not confirmed is in doubt, and that it is not yet taken is no other case.
  let hold: Hold | null = null;
  log.hold.guard(() => hold?.isConfirmed() ?? false);
  // Nobody else was seen to hold since this outbox did: it need not wait for Kafka to receive.
  const isHeld = log.hold.isHeld;
  const sender = opened.use(openKafkaSender(kafka));
  const tickers = opened.use(openKafkaTickers(kafka));
  const { wanted } = tickers;
  const wantedNow = () => wantedSymbols(wanted);
  const upstream = opened.use(await openUpstream(source, config, context));

  let readying: Promise<void> | null = null;
  const ready = () => {
    readying ??= sender.ready().finally(() => {
      readying = null;
    });
    return readying;
  };
  // What an earlier run left is sent without a hold: nobody else has it. What is in doubt the outbox does not show.
  const received = new AbortController();
  const forwarder = createForwarder({ outbox, sender: { ...sender, ready }, clock, report, metrics });
  const forwarding = forwarder.run(received.signal);
  opened.defer(async () => {
    received.abort();
    await Promise.allSettled([forwarding]);
  });

  // Followed for longer than the feed runs: the hold is let go at the very end.
  const over = new AbortController();
  opened.defer(() => over.abort());
  const following = tickers.run(over.signal);
  const stopped = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  const failed = Promise.race([following, forwarding]).then(() => stopped);
  /** Whatever waits for Kafka learns that waiting is no help, and of a stop at once. */
  const orFailed = <T>(work: Promise<T>) => Promise.race([work, failed, stopped]);

  const kept = new AbortController();
  let keeping: Promise<void> = Promise.resolve();

  /** What can go wrong for good comes before the claim, which would make another producer wait for nothing. */
  async function obtain(): Promise<void> {
    await start.waitFor("Kafka", () => orFailed(ready()));
    await start.waitFor("the tickers' topic", () => orFailed(tickers.ready(signal)));
    const session = newSession(clock.random) + newSession(clock.random);
    const self = { session, host: hostname(), pid: process.pid };
    const taken = await start.waitFor("the hold on the topic", () =>
      orFailed(takeHold({ topic: tickers.hold, self, memory: log.hold, clock, report, signal })),
    );
    hold = taken;
    keeping = taken.run(kept.signal);
    keeping.catch(() => {});
    await start.waitFor("the tickers' topic", () =>
      orFailed(Promise.race([seedWanted(wanted, setting, clock), keeping])),
    );
    keepSymbols();
    wanted.onChange(keepSymbols);
  }

  /** For a start during which Kafka is away. */
  function keepSymbols(): void {
    try {
      log.hold.keepSymbols(wantedNow());
    } catch (error) {
      if (!(error instanceof LogUnavailableError)) throw error;
      report.warn("the wanted tickers were not written down for a start without Kafka", { error });
    }
  }

  /** Aborted: the feed ends, and the forwarder goes on until it is told. */
  const leaving = new AbortController();
  let publishing: Promise<void> = Promise.resolve();

  /** With the feed closed. */
  async function leave(error: HeldElsewhereError): Promise<HeldElsewhereError> {
    leaving.abort();
    await publishing;
    return giveWay({ log, forwarding, received, clock, signal }, error);
  }

  const obtaining = obtain();
  // It is looked at below or in run; what comes between waits there.
  for (const early of [obtaining, following, forwarding, failed, stopped]) early.catch(() => {});
  if (!isHeld) {
    try {
      await obtaining;
    } catch (error) {
      throw error instanceof HeldElsewhereError ? await leave(error) : error;
    }
  }

  const { url, token, apiUrl, simulated } = upstream;
  const feed = openFinnhubFeed({
    url,
    token,
    symbols: isHeld ? (log.hold.symbols ?? setting) : wantedNow(),
    symbolsMax,
    clock,
    report,
    metrics,
    signal: AbortSignal.any([signal, leaving.signal]),
  });
  const trades = createLastTrades();
  const publisher = createPublisher({ feed, log, clock, report, metrics, onMessage: trades.note });
  const check = openSymbolCheck({ config, apiUrl, token, directory, clock, report, metrics });
  const hasTraded = (symbol: string) => trades.of(symbol) !== null;
  const { follower } = openTickers({ config, wanted, check, feed, publisher, hasTraded, clock, report });

  const startedAtMs = clock.now();
  const health = () => {
    const symbols = follower.wanted().map((symbol) => ({ symbol, lastTradeAtMs: trades.of(symbol) }));
    const parts = {
      feed: feed.health(),
      outbox: log.health(),
      publish: publisher.health(),
      forward: forwarder.health(),
      hold: { doubtSinceMs: log.hold.doubtSinceMs() },
    };
    return producerHealth({ simulated, startedAtMs, symbols, ahead: trades.ahead(), ...parts }, clock.now());
  };

  async function run(): Promise<void> {
    publishing = publisher.run();
    // The feed ends when a stop is asked for, then the forwarder when it has sent what it can, then the hold.
    const emptied = publishing.then(() => {
      if (!leaving.signal.aborted) received.abort();
      return forwarding;
    });
    const work = Promise.all([
      emptied.then(() => kept.abort()),
      obtaining.then(() => Promise.all([keeping, follower.run(signal)])),
    ]);
    try {
      // A broker that hangs is not waited for: what was received is safe on disk.
      await Promise.race([work, following, emptied.then(() => clock.sleep(RELEASE_MS_MAX))]);
    } catch (error) {
      if (error instanceof HeldElsewhereError) throw await leave(error);
      if (signal.aborted && error === signal.reason) {
        // A stop that came before the hold did.
        await emptied;
      } else {
        leaving.abort();
        await Promise.allSettled([publishing]);
        throw error;
      }
    }
    if (hold !== null) await release(hold);
    over.abort();
    await Promise.race([following, clock.sleep(RELEASE_MS_MAX)]);
  }

  async function release(taken: Hold): Promise<void> {
    try {
      await Promise.race([taken.release(), clock.sleep(RELEASE_MS_MAX)]);
    } catch (error) {
      if (!(error instanceof LogUnavailableError)) throw error;
      report.warn("the hold on the feed could not be let go: another producer will wait for it", { error });
    }
  }

  const held = opened.move();
  return {
    jobs: tickerJobs(check, follower, signal),
    health,
    run,
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}
