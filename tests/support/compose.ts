// compose.yaml as `docker compose` understands it, as far as ours goes: variables put in from an environment, services
// in the order of their dependencies. What it does not know is refused, so that the file cannot outgrow it unseen.

import { readFileSync } from "node:fs";
import { join } from "node:path";

export const ROOT = join(import.meta.dir, "../..");

export type Condition = "service_healthy" | "service_completed_successfully";
export type Service = {
  image: string;
  build?: { context: string };
  entrypoint?: string[];
  command?: string[];
  user?: string;
  environment?: Record<string, string>;
  env_file?: string[];
  depends_on?: Record<string, { condition: Condition }>;
  healthcheck?: { test: string[] };
  ports?: string[];
  volumes?: string[];
  tmpfs?: string[];
  profiles?: string[];
  cap_drop?: string[];
  security_opt?: string[];
  read_only?: boolean;
  mem_limit?: string;
  stop_grace_period?: string;
  restart?: string;
  logging?: { options: Record<string, string> };
};
export type Compose = { services: Record<string, Service>; volumes: Record<string, null> };
export type Environment = Readonly<Record<string, string>>;

export function composeText(): string {
  return readFileSync(join(ROOT, "compose.yaml"), "utf8");
}

/** As `docker compose` reads it with these variables set. */
export function readCompose(environment: Environment): Compose {
  return filled(Bun.YAML.parse(composeText()), environment) as Compose;
}

function filled(value: unknown, environment: Environment): unknown {
  if (typeof value === "string") return interpolate(value, environment);
  if (Array.isArray(value)) return value.map((item) => filled(item, environment));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, filled(item, environment)]));
}

/** `${NAME:-default}`: the default where the variable is not set or empty. */
function interpolate(text: string, environment: Environment): string {
  return text.replace(/\$(\{(\w+):-([^}]*)\})?/g, (_, form?: string, name = "", fallback = "") => {
    if (form === undefined) throw new Error(`only \${NAME:-default} is known here: ${text}`);
    return environment[name] || fallback;
  });
}

/** Every `${NAME...}` of the file. */
export function variablesOf(text: string): Set<string> {
  return new Set([...text.matchAll(/\$\{(\w+)/g)].map(([, name]) => name!));
}

/** Names so that each comes after all it depends on; otherwise as in the file. */
export function startOrder(services: Readonly<Record<string, Service>>): string[] {
  const order: string[] = [];
  const visit = (name: string, above: readonly string[]) => {
    if (above.includes(name)) throw new Error(`${[...above, name].join(" -> ")} depends on itself`);
    if (order.includes(name)) return;
    const service = services[name];
    if (service === undefined) throw new Error(`${above.at(-1)} depends on ${name}, which is not there`);
    for (const dependency of Object.keys(service.depends_on ?? {})) visit(dependency, [...above, name]);
    order.push(name);
  };
  for (const name of Object.keys(services)) visit(name, []);
  return order;
}

/** The environment of a container: its files first, then what stands in compose.yaml. */
export function environmentOf({ env_file: files = [], environment = {} }: Service): Record<string, string> {
  const lines = files.flatMap((file) => readFileSync(join(ROOT, file), "utf8").split("\n"));
  const pairs = lines.flatMap((line) => {
    const [, name, value] = /^(\w+)=(.*)$/.exec(line) ?? [];
    return name === undefined ? [] : [[name, value ?? ""] as const];
  });
  return { ...Object.fromEntries(pairs), ...environment };
}

/** `40s`, `2m` in ms. */
export function durationMs(text: string): number {
  const [, amount, unit] = /^(\d+)(ms|s|m)$/.exec(text) ?? [];
  if (unit === undefined) throw new Error(`not a duration: ${text}`);
  return Number(amount) * { ms: 1, s: 1_000, m: 60_000 }[unit as "ms" | "s" | "m"];
}

/** As Kafka's image turns its environment into server.properties: `_` is a dot, `__` an underscore, `___` a dash. */
export function kafkaProperties(environment: Environment): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment)
      .filter(([name]) => name.startsWith("KAFKA_") && name !== "KAFKA_HEAP_OPTS")
      .map(([name, value]) => {
        const words = name.slice("KAFKA_".length).toLowerCase().replaceAll("_", ".");
        return [words.replaceAll("...", "-").replaceAll("..", "_"), value];
      }),
  );
}

/** What compose.yaml gives Cassandra's Java machine, on one address. */
export function cassandraFlags(compose: Compose, address: string): string[] {
  const flags = compose.services.cassandra?.environment?.JVM_EXTRA_OPTS?.trim().split(/\s+/) ?? [];
  return flags.map((flag) => flag.replace(/address=\S+$/, `address=${address}`));
}
