// What README.md and docs/RELIABILITY.md have one type in the checkout, each by itself: the check of a Grafana, a build
// for another machine, and what takes hours, with smaller numbers.

import { describe, expect } from "bun:test";
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { startGrafana } from "../../support/grafana-server.ts";
import { newWalk, ports, type Reader, runIn, step } from "./steps.ts";

export function inTheCheckout({ clone, checkout }: Reader): void {
  describe("README.md and docs/RELIABILITY.md, in the checkout", () => {
    const said = async (text: string, promised: RegExp) => {
      const { out, err } = await runIn(checkout(), text);
      expect(out + err).toMatch(promised);
      return promised.exec(out + err)![0];
    };

    for (const command of ["dist/admin grafana-check --url http://localhost:3003", "admin grafana-check"])
      step(
        newWalk(),
        command,
        async (text) => {
          await using grafana = startGrafana({ password: "admin", port: Number(ports["3003"]) });
          const { out, code } = await checkout().run(text);
          const failed = out.split("\n").filter((line) => line.startsWith("FAIL"));
          // On a machine that stands still for half a second an answer is late, and said to be.
          expect(failed.filter((line) => !line.includes("it would never be drawn"))).toEqual([]);
          expect(code).toBe(failed.length === 0 ? 0 : 1);
          expect(grafana.asked.map(({ path }) => path)).toContain("/api/ds/query");
          return out.trim().split("\n").at(-1)!;
        },
        command.startsWith("dist/")
          ? {}
          : {
              changes: () => [
                [/^/, "dist/"],
                [/$/, ` --url http://localhost:${ports["3003"]}`],
              ],
            },
      );

    step(newWalk(), "npm run build -- --target bun-linux-arm64 --outdir dist/arm64", async (text) => {
      const { out } = await runIn(checkout(), text);
      for (const name of ["admin", "local", "processor", "producer"]) {
        const header = readFileSync(join(clone, "dist/arm64", name)).subarray(0, 20);
        // ELF, and 183 is AArch64.
        expect({ name, magic: header.toString("latin1", 1, 4), machine: header.readUInt16LE(18) }).toEqual({
          name,
          magic: "ELF",
          machine: 183,
        });
      }
      rmSync(join(clone, "dist/arm64"), { recursive: true });
      return out.slice(out.indexOf("dist/arm64"));
    });

    const green = /^seeds 10 \(0 red\)[\s\S]*\nlost 0\ndoubled 0\nwrong windows 0$/m;
    step(newWalk(), "npm run simulate -- --seeds 10000", (text) => said(text, green), {
      smaller: [["10000", "10 --from 1"]],
    });
    step(
      newWalk(),
      "npm run simulate -- --seed N",
      async (text) => {
        const play = async () => (await runIn(checkout(), text)).out.replace(/^[\s\S]*\n> .*&& bun .*\n/, "");
        const [once, again] = [await play(), await play()];
        expect(once.split("\n").length).toBeGreaterThan(100);
        // Step by step, the same each time.
        expect(again).toBe(once);
        return once.trim();
      },
      { changes: () => [["N", "7"]] },
    );
    const kept = /0 lost.*0 out of order/s;
    step(newWalk(), "npm run torture -- --kills 2000 --seed 1", (text) => said(text, kept), {
      smaller: [["2000", "4"]],
    });
    step(newWalk(), "npm run torture -- --kills N", (text) => said(text, kept), {
      changes: () => [["N", "2"]],
    });
    step(
      newWalk(),
      "npm run soak",
      async (text) => {
        const { out } = await runIn(checkout(), text);
        const [line, ratio, rows, sent] =
          /^RSS after .* = ([\d.]+) .*, (\d+) rows of (\d+) sent, exit 0$/m.exec(out)!;
        expect(Number(ratio)).toBeLessThan(2);
        // What the simulator sent while it stopped is not received.
        expect(Number(rows)).toBeGreaterThan(0.9 * Number(sent));
        return line;
      },
      { smaller: [[/$/, " -- --minutes 0.1"]] },
    );
    step(newWalk(), "npm run bench", (text) => said(text, /trades\/s/), {
      smaller: [[/$/, " -- panes --short"]],
    });
    step(
      newWalk(),
      "OUTBOX_KILLS=200 npx bun test tests/integration/outbox/kill.test.ts",
      (text) => said(text, /^ 1 pass\n[\s\S]*^ 0 fail$/m),
      // Fewer than 30 it does not take.
      {
        smaller: [
          ["200", "30"],
          [/$/, " -t write,"],
        ],
      },
    );
  });
}
