// docs/HOWTO.md against the tree: every file it sends one to is there, what it calls new is not, each change is short and
// has a proof. Every file of lib that another document names is there too.

import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..");
const textOf = (file: string) => readFileSync(join(ROOT, file), "utf8");
const isThere = (path: string) => existsSync(join(ROOT, path));
const howto = textOf("docs/HOWTO.md");

type Named = Readonly<{ path: string; isNew: boolean }>;

/** Files in backticks with their folder, and `sample.env` and the like; `(new)` behind one says that it is to be made. */
function filesIn(text: string): Named[] {
  const pattern = /`((?:[\w.-]+\/)*[\w.-]+\.(?:ts|sql|cql|json|lock|env|yaml|avsc))`(\s+\(new\))?/g;
  return [...text.matchAll(pattern)].map(([, path, mark]) => ({ path: path!, isNew: mark !== undefined }));
}

function wrongFiles(text: string, exists: (path: string) => boolean): string[] {
  return filesIn(text).flatMap(({ path, isNew }) => {
    if (isNew === exists(path)) return [isNew ? `${path} is there: not (new)` : `${path} is not there`];
    return [];
  });
}

type Change = Readonly<{ title: string; files: readonly string[]; proofs: readonly string[] }>;

function changesIn(text: string): Change[] {
  return text.split(/^## (?=\d+\. )/m).flatMap((section, index) => {
    if (index === 0) return [];
    const [title = "", ...body] = section.split("\n");
    const [steps = "", proof = ""] = body.join("\n").split("**Proof.**");
    return {
      title,
      files: [...steps.matchAll(/^\d+\. `([^`]+)`/gm)].map((match) => match[1]!),
      proofs: filesIn(proof).map(({ path }) => path),
    };
  });
}

/** A change that takes more says so in a sentence of its own, and needs a better place in lib. */
const FILES_MAX = 3;

test("every file that docs/HOWTO.md names is there, and what it calls new is not", () => {
  expect(filesIn(howto).length).toBeGreaterThan(30);
  expect(wrongFiles(howto, isThere)).toEqual([]);
});

test("each change takes one to three files of lib and has a test that proves it", () => {
  const changes = changesIn(howto);
  expect(changes.map(({ title }) => Number.parseInt(title, 10))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  for (const { title, files, proofs } of changes) {
    expect({ title, count: files.length > 0 && files.length <= FILES_MAX }).toEqual({ title, count: true });
    expect({ title, others: files.filter((path) => !path.startsWith("lib/")) }).toEqual({
      title,
      others: [],
    });
    expect({ title, isProved: proofs.some((path) => path.startsWith("tests/")) }).toEqual({
      title,
      isProved: true,
    });
  }
});

test("every file of lib that a document names is there", () => {
  const folders = readdirSync(join(ROOT, "lib"));
  const documents = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "grafana/README.md"];
  const inside = readdirSync(join(ROOT, "docs")).filter((name) => name.endsWith(".md"));
  const missing = [...documents, ...inside.map((name) => `docs/${name}`)].flatMap((file) =>
    filesIn(textOf(file))
      .map(({ path }) => path.replace(/^lib\//, ""))
      .filter((path) => folders.includes(path.split("/")[0]!) && path.includes("/"))
      .filter((path) => file !== "docs/HOWTO.md" && !isThere(`lib/${path}`))
      .map((path) => `${file} names lib/${path}`),
  );
  expect(missing).toEqual([]);
});

test("a file that is gone, a new one that is there, and a change of too many files are found", () => {
  const text =
    "# T\n\n## 1. One\n\n1. `lib/a/b.ts` (new): x.\n2. `lib/c.ts`: `d`.\n\n`sample.env`\n\n**Proof.** `tests/e.test.ts`\n";
  expect(wrongFiles(text, () => true)).toEqual(["lib/a/b.ts is there: not (new)"]);
  expect(wrongFiles(text, (path) => path === "lib/c.ts")).toEqual([
    "sample.env is not there",
    "tests/e.test.ts is not there",
  ]);
  expect(changesIn(text)).toEqual([
    { title: "1. One", files: ["lib/a/b.ts", "lib/c.ts"], proofs: ["tests/e.test.ts"] },
  ]);
});
