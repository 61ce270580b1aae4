// The checksums that the rows of the outbox file are stored with. SQLite does not notice other bytes inside a value;
// these do. They are pure functions, and they tell damage only: they prove nothing against someone who forges a row.

/**
 * CRC-32 of one record. It covers the offset too: otherwise a damaged page could show a record in the place of
 * another one. `appendedAtMs` is in ms since 1970.
 */
export function recordCrc(
  offset: number,
  kind: string,
  key: string,
  appendedAtMs: number,
  value: Uint8Array,
): number {
  return Bun.hash.crc32(value, Bun.hash.crc32(`${offset} ${kind} ${appendedAtMs} ${key}`));
}

/** CRC-32 of a dead letter. It differs from that of the record, so neither table's row passes for the other's. */
export function deadCrc(recordsCrc: number, refusedAtMs: number, reason: string): number {
  return Bun.hash.crc32(`${refusedAtMs} ${reason}`, recordsCrc);
}

/** CRC-32 of the JSON text of the owner row. */
export function ownerCrc(json: string): number {
  return Bun.hash.crc32(json);
}
