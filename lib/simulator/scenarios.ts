// Days as a person would describe them, each as options of the simulator: SIMULATOR_RECIPE. An option given beside the
// scenario wins over the scenario's.

import type { ScenarioName } from "../base/settings.ts";
import type { SimulatorOptions } from "./options.ts";

/** The opening: this many times the natural rate, halved every so often, down to a lively day. */
const BELL_PACE = 30;
const BELL_HALF_LIFE_MS = 90_000;
const BELL_PACE_AFTER = 3;

export const SCENARIO_OPTIONS: Readonly<Record<ScenarioName, SimulatorOptions>> = {
  /** A summer afternoon: a trade now and then, and nothing goes wrong. */
  calm: { pace: () => 0.25 },
  /** The first minutes after the opening: a flood that ebbs away. */
  bell: {
    pace: (elapsedMs) => Math.max(BELL_PACE_AFTER, BELL_PACE * 0.5 ** (elapsedMs / BELL_HALF_LIFE_MS)),
  },
  /** Everything that users of Finnhub complain about, within minutes: see simulator/chaos.ts. */
  "bad-day": {
    pace: () => 2,
    batching: "2023",
    chaosGapMs: 45_000,
    dailyDrop: "reset",
    faults: {
      duplicateInFrame: 0.01,
      duplicateLater: 0.01,
      holdBack: 0.02,
      garbage: 0.001,
      error: 0.000_5,
      news: 0.001,
      pressRelease: 0.000_5,
    },
  },
};

/** The options with those of their scenario, where they do not say otherwise. */
export function withScenario(options: SimulatorOptions): SimulatorOptions {
  if (options.scenario === undefined) return options;
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return { ...SCENARIO_OPTIONS[options.scenario], ...Object.fromEntries(given) };
}
