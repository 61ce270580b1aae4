// JSON of outside data, read without a throw: whoever reads it looks at every field.

type JsonObject = Readonly<Record<string, unknown>>;

/** The value as an object; null for anything else, arrays included. */
export function asObject(value: unknown): JsonObject | null {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : null;
}

/** The object that a JSON text (bytes: UTF-8) holds; null where it holds anything else, or is no JSON. */
export function parseObject(json: string | Uint8Array | null): JsonObject | null {
  if (json === null) return null;
  try {
    const value: unknown = JSON.parse(typeof json === "string" ? json : new TextDecoder().decode(json));
    return asObject(value);
  } catch {
    return null;
  }
}
