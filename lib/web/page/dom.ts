// The few things every part of the page does with the document. Data becomes text here, never markup.

export function byId<Kind extends HTMLElement = HTMLElement>(id: string): Kind {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element as Kind;
}

/** Writes only what is new: a screen reader and the layout hear of each write. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Where a number came from stands beside it, so that it can be traced to its row. */
export function setData(element: HTMLElement, data: Readonly<Record<string, string | number | null>>): void {
  for (const [name, value] of Object.entries(data)) {
    if (value === null) delete element.dataset[name];
    else element.dataset[name] = String(value);
  }
}

/** A colour of the style sheet as it is now; scripts that draw on a canvas need its value. */
export function colourOf(name: string): string {
  const probe = byId("rows");
  probe.style.color = `var(--${name})`;
  const { color } = getComputedStyle(probe);
  probe.style.color = "";
  return color;
}
