// What both dashboards are made of: the references to the two data sources, a query of the Cassandra plugin in the
// SDK's terms, and the settings that a dashboard needs to be drawn twice a second.

import type { Builder, Dataquery } from "@grafana/grafana-foundation-sdk/cog";
import { ReduceDataOptionsBuilder, VizLegendOptionsBuilder } from "@grafana/grafana-foundation-sdk/common";
import {
  type Dashboard,
  DashboardBuilder,
  type DataTransformerConfig,
  FieldColorBuilder,
  FieldColorModeId,
  TimePickerBuilder,
} from "@grafana/grafana-foundation-sdk/dashboard";

export const CASSANDRA = { type: "hadesarchitect-cassandra-datasource", uid: "cassandra" } as const;
export const PROMETHEUS = { type: "prometheus", uid: "prometheus" } as const;

/** File provisioning takes the classic form; this is its version in Grafana 12. */
const SCHEMA_VERSION = 41;

/** A query as the plugin's back end reads it. */
export type CassandraTarget = Dataquery &
  Readonly<{
    refId: string;
    datasource: typeof CASSANDRA;
    /** Without it the plugin finds no handler. */
    queryType: "query";
    rawQuery: true;
    target: string;
    /** The name of every numeric column: so a query with one has at most one of them. */
    alias?: string;
  }>;

export function cassandra(refId: string, target: string, alias?: string): Builder<Dataquery> {
  const query: CassandraTarget = {
    refId,
    datasource: CASSANDRA,
    queryType: "query",
    rawQuery: true,
    target,
    ...(alias !== undefined && { alias }),
    _implementsDataqueryVariant() {},
  };
  return { build: () => query };
}

/**
 * `refresh` is a plain setting, but Grafana starts its timer only when the picker's list names it too, and when it is
 * not below GF_DASHBOARDS_MIN_REFRESH_INTERVAL (compose.yaml).
 */
export function dashboard(title: string, uid: string, refresh: string, from: string): DashboardBuilder {
  const intervals = ["500ms", "1s", "2s", "5s", "10s", "30s", "1m", "5m"];
  if (!intervals.includes(refresh)) throw new Error(`${refresh} is not in the picker's list`);
  const builder = new DashboardBuilder(title)
    .uid(uid)
    .tags(["finnhub"])
    .readonly()
    .timezone("browser")
    .time({ from, to: "now" })
    .refresh(refresh)
    .timepicker(new TimePickerBuilder().refreshIntervals(intervals));
  builder.build().schemaVersion = SCHEMA_VERSION;
  return builder;
}

/** The plugin's frames come in any order, and a palette by index would change colours with every refresh. */
export function colour(fixedColor: string): FieldColorBuilder {
  return new FieldColorBuilder().mode(FieldColorModeId.Fixed).fixedColor(fixedColor);
}

/** Rows come newest first, hour after hour: drawn are they by time. */
export function sorted(field: string, desc = false): DataTransformerConfig {
  return { id: "sortBy", options: { sort: [{ field, desc }] } };
}

/** Of the one numeric column, sorted by time: the last value, not the mean that Grafana takes by itself. */
export function newest(): ReduceDataOptionsBuilder {
  return new ReduceDataOptionsBuilder().calcs(["lastNotNull"]).values(false);
}

export function legend(isShown: boolean): VizLegendOptionsBuilder {
  return new VizLegendOptionsBuilder().showLegend(isShown);
}

/** Built, and its panels numbered: Grafana would do it anew at each start. */
export function numbered(builder: DashboardBuilder): Dashboard {
  const built = builder.build();
  for (const [index, panel] of (built.panels ?? []).entries()) if ("gridPos" in panel) panel.id = index + 1;
  return built;
}
