// Checkpoints of a large write-ahead log, in a thread of their own with a connection of their own: hundreds of MB are
// copied, synced and cut off while the event loop goes on reading the socket. It decides nothing: sqlite/wal.ts does.

/** What one run came to. `isHeldUp`: a reader stands in the way. */
export type CheckpointOutcome = Readonly<{ isTruncated: boolean; isHeldUp: boolean }>;

export type Checkpointer = Disposable & Readonly<{ run(): Promise<CheckpointOutcome> }>;

type Answer = CheckpointOutcome & Readonly<{ error?: string }>;

/** What a checkpoint that holds the write lock may still have to copy: 16 MiB. */
const FRAMES_LEFT_MAX = 4_096;
/** The lock is free most of the time. No attempt waits, because it would wait with the write lock in its hands. */
const TRUNCATE_ATTEMPTS_MAX = 20;
const TRUNCATE_PAUSE_MS = 5;

/**
 * The thread's program: plain JavaScript, because a text is the one form that is in the binary without a file beside it.
 * PASSIVE copies what no reader needs any more and blocks nobody. TRUNCATE blocks writers, so it comes last.
 */
const PROGRAM = `
import { Database } from "bun:sqlite";
let db;
self.onmessage = ({ data: { path, isEnd } }) => {
  if (isEnd) {
    db?.close();
    return self.close();
  }
  try {
    if (db === undefined) {
      db = new Database(path, { readwrite: true, create: false });
      db.run("PRAGMA busy_timeout = 0");
    }
    const run = (mode) => db.query("PRAGMA wal_checkpoint(" + mode + ")").get();
    let before = -2;
    let state = run("PASSIVE");
    const left = () => state.log - state.checkpointed;
    while (left() > ${FRAMES_LEFT_MAX} && state.checkpointed > before) {
      before = state.checkpointed;
      state = run("PASSIVE");
    }
    const isHeldUp = left() > ${FRAMES_LEFT_MAX};
    let isTruncated = false;
    for (let attempt = 0; !isHeldUp && !isTruncated && attempt < ${TRUNCATE_ATTEMPTS_MAX}; attempt++) {
      if (attempt > 0) Bun.sleepSync(${TRUNCATE_PAUSE_MS});
      isTruncated = run("TRUNCATE").busy === 0;
    }
    postMessage({ isTruncated, isHeldUp });
  } catch (error) {
    postMessage({ isTruncated: false, isHeldUp: false, error: String(error) });
  }
};
`;

export function openCheckpointer(path: string): Checkpointer {
  const program = URL.createObjectURL(new Blob([PROGRAM], { type: "application/javascript" }));
  const worker = new Worker(program);
  worker.unref();
  let answered: PromiseWithResolvers<CheckpointOutcome> | null = null;
  worker.onmessage = ({ data }: MessageEvent<Answer>) => {
    if (data.error === undefined) answered?.resolve(data);
    else answered?.reject(new Error(data.error));
    answered = null;
  };
  worker.onerror = ({ message }) => {
    answered?.reject(new Error(message));
    answered = null;
  };
  return {
    run() {
      if (answered === null) {
        answered = Promise.withResolvers();
        worker.postMessage({ path, isEnd: false });
      }
      return answered.promise;
    },
    [Symbol.dispose]() {
      worker.postMessage({ path, isEnd: true });
      URL.revokeObjectURL(program);
    },
  };
}
