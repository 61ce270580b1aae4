// The tickers' topic on a real Kafka: the watchlist as two processes see it, and the lease between two producers.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { systemClock } from "../../../lib/base/clock.ts";
import { readConfig } from "../../../lib/base/config.ts";
import { SetupError } from "../../../lib/base/errors.ts";
import { type Logger, silentLogger } from "../../../lib/base/logger.ts";
import { LEASE_KEY, type LeaseJournal } from "../../../lib/contracts/lease.ts";
import type { Watchlist, WatchlistAuthor } from "../../../lib/contracts/watchlist.ts";
import { acquireLease, LEASE_MS_MAX, type Lease } from "../../../lib/ingest/lease.ts";
import { createKafka, type KafkaDeps } from "../../../lib/kafka/client.ts";
import { openCompactedTopic } from "../../../lib/kafka/compacted-topic.ts";
import { openControlTopic } from "../../../lib/kafka/control-topic.ts";
import { openTopics, topicNames } from "../../../lib/kafka/topics.ts";
import { journalOf } from "../../simulation/fake-topic.ts";
import { eventually, NOON_MS } from "../../support/builders.ts";
import { remakeTopic } from "../../support/kafka.ts";
import { services, sharedKafka, uniqueName } from "../../support/services/shared.ts";

const START_MS_MAX = 120_000;
const TEST_MS_MAX = 60_000;
/** An operator is promised 2 s; here other tests have the cores, and whether it comes at all is what counts. */
const EFFECT_MS_MAX = 20_000;
/** Well below the 15 s that a lease lasts. */
const AT_ONCE_MS_MAX = 10_000;

