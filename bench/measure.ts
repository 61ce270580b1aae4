// How a figure comes about and how it is told: warm-ups apart, ours and the floor in turn so that both meet the
// same machine, the median of several short runs with the least and the greatest. It knows no pipeline.

/** Short runs of each side; their median is the figure. */
export const RUNS = 5;
/** Before them, uncounted: the engine compiles, files and caches come to be. */
const WARM_UPS = 2;

export type Spread = Readonly<{ median: number; min: number; max: number }>;

/** `ratio` and `difference` (ours less the floor) hold on any machine, `ours` goals on the one they were set on. */
export type Goal = Readonly<
  { of: "ours" | "ratio" | "difference" } & ({ atLeast: number } | { atMost: number })
>;

export type Figure = Readonly<{
  name: string;
  unit: string;
  ours: Spread;
  /** Null: nothing bare does the same. */
  floor: Spread | null;
  goal: Goal | null;
  /** Of our side, the client's own threads included. */
  cpuSecondsPerMillion: number | null;
  /** Of the process that holds our side, at the end; in the micro questions the material is in it too. */
  rssBytes: number | null;
  /** What a reader must know to read it. */
  note?: string;
}>;

export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  return { median: quantile(sorted, 0.5), min: sorted[0] ?? Number.NaN, max: sorted.at(-1) ?? Number.NaN };
}

/** The nearest rank of values in ascending order: a value that was measured, never one between two. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN;
}

type Side = () => void | Promise<void>;

/** Trades (or messages, rows) a second of both sides; one run of either handles `count` of them. */
export async function ratesOf(
  parts: Readonly<{ name: string; unit: string; count: number; goal: Goal | null; ours: Side; floor: Side }>,
): Promise<Figure> {
  const { name, unit, count, goal } = parts;
  const ours: number[] = [];
  const floor: number[] = [];
  let cpuSeconds = 0;
  for (let run = -WARM_UPS; run < RUNS; run++) {
    const mine = await timed(parts.ours);
    const bare = await timed(parts.floor);
    if (run < 0) continue;
    ours.push(count / mine.seconds);
    floor.push(count / bare.seconds);
    cpuSeconds += mine.cpuSeconds;
  }
  return {
    name,
    unit,
    ours: spreadOf(ours),
    floor: spreadOf(floor),
    goal,
    cpuSecondsPerMillion: (cpuSeconds / RUNS / count) * 1e6,
    rssBytes: process.memoryUsage.rss(),
  };
}

async function timed(side: Side) {
  // What the other side left behind is not this one's to clear away.
  Bun.gc(true);
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  await side();
  const seconds = (performance.now() - startedAt) / 1_000;
  const { user, system } = process.cpuUsage(cpu);
  return { seconds, cpuSeconds: (user + system) / 1e6 };
}

export function ratioOf({ ours, floor }: Figure): number | null {
  return floor === null ? null : ours.median / floor.median;
}

/** Null where there is no goal. */
export function isMet(figure: Figure): boolean | null {
  const { goal, ours } = figure;
  if (goal === null) return null;
  const difference = ours.median - (figure.floor?.median ?? Number.NaN);
  const value = { ours: ours.median, ratio: ratioOf(figure) ?? Number.NaN, difference }[goal.of];
  return "atLeast" in goal ? value >= goal.atLeast : value <= goal.atMost;
}

export function jsonLine(figure: Figure): string {
  const { name, unit, ours, floor, goal, cpuSecondsPerMillion, rssBytes, note } = figure;
  const isGoalMet = isMet(figure);
  const ratio = ratioOf(figure);
  return JSON.stringify({
    name,
    unit,
    ours,
    floor,
    ratio,
    goal,
    isGoalMet,
    cpuSecondsPerMillion,
    rssBytes,
    note,
  });
}

const NAME_WIDTH = 40;
const HEADINGS: readonly (readonly [text: string, width: number])[] = [
  ["ours (min - max)", 36],
  ["floor (min - max)", 36],
  ["ratio", 7],
  ["CPU s/M", 9],
  ["RSS MiB", 9],
];

export function headLine(): string {
  const columns = HEADINGS.map(([text, width]) => text.padStart(width)).join("");
  return `${"question".padEnd(NAME_WIDTH)}${columns}  goal`;
}

export function textLine(figure: Figure): string {
  const { name, unit, ours, floor, cpuSecondsPerMillion, rssBytes } = figure;
  const cells = [
    shownSpread(ours),
    floor === null ? "-" : shownSpread(floor),
    shown(ratioOf(figure), 2),
    shown(cpuSecondsPerMillion, 2),
    shown(rssBytes === null ? null : rssBytes / 2 ** 20, 0),
  ];
  const columns = cells.map((text, index) => text.padStart(HEADINGS[index]![1])).join("");
  return `${`${name}, ${unit}`.padEnd(NAME_WIDTH)}${columns}  ${goalText(figure)}`;
}

function goalText(figure: Figure): string {
  const { goal } = figure;
  if (goal === null) return "";
  const bound = "atLeast" in goal ? `>= ${shown(goal.atLeast)}` : `<= ${shown(goal.atMost)}`;
  const of = { ours: "", ratio: "ratio ", difference: "floor + " }[goal.of];
  return `${of}${bound} ${isMet(figure) ? "met" : "MISSED"}`;
}

function shownSpread({ median, min, max }: Spread): string {
  return `${shown(median)} (${shown(min)} - ${shown(max)})`;
}

/** Three digits say all that such a measurement knows. */
function shown(value: number | null, decimals?: number): string {
  if (value === null) return "-";
  if (decimals !== undefined) return value.toFixed(decimals);
  if (value < 10) return String(Number(value.toPrecision(2)));
  return Math.round(Number(value.toPrecision(3))).toLocaleString("en-US");
}
