// What a person sees of panels: the frames of a back end's answer go through Grafana's own transformations,
// overrides, display and join, as its panels put them. Reads a list of
// {panel, frames} from standard input, prints one of answers. It runs
// beside an installed @grafana/data (tests/support/grafana-data.ts) and asks nobody.

import { JSDOM } from "jsdom";

const dom = new JSDOM("<!doctype html><html><body></body></html>", { url: "http://localhost/" });
for (const key of Object.getOwnPropertyNames(dom.window)) {
  if (!(key in globalThis)) globalThis[key] = dom.window[key];
}
for (const key of ["window", "document", "navigator", "location", "localStorage", "HTMLElement"]) {
  Object.defineProperty(globalThis, key, { value: dom.window[key] ?? dom.window, configurable: true });
}
const data = await import("@grafana/data");
const { lastValueFrom } = await import("rxjs");

const transformers = [
  ...new Map(Object.values(data.standardTransformers).map((one) => [one.id, one])).values(),
];
data.standardTransformersRegistry.setInit(() =>
  transformers.map((one) => ({ id: one.id, name: one.name, transformation: one, editor: () => null })),
);
const registry = new data.FieldConfigOptionsRegistry();
const option = (id, path, isCustom) => ({
  id,
  path,
  isCustom,
  name: id,
  process: (value) => value,
  shouldApply: () => true,
  getItemsCount: () => 0,
});
for (const id of [
  "color",
  "unit",
  "min",
  "max",
  "decimals",
  "noValue",
  "displayName",
  "thresholds",
  "mappings",
  "links",
])
  registry.register(option(id, id, false));
for (const id of ["drawStyle", "axisPlacement", "showPoints", "lineWidth", "insertNulls"])
  registry.register(option(`custom.${id}`, id, true));

const theme = data.createTheme();

async function seen({ panel, frames: answered }) {
  const asked = answered.map((frame) => data.toDataFrame(frame));
  const transformed = await lastValueFrom(
    data.transformDataFrame(panel.transformations ?? [], asked, { interpolate: (text) => text }),
  );
  const frames = data.applyFieldOverrides({
    data: transformed,
    fieldConfig: panel.fieldConfig,
    replaceVariables: (text) => text,
    theme,
    fieldConfigRegistry: registry,
    timeZone: "utc",
  });
  const shownOf = (field) =>
    field.values.map((value) =>
      field.display ? data.formattedValueToString(field.display(value)) : String(value),
    );
  // A panel of several frames joins them by time; one frame alone is drawn as it is.
  const drawn = frames.length > 1 ? data.outerJoinDataFrames({ frames, keepOriginIndices: true }) : frames[0];
  const numbers = (drawn?.fields ?? []).filter((field) => field.type === "number");
  const stats =
    panel.type === "stat"
      ? data
          .getFieldDisplayValues({
            fieldConfig: panel.fieldConfig,
            reduceOptions: panel.options.reduceOptions,
            replaceVariables: (text) => text,
            theme,
            data: frames,
            timeZone: "utc",
          })
          .map(({ display }) => data.formattedValueToString(display))
      : [];
  return {
    stats,
    points: numbers.map(
      (field) => field.values.filter((value) => value !== null && value !== undefined).length,
    ),
    shown: frames.flatMap((frame) => frame.fields.filter(({ type }) => type === "number").map(shownOf)),
    insertNulls: frames.flatMap(({ fields }) =>
      fields.filter(({ type }) => type === "number").map(({ config }) => config.custom?.insertNulls ?? null),
    ),
  };
}

const questions = JSON.parse(await new Response(process.stdin).text());
const answers = [];
for (const question of questions) answers.push(await seen(question));
console.log(JSON.stringify(answers));
process.exit(0);
