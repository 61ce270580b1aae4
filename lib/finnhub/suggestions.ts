// Guesses what was meant by a symbol that does not exist. Pure: the lists to choose from are an argument.

import { editDistance } from "../base/text.ts";

/** Symbols with their display names. */
type Choices = Iterable<readonly [symbol: string, display: string]>;

const SUGGESTIONS_MAX = 5;
const LETTERS_APART_MAX = 2;

/**
 * The likeliest first: the same letters in another spelling, on the exchange that was named, then elsewhere, then
 * a letter or two away. `BTCUSDT`, `BTC/USDT` and `binance:btcusdt` all mean BINANCE:BTCUSDT.
 */
export function suggest(symbol: string, choices: Choices): string[] {
  const { prefix, letters } = partsOf(symbol);
  if (letters === "") return [];
  const found: { symbol: string; apart: number; elsewhere: number }[] = [];
  for (const [candidate, display] of choices) {
    const other = partsOf(candidate);
    const apart = Math.min(
      editDistance(letters, other.letters, LETTERS_APART_MAX),
      // A display name must be equal: EUR/USD and AUD/USD are one letter apart.
      lettersOf(display) === letters ? 0 : Number.POSITIVE_INFINITY,
    );
    // Short symbols are all alike: of three letters one may be wrong, of two none.
    if (apart > LETTERS_APART_MAX || apart * 3 > other.letters.length) continue;
    const elsewhere = other.prefix === prefix ? 0 : prefix === "" ? 0.25 : 0.5;
    found.push({ symbol: candidate, apart, elsewhere });
  }
  // Beside a near one, farther ones are noise, unless they are on the exchange that was named.
  const least = Math.min(...found.map(({ apart }) => apart));
  const distanceOf = ({ apart, elsewhere }: (typeof found)[number]) => apart + elsewhere;
  const near = found
    .filter(
      ({ apart, elsewhere }) => apart === least || (elsewhere === 0 && prefix !== "" && apart === least + 1),
    )
    .sort((a, b) => distanceOf(a) - distanceOf(b) || (a.symbol < b.symbol ? -1 : 1));
  return [...new Set(near.map(({ symbol: one }) => one))].slice(0, SUGGESTIONS_MAX);
}

/** The exchange whose name is nearest, a slip or two away; null: none is. */
export function nearestExchange(prefix: string, exchanges: Iterable<string>): string | null {
  let best: { exchange: string; apart: number } | null = null;
  for (const exchange of exchanges) {
    const apart = editDistance(lettersOf(prefix), lettersOf(exchange), LETTERS_APART_MAX);
    if (apart > LETTERS_APART_MAX || apart * 2 > exchange.length) continue;
    if (best === null || apart < best.apart) best = { exchange, apart };
  }
  return best?.exchange ?? null;
}

function partsOf(symbol: string): { prefix: string; letters: string } {
  const colon = symbol.indexOf(":");
  return {
    prefix: symbol.slice(0, Math.max(0, colon)).toUpperCase(),
    letters: lettersOf(symbol.slice(colon + 1)),
  };
}

function lettersOf(text: string): string {
  return text.toUpperCase().replace(/[^\p{L}\p{N}]/gu, "");
}
