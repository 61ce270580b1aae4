// Light, dark, or the system's choice. What was chosen is kept in this browser, if it allows that.

import { byId } from "./dom.ts";

const THEMES = ["system", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];
const SIGNS: Readonly<Record<Theme, string>> = { system: "◐", light: "☀", dark: "☾" };
const KEY = "theme";

export function startTheme(onChange: () => void): { next: () => void } {
  let theme: Theme = THEMES.find((one) => one === read()) ?? "system";
  const apply = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const button = byId("theme");
    button.textContent = SIGNS[theme];
    button.ariaLabel = `Theme: ${theme}`;
    onChange();
  };
  const next = () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "system";
    write(theme);
    apply();
  };
  byId("theme").addEventListener("click", next);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  apply();
  return { next };
}

function read(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // Forbidden here: the choice lasts for this visit alone.
  }
}

function write(theme: Theme): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Forbidden here, as above.
  }
}
