// The bar at the top and the headline of the chosen symbol: what the data is, how old, and how fast it is stored.

import { byId, setData, setText } from "./dom.ts";
import * as format from "./format.ts";
import type { Model, SymbolView } from "./model.ts";
import type { StreamState } from "./source.ts";
import { sign } from "./table.ts";

/** Five of the server's heartbeats. */
const SILENT_MS_MAX = 5_000;
/** After so long without a trade the page says that the markets may be closed. */
const QUIET_MS = 60_000;

export function drawHeadline(model: Model, view: SymbolView): void {
  const [name, venue] = format.nameOf(view.symbol);
  setText(byId("chosen-symbol"), name);
  setText(byId("chosen-venue"), venue);
  const price = byId("chosen-price");
  setText(price, view.price === null ? "–" : format.price(view.price, view.decimals));
  setData(price, { value: view.price, at: view.price === null ? null : view.atMs });
  const change = model.changeOf(view);
  const element = byId("chosen-change");
  setText(element, change === null ? "–" : format.percent(change));
  setData(element, { value: change });
  element.className = `change ${sign(change)}`;
  document.title = `${price.textContent} ${name}${model.simulated ? " (simulated)" : ""}`;
}

export function drawBar(model: Model, connection: StreamState, nowMs: number): void {
  const stale = staleReason(model, connection, nowMs);
  const source = model.simulated ? "simulated" : "live";
  setText(byId("latency-of"), model.seenAt === "store" ? "time to store (p50)" : "time to topic (p50)");
  const badge = byId("badge");
  if (model.symbols.length > 0 || model.status !== null) {
    badge.dataset.state = stale === null ? source : "stale";
    setText(badge, stale === null ? source : model.simulated ? "simulated, stale" : "stale");
  }
  document.body.classList.toggle("stale", stale !== null);
  const connectionElement = byId("connection");
  connectionElement.dataset.state = connection;
  setText(connectionElement, connection === "lost" ? "reconnecting" : connection);
  const warnings = model.status?.health.warnings ?? [];
  const notice = byId("notice");
  const words = stale ?? (warnings.length > 0 ? `Warning: ${warnings.join("; ")}` : "");
  notice.hidden = words === "";
  setText(notice, words);
  drawStrip(model);
}

function drawStrip({ status }: Model): void {
  const { latency, rates, rateEndMs } = status ?? { latency: null, rates: [], rateEndMs: null };
  for (const [id, value] of [
    ["latency-p50", latency?.p50Ms ?? null],
    ["latency-p99", latency?.p99Ms ?? null],
  ] as const) {
    setText(byId(id), value === null ? "–" : format.duration(value));
    setData(byId(id), { value });
  }
  const total = rates.reduce((sum, rate) => sum + rate, 0);
  setText(byId("rate-total"), status === null ? "–" : format.rate(total));
  setData(byId("rate-total"), { value: total, end: rateEndMs });
}

/** Why the data shown may be old, in a sentence; null = it is not. */
export function staleReason(model: Model, connection: StreamState, nowMs: number): string | null {
  if (model.status === null) return null;
  const at = format.clock(nowMs - model.silentMs());
  if (connection === "lost") return `The connection is lost; the data shown is from ${at} UTC.`;
  if (model.silentMs() > SILENT_MS_MAX) return `The server has sent nothing since ${at} UTC.`;
  const { status, reason } = model.status.health;
  if (status !== "ok") return `These prices may be old: ${reason ?? "the pipeline is failing"}.`;
  const quietMs = nowMs - model.newestTradeAtMs();
  if (model.newestTradeAtMs() === 0) return null;
  return quietMs > QUIET_MS ? `No trade for ${format.age(quietMs)}: the markets may be closed.` : null;
}
