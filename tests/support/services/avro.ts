// Avro's own library for Java, as somebody else's program that reads and writes our topic: no line of ours, and not
// avsc, stands between the bytes and the values. A datum's JSON is as Avro writes it: a value of a union is an object
// that names its branch, {"string": "12"}.

import { join } from "node:path";
import { requireJava, resolveJars } from "./java.ts";

/** A Java starts, compiles 60 lines and reads some thousand datums; alone that takes 2 s. */
const JAVA_MS_MAX = 120_000;
const PROGRAM = join(import.meta.dir, "avro/Datum.java");

/** `bytesLeft`: behind the datum, of which the schema knows nothing. */
export type Decoded = Readonly<{ datum: unknown; bytesLeft: number }>;

/** Rejects with Avro's words when any of them is no such datum. */
export async function decodeAvro(schema: object, values: readonly Uint8Array[]): Promise<Decoded[]> {
  const lines = await run(
    "decode",
    schema,
    values.map((value) => Buffer.from(value).toString("base64")),
  );
  return lines.map((line) => {
    const [json = "", bytesLeft] = line.split("\t");
    return { datum: JSON.parse(json), bytesLeft: Number(bytesLeft) };
  });
}

export async function encodeAvro(schema: object, datums: readonly unknown[]): Promise<Buffer[]> {
  const lines = await run(
    "encode",
    schema,
    datums.map((datum) => JSON.stringify(datum)),
  );
  return lines.map((line) => Buffer.from(line, "base64"));
}

async function run(verb: "decode" | "encode", schema: object, lines: readonly string[]): Promise<string[]> {
  const jars = await resolveJars("avro");
  const command = [requireJava().executable, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"];
  const child = Bun.spawn([...command, "-cp", `${jars}/*`, PROGRAM, verb, JSON.stringify(schema)], {
    stdin: Buffer.from(`${lines.join("\n")}\n`),
    stdout: "pipe",
    stderr: "pipe",
    timeout: JAVA_MS_MAX,
  });
  const [output, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`Avro could not ${verb} (code ${code}): ${errors}`);
  const answers = output.trimEnd().split("\n");
  if (answers.length !== lines.length) throw new Error(`${lines.length} asked, ${answers.length} answered`);
  return answers;
}
