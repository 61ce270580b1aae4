// The texts of the settings, from wherever they are given: the environment, which .env is a part of, and the files that
// NAME_FILE names. What a text means and whether it can be, base/config.ts says; a mistake made here holds no value.

import { PROXY_NAMES, proxyUrl } from "./proxy.ts";
import { lostInEnvFile, settingName, settingText } from "./setting-text.ts";
import { type Name, secretNames, settingNames } from "./settings.ts";
import { editDistance } from "./text.ts";

export type Texts = { [name in Name]?: string | undefined };
export type Environment = Readonly<Record<string, string | undefined>>;
export type ReadFile = (path: string) => string;

/** Settings that other programs have too. */
const sharedNames: readonly string[] = [...PROXY_NAMES, "NO_PROXY"];
/** What may be a secret, or hold one, and so may be given as a file. */
export const fileNames: readonly Name[] = [...secretNames, ...PROXY_NAMES];
const SEVERAL_LINES =
  "it has several lines; give one (in .env, a quote that is not closed takes the lines that follow)";

/** What is set and not blank, and each mistake as a sentence that says what to do. */
export function readTexts(given: Environment, readFile: ReadFile): { texts: Texts; mistakes: string[] } {
  const environment = namedAsMeant(given);
  const mistakes = [
    ...slips(environment),
    ...needlessFiles(environment),
    ...lostSettings(environment, readFile),
  ];
  const texts: Texts = {};
  for (const name of settingNames) {
    const isInFile = fileNames.includes(name);
    const value = isInFile ? readSecret(name, environment, readFile, mistakes) : settingOf(name, environment);
    if (value === undefined) continue;
    if (value.includes("\n") && name !== "FINNHUB_STOCKS_TICKERS") mistakes.push(`${name}: ${SEVERAL_LINES}`);
    else texts[name] = value;
  }
  leaveUnusedProxy(texts);
  return { texts, mistakes };
}

/** Names as they were meant; one that is spelt exactly goes first. */
function namedAsMeant(given: Environment): Environment {
  const meant = Object.entries(given).map(([name, value]) => {
    const clean = settingName(name);
    return [given[clean] === undefined ? clean : name, value] as const;
  });
  return Object.fromEntries(meant);
}

/** Undefined: it is not set, or blank. Proxies have two spellings everywhere; ours goes first. */
function settingOf(name: string, environment: Environment): string | undefined {
  const value = settingText(environment[name] ?? "");
  if (value !== "" || !sharedNames.includes(name)) return value === "" ? undefined : value;
  return settingText(environment[name.toLowerCase()] ?? "") || undefined;
}

/** From the environment, or from the file that it names. */
function readSecret(
  name: Name,
  environment: Environment,
  readFile: ReadFile,
  mistakes: string[],
): string | undefined {
  const value = settingOf(name, environment);
  const path = settingOf(`${name}_FILE`, environment);
  if (path === undefined) return value;
  if (value !== undefined) {
    mistakes.push(`${name}: given twice, here and as ${name}_FILE; remove one`);
    return value;
  }
  const content = readText(`${name}_FILE`, path, readFile, mistakes);
  if (content === undefined) return undefined;
  const secret = settingText(content);
  const fault = faultOfFile(name, secret);
  if (fault === null) return secret;
  mistakes.push(`${name}_FILE: ${fault}`);
  return undefined;
}

/** Null: it is a secret. What is none would be refused far away and much later. */
function faultOfFile(name: Name, secret: string): string | null {
  if (secret === "") return "the file is empty; write the secret into it";
  // Windows PowerShell writes UTF-16; a character that could not be decoded is another secret.
  if (/[\0\ufffd]/.test(secret)) return "the file is not text in UTF-8; save it as that";
  if (new RegExp(`^(?:export\\s+)?${name}\\s*=`).test(secret)) {
    return `the file has the name of the setting in it; write the secret alone, without ${name}=`;
  }
  return null;
}

/** A setting that is no secret, given as a file, would be silently ignored. */
function needlessFiles(environment: Environment): string[] {
  return settingNames
    .filter((name) => !fileNames.includes(name) && !sharedNames.includes(name))
    .filter((name) => settingOf(`${name}_FILE`, environment) !== undefined)
    .map((name) => `${name}_FILE: only a secret is read from a file; set ${name} itself`);
}

/** A SOCKS proxy for everything often stands beside an HTTP proxy, which is all that we need. */
function leaveUnusedProxy(texts: Texts): void {
  if (texts.HTTPS_PROXY !== undefined && proxyUrl(texts.ALL_PROXY ?? "") === null) delete texts.ALL_PROXY;
}

/** What Bun lost of an .env before anybody could see it. */
function lostSettings(environment: Environment, readFile: ReadFile): string[] {
  let text: string;
  try {
    text = readFile(".env");
  } catch {
    return []; // Most have none.
  }
  return lostInEnvFile(
    text,
    [...settingNames, ...fileNames.map((name) => `${name}_FILE`)],
    (name) => environment[name],
  );
}

export function readText(
  name: string,
  path: string,
  readFile: ReadFile,
  mistakes: string[],
): string | undefined {
  try {
    return readFile(path);
  } catch (error) {
    const reason = error instanceof Error && "code" in error ? String(error.code) : "unreadable";
    // The path is not shown: whoever put the secret itself there would find it in his logs.
    mistakes.push(
      `${name}: the file cannot be read (${reason}); give the path of one that this user may read`,
    );
    return undefined;
  }
}

/** Names near one of ours that are usual elsewhere: Cassandra's own installation sets this one. */
const NO_SLIPS = new Set(["CASSANDRA_HOME"]);
const SLIP_LETTERS_MAX = 2;

/** Unknown names that are most likely ours, misspelt: a setting silently ignored is worse than a refusal. */
function slips(environment: Environment): string[] {
  // What is near a shared name, like GOPROXY, is mostly another program's.
  const own = settingNames.filter((name) => !sharedNames.includes(name));
  const ours: string[] = [...own, ...secretNames.map((name) => `${name}_FILE`)];
  const known = new Set([...ours, ...sharedNames]);
  const found: string[] = [];
  for (const name of Object.keys(environment)) {
    if (known.has(name) || NO_SLIPS.has(name)) continue;
    const distances = ours.map((candidate) => editDistance(name.toUpperCase(), candidate, SLIP_LETTERS_MAX));
    const least = Math.min(...distances);
    if (least > SLIP_LETTERS_MAX) continue;
    found.push(
      `${name}: did you mean ${ours[distances.indexOf(least)]}? Rename it, or unset it if it belongs to another program`,
    );
  }
  return found;
}
