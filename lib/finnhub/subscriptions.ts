// Which symbols of the watchlist are subscribed on the current connection. It decides, and sends through a callback; it
// knows no socket, no time and no message of the other side.

export type Subscriptions = ReturnType<typeof createSubscriptions>;

/**
 * The first symbols of the watchlist are subscribed, in its order, as many as the upstream accepts; a symbol that the
 * upstream rejected by name takes no place. Only the difference to what is subscribed is sent.
 */
export function createSubscriptions(
  symbols: readonly string[],
  symbolsMax: number,
  send: (type: "subscribe" | "unsubscribe", symbol: string) => void,
) {
  let watched = [...new Set(symbols)];
  /** On this connection, in the order of their subscription. */
  const subscribed = new Set<string>();
  const rejected = new Set<string>();
  /** Those whose rejection the feed has told. */
  const rejectedTold = new Set<string>();
  let cap = symbolsMax;
  let overCap: readonly string[] = [];
  /**
   * What the feed tells of it. A new connection tries all of them again; until it has refused as many as the one before,
   * or has pinged without doing so, nothing new is known and nothing is told.
   */
  let overCapTold: readonly string[] = [];
  let isOnTrial = false;
  let isOpen = false;

  function sendDifference(): void {
    const eligible = watched.filter((symbol) => !rejected.has(symbol));
    overCap = eligible.slice(cap);
    if (overCap.length >= overCapTold.length) isOnTrial = false;
    if (!isOnTrial) overCapTold = overCap;
    if (!isOpen) return;
    const underCap = new Set(eligible.slice(0, cap));
    for (const symbol of subscribed) {
      if (underCap.has(symbol)) continue;
      subscribed.delete(symbol);
      send("unsubscribe", symbol); // First, since it frees the place that the next one takes.
    }
    for (const symbol of underCap) {
      if (subscribed.has(symbol)) continue;
      subscribed.add(symbol);
      send("subscribe", symbol);
    }
  }

  sendDifference();
  return {
    setSymbols(next: readonly string[]): void {
      watched = [...new Set(next)];
      isOnTrial = false;
      for (const symbol of rejectedTold) {
        if (watched.includes(symbol)) continue;
        rejected.delete(symbol);
        rejectedTold.delete(symbol);
      }
      sendDifference();
    },
    /** A new connection tries everything again: a lowered cap or a rejection may have come at a bad moment. */
    connected(): void {
      isOpen = true;
      isOnTrial = true;
      cap = symbolsMax;
      rejected.clear();
      sendDifference();
    },
    /** The upstream pinged: it has no more to refuse. */
    proven(): void {
      isOnTrial = false;
      overCapTold = overCap;
    },
    disconnected(): void {
      isOpen = false;
      subscribed.clear();
    },
    /**
     * The error names no symbol. The last subscription is the one that did not fit, so it is dropped and the cap comes
     * down to what is left; of several such errors after one burst each takes one. The cap never falls below one: an
     * upstream gone mad cannot talk us out of everything. False: nothing was left to drop.
     */
    tooMany(): boolean {
      if (subscribed.size <= 1) return false;
      const last = [...subscribed].at(-1)!;
      subscribed.delete(last);
      send("unsubscribe", last); // Should it have been accepted after all, its place is free now.
      cap = subscribed.size;
      sendDifference();
      return true;
    },
    /** `rejected`: for the first time, so it is to be told. */
    reject(symbol: string): "rejected" | "known" | "not_subscribed" {
      if (!subscribed.delete(symbol)) return "not_subscribed";
      rejected.add(symbol);
      sendDifference();
      if (rejectedTold.has(symbol)) return "known";
      rejectedTold.add(symbol);
      return "rejected";
    },
    overCapTold: () => overCapTold,
    subscribed: () => [...subscribed],
    unsubscribed: () => [...overCap, ...watched.filter((symbol) => rejected.has(symbol))],
  };
}
