// The elements of a frame's list `data`, each as it is written in the frame. A second JSON scanner beside JSON.parse,
// because a refused element is kept as it was: written anew, 1e999 would be null and a long number another one.

/** The elements in their order, each without the blanks around it. The text must be a JSON object. */
export function elementTexts(text: string): readonly string[] {
  let texts: string[] = [];
  let depth = 0;
  let start = -1; // Of the element being read; -1 outside of the list.
  let key = ""; // The last string of the outermost object: before an opening bracket that is the key.
  for (let at = 0; at < text.length; at++) {
    switch (text[at]) {
      case '"': {
        const end = closingQuote(text, at);
        if (depth === 1) key = JSON.parse(text.slice(at, end + 1)) as string;
        at = end;
        break;
      }
      case "{":
      case "[":
        depth++;
        if (depth === 2 && key === "data" && text[at] === "[") {
          texts = []; // A key that stands twice: the last one counts, as it does for JSON.parse.
          start = at + 1;
        }
        break;
      case "}":
      case "]":
        depth--;
        if (depth === 1 && start >= 0) {
          texts.push(text.slice(start, at).trim());
          start = -1;
        }
        break;
      case ",":
        if (depth === 2 && start >= 0) {
          texts.push(text.slice(start, at).trim());
          start = at + 1;
        }
        break;
    }
  }
  return texts;
}

function closingQuote(text: string, openingAt: number): number {
  let at = openingAt + 1;
  while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at;
}
