// The few things every part of the page does with the document. Data becomes text here, never markup.

export function byId<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element as Kind;
}

/** What the server wrote into the page for its script. */
export function byData(name: string): string {
  const value = document.body.dataset[name];
  if (value === undefined) throw new Error(`the page has no data-${name}`);
  return value;
}

/** Writes only what is new, because each write costs a layout and is read out by a screen reader. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Writes where a number came from beside it, so that it can be traced to its row; null removes it. */
export function setData(element: HTMLElement, data: Readonly<Record<string, string | number | null>>): void {
  for (const [name, value] of Object.entries(data)) {
    if (value === null) delete element.dataset[name];
    else element.dataset[name] = String(value);
  }
}

/** The present value of a colour of the style sheet, for scripts that draw on a canvas. */
export function colourOf(name: string): string {
  const probe = byId("rows");
  probe.style.color = `var(--${name})`;
  const { color } = getComputedStyle(probe);
  probe.style.color = "";
  return color;
}
