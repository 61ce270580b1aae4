// @ts-check
// The script of the plain page. It asks /tickers and /health each second and says what it sees, also when it
// sees nothing; it asks no other server, and what the answers hold becomes text, never markup. It is embedded
// as it stands here, so it is JavaScript; `tsc -p lib/page` checks its types.

/**
 * @typedef {{ symbol: string, state: string, last_price: number | null, age_ms: number | null }} Ticker
 * @typedef {{ status: string, reason: string | null, simulated: boolean,
 *   parts: Record<string, { warning?: string | null }> }} Health
 */

export {};

const POLL_MS = 1_000;
/** An answer later than this is no answer. */
const ANSWER_MS_MAX = 5_000;
/** Markets close; from here on the page says so. */
const QUIET_MS = 60_000;

const table = byId("table");
const rows = byId("rows");
const notice = byId("notice");
const badge = byId("simulated");
const price = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 12 });

/** When the server last answered. */
let answeredAt = new Date();

for (;;) {
  const startedAtMs = performance.now();
  await refresh();
  await new Promise((resolve) =>
    setTimeout(resolve, POLL_MS - Math.min(POLL_MS, performance.now() - startedAtMs)),
  );
}

async function refresh() {
  try {
    const [health, tickers] = await Promise.all([ask("/health", [200, 503]), ask("/tickers", [200])]);
    answeredAt = new Date();
    show(/** @type {Health} */ (health), /** @type {{ items: Ticker[] }} */ (tickers).items);
  } catch {
    say(
      `The server does not answer; what stands here is from ${answeredAt.toLocaleTimeString()} or older.`,
      true,
    );
    table.classList.add("stale");
  }
}

/**
 * @param {string} path
 * @param {number[]} statuses
 * @returns {Promise<unknown>}
 */
async function ask(path, statuses) {
  const response = await fetch(path, { signal: AbortSignal.timeout(ANSWER_MS_MAX) });
  if (!statuses.includes(response.status)) throw new Error(`${path} answered ${response.status}`);
  return response.json();
}

/**
 * @param {Health} health
 * @param {Ticker[]} tickers
 */
function show(health, tickers) {
  const isFailing = health.status !== "ok";
  badge.hidden = !health.simulated;
  table.hidden = false;
  table.classList.toggle("stale", isFailing);
  rows.replaceChildren(...tickers.map(rowOf));
  if (isFailing) {
    say(`These prices may be stale: ${health.reason ?? "the pipeline fails"}.`, true);
    return;
  }
  const warnings = Object.values(health.parts).flatMap(({ warning }) => warning ?? []);
  if (warnings.length > 0) say(`Careful: ${warnings.join("; ")}`, true);
  else say(summary(tickers), false);
}

/** @param {Ticker[]} tickers */
function summary(tickers) {
  if (tickers.length === 0) return "No symbol is wanted.";
  const newestAgeMs = Math.min(...tickers.map(({ age_ms }) => age_ms ?? Number.POSITIVE_INFINITY));
  if (newestAgeMs === Number.POSITIVE_INFINITY) return "All is well; no trade yet.";
  return newestAgeMs < QUIET_MS
    ? "All is well."
    : `All is well, but quiet: no trade for ${age(newestAgeMs)}.`;
}

/** @param {Ticker} ticker */
function rowOf({ symbol, last_price, age_ms, state }) {
  const row = document.createElement("tr");
  const head = cell("th", symbol);
  head.setAttribute("scope", "row");
  row.append(
    head,
    cell("td", last_price === null ? "–" : price.format(last_price), "number"),
    cell("td", age_ms === null ? "–" : age(age_ms), "number"),
    cell("td", state),
  );
  return row;
}

/**
 * @param {"td" | "th"} name
 * @param {string} text
 * @param {string} [className]
 */
function cell(name, text, className = "") {
  const element = document.createElement(name);
  element.textContent = text;
  element.className = className;
  return element;
}

/**
 * A screen reader reads it again when it changes, so it changes only when it says something else.
 * @param {string} text
 * @param {boolean} isWarning
 */
function say(text, isWarning) {
  notice.classList.toggle("warning", isWarning);
  if (notice.textContent !== text) notice.textContent = text;
}

/** @param {number} durationMs */
function age(durationMs) {
  const seconds = Math.round(durationMs / 1_000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7_200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3_600)} h` : `${Math.round(seconds / 86_400)} days`;
}

/** @param {string} id */
function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`the page has no #${id}`);
  return element;
}
