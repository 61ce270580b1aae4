// A topic followed for a live view: from its end or its beginning, until the signal aborts, without a trace.

import { describe, expect, test } from "bun:test";
import { SetupError } from "../../../lib/base/errors.ts";
import { createKafka } from "../../../lib/kafka/client.ts";
import { openCompactedTopic } from "../../../lib/kafka/compacted-topic.ts";
import { type TailOptions, type TailRecord, tailKafka } from "../../../lib/kafka/tail.ts";
import { createTopics, kafkaDeps, until } from "../../support/kafka.ts";
import { startKafka } from "../../support/services/kafka.ts";
import { services, sharedKafka, uniqueName } from "../../support/services/shared.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const textOf = ({ value }: TailRecord) => new TextDecoder().decode(value ?? undefined);

/** A tail whose records are kept as texts. It fails at its end when the tail did. */
function textsOf(options: Omit<TailOptions, "signal" | "onRecords">) {
  const seen: string[] = [];
  const abort = new AbortController();
  const ended = tailKafka({
    ...options,
    signal: abort.signal,
    onRecords: (records) => {
      seen.push(...records.map(textOf));
    },
  });
  const end = async () => {
    abort.abort();
    await ended;
  };
  return { seen, end, [Symbol.asyncDispose]: end };
}

describe.skipIf(!services.available)("on a real broker", () => {
  test("from the beginning everything comes in order, and then what is written meanwhile", async () => {
    const deps = kafkaDeps(await sharedKafka());
    const topic = `${await createTopics(deps, 1)}.tickers`;
    await using tickers = openCompactedTopic({ ...deps, topic });
    for (const key of ["AAPL", "MSFT", "AAPL"]) await tickers.put(key, bytes(`${key} wanted`));
    const seen: TailRecord[] = [];
    const abort = new AbortController();
    const tail = tailKafka({
      ...deps,
      topic,
      from: "begin",
      signal: abort.signal,
      onRecords: (records) => {
        seen.push(...records);
      },
    });
    await until("all three", () => seen.length === 3);
    await tickers.put("TSLA", bytes("TSLA wanted"));
    await until("the new one", () => seen.length === 4);
    expect(seen.map(({ key, offset }) => [key, offset])).toEqual([
      ["AAPL", 0],
      ["MSFT", 1],
      ["AAPL", 2],
      ["TSLA", 3],
    ]);
    abort.abort();
    await tail;
  }, 60_000);

  test("from now on what was there before does not come, and nothing is committed", async () => {
    const deps = kafkaDeps(await sharedKafka());
    const topic = await createTopics(deps, 1);
    await using writer = openCompactedTopic({ ...deps, topic });
    await writer.put("AAPL", bytes("before"));
    await using tail = textsOf({ ...deps, topic, from: "now" });
    const { seen } = tail;
    // It is not said when a tail has begun; whatever is written from then on comes, in order.
    let written = 0;
    await until("something", async () => {
      await writer.put("AAPL", bytes(`after ${++written}`));
      return seen.length > 0;
    });
    const first = Number(seen[0]!.split(" ")[1]);
    expect(seen[0]).toStartWith("after ");
    await until("the last", () => seen.includes(`after ${written}`));
    expect(seen).toEqual(Array.from({ length: written - first + 1 }, (_, index) => `after ${first + index}`));
    await tail.end();
    const admin = createKafka(deps).admin();
    await admin.connect();
    const { groups } = await admin.listGroups();
    const ours = groups.filter(({ groupId }) => groupId.startsWith(`${topic}.tail`));
    // The broker itself forgets a group that is empty and has committed nothing.
    expect(ours.length).toBe(1);
    await admin.fetchTopicMetadata({ topics: [topic] });
    const [committed] = await admin.fetchOffsets({ groupId: ours[0]!.groupId, topics: [topic] });
    expect(committed!.partitions).toEqual([{ partition: 0, offset: "-1", metadata: null }]);
    await admin.disconnect();
  }, 60_000);

  test("when its group rebalances it goes on where it was, and repeats nothing", async () => {
    const deps = kafkaDeps(await sharedKafka());
    const topic = await createTopics(deps, 1);
    await using writer = openCompactedTopic({ ...deps, topic });
    await writer.put("AAPL", bytes("one"));
    await using tail = textsOf({ ...deps, topic, from: "begin" });
    const { seen } = tail;
    await until("the first", () => seen.length === 1);
    const kafka = createKafka(deps, { outlastsRestart: true });
    const admin = kafka.admin();
    await admin.connect();
    const { groups } = await admin.listGroups();
    const { groupId } = groups.find((group) => group.groupId.startsWith(`${topic}.tail`))!;
    // Somebody else comes into its group and leaves again.
    const guest = kafka.consumer({ groupId, maxWaitTimeInMs: 100 });
    const joined = Promise.withResolvers<void>();
    guest.on(guest.events.GROUP_JOIN, () => joined.resolve());
    await guest.connect();
    await guest.subscribe({ topics: [topic] });
    await guest.run({ autoCommit: false, eachBatch: async () => {} });
    await joined.promise;
    await guest.disconnect();
    await until("alone again", async () => {
      const { groups: described } = await admin.describeGroups([groupId]);
      return described[0]?.state === "Stable" && described[0].members.length === 1;
    });
    await admin.disconnect();
    await writer.put("AAPL", bytes("two"));
    await until("the second", () => seen.includes("two"));
    expect(seen).toEqual(["one", "two"]);
    await tail.end();
  }, 60_000);

  test("what the view throws ends the tail; a topic that is not there says what to run", async () => {
    const deps = kafkaDeps(await sharedKafka());
    const topic = await createTopics(deps, 1);
    await using writer = openCompactedTopic({ ...deps, topic });
    await writer.put("AAPL", bytes("one"));
    const { signal } = new AbortController();
    const broken = tailKafka({
      ...deps,
      topic,
      from: "begin",
      signal,
      onRecords: () => {
        throw new Error("a bug in the view");
      },
    });
    await expect(broken).rejects.toThrow("a bug in the view");
    const missing = { ...deps, topic: uniqueName("nowhere"), from: "now", signal, onRecords() {} } as const;
    await expect(tailKafka(missing)).rejects.toBeInstanceOf(SetupError);
  }, 60_000);

  test("after a broker's restart it goes on where it was", async () => {
    await using kafka = await startKafka();
    const deps = kafkaDeps(kafka);
    const topic = await createTopics(deps, 1);
    {
      await using writer = openCompactedTopic({ ...deps, topic });
      for (const text of ["one", "two"]) await writer.put("AAPL", bytes(text));
    }
    await using tail = textsOf({ ...deps, topic, from: "begin" });
    const { seen } = tail;
    await until("both", () => seen.length === 2);
    await kafka.restart();
    {
      await using writer = openCompactedTopic({ ...deps, topic });
      await writer.put("AAPL", bytes("three"));
    }
    await until("the third", () => seen.length > 2, 60_000);
    expect(seen).toEqual(["one", "two", "three"]);
    await tail.end();
  }, 120_000);
});
