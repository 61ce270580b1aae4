// deploy/ in a systemd that runs: installed as README.md says, and then what happens to a machine in a year: kills, a
// process that hangs, a wrong setting, a stop under load, reboots, a power cut, an upgrade. `local` carries the units'
// whole life; the other three pass once with real engines. Each look compares what the process said it had received
// (it is on its disk then) with the rows that are there afterwards.

import { Database } from "bun:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Simulator, startSimulator } from "../../lib/simulator/simulator.ts";
import { eventually } from "../support/builders.ts";
import { freePort } from "../support/nginx.ts";
import { addressesOf, buildBinaries, ownNames, type Settings } from "../support/processes.ts";
import { services, sharedCassandra, sharedKafka } from "../support/services/shared.ts";
import { isRefused, type Machine, startMachine, whatIsMissing } from "../support/systemd/machine.ts";
import { commandsOf, documentText, ROOT } from "./documents/read.ts";

const missing = whatIsMissing();
/** What can be installed has to be there with CI=true; a right that the machine does not give cannot be. */
const isSkipped = missing === null ? isRefused() : process.env.CI !== "true";
if (isSkipped)
  console.error(
    `SKIPPED: ${missing ?? "the right to make namespaces"} is not here, so no unit of deploy/systemd is run by systemd`,
  );

/** With a root to be made first. */
const SET_UP_MS_MAX = 600_000;
const WAIT_MS_MAX = 90_000;
const TEST_MS_MAX = 300_000;
/** Where the binaries were unpacked in the machine, and what README.md says of it is typed. */
const UNPACKED = "/srv/finnhub";
const OLD_VERSION = "0.0.1-of-the-test";
const SYMBOLS = ["BINANCE:BTCUSDT", "BINANCE:ETHUSDT"];
/** "OK" to systemd is below 2; an item that is lost costs 0.1 or more. */
const EXPOSURE_MAX = 1.1;

/** README.md's commands for systemd, as root types them. */
const documented = commandsOf("README.md", documentText("README.md"))
  .map(({ text }) => text)
  .filter((text) => text.startsWith("sudo "))
  .map((text) => text.replace(/^sudo /, ""));
const command = (beginning: string) => documented.find((text) => text.startsWith(beginning))!;

