// The one rule by which the text of a setting is read, wherever it comes from: environment, .env, NAME_FILE, systemd or
// a container engine. Some of them take quotes off and some hand them over, so nobody has to know which one he has.

/**
 * White space, line ends and a byte order mark at the ends are not part of a value; then one pair of the same quotes
 * around it is not. What is between the quotes stays as it is. No comment is cut off and no $ replaced.
 */
export function settingText(raw: string): string {
  const text = raw.trim(); // It takes U+FEFF too.
  const quote = text[0];
  const isQuoted = text.length >= 2 && (quote === "'" || quote === '"') && text.endsWith(quote);
  return isQuoted ? text.slice(1, -1) : text;
}

/** The name as it was meant: an editor's byte order mark and a shell's `export` become part of the name at some readers. */
export function settingName(raw: string): string {
  return raw.trim().replace(/^export\s+/, "");
}

/** The value of a variable as it arrived. */
type Seen = (name: string) => string | undefined;

/**
 * Settings of an .env of which Bun has cut off a part: a # that stands in an unquoted value begins a comment, and a $
 * begins the name of a variable, in quotes of either kind too. A password that is half a password is refused far away and
 * much later. Only what arrived so counts: the process's own environment goes before the file. Sentences without a value.
 */
export function lostInEnvFile(text: string, names: readonly string[], seen: Seen): string[] {
  const found: string[] = [];
  for (const line of text.replace(/^\uFEFF/, "").split(/\r?\n/)) {
    const [, name = "", raw = ""] = /^\s*(?:export\s+)?(\w+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    const value = seen(name);
    if (!names.includes(name) || value === undefined) continue;
    const isQuoted = /^(['"]).*\1$/.test(raw);
    const [, beforeHash, hash] = /^([^#]*?)(#.*)?$/.exec(raw) ?? [];
    if (!isQuoted && hash !== undefined && /\S$/.test(beforeHash ?? "") && value === beforeHash) {
      found.push(
        `${name}: in .env an unquoted # begins a comment, and what follows is lost; put the value in quotes`,
      );
    } else if (value !== "" && value === replaced(settingText(raw), seen)) {
      found.push(
        `${name}: in .env a $ begins the name of a variable, and none of that name is set; write \\$ for a $`,
      );
    }
  }
  return found;
}

/** Undefined: no variable that is not set stands in it. */
function replaced(text: string, seen: Seen): string | undefined {
  let lostCount = 0;
  const value = text.replace(/(\\)?\$(?:\{(\w+)\}|(\w+))/g, (all: string, backslash, braced, plain) => {
    if (backslash !== undefined) return all.slice(1);
    const other = seen(braced ?? plain);
    if (other === undefined) lostCount += 1;
    return other ?? "";
  });
  return lostCount > 0 ? value : undefined;
}
