// The JSON messages of one text frame. Servers that write several messages into one frame part them by a newline, by a
// control character that ends or begins each (NUL, RS), by commas as a list, or not at all. It is asked only about a
// text that is no message as a whole, and judges nothing: a part may be broken.

/** A frame of so many is a flood; what comes behind stays in one piece. */
const MESSAGES_MAX = 1_024;
/** Each costs a walk to the end of the text; behind so many the rest stays in one piece. */
const UNENDED_MAX = 4;
/** Characters: thousands of trades. A longer text that is no JSON is not worth blocking the event loop for. */
const LENGTH_MAX = 1024 * 1024;
/** What holds nothing: blanks (the byte order mark is one), NUL, RS, and the brackets and commas of a list of messages. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these two are what is meant.
const BETWEEN = /[\s\x00\x1e,[\]]*/y;
/** A message begins here, even where the one before has no end: a brace on a new line, or before a key of messages only. */
const BEGINNING = /(?<=\n\s*)\{|\{(?=\s*"(?:data|type|msg)"\s*:)/g;

/** The messages in their order, each as it was written; one that has no end reaches to the beginning of the next. */
export function messagesIn(text: string): readonly string[] {
  if (text.length > LENGTH_MAX) return [text];
  const messages: string[] = [];
  let unendedCount = 0;
  for (let at = afterBlanks(text, 0); at < text.length; ) {
    let endAt = messages.length + 1 >= MESSAGES_MAX ? text.length : endOfObject(text, at);
    if (endAt === null) {
      unendedCount += 1;
      endAt = unendedCount > UNENDED_MAX ? text.length : nextBeginning(text, at + 1);
    }
    messages.push(text.slice(at, endAt).trimEnd());
    at = afterBlanks(text, endAt);
  }
  return messages;
}

function afterBlanks(text: string, from: number): number {
  BETWEEN.lastIndex = from;
  BETWEEN.test(text);
  return BETWEEN.lastIndex;
}

function nextBeginning(text: string, from: number): number {
  BEGINNING.lastIndex = from;
  return BEGINNING.exec(text)?.index ?? text.length;
}

/** Behind the brace that closes the object which begins here; null = none begins here, or it has no end. */
function endOfObject(text: string, from: number): number | null {
  if (text[from] !== "{") return null;
  let depth = 0;
  for (let at = from; at < text.length; at++) {
    const character = text[at];
    if (character === '"') {
      const closingAt = closingQuote(text, at);
      if (closingAt === null) return null;
      at = closingAt;
    } else if (character === "{" || character === "[") depth++;
    else if (character === "}" || character === "]") {
      depth--;
      if (depth === 0) return at + 1;
    }
  }
  return null;
}

/** Null: the text ends first, or the line, which no string of JSON goes beyond. */
function closingQuote(text: string, openingAt: number): number | null {
  for (let at = openingAt + 1; at < text.length; at++) {
    const character = text[at];
    if (character === "\\") at++;
    else if (character === '"') return at;
    else if (character === "\n") return null;
  }
  return null;
}
