// Commits that go together: one request at a time, none for an epoch that is over, and each told its own outcome.

import { expect, test } from "bun:test";
import { StaleEpochError } from "../../../lib/base/errors.ts";
import { createCommits } from "../../../lib/kafka/commits.ts";

/** A broker that answers when it is told to; requests as `partition@offset`. */
function openBroker() {
  const requests: string[][] = [];
  const answers: PromiseWithResolvers<void>[] = [];
  let epoch = 1;
  let timeOut = () => {};
  const commit = createCommits({
    clock: {
      after(_, then) {
        timeOut = then;
        return () => {};
      },
    },
    check(asked) {
      if (asked.epoch !== epoch) throw new StaleEpochError("over");
    },
    send(commits) {
      requests.push(commits.map(({ id, position }) => `${id}@${position.offset}`));
      const answer = Promise.withResolvers<void>();
      answers.push(answer);
      return answer.promise;
    },
    errorOf: ({ id }, error) => new Error(`${id}: ${(error as Error).message}`),
  });
  return {
    requests,
    commit: (id: string, offset: number) => commit({ epoch, id, position: { offset, metadata: "" } }),
    nextEpoch: () => epoch++,
    /** The oldest request gets no answer any more. */
    drop: () => void answers.shift(),
    async timeOut() {
      timeOut();
      await new Promise((resolve) => setImmediate(resolve));
    },
    async answer(error?: Error) {
      const answer = answers.shift()!;
      if (error === undefined) answer.resolve();
      else answer.reject(error);
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

test("the first goes at once, and what is asked for meanwhile goes together when it is answered", async () => {
  const broker = openBroker();
  const all = [broker.commit("t/0", 5), broker.commit("t/1", 6), broker.commit("t/2", 7)];
  expect(broker.requests).toEqual([["t/0@5"]]);
  await broker.answer();
  expect(broker.requests).toEqual([["t/0@5"], ["t/1@6", "t/2@7"]]);
  await broker.answer();
  await Promise.all(all);
  const later = broker.commit("t/0", 8);
  expect(broker.requests.at(-1)).toEqual(["t/0@8"]);
  await broker.answer();
  await later;
});

test("two of one partition keep their order: never in one request", async () => {
  const broker = openBroker();
  const all = [0, 1, 2].map((offset) => broker.commit("t/0", offset));
  await broker.answer();
  await broker.answer();
  await broker.answer();
  await Promise.all(all);
  expect(broker.requests).toEqual([["t/0@0"], ["t/0@1"], ["t/0@2"]]);
});

test("what waited into another epoch is not sent", async () => {
  const broker = openBroker();
  const first = broker.commit("t/0", 5);
  const waiting = broker.commit("t/1", 6);
  waiting.catch(() => {});
  broker.nextEpoch();
  const fresh = broker.commit("t/1", 3);
  await broker.answer();
  await first;
  await expect(waiting).rejects.toBeInstanceOf(StaleEpochError);
  await broker.answer();
  await fresh;
  expect(broker.requests).toEqual([["t/0@5"], ["t/1@3"]]);
});

test("a request that fails is asked again one by one, and each is told its own outcome", async () => {
  const broker = openBroker();
  const first = broker.commit("t/0", 1);
  const good = broker.commit("t/1", 2);
  const bad = broker.commit("t/2", 3);
  bad.catch(() => {});
  await broker.answer();
  await broker.answer(new Error("one of you"));
  expect(broker.requests.slice(2)).toEqual([["t/1@2"], ["t/2@3"]]);
  await broker.answer();
  await broker.answer(new Error("you"));
  await Promise.all([first, good]);
  await expect(bad).rejects.toThrow("t/2: you");
  // And the line goes on.
  const next = broker.commit("t/0", 4);
  expect(broker.requests.at(-1)).toEqual(["t/0@4"]);
  await broker.answer();
  await next;
});

test("an epoch does not wait for an answer that an older one never gets", async () => {
  const broker = openBroker();
  broker.commit("t/0", 5).catch(() => {});
  broker.nextEpoch();
  const fresh = broker.commit("t/0", 3);
  expect(broker.requests).toEqual([["t/0@5"], ["t/0@3"]]);
  broker.drop();
  await broker.answer();
  await fresh;
});

test("a request without an answer ends by our clock, and the queue goes on", async () => {
  const broker = openBroker();
  const lost = broker.commit("t/0", 5);
  const next = broker.commit("t/1", 6);
  lost.catch(() => {});
  await broker.timeOut();
  await expect(lost).rejects.toThrow("t/0: Kafka did not answer a commit within 20000 ms");
  expect(broker.requests).toEqual([["t/0@5"], ["t/1@6"]]);
  broker.drop();
  await broker.answer();
  await next;
});
