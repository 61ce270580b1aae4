// Certificates for a test, made by Java's own keytool: an authority, a server's certificate signed by it, and a
// second authority that signed nothing here.

import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { requireJava } from "./java.ts";
import { serverDirectory } from "./server.ts";

export type Certificates = Disposable &
  Readonly<{
    /** The authority that a client must trust: PEM text, and the file with it. */
    ca: string;
    caFile: string;
    /** An authority that signed nothing: a client that trusts only this one must refuse. */
    strangerCa: string;
    strangerCaFile: string;
    /** For a server: its key and certificate for 127.0.0.1, localhost and feed.example.test (PKCS #12). */
    keyStore: string;
    keyStorePassword: string;
  }>;

const DAYS = "2";
/** keytool asks for six letters at least; the files live as long as a test. */
const PASSWORD = "only-for-tests";
const KEYTOOL_MS_MAX = 60_000;

/** They are removed at the end of the scope. */
export async function createCertificates(): Promise<Certificates> {
  const { keytool } = requireJava();
  const directory = serverDirectory("certificates");
  const file = (name: string) => join(directory, name);

  const key = async (store: string, name: string, ...more: string[]) => {
    const kind = ["-keyalg", "EC", "-groupname", "secp256r1", "-validity", DAYS];
    await call(store, "-genkeypair", "-alias", name, "-dname", `CN=${name}`, ...kind, ...more);
  };
  const authority = async (store: string, name: string) => {
    await key(store, name, "-ext", "bc:c=ca:true", "-ext", "ku:c=keyCertSign,cRLSign");
    await call(store, "-exportcert", "-rfc", "-alias", name, "-file", file(`${name}.pem`));
  };
  const server = async () => {
    await authority("server.p12", "ca");
    const san = "san=ip:127.0.0.1,dns:localhost,dns:feed.example.test";
    const names = ["-ext", san, "-ext", "eku=serverAuth"];
    await key("server.p12", "server", "-signer", "ca", ...names);
    await call("server.p12", "-delete", "-alias", "ca"); // A server must not offer the authority's key.
  };
  const call = async (store: string, ...command: string[]) => {
    const place = ["-keystore", file(store), "-storetype", "PKCS12", "-storepass", PASSWORD, "-noprompt"];
    const quick = "-J-XX:TieredStopAtLevel=1"; // It runs for half a second: nothing is worth optimizing.
    const child = Bun.spawn([keytool, ...command, ...place, quick], {
      stdout: "pipe",
      stderr: "pipe",
      timeout: KEYTOOL_MS_MAX,
    });
    const [output, errors, code] = await Promise.all([
      child.stdout.text(),
      child.stderr.text(),
      child.exited,
    ]);
    if (code !== 0) throw new Error(`keytool ${command[0]} ended with code ${code}: ${output}${errors}`);
  };

  await Promise.all([server(), authority("stranger.p12", "stranger")]);
  return {
    ca: readFileSync(file("ca.pem"), "utf8"),
    caFile: file("ca.pem"),
    strangerCa: readFileSync(file("stranger.pem"), "utf8"),
    strangerCaFile: file("stranger.pem"),
    keyStore: file("server.p12"),
    keyStorePassword: PASSWORD,
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}
