// The files around the code, compared with each other: what stands twice is the same, and the forms can be read.

import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import biome from "../biome.json" with { type: "json" };
import bunfig from "../bunfig.toml" with { type: "toml" };
import market from "../grafana/dashboards/market.json" with { type: "json" };
import pipeline from "../grafana/dashboards/pipeline.json" with { type: "json" };
import packageFile from "../package.json" with { type: "json" };

const ROOT = join(import.meta.dir, "..");
const text = (file: string) => readFileSync(join(ROOT, file), "utf8");

/** The settings of one section. */
function editorSettings(section: string): Record<string, string> {
  const body = text(".editorconfig").split(`[${section}]\n`)[1]?.split(/^\[/m)[0] ?? "";
  return Object.fromEntries([...body.matchAll(/^(\w+) = (.+)$/gm)].map(([, name, value]) => [name, value]));
}

test(".editorconfig says what biome.json says", () => {
  const { indentStyle, indentWidth, lineWidth } = biome.formatter;
  expect(editorSettings("*")).toMatchObject({
    indent_style: indentStyle,
    indent_size: String(indentWidth),
    max_line_length: String(lineWidth),
    end_of_line: "lf", // Biome's default.
  });
});

test("the version of Bun stands once, beside its types and the image: no script and no workflow repeats it", () => {
  const version = packageFile.devDependencies.bun;
  expect(packageFile.devDependencies["@types/bun"]).toBe(version);
  expect(Object.values(packageFile.scripts).filter((script) => script.includes(version))).toEqual([]);
  const workflows = readdirSync(join(ROOT, ".github/workflows")).map((file) => `.github/workflows/${file}`);
  for (const file of [...workflows, "scripts/install.mjs", "CONTRIBUTING.md"])
    expect({ file, repeats: text(file).includes(`bun@${version}`) }).toEqual({ file, repeats: false });
});

test("every dependency is exact, and bunfig.toml keeps it so", () => {
  expect(bunfig).toMatchObject({ install: { exact: true, frozenLockfile: true }, test: { root: "tests" } });
  const versions = Object.entries({ ...packageFile.dependencies, ...packageFile.devDependencies });
  expect(versions.filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))).toEqual([]);
});

test("every npm script but docker's installs first, or runs only after one that did", () => {
  const later = Object.entries(packageFile.scripts)
    .filter(([, script]) => !script.startsWith("node scripts/install.mjs && "))
    .filter(([, script]) => !script.startsWith("docker compose "))
    .map(([name]) => name);
  expect(later).toEqual(["types", "lint"]);
  expect(packageFile.scripts.check).toEndWith("bun run types && bun run lint");
});

type Form = { name: string; description: string; body: FormItem[] };
type FormItem = {
  type: string;
  id?: string;
  attributes: { label?: string; value?: string; description?: string };
};

test("the issue forms can be read, and the one for a bug asks for what finds it", () => {
  const form = (file: string) => Bun.YAML.parse(text(`.github/ISSUE_TEMPLATE/${file}`)) as Form;
  for (const file of ["bug.yml", "feature.yml"]) {
    const { name, description, body } = form(file);
    expect([name, description].every((one) => one.length > 0)).toBe(true);
    const ids = body.flatMap(({ id }) => id ?? []);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { type, id, attributes } of body) {
      expect(["markdown", "input", "textarea", "dropdown"]).toContain(type);
      if (type === "markdown") expect(attributes.value).toBeString();
      else
        expect({ id, label: attributes.label }).toEqual({
          id: expect.any(String),
          label: expect.any(String),
        });
    }
  }
  const asked = JSON.stringify(form("bug.yml"));
  for (const word of ["--version", "--check-config", "/health?pretty", "Kafka", "Cassandra", "expect"])
    expect(asked).toContain(word);
});

test("grafana/README.md names every panel and every metric of the dashboards, and no other metric", () => {
  const readme = text("grafana/README.md");
  const unnamed = [...market.panels, ...pipeline.panels].filter(({ title }) => !readme.includes(title));
  expect(unnamed.map(({ title }) => title)).toEqual([]);
  const metricsIn = (one: string) =>
    new Set([...one.matchAll(/\bpipeline_[a-z_]+?(?=_bucket\b|\b)/g)].map(String));
  expect(metricsIn(readme)).toEqual(metricsIn(JSON.stringify(pipeline)));
});

test("the glossary has each term once, in the order of the alphabet, in one line", () => {
  const lines = text("docs/GLOSSARY.md")
    .split("\n")
    .filter((line) => line.startsWith("| **"));
  const terms = lines.map((line) => /^\| \*\*(.+?)\*\*/.exec(line)![1]!.toLowerCase());
  expect(terms.length).toBeGreaterThan(30);
  expect(terms).toEqual([...new Set(terms)].sort());
  expect(lines.filter((line) => line.split("|").length !== 4)).toEqual([]);
});
