// `local` as a user starts it, on a feed that says what a test says, behind a wire that a test can cut.

import { eventually, temporaryDirectory } from "./builders.ts";
import { serveSockets } from "./feed.ts";
import { LOCAL, type ServiceProcess, startService } from "./processes.ts";
import { startWire } from "./wire.ts";

export type Print = Readonly<{ symbol: string; price: number; atMs: number; volume?: number }>;
type Item = Readonly<Record<string, number>>;

const START_MS_MAX = 20_000;

export const MINUTE_MS = 60_000;
/** The beginning of the minute so many before this one. */
export const minuteBefore = (nowMs: number, count: number) => nowMs - (nowMs % MINUTE_MS) - count * MINUTE_MS;

export async function startField(symbols: readonly string[]) {
  await using starting = new AsyncDisposableStack();
  const directory = starting.use(temporaryDirectory());
  const feed = starting.use(serveSockets());
  let local: ServiceProcess;
  let connectionCount = 0;

  async function start(): Promise<void> {
    local = await startService(LOCAL, {
      DATA_DIR: directory.path,
      LOG_LEVEL: "warn",
      FINNHUB_API_TOKEN: "token",
      FINNHUB_WS_URL: feed.url,
      FINNHUB_VALIDATE_TICKERS: "0",
      FINNHUB_STOCKS_TICKERS: JSON.stringify(symbols),
    });
    connectionCount += 1;
    const connection = await feed.connections.nth(connectionCount);
    await eventually(START_MS_MAX, "every subscription", () =>
      symbols.every((symbol) => connection.asked("subscribe").includes(symbol)),
    );
  }
  await start();
  starting.defer(() => local.kill());
  const wire = starting.use(await startWire(local!.url));
  const field = starting.move();

  const items = async (path: string) =>
    ((await (await fetch(`${local.url}${path}`)).json()) as { items: Item[] }).items;
  return {
    wire,
    get url() {
      return local.url;
    },
    directory: directory.path,
    send(...prints: readonly Print[]): void {
      const data = prints.map(({ symbol, price, atMs, volume = 1 }) => ({
        c: null,
        p: price,
        s: symbol,
        t: atMs,
        v: volume,
      }));
      feed.connections.all.at(-1)!.send({ data, type: "trade" });
    },
    items,
    /** Until the store has so many candles of each. */
    candles: (count: number, ...of: readonly string[]) =>
      eventually(START_MS_MAX, `${count} candles`, async () => {
        for (const symbol of of) {
          if ((await items(`/candles?symbol=${symbol}&limit=1000`)).length !== count) return false;
        }
        return true;
      }),
    async restart(): Promise<void> {
      await local.stop();
      await start();
    },
    [Symbol.asyncDispose]: () => field.disposeAsync(),
  };
}
