// Commits of one member, one request at a time: what is asked for while one is on its way goes together in the next.
// The broker answers a connection in order, so a request for each partition would hold up the fetches behind it. None
// waits for an answer that does not come: a request ends by our clock, and a new epoch has a line of its own.

import type { Clock } from "../base/clock.ts";
import { LogUnavailableError } from "../base/errors.ts";
import type { PartitionId, Position } from "../contracts/log.ts";

export type Commit = Readonly<{ epoch: number; id: PartitionId; position: Position }>;

export type CommitsDeps = Readonly<{
  clock: Pick<Clock, "after">;
  /** Throws when the commit may no longer be made. */
  check(commit: Commit): void;
  /** One request for all of them, each of another partition; sent in the step in which it is called. */
  send(commits: readonly Commit[]): Promise<void>;
  /** What whoever asked is told of a commit that failed alone. */
  errorOf(commit: Commit, error: unknown): unknown;
}>;

type Waiting = Readonly<{ commit: Commit; resolve(): void; reject(error: unknown): void }>;
type Line = { readonly epoch: number; waiting: Waiting[]; isSending: boolean };

/**
 * kafkajs looks for the group's coordinator a hundred times. A commit that is made after all when nobody waits for it
 * any more can only rewind.
 */
const COMMIT_MS_MAX = 20_000;

/** Resolves when the commit is made. */
export function createCommits({
  clock,
  check,
  send,
  errorOf,
}: CommitsDeps): (commit: Commit) => Promise<void> {
  let line: Line = { epoch: -1, waiting: [], isSending: false };

  async function commit(asked: Commit): Promise<void> {
    check(asked);
    if (line.epoch !== asked.epoch) line = { epoch: asked.epoch, waiting: [], isSending: false };
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    line.waiting.push({ commit: asked, resolve, reject });
    if (!line.isSending) void sendWaiting(line);
    return promise;
  }

  async function sendWaiting(own: Line): Promise<void> {
    own.isSending = true;
    while (own.waiting.length > 0) await sendTogether(nextOnes(own));
    own.isSending = false;
  }

  /** Of each partition the first: two of one partition in one request have no order. */
  function nextOnes(own: Line): Waiting[] {
    const byPartition = new Map<PartitionId, Waiting>();
    const later: Waiting[] = [];
    for (const one of own.waiting) {
      if (byPartition.has(one.commit.id)) later.push(one);
      else byPartition.set(one.commit.id, one);
    }
    own.waiting = later;
    return [...byPartition.values()];
  }

  /** Never rejects: whoever asked is told. */
  async function sendTogether(asked: readonly Waiting[]): Promise<void> {
    const current = asked.filter(isCurrent);
    if (current.length === 0) return;
    try {
      await inTime(send(current.map(({ commit }) => commit)));
      for (const { resolve } of current) resolve();
    } catch (error) {
      // It says what is wrong with one of them and not with which; the others may be made already, and are made again.
      if (current.length > 1) await Promise.all(current.map((one) => sendTogether([one])));
      else for (const { commit, reject } of current) reject(errorOf(commit, error));
    }
  }

  async function inTime(answer: Promise<void>): Promise<void> {
    const late = Promise.withResolvers<never>();
    const cancel = clock.after(COMMIT_MS_MAX, () =>
      late.reject(new LogUnavailableError(`Kafka did not answer a commit in ${COMMIT_MS_MAX} ms`)),
    );
    try {
      await Promise.race([answer, late.promise]);
    } finally {
      cancel();
    }
  }

  /** Checked in the step in which it is sent: it goes out under the generation that holds then. */
  function isCurrent({ commit, reject }: Waiting): boolean {
    try {
      check(commit);
      return true;
    } catch (error) {
      reject(error);
      return false;
    }
  }

  return commit;
}
