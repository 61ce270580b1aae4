// Which of the wanted tickers are subscribed on the connection at hand. It decides and sends through a callback;
// it knows no socket, no time and no message of the other side.

/**
 * Which of the wanted tickers are subscribed. The first of them are, in the order of `want`, as many as the
 * upstream takes; what it rejected by name takes no place. It sends the difference and nothing else.
 */
export function createSubscriptions(
  symbols: readonly string[],
  symbolsMax: number,
  send: (type: "subscribe" | "unsubscribe", symbol: string) => void,
) {
  let wanted = [...new Set(symbols)];
  /** On this connection, in the order they were asked for. */
  const asked = new Set<string>();
  const rejected = new Set<string>();
  const rejectedSaid = new Set<string>();
  let cap = symbolsMax;
  let overCap: readonly string[] = [];
  /**
   * What is told of it. A new connection tries all of them again; until it has refused as many as the one
   * before, or has pinged without doing so, nothing new is known and nothing is told.
   */
  let overCapTold: readonly string[] = [];
  let isOnTrial = false;
  let isOpen = false;

  function eligible(): string[] {
    return wanted.filter((symbol) => !rejected.has(symbol));
  }

  function settle(): void {
    const all = eligible();
    overCap = all.slice(cap);
    if (overCap.length >= overCapTold.length) isOnTrial = false;
    if (!isOnTrial) overCapTold = overCap;
    if (!isOpen) return;
    const taken = new Set(all.slice(0, cap));
    for (const symbol of asked) {
      if (taken.has(symbol)) continue;
      asked.delete(symbol);
      send("unsubscribe", symbol); // First, since it frees the place that the next one takes.
    }
    for (const symbol of taken) {
      if (asked.has(symbol)) continue;
      asked.add(symbol);
      send("subscribe", symbol);
    }
  }

  settle();
  return {
    want(next: readonly string[]): void {
      wanted = [...new Set(next)];
      isOnTrial = false;
      for (const symbol of rejectedSaid) {
        if (wanted.includes(symbol)) continue;
        rejected.delete(symbol);
        rejectedSaid.delete(symbol);
      }
      settle();
    },
    /** A new connection tries everything again: a lowered cap or a rejection may have been a bad moment's. */
    connected(): void {
      isOpen = true;
      isOnTrial = true;
      cap = symbolsMax;
      rejected.clear();
      settle();
    },
    proven(): void {
      isOnTrial = false;
      overCapTold = overCap;
    },
    disconnected(): void {
      isOpen = false;
      asked.clear();
    },
    /**
     * The error names no symbol. What was asked for last is what did not fit, so it is dropped and the cap
     * comes down to what is left; of several such errors after one burst each takes one. Never below one: an
     * upstream gone mad cannot talk us out of everything. False: nothing was left to drop.
     */
    tooMany(): boolean {
      if (asked.size <= 1) return false;
      const last = [...asked].at(-1)!;
      asked.delete(last);
      send("unsubscribe", last); // Should it have been taken after all, its place is free now.
      cap = asked.size;
      settle();
      return true;
    },
    reject(symbol: string): "rejected" | "known" | "not_subscribed" {
      if (!asked.delete(symbol)) return "not_subscribed";
      rejected.add(symbol);
      settle();
      if (rejectedSaid.has(symbol)) return "known";
      rejectedSaid.add(symbol);
      return "rejected";
    },
    overCapTold: () => overCapTold,
    subscribed: () => [...asked],
    unsubscribed: () => [...overCap, ...wanted.filter((symbol) => rejected.has(symbol))],
  };
}
