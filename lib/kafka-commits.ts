// Commits of one member, one request at a time: what is asked for while one is on its way goes together in the next.
// The broker answers a connection in order, so a request for each partition would hold up the fetches behind it.

import type { PartitionId, Position } from "./log.ts";

export type Commit = Readonly<{ epoch: number; id: PartitionId; position: Position }>;

export type CommitParts = Readonly<{
  /** Throws when the commit may no longer be made. */
  check(commit: Commit): void;
  /** One request for all of them, each of another partition; sent in the step in which it is called. */
  send(commits: readonly Commit[]): Promise<void>;
  /** What whoever asked is told of a commit that failed alone. */
  errorOf(commit: Commit, error: unknown): unknown;
}>;

type Waiting = Readonly<{ commit: Commit; resolve(): void; reject(error: unknown): void }>;

/** Resolves when the commit is made. */
export function createCommits({ check, send, errorOf }: CommitParts): (commit: Commit) => Promise<void> {
  let waiting: Waiting[] = [];
  let isSending = false;

  function commit(asked: Commit): Promise<void> {
    return new Promise((resolve, reject) => {
      waiting.push({ commit: asked, resolve, reject });
      if (!isSending) void sendWaiting();
    });
  }

  async function sendWaiting(): Promise<void> {
    isSending = true;
    while (waiting.length > 0) await sendTogether(nextOnes());
    isSending = false;
  }

  /** Of each partition the first: two of one partition in one request have no order. */
  function nextOnes(): Waiting[] {
    const byPartition = new Map<PartitionId, Waiting>();
    const later: Waiting[] = [];
    for (const one of waiting) {
      if (byPartition.has(one.commit.id)) later.push(one);
      else byPartition.set(one.commit.id, one);
    }
    waiting = later;
    return [...byPartition.values()];
  }

  /** Never rejects: whoever asked is told. */
  async function sendTogether(asked: readonly Waiting[]): Promise<void> {
    const current = asked.filter(isCurrent);
    if (current.length === 0) return;
    try {
      await send(current.map(({ commit }) => commit));
      for (const { resolve } of current) resolve();
    } catch (error) {
      // It says what is wrong with one of them and not with which; the others may be made already, and are made again.
      if (current.length > 1) await Promise.all(current.map((one) => sendTogether([one])));
      else for (const { commit, reject } of current) reject(errorOf(commit, error));
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
