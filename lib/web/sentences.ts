// What the sentences of the web's errors have in common: text of a request, quoted, and the word that was probably meant.

import { editDistance } from "../base/text.ts";

/** The most of a request's text that a sentence repeats, in characters. */
const QUOTED_LENGTH_MAX = 60;
/** A name this close to one of ours is a slip. */
const SLIP_LETTERS_MAX = 2;
/** None of our names is nearly this long, so longer ones are not compared. */
const NAME_LENGTH_MAX = 32;

export function quoted(text: string): string {
  return JSON.stringify(text.length <= QUOTED_LENGTH_MAX ? text : `${text.slice(0, QUOTED_LENGTH_MAX)}...`);
}

/** The word that was probably meant: a slip is two letters at most, and at most half of the word. */
export function nearest(word: string, words: readonly string[]): string | undefined {
  const given = word.toLowerCase();
  if (given.length > NAME_LENGTH_MAX) return undefined;
  let best: { word: string; letters: number } | undefined;
  for (const candidate of words) {
    if (candidate.length > NAME_LENGTH_MAX) continue;
    const letters = editDistance(given, candidate.toLowerCase());
    if (letters > SLIP_LETTERS_MAX || letters * 2 > candidate.length) continue;
    if (best === undefined || letters < best.letters) best = { word: candidate, letters };
  }
  return best?.word;
}
