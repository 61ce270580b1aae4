// Keeps market.sqlite-wal small. Usually SQLite does that by itself, with a checkpoint in a commit now and then. A read
// transaction that another program leaves open prevents it, and the file grows until it ends. What has piled up is then
// too much for a commit, so it is done in a thread (checkpointer.ts); meanwhile health and log say who reads.

import { open, stat, statfs } from "node:fs/promises";
import { dirname } from "node:path";
import { type Clock, withTimeout } from "../base/clock.ts";
import type { Logger } from "../base/logger.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Database } from "../base/sqlite.ts";
import { heldSentence, type StoreSnapshot, WAL_BYTES_MAX } from "../health/store.ts";
import { type Checkpointer, openCheckpointer } from "./checkpointer.ts";
import { describeHolders, lockHolders } from "./lock-holder.ts";
import type { WriteLock } from "./write-lock.ts";

export type WalKeeper = Disposable &
  Readonly<{
    /** One look, and what follows from it. To be called every other second, never twice at once. Never rejects. */
    look(): Promise<void>;
    health(): Pick<StoreSnapshot, "walBytes" | "walHeldSinceMs" | "walHeldBy">;
  }>;

export type WalKeeperDeps = Readonly<{
  db: Database;
  path: string;
  lock: Pick<WriteLock, "refuse">;
  clock: Clock;
  logger: Logger;
  metrics?: Metrics | undefined;
  /** For tests. */
  openCheckpointer?: (path: string) => Checkpointer;
  freeBytes?: (directory: string) => Promise<number>;
  largeBytes?: number;
}>;

/** A commit checkpoints from 1,000 pages on, so the file is some 4 MiB; twice that is a reader who stays a moment. */
const USUAL_BYTES_MAX = 8 * 1_024 ** 2;
/** So much can be copied and synced in a commit without being noticed; from here on it is done in the thread. */
const LARGE_BYTES = 32 * 1_024 ** 2;
/** SQLite's own default. */
const AUTO_CHECKPOINT_PAGES = 1_000;
/** A checkpoint goes on behind the look that started it. */
const LOOK_MS_MAX = 1_500;

export function createWalKeeper(deps: WalKeeperDeps): WalKeeper {
  return new Keeper(deps);
}

class Keeper implements WalKeeper {
  readonly #deps: WalKeeperDeps;
  readonly #largeBytes: number;
  #checkpointer: Checkpointer | null = null;
  #bytes = 0;
  /** Since when the file has been larger than usual; null = it is not. */
  #grownSinceMs: number | null = null;
  #lookedAtMs: number;
  #isHeldUp = false;
  #readers: readonly number[] = [];
  #heldBy = "another program";
  /** What the log was told last. */
  #told: "nothing" | "held" | "too large" = "nothing";

  constructor(deps: WalKeeperDeps) {
    this.#deps = deps;
    this.#largeBytes = deps.largeBytes ?? LARGE_BYTES;
    this.#lookedAtMs = deps.clock.now();
  }

  async look(): Promise<void> {
    const { path, clock, logger, metrics } = this.#deps;
    const lastLookAtMs = this.#lookedAtMs;
    this.#lookedAtMs = clock.now();
    this.#bytes = await sizeOf(`${path}-wal`);
    metrics?.storeWalBytes.set(this.#bytes);
    if (this.#bytes <= USUAL_BYTES_MAX) this.#grownSinceMs = null;
    else this.#grownSinceMs ??= lastLookAtMs;
    if (this.#bytes <= this.#largeBytes) return this.#leaveToCommits();
    try {
      await withTimeout(clock, LOOK_MS_MAX, () => this.#shrink());
    } catch (error) {
      logger.warn("market.sqlite-wal could not be made smaller; it is tried again", { error });
    }
  }

  health() {
    const walHeldSinceMs = this.#isHeldUp ? this.#grownSinceMs : null;
    return { walBytes: this.#bytes, walHeldSinceMs, walHeldBy: this.#heldBy };
  }

  [Symbol.dispose](): void {
    this.#checkpointer?.[Symbol.dispose]();
    this.#checkpointer = null;
  }

  #leaveToCommits(): void {
    const { db, lock, logger } = this.#deps;
    if (this.#checkpointer === null) return;
    db.run(`PRAGMA wal_autocheckpoint = ${AUTO_CHECKPOINT_PAGES}`);
    this.#checkpointer[Symbol.dispose]();
    this.#checkpointer = null;
    this.#isHeldUp = false;
    this.#readers = [];
    lock.refuse(null);
    if (this.#told === "nothing") return;
    this.#told = "nothing";
    logger.info("market.sqlite-wal is small again: nobody keeps a read transaction open", {
      bytes: this.#bytes,
    });
  }

  async #shrink(): Promise<void> {
    const { db, path } = this.#deps;
    if (this.#checkpointer === null) {
      // Or the first commit after the reader's end would copy all of it, and the event loop would wait.
      db.run("PRAGMA wal_autocheckpoint = 0");
      this.#checkpointer = (this.#deps.openCheckpointer ?? openCheckpointer)(path);
    }
    const { isTruncated, isHeldUp } = await this.#checkpointer.run();
    this.#bytes = await sizeOf(`${path}-wal`);
    this.#deps.metrics?.storeWalBytes.set(this.#bytes);
    this.#isHeldUp = isHeldUp;
    if (isTruncated || !isHeldUp) this.#deps.lock.refuse(null);
    if (this.#bytes <= this.#largeBytes) return this.#leaveToCommits();
    if (isHeldUp) await this.#tell();
  }

  async #tell(): Promise<void> {
    const { path, clock, logger, lock, freeBytes = freeBytesIn } = this.#deps;
    // Whoever reads for a moment comes and goes: the one to blame was there at every look.
    const now = (await lockHolders(path, "read")).filter((pid) => pid !== process.pid);
    const lasting = this.#readers.filter((pid) => now.includes(pid));
    this.#readers = lasting.length > 0 ? lasting : now;
    this.#heldBy = await describeHolders(this.#readers);
    const sentence = heldSentence(this.#heldBy, this.#grownSinceMs ?? clock.now(), this.#bytes);
    const free = await freeBytes(dirname(path));
    // It has taken half of the room there was. The rest is the outbox's, where a trade takes a hundredth of it.
    const isTooMuch = free < this.#bytes;
    lock.refuse(
      isTooMuch
        ? `${sentence}, and the disk has only ${Math.round(free / 1_024 ** 2)} MiB left: what is received waits in the outbox until that reader ends`
        : null,
    );
    if (this.#told === "nothing") {
      this.#told = "held";
      logger.warn(sentence, { hint: "end that program, or its transaction: then the file shrinks" });
    }
    if (this.#told === "held" && (isTooMuch || this.#bytes > WAL_BYTES_MAX)) {
      this.#told = "too large";
      logger.error(sentence, { freeBytes: free, isStoring: !isTooMuch });
    }
  }
}

/**
 * Rejects when the sync fails: like a failed sync of SQLite's own it must end the process, because the next one may
 * succeed without the pages. The file must not be one that SQLite locks, because closing it would free the locks.
 */
export async function syncFile(path: string): Promise<void> {
  const file = await open(path, "r").catch(() => null);
  try {
    await file?.datasync();
  } finally {
    await file?.close();
  }
}

/** 0: there is no such file. */
async function sizeOf(path: string): Promise<number> {
  return (await stat(path).catch(() => null))?.size ?? 0;
}

async function freeBytesIn(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}