describe.skipIf(isSkipped)("a machine with systemd", () => {
  let machine: Machine;
  let simulator: Simulator;
  let settings: Settings;
  let url: string;
  const LOCAL = "finnhub-local";

  beforeAll(async () => {
    if (missing !== null) throw new Error(`${missing} is not here, and .ci/run was to install it`);
    using binaries = buildBinaries();
    machine = await startMachine();
    simulator = await startSimulator({ seed: 14, tradesPerSecond: 400, ledger: false });
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    settings = {
      FINNHUB_API_TOKEN: "the-key-of-the-feed",
      FINNHUB_WS_URL: simulator.wsUrl,
      FINNHUB_API_URL: simulator.apiUrl,
      FINNHUB_STOCKS_TICKERS: `'${JSON.stringify(SYMBOLS)}'`,
      ADMIN_PORT: String(port),
    };
    for (const [from, to] of [
      [binaries.directory, UNPACKED],
      [join(ROOT, "deploy"), `${UNPACKED}/deploy`],
    ] as const)
      cpSync(from, join(machine.root, to), { recursive: true });
    await buildOld(join(machine.root, "srv/old/local"));
    writeFileSync(join(machine.root, UNPACKED, ".env"), environmentFile(settings));
  }, SET_UP_MS_MAX);
  afterAll(async () => {
    await machine?.[Symbol.asyncDispose]();
    await simulator?.stop();
  }, TEST_MS_MAX);

  const inRelease = (line: string) => machine.must(`cd ${UNPACKED} && ${line}`);
  const property = async (name: string, unit = LOCAL) =>
    (await machine.must(`systemctl show --value -p ${name} ${unit}`)).trim();
  const journal = (unit = LOCAL) => machine.must(`journalctl --no-pager -o cat -u ${unit}`);
  const until = (what: string, check: () => Promise<boolean>) => eventually(WAIT_MS_MAX, what, check);
  const isActive = (unit = LOCAL) =>
    until(`${unit} is active`, async () => (await property("ActiveState", unit)) === "active");
  const writeSettings = (given: Settings) =>
    writeFileSync(join(machine.root, "etc/finnhub/env"), environmentFile(given));

  /** What it says it has received since it started, when there is some more of it than `min`. */
  async function received(min = 200): Promise<number> {
    let count = 0;
    await until(`${min} trades received`, async () => {
      if ((await property("ActiveState")) === "failed") throw new Error(await journal());
      const text = await fetch(`${url}/metrics`).then(
        (answer) => answer.text(),
        () => "",
      );
      count = Number(/^pipeline_feed_trades_received_total(?:\{.*\})? (\d+)$/m.exec(text)?.[1] ?? 0);
      return count >= min;
    });
    return count;
  }
  function rowCount(): number {
    using db = new Database(join(machine.root, "var/lib/private/finnhub-local/data/market.sqlite"));
    return db.query<{ n: number }, []>("SELECT count(*) AS n FROM trades").get()!.n;
  }
  /** All of it is there in the end, and nothing twice: never more than was sent. */
  async function isStored(count: number): Promise<void> {
    await until(`${count} rows`, async () => rowCount() >= count);
    expect(rowCount()).toBeLessThanOrEqual(simulator.ledger.counts().tradesSent);
  }

  test(
    "install.sh installs what there is, shows it, and changes nothing the second time",
    async () => {
      const first = await inRelease(command("deploy/install.sh"));
      for (const name of ["producer", "processor", "admin", "local"])
        expect(first).toContain(`/opt/finnhub/${name}`);
      expect(first).toContain("+ systemctl daemon-reload");
      expect((await machine.must("stat -c %a /etc/finnhub/env")).trim()).toBe("600");

      // Settings that were changed stay: an older .env lies there for ever.
      await machine.must("echo '# mine' >>/etc/finnhub/env");
      expect(await inRelease(command("deploy/install.sh"))).toBe(
        "nothing to change: producer processor admin local\n",
      );
      expect(await machine.must("tail -1 /etc/finnhub/env")).toBe("# mine\n");
      expect(await machine.run(`${UNPACKED}/deploy/install.sh /var`)).toEqual({
        code: 1,
        out: "install.sh: no binary in /var: npm run build makes them in dist\n",
      });
    },
    TEST_MS_MAX,
  );

  test(
    "enable --now returns when it works, as a user of its own with no right too many",
    async () => {
      await machine.must("install /srv/old/local /opt/finnhub/local");
      await machine.must(`systemctl enable --now ${LOCAL}`);
      expect(await property("ActiveState")).toBe("active");
      expect((await fetch(`${url}/health`)).status).toBe(200);
      await isStored(await received());

      const pid = await property("MainPID");
      const status = await machine.must(`cat /proc/${pid}/status`);
      const line = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, "m").exec(status)?.[1];
      expect({
        isRoot: line("Uid") === "0",
        capabilities: line("CapBnd"),
        noNewPrivileges: line("NoNewPrivs"),
        // A filter of system calls.
        seccomp: line("Seccomp"),
      }).toEqual({ isRoot: false, capabilities: "0000000000000000", noNewPrivileges: "1", seccomp: "2" });
      await until("its status", async () => (await property("StatusText")) === "ok");
    },
    TEST_MS_MAX,
  );

  test(
    "systemd-analyze security has little to say of any unit",
    async () => {
      const units = readdirSync(join(ROOT, "deploy/systemd")).map((file) => file.replace("@.", "@8082."));
      for (const unit of units) {
        const said = await machine.must(`systemd-analyze security --no-pager ${unit}`);
        const exposure = /Overall exposure level for \S+: ([\d.]+) (\w+)/.exec(said);
        console.log(`${unit}: ${exposure?.[1]} ${exposure?.[2]}`);
        expect(Number(exposure?.[1])).toBeLessThanOrEqual(EXPOSURE_MAX);
      }
    },
    TEST_MS_MAX,
  );

  test(
    "a kill -9 is followed by a start, and what was received is there",
    async () => {
      const before = rowCount();
      const count = await received();
      await machine.must(`systemctl kill --signal=KILL ${LOCAL}`);
      await until("a restart", async () => (await property("NRestarts")) === "1");
      await isActive();
      await isStored(Math.max(before, count));
    },
    TEST_MS_MAX,
  );

  test(
    "a process that hangs is killed by the watchdog and started again",
    async () => {
      // 60 s are long for a test. Its signs of life come every 5 s.
      const place = `/run/systemd/system/${LOCAL}.service.d`;
      await machine.must(`mkdir -p ${place} && printf '[Service]\\nWatchdogSec=20\\n' >${place}/short.conf`);
      await machine.must(`systemctl daemon-reload && systemctl restart ${LOCAL}`);
      const count = await received();
      const pid = await property("MainPID");
      await machine.must(`kill -STOP ${pid}`);
      await until("another process", async () => {
        const now = await property("MainPID");
        return now !== pid && now !== "0";
      });
      expect(await journal()).toContain("Watchdog timeout");
      await isActive();
      await isStored(count);
      await machine.must(`rm -r ${place} && systemctl daemon-reload`);
    },
    TEST_MS_MAX,
  );

  test(
    "a wrong setting is no reason to start again and again, and systemctl status says which it is",
    async () => {
      writeSettings({ ...settings, RETENTION_DAYS: "soon" });
      expect((await machine.run(`systemctl restart ${LOCAL}`)).code).not.toBe(0);
      expect(await property("ActiveState")).toBe("failed");
      expect(await property("NRestarts")).toBe("0");
      const { out } = await machine.run(`systemctl status --no-pager --lines=20 ${LOCAL}`);
      expect(out).toContain("status=1/FAILURE");
      expect(out).toContain("local: 1 setting needs your attention");
      expect(out).toMatch(/RETENTION_DAYS: .*found "soon"/);
      writeSettings(settings);
      await machine.must(`systemctl start ${LOCAL}`);
    },
    TEST_MS_MAX,
  );

  test(
    "a credential that systemd loads is a secret as any other",
    async () => {
      const token = "a-token-of-systemd-s-own-making";
      const place = `/etc/systemd/system/${LOCAL}.service.d`;
      await machine.must(`mkdir -p ${place} && (umask 077 && printf ${token} >/etc/finnhub/admin_token)`);
      writeFileSync(join(machine.root, place, "credentials.conf"), credentialsExample());
      await machine.must(`systemctl daemon-reload && systemctl restart ${LOCAL}`);
      const change = (bearer: string) =>
        fetch(`${url}/tickers`, {
          method: "POST",
          headers: { authorization: `Bearer ${bearer}`, "content-type": "application/json" },
          body: JSON.stringify({ symbol: "BINANCE:SOLUSDT" }),
        });
      expect((await change("somebody-else-s-token")).status).toBe(401);
      expect((await change(token)).ok).toBe(true);
      expect(await journal()).not.toContain(token);
    },
    TEST_MS_MAX,
  );

  test(
    "an upgrade in place replaces what runs, and loses nothing",
    async () => {
      const count = await received();
      const said = await inRelease(command("deploy/install.sh"));
      expect(said).toContain(`+ systemctl try-restart --no-block ${LOCAL}.service`);
      expect(said).not.toContain("finnhub-producer");
      await until("the new version", async () => {
        const [, version] = /"version":"([^"]+)"(?![\s\S]*"version":")/.exec(await journal()) ?? [];
        return version !== undefined && version !== OLD_VERSION;
      });
      expect(await journal()).toContain(OLD_VERSION);
      await isActive();
      await isStored(count);
    },
    TEST_MS_MAX,
  );

  test(
    "a stop under load ends with 0, everything stored and every window right",
    async () => {
      const count = await received();
      await machine.must(`systemctl stop ${LOCAL}`);
      expect(await property("Result")).toBe("success");
      expect(await property("ExecMainStatus")).toBe("0");
      await isStored(count);
      const verify = command("systemd-run --pipe --wait").replace("admin verify", "local verify");
      const own = ` -p User=${LOCAL} -p StateDirectory=${LOCAL} -p WorkingDirectory=/var/lib/${LOCAL} /opt/`;
      const said = await machine.must(verify.replace(" /opt/", own));
      expect(said).toMatch(/0 differ/);
      await machine.must(`systemctl start ${LOCAL}`);
    },
    TEST_MS_MAX,
  );

  for (const [what, off] of [
    ["a reboot", () => machine.powerOff()],
    ["a power cut", () => machine.cutPower()],
  ] as const)
    test(
      `after ${what} it starts by itself and finds what it had received`,
      async () => {
        const before = rowCount();
        const count = await received();
        await off();
        await machine.boot();
        await isActive();
        await isStored(Math.max(before, count));
        await received();
      },
      TEST_MS_MAX,
    );

  describe.skipIf(!services.available)("with a real Kafka and Cassandra", () => {
    const units: string[] = [];
    let healthUrl: string;

    test(
      "a unit is not active before it works: a start waits for engines, and says for which",
      async () => {
        await machine.must(`systemctl disable --now ${LOCAL}`);
        writeSettings({ ...settings, KAFKA_PORT: "1", CASSANDRA_PORT: "1" });
        await machine.must("systemctl start --no-block finnhub-admin");
        await until("a reason", async () =>
          (await property("StatusText", "finnhub-admin")).startsWith("start: waiting for "),
        );
        expect(await property("ActiveState", "finnhub-admin")).toBe("activating");
        await machine.must("systemctl stop finnhub-admin");
        expect(await property("Result", "finnhub-admin")).toBe("success");
      },
      TEST_MS_MAX,
    );

    test(
      "README.md's units work together, and so do its commands beside them",
      async () => {
        const [kafka, cassandra] = await Promise.all([sharedKafka(), sharedCassandra()]);
        const ports = { admin: await freePort(), producer: await freePort() };
        const processors = [await freePort(), await freePort()];
        const at = (port: number) => `http://127.0.0.1:${port}`;
        healthUrl = `${at(ports.admin)}/health`;
        writeSettings({
          ...settings,
          ...addressesOf(kafka, cassandra),
          ...ownNames(),
          ADMIN_PORT: String(ports.admin),
          PRODUCER_PORT: String(ports.producer),
          PRODUCER_URL: at(ports.producer),
          PROCESSOR_URL: processors.map(at).join(","),
        });
        const beside = command("systemd-run --pipe --wait -p DynamicUser=yes");
        await machine.must(beside.replace("admin verify", "admin init"));
        const enable = command("systemctl enable --now finnhub-producer").replace(
          /@808([23])/g,
          (_, digit) => (digit === "2" ? `@${processors[0]}` : `@${processors[1]}`),
        );
        units.push(...enable.split(" ").slice(3));
        await machine.must(enable);
        for (const unit of units) expect(await property("ActiveState", unit)).toBe("active");
        await until("a healthy pipeline", async () => (await fetch(healthUrl)).status === 200);

        const windows = async () => /^\D*(\d+) windows/.exec(await machine.must(beside))?.[1];
        await until("windows that verify finds right", async () => Number((await windows()) ?? 0) > 0);
        await machine.must("systemctl stop finnhub-producer");
        expect(
          await machine.must(documented.find((text) => text.endsWith("producer replay --dead"))!),
        ).toContain("0 messages put back");
      },
      TEST_MS_MAX,
    );
  });

  test(
    "--uninstall ends everything and keeps settings and data, and says where they are",
    async () => {
      await machine.must("systemctl start --no-block finnhub-admin");
      const rows = rowCount();
      const said = await inRelease("deploy/install.sh --uninstall");
      expect(said).toMatch(/^kept: \/etc\/finnhub\/env and .*\/var\/lib\/private\/finnhub-local/m);
      expect((await machine.must("systemctl list-units --all --no-legend 'finnhub-*'")).trim()).toBe("");
      expect((await machine.must("ls /etc/systemd/system/multi-user.target.wants")).includes("finnhub")).toBe(
        false,
      );
      expect((await machine.run("ls /opt/finnhub")).code).not.toBe(0);
      expect(await machine.must("ls /etc/finnhub")).toContain("env");
      expect(rowCount()).toBeGreaterThanOrEqual(rows);
      // And again, with nothing there.
      await inRelease("deploy/install.sh --uninstall");
    },
    TEST_MS_MAX,
  );
});

function environmentFile(given: Settings): string {
  return Object.entries(given)
    .map(([name, value]) => `${name}=${value}\n`)
    .join("");
}

/** What docs/DEPLOY.md has one write. */
function credentialsExample(): string {
  const [, example] =
    /```ini\n(\[Service\]\nLoadCredential=[\s\S]*?)```/.exec(documentText("docs/DEPLOY.md")) ?? [];
  return example!;
}

/** `local` as another version of it. */
async function buildOld(outfile: string): Promise<void> {
  mkdirSync(join(outfile, ".."), { recursive: true });
  const built = await Bun.build({
    entrypoints: [join(ROOT, "local.ts")],
    compile: { outfile },
    define: { BUILD_VERSION: JSON.stringify(OLD_VERSION) },
  });
  if (!built.success) throw new Error(`no older binary: ${built.logs.join("\n")}`);
}
