// What a commit's metadata says about the rows around its offset, so that the next process knows what the trades
// table may already hold. Pure.

export type Bound = Readonly<{
  /** No trade below the offset is later than this, ms since 1970; -Infinity = there is no trade. */
  maxTradeMs: number;
  /** No row at or above the offset was received earlier than this, ms since 1970; null = unknown. */
  receivedSinceMs: number | null;
}>;

/** JSON has no -Infinity: null stands for it. */
export function encodeBound({ maxTradeMs, receivedSinceMs }: Bound): string {
  return JSON.stringify({
    maxTradeMs: maxTradeMs === Number.NEGATIVE_INFINITY ? null : maxTradeMs,
    receivedSinceMs,
  });
}

/** Null: another program wrote the metadata, so it proves nothing. */
export function decodeBound(metadata: string): Bound | null {
  try {
    const { maxTradeMs, receivedSinceMs } = JSON.parse(metadata) as Record<string, unknown>;
    if (maxTradeMs !== null && typeof maxTradeMs !== "number") return null;
    return {
      maxTradeMs: maxTradeMs ?? Number.NEGATIVE_INFINITY,
      receivedSinceMs: typeof receivedSinceMs === "number" ? receivedSinceMs : null,
    };
  } catch {
    return null;
  }
}
