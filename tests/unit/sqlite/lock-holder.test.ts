// Whose lock it is: the text of /proc/locks, and the sentence's subject.

import { expect, test } from "bun:test";
import { describeHolders, holdersIn } from "../../../lib/sqlite/lock-holder.ts";

const LOCKS = `1: POSIX  ADVISORY  WRITE 4711 fe:00:138700 120 120
1: -> POSIX  ADVISORY  WRITE 4712 fe:00:138700 120 120
2: POSIX  ADVISORY  READ 4713 fe:00:138700 124 124
3: POSIX  ADVISORY  READ 4714 fe:00:138700 128 128
4: POSIX  ADVISORY  WRITE 4715 fe:00:999 120 120
5: FLOCK  ADVISORY  WRITE 4716 fe:00:138701 0 EOF
6: OFDLCK ADVISORY  WRITE -1 fe:00:138700 120 120
7: POSIX  ADVISORY  READ 4717 fe:00:138700 0 EOF
`;

test("the holder of the write lock, and the readers, of one file and of no other", () => {
  expect(holdersIn(LOCKS, 138_700, "write")).toEqual([4711]);
  expect(holdersIn(LOCKS, 138_700, "read")).toEqual([4713, 4717]);
  expect(holdersIn(LOCKS, 1, "write")).toEqual([]);
  expect(holdersIn("", 138_700, "write")).toEqual([]);
});

test("a program is named with its process, and without a name it is another program", async () => {
  expect(await describeHolders([])).toBe("another program");
  expect(await describeHolders([process.pid])).toBe("this process's own checkpoint");
  expect(await describeHolders([2 ** 30])).toBe(`another program (process ${2 ** 30})`);
  expect(await describeHolders([process.ppid])).toMatch(/^another program \(\S.*, process \d+\)$/);
});
