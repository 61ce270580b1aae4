// The operator of a run: deletes late trades by hand, forces repairs, and puts trades with a command, all beside the
// processors that write. The commands are those of lib.

import { mayPass } from "../../lib/base/errors.ts";
import { replayWindows } from "../../lib/commands/replay.ts";
import { verifyWindows } from "../../lib/commands/verify.ts";
import { tradeUuids } from "../../lib/model/identity.ts";
import { type TradeRow, tradeRow } from "../../lib/model/trade.ts";
import type { FakeStore } from "./fake-store.ts";
import type { Chronicle } from "./faults.ts";
import { type Host, logger, newHost } from "./hosts.ts";
import type { Received } from "./ledger.ts";
import type { Upstream } from "./upstream.ts";
import type { World } from "./world.ts";

/** What no process writes without a look at the store: with a clock that is wrong, a force is refused or late. */
const LATE_MS = 600_000;
const AROUND_MS = 60_000;
const IMPORT_SESSION = "0badcafe";
/** The re-reading of differences, and a store that answers slowly. */
const REPAIR_MS_MAX = 60_000;

type Parts = Readonly<{
  world: World;
  chronicle: Chronicle;
  store: FakeStore;
  received: Received;
  upstream: Upstream;
  fail: (error: unknown) => void;
}>;

export class Operator {
  readonly #parts: Parts;
  readonly #deleted: TradeRow[] = [];
  #imported = 0;
  #running = 0;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** One late trade, and soon after it the repair; late trades come in its place. */
  deleteTrade(): void {
    const { world, chronicle, store, received, upstream } = this.#parts;
    const late = [...store.rows.values()].filter((row) => row.trade_timestamp < world.nowMs - LATE_MS);
    const row = late[world.pick(Math.max(1, late.length))];
    if (row === undefined) return;
    chronicle.fire("trade_deleted", row.uuid);
    store.deleteTrade(row);
    received.noteDeleted(row.uuid);
    this.#deleted.push(row);
    upstream.lateAtMs = row.trade_timestamp;
    world.after(world.between(0, 5_000), () => this.#force(row));
  }

  /** A trade that no log has, among late ones. */
  importTrade(): void {
    const { world, chronicle, store, received, upstream } = this.#parts;
    const anyRow = [...store.rows.values()].find((row) => row.trade_timestamp < world.nowMs - LATE_MS);
    if (anyRow === undefined) return;
    chronicle.fire("trade_imported");
    const host = newHost(world);
    const writer = store.connect(host.machine);
    const tradedAtMs = anyRow.trade_timestamp - (anyRow.trade_timestamp % 60_000) + world.pick(60_000);
    const { symbol } = anyRow;
    const trade = { symbol, price: 30 + world.pick(9), volume: 1, tradedAtMs, conditions: null };
    const row = tradeRow(trade, tradeUuids(IMPORT_SESSION, ++this.#imported, tradedAtMs)(0), tradedAtMs);
    received.noteImported(row);
    upstream.lateAtMs = tradedAtMs;
    const deps = { store: writer, clock: host.clock, logger, retentionDays: 30, signal: SIGNAL };
    void this.#run(host, async () => {
      await writer.putTrades([row]);
      await replayWindows(deps, pageOf(row), { fromMs: 0, toMs: world.nowMs + 1 });
    });
  }

  /** After the calm: whatever was deleted is what the windows say, also where the repair came too early. */
  settle(): void {
    for (const row of this.#deleted) this.#force(row);
    for (let waitedMs = 0; this.#running > 0 && waitedMs < REPAIR_MS_MAX; waitedMs += 500)
      this.#parts.world.run(500);
  }

  #force({ symbol, trade_timestamp: atMs }: TradeRow): void {
    const { world, chronicle, store } = this.#parts;
    chronicle.fire("repair_forced");
    const host = newHost(world);
    const verification = {
      store: store.mender(host.machine),
      clock: host.clock,
      range: { fromMs: atMs - AROUND_MS, toMs: atMs + AROUND_MS },
      symbol,
      retentionDays: 30,
      repair: "force",
      isLive: true,
      expires: "rows",
      onDifference() {},
      onSkipped() {},
      signal: SIGNAL,
    } as const;
    void this.#run(host, () => verifyWindows(verification));
  }

  /** A command ends when the store stays away; the operator gives it again. */
  async #run({ clock }: Host, command: () => Promise<unknown>): Promise<void> {
    this.#running += 1;
    for (;;) {
      try {
        await command();
        break;
      } catch (error) {
        if (!mayPass(error)) {
          this.#parts.fail(error);
          break;
        }
        await clock.sleep(1_000);
      }
    }
    this.#running -= 1;
  }
}

const SIGNAL = new AbortController().signal;

async function* pageOf(row: TradeRow) {
  yield [row];
}