describe.skipIf(!services.available)("the tickers' topic", () => {
  let settings: KafkaDeps["settings"];
  const stopped = new AbortController();
  beforeAll(async () => {
    const { host, port } = await sharedKafka();
    settings = readConfig({ KAFKA_SERVER: host, KAFKA_PORT: `${port}` }).kafka;
  }, START_MS_MAX);
  afterAll(() => stopped.abort());

  const depsOf = (clientId: string, logger: Logger = silentLogger): KafkaDeps => ({
    settings,
    clientId,
    clock: systemClock,
    logger,
  });

  async function makeTopic(): Promise<string> {
    const topic = uniqueName("tickers");
    await using topics = openTopics({ ...depsOf("test"), topic });
    await topics.create({ partitions: 1, retentionDays: 1, force: false });
    return topic;
  }

  /** One process that follows, and has read what was there. */
  async function follow(topic: string, warnings: string[] = []) {
    const logger = { ...silentLogger, warn: (message: string) => warnings.push(message) };
    const tickers = openControlTopic({ ...depsOf("test", logger), topic });
    const stop = new AbortController();
    const running = tickers.run(stop.signal);
    await tickers.ready(stop.signal);
    return {
      ...tickers,
      async [Symbol.asyncDispose]() {
        stop.abort();
        await running;
        await tickers[Symbol.asyncDispose]();
      },
    };
  }

  const record = (
    symbol: string,
    wanted = true,
    changedAtMs = NOON_MS,
    by: WatchlistAuthor = "operator",
  ) => ({
    symbol,
    wanted,
    changedAtMs,
    by,
  });

  const symbolsOf = (watchlist: Watchlist) =>
    watchlist.list().flatMap((one) => (one.wanted ? one.symbol : []));

  test(
    "a change is known to another process soon and to one that starts later, a removal as a record",
    async () => {
      const topic = await makeTopic();
      await using admin = await follow(topic);
      await using producer = await follow(topic);
      let heardCount = 0;
      producer.watchlist.onChange(() => {
        heardCount += 1;
      });
      await admin.watchlist.put(record("NEW", true, NOON_MS + 1));
      expect(symbolsOf(admin.watchlist)).toEqual(["NEW"]);
      await eventually(EFFECT_MS_MAX, "the change", () => symbolsOf(producer.watchlist).length === 1);
      await admin.watchlist.put(record("IC MARKETS:1", true, NOON_MS, "setting"));
      await admin.watchlist.put(record("OLD", true, NOON_MS - 1));
      await admin.watchlist.put(record("NEW", false, NOON_MS + 2));
      await eventually(
        EFFECT_MS_MAX,
        "the removal",
        () => producer.watchlist.list().at(-1)?.wanted === false,
      );
      const expected = [
        record("OLD", true, NOON_MS - 1),
        record("IC MARKETS:1", true, NOON_MS, "setting"),
        record("NEW", false, NOON_MS + 2),
      ];
      expect(producer.watchlist.list()).toEqual(expected);
      expect(heardCount).toBeGreaterThanOrEqual(2);
      await using late = await follow(topic);
      expect(late.watchlist.list()).toEqual(expected);
    },
    TEST_MS_MAX,
  );

  test(
    "unreadable records are logged once and change nothing; a symbol with the reserved sign is not written",
    async () => {
      const topic = await makeTopic();
      await using foreign = openCompactedTopic({ ...depsOf("foreign"), topic: topicNames(topic).tickers });
      const write = (key: string, text: string) => foreign.put(key, new TextEncoder().encode(text));
      await write("AAPL", '{"wanted":true}');
      for (const text of ["", "{", "null", '{"wanted":1}', '{"wanted":true,"changedAtMs":-1}'])
        await write("B", text);
      await write(" C", '{"wanted":true}');
      await write("#other", '{"wanted":true}');
      await write(LEASE_KEY, '{"type":"alive"}');
      const warnings: string[] = [];
      await using process = await follow(topic, warnings);
      expect(process.watchlist.list()).toEqual([record("AAPL", true, 0)]);
      expect(process.lease.state()).toBeNull();
      expect(warnings).toEqual(["the tickers' topic holds an unreadable record"]);
      await expect(process.watchlist.put(record("#producer"))).rejects.toThrow("is not a symbol");
    },
    TEST_MS_MAX,
  );

  test(
    "a topic that was recreated is read from its beginning, also when a clock that ran ahead wrote into the old one",
    async () => {
      const topic = await makeTopic();
      const { tickers: name } = topicNames(topic);
      const kafka = createKafka(depsOf("operator"));
      const [operator, writer] = [kafka.admin(), kafka.producer()];
      await operator.connect();
      await writer.connect();
      try {
        await remakeTopic(operator, name, 1);
        await using process = await follow(topic);
        const timestamp = String(Date.now() + 1_800_000);
        const messages = Array.from({ length: 40 }, (_, at) => ({
          key: `OLD${at}`,
          value: '{"wanted":true}',
          timestamp,
        }));
        await writer.send({ topic: name, messages });
        await eventually(EFFECT_MS_MAX, "the old ones", () => symbolsOf(process.watchlist).length === 40);
        await remakeTopic(operator, name, 1);
        const endMs = performance.now() + TEST_MS_MAX / 2;
        const look = async (): Promise<void> => {
          const isSeen = await process.lease.readToEnd().then(
            () => true,
            () => false,
          );
          if (isSeen) return;
          if (performance.now() > endMs) throw new Error("the new topic is not read");
          return look();
        };
        await look();
        await process.watchlist.put(record("NEW"));
        expect(symbolsOf(process.watchlist)).toContain("NEW");
      } finally {
        await operator.disconnect();
        await writer.disconnect();
      }
    },
    TEST_MS_MAX,
  );

  test(
    "one producer has the lease, a second is refused; a release and a restart free it at once, a death after 15 s",
    async () => {
      const topic = await makeTopic();
      const journals = new Map<string, LeaseJournal>();
      const take = async (process: Awaited<ReturnType<typeof follow>>, session: string, holder = session) => {
        const startedAtMs = performance.now();
        const self = { session, host: "host", pid: 7 };
        const journal = journals.get(holder) ?? journalOf(holder);
        journals.set(holder, journal);
        const { lease: topicOfLease } = process;
        const { signal } = new AbortController();
        const lease = await acquireLease({
          topic: topicOfLease,
          self,
          journal,
          clock: systemClock,
          logger: silentLogger,
          signal,
        });
        return { lease, tookMs: performance.now() - startedAtMs };
      };
      const live = (lease: Lease) => {
        const stop = new AbortController();
        return { running: lease.run(stop.signal), die: () => stop.abort() };
      };
      await using one = await follow(topic);
      await using other = await follow(topic);

      const { lease } = await take(one, "a");
      const life = live(lease);
      const refused = await take(other, "b").catch((error: unknown) => error);
      expect(refused).toBeInstanceOf(SetupError);
      expect(String(refused)).toContain("another producer holds the feed: process 7 on host");
      expect(lease.isConfirmed()).toBe(true);

      life.die();
      await life.running;
      await lease.release();
      expect(lease.isConfirmed()).toBe(false);
      const next = await take(other, "c");
      expect(next.tookMs).toBeLessThan(AT_ONCE_MS_MAX);
      const restarted = await take(one, "d", "c");
      expect(restarted.tookMs).toBeLessThan(AT_ONCE_MS_MAX);
      // The one before was not dead at all, as with a copied DATA_DIR: it is told.
      const lost = next.lease.run(stopped.signal).catch((error: unknown) => error);
      expect(await lost).toBeInstanceOf(SetupError);

      const taken = await take(other, "e");
      expect(taken.tookMs).toBeGreaterThan(LEASE_MS_MAX - 1_000);
      expect(taken.tookMs).toBeLessThan(LEASE_MS_MAX + 10_000);
      expect(taken.lease.isConfirmed()).toBe(true);
      expect(restarted.lease.isConfirmed()).toBe(false);
    },
    TEST_MS_MAX,
  );
});
