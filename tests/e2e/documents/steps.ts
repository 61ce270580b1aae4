// The steps of a walk through the documents, each one command, and what several of them look at. Every step is on the
// list by being called; whether the list is whole, tests/e2e/documents.test.ts knows.

import { expect, test } from "bun:test";
import { eventually } from "../../support/builders.ts";
import { documentText } from "./read.ts";
import type { Done, Terminal } from "./terminal.ts";

export const STEP_MS_MAX = 180_000;
export const SEEN_MS_MAX = 60_000;
const SYMBOL = "BINANCE:BTCUSDT";

/** Where a reader works. `clone` is a fresh copy of the tree, `machine` another directory; both begin empty. */
export type Reader = { readonly clone: string; readonly machine: string; checkout(): Terminal };

export type Change = readonly [printed: string | RegExp, used: string];
export type Options = Readonly<{
  /** What a reader fills in, or a place of this machine. */
  changes?: () => readonly Change[];
  /** It takes minutes to hours: this is the shorter one. Its row in the table says so. */
  smaller?: readonly Change[];
}>;

/** Steps of one walk need those before them. */
export type Walk = { failedAt: string | null };
export const newWalk = (): Walk => ({ failedAt: null });

export const steps = new Map<string, Options>();
/** The documents' port -> the one used here. */
export const ports: Record<string, string> = {};

/** One command of a document: run by `act`, which says what the screen showed. */
export function step(
  walk: Walk,
  command: string,
  act: (text: string) => Promise<string>,
  options: Options = {},
) {
  steps.set(command, options);
  test(
    `\`${command}\``,
    async () => {
      if (walk.failedAt !== null) throw new Error(`not run, because \`${walk.failedAt}\` failed before it`);
      try {
        const text = changed(command, [...(options.smaller ?? []), ...(options.changes?.() ?? [])]);
        const shown = await act(text);
        console.log(`$ ${text}\n    ${shown.trim().split("\n").slice(0, 3).join("\n    ")}`);
      } catch (error) {
        walk.failedAt = command;
        throw error;
      }
    },
    STEP_MS_MAX,
  );
}

/** A change that meets nothing is a mistake in the list of steps. */
function changed(printed: string, changes: readonly Change[]): string {
  return changes.reduce((text, [from, to]) => {
    const next = text.replace(from, () => to);
    if (next === text) throw new Error(`there is no ${from} in \`${text}\``);
    return next;
  }, withPorts(printed));
}

export function withPorts(text: string): string {
  return text.replace(/(?<=[:=])\d{4}\b/g, (port) => ports[port] ?? port);
}

/** It ends well, or with that code. */
export async function runIn(terminal: Terminal, text: string, code = 0): Promise<Done> {
  const done = await terminal.run(text);
  if (done.code !== code) throw new Error(`\`${text}\` ended with ${done.code}\n${done.out}${done.err}`);
  return done;
}

/** Asks by the document's own command until the answer is what it promises. */
export async function asked<Answer>(
  terminal: Terminal,
  text: string,
  isIt: (answer: Answer) => boolean,
): Promise<string> {
  let last = "nothing";
  try {
    await eventually(SEEN_MS_MAX, `the promised answer to \`${text}\``, async () => {
      const { out } = await terminal.run(`${text} || true`);
      last = out;
      return out !== "" && isIt(JSON.parse(out) as Answer);
    });
  } catch (error) {
    throw new Error(`${String(error)}; the last was ${last.slice(0, 2_000)}`);
  }
  return last.length > 200 ? `${last.slice(0, 200)}...` : last;
}

export type Row = Record<string, unknown>;
export type Page = { items: Row[] };
export type Health = { status: string; simulated: boolean; parts: Record<string, { ok: boolean }> };
export type Tickers = { items: { symbol: string; state: string; last_price: number | null }[] };

export const isPageOf =
  (column: string, count: number) =>
  ({ items }: Page) => {
    const times = items.map((item) => Number(item[column]));
    expect(new Set(items.map((item) => item.symbol)).difference(new Set([SYMBOL]))).toEqual(new Set());
    expect(times.toSorted((one, other) => other - one)).toEqual(times);
    return items.length >= 1 && items.length <= count;
  };
export const isWell = ({ status, parts }: Health) =>
  status === "ok" && Object.keys(parts).length > 0 && Object.values(parts).every(({ ok }) => ok);
export const areTraded =
  (count: number) =>
  ({ items }: Tickers) =>
    items.length === count && items.every(({ state, last_price }) => state === "subscribed" && last_price);

export const tickerCount = (
  JSON.parse(/^FINNHUB_STOCKS_TICKERS='(.*)'$/m.exec(documentText("sample.env"))![1]!) as string[]
).length;

/** `verified 80 windows from ...: 0 differences` -> 80. */
export function windowsVerified({ out }: Done): number {
  const [, count] = /^verified (\d+) windows .*: 0 differences/m.exec(out) ?? [];
  if (count === undefined) throw new Error(`not what verify says: ${out}`);
  return Number(count);
}

/** A look between two steps that is no command. */
export function look(walk: Walk, name: string, act: () => Promise<void>): void {
  test(
    name,
    async () => {
      if (walk.failedAt !== null) throw new Error(`not run, because \`${walk.failedAt}\` failed before it`);
      await act();
    },
    STEP_MS_MAX,
  );
}
