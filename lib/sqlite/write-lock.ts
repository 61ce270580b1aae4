// The write lock of market.sqlite, which this process shares with every other program that writes to the file. SQLite's
// own wait would stop the event loop, and with it the socket and /health. So nothing waits in SQLite: a write that finds
// the lock taken is tried again here, between which everything else has its turn.

import { statSync } from "node:fs";
import { basename } from "node:path";
import type { Clock } from "../base/clock.ts";
import { StoreUnavailableError } from "../base/errors.ts";
import { retry } from "../base/retry.ts";
import { type Database, isBusy, LOCK_HINT, storeError } from "../base/sqlite.ts";
import type { StoreSnapshot } from "../health/store.ts";
import { describeHolders, lockHolders } from "./lock-holder.ts";

export interface WriteLock {
  /**
   * Runs work that writes in one transaction, at once where the lock is free. Rejects as a put does; after BUSY_MS_MAX
   * with the lock taken, with StoreUnavailableError that says by whom. The work is repeated as a whole.
   */
  write<T>(work: () => T): Promise<T>;
  /** Throws StoreUnavailableError while nothing may be written. */
  check(): void;
  /** Looks whether the lock is free again, if it was not: the next write may be far away. */
  probe(): void;
  /** Refuses every write with this sentence until it is null again. */
  refuse(sentence: string | null): void;
  health(): Pick<StoreSnapshot, "lockedSinceMs" | "lockedBy" | "refusal">;
}

/** Longer is a problem that health and log tell of; shorter is two programs that take turns. */
const BUSY_MS_MAX = 2_000;
const RETRY_FIRST_MS = 4;
const RETRY_MAX_MS = 50;
/** While the lock is held, its holder is looked up once in this time. */
const LOOK_UP_MS = 1_000;

type WriteLockDeps = Readonly<{ db: Database; path: string; clock: Clock }>;

export function createWriteLock(deps: WriteLockDeps): WriteLock {
  return new SharedLock(deps);
}

class SharedLock implements WriteLock {
  readonly #deps: WriteLockDeps;
  readonly #inode: number;
  #lockedSinceMs: number | null = null;
  #lockedBy = "another program";
  #lookedUpAtMs = Number.NEGATIVE_INFINITY;
  #refusal: string | null = null;

  constructor(deps: WriteLockDeps) {
    this.#deps = deps;
    this.#inode = inodeOf(deps.path);
  }

  async write<T>(work: () => T): Promise<T> {
    const { clock, path } = this.#deps;
    const endMs = clock.monotonic() + BUSY_MS_MAX;
    const options = {
      clock,
      firstMs: RETRY_FIRST_MS,
      maxMs: RETRY_MAX_MS,
      isRetryable: (error: unknown) => isBusy(error) && clock.monotonic() < endMs,
      onFailure: () => this.#noteTaken(),
    };
    try {
      const result = await retry(options, async () => {
        this.check();
        return work();
      });
      this.#lockedSinceMs = null;
      return result;
    } catch (error) {
      if (!isBusy(error)) throw storeError(error);
      await this.#lookUp();
      const sentence = `${this.#lockedBy} holds the write lock of ${basename(path)}`;
      throw new StoreUnavailableError(sentence, LOCK_HINT, error);
    }
  }

  check(): void {
    const refusal = this.#currentRefusal();
    if (refusal !== null) throw new StoreUnavailableError(refusal);
  }

  probe(): void {
    if (this.#lockedSinceMs === null) return;
    const { db } = this.#deps;
    try {
      db.run("BEGIN IMMEDIATE");
      db.run("ROLLBACK");
      this.#lockedSinceMs = null;
    } catch (error) {
      if (!isBusy(error)) throw error;
      this.#noteTaken();
    }
  }

  refuse(sentence: string | null): void {
    this.#refusal = sentence;
  }

  health() {
    const refusal = this.#currentRefusal();
    return { lockedSinceMs: this.#lockedSinceMs, lockedBy: this.#lockedBy, refusal };
  }

  /**
   * Rows in a file that has no name any more would be gone with this process, and a commit beside them would let the log
   * forget them. So from then on everything stays in the log.
   */
  #currentRefusal(): string | null {
    const { path } = this.#deps;
    if (inodeOf(path) === this.#inode) return this.#refusal;
    return `${basename(path)} was deleted or replaced while this process has it open, so what is received waits in the outbox: start local again`;
  }

  #noteTaken(): void {
    const { clock } = this.#deps;
    if (this.#lockedSinceMs === null) {
      this.#lockedSinceMs = clock.now();
      this.#lockedBy = "another program";
      this.#lookedUpAtMs = Number.NEGATIVE_INFINITY;
    }
    // Not at once: most locks are over before they can be looked up.
    const isLong = clock.now() - this.#lockedSinceMs >= LOOK_UP_MS / 2;
    if (isLong && clock.monotonic() - this.#lookedUpAtMs >= LOOK_UP_MS) void this.#lookUp();
  }

  async #lookUp(): Promise<void> {
    const { clock, path } = this.#deps;
    this.#lookedUpAtMs = clock.monotonic();
    this.#lockedBy = await describeHolders(await lockHolders(path, "write"));
  }
}

/** 0: there is no such file. */
function inodeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.ino ?? 0;
}
