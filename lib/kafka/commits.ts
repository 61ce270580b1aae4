// Commits of one member, one request at a time: those asked for while a request is out go together in the next one.
// The broker answers a connection in order, so a request per partition would delay the fetches behind it. No caller
// waits for an answer that does not come: a request ends by our own clock, and a new epoch has a queue of its own.

import { type Clock, TIMED_OUT, withTimeout } from "../base/clock.ts";
import { LogUnavailableError } from "../base/errors.ts";
import type { PartitionId, Position } from "../contracts/log.ts";

type Commit = Readonly<{ epoch: number; id: PartitionId; position: Position }>;

type CommitsDeps = Readonly<{
  clock: Pick<Clock, "after">;
  /** Throws when the commit must no longer be made. */
  check(commit: Commit): void;
  /** One request for all of them, each of another partition. It must be sent in the step in which this is called. */
  send(commits: readonly Commit[]): Promise<void>;
  /** The error that the caller gets for a commit that failed alone. */
  errorOf(commit: Commit, error: unknown): unknown;
}>;

type Waiting = Readonly<{ commit: Commit; resolve(): void; reject(error: unknown): void }>;
type Queue = { readonly epoch: number; waiting: Waiting[]; isSending: boolean };

/**
 * kafkajs looks for the group's coordinator a hundred times. A commit that succeeds after its caller has given up
 * could only rewind the group.
 */
const COMMIT_MS_MAX = 20_000;

/** The returned function resolves when its commit is made. */
export function createCommits({
  clock,
  check,
  send,
  errorOf,
}: CommitsDeps): (commit: Commit) => Promise<void> {
  let queue: Queue = { epoch: -1, waiting: [], isSending: false };

  async function commit(asked: Commit): Promise<void> {
    check(asked);
    if (queue.epoch !== asked.epoch) queue = { epoch: asked.epoch, waiting: [], isSending: false };
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    queue.waiting.push({ commit: asked, resolve, reject });
    if (!queue.isSending) void sendWaiting(queue);
    return promise;
  }

  async function sendWaiting(own: Queue): Promise<void> {
    own.isSending = true;
    while (own.waiting.length > 0) await sendTogether(takeOnePerPartition(own));
    own.isSending = false;
  }

  /** Never rejects: each caller is told. */
  async function sendTogether(asked: readonly Waiting[]): Promise<void> {
    const current = asked.filter(isCurrent);
    if (current.length === 0) return;
    try {
      const commits = current.map(({ commit: one }) => one);
      if ((await withTimeout(clock, COMMIT_MS_MAX, () => send(commits))) === TIMED_OUT) {
        throw new LogUnavailableError(`Kafka did not answer a commit within ${COMMIT_MS_MAX} ms`);
      }
      for (const { resolve } of current) resolve();
    } catch (error) {
      // The error does not say which commit is at fault. Others may have been made; they are made again.
      if (current.length > 1) await Promise.all(current.map((one) => sendTogether([one])));
      else for (const { commit: one, reject } of current) reject(errorOf(one, error));
    }
  }

  /** Checked in the step in which it is sent: the request goes out under the generation that is valid then. */
  function isCurrent({ commit: one, reject }: Waiting): boolean {
    try {
      check(one);
      return true;
    } catch (error) {
      reject(error);
      return false;
    }
  }

  return commit;
}

/** The first one per partition: two commits of one partition have no order within a request. */
function takeOnePerPartition(queue: Queue): Waiting[] {
  const byPartition = new Map<PartitionId, Waiting>();
  const later: Waiting[] = [];
  for (const one of queue.waiting) {
    if (byPartition.has(one.commit.id)) later.push(one);
    else byPartition.set(one.commit.id, one);
  }
  queue.waiting = later;
  return [...byPartition.values()];
}
