// The "Finnhub Sample BTC Dashboard": the origin's three panels and what else one wants to see of a symbol, drawn
// twice a second from Cassandra.

import {
  PanelBuilder as CandlestickBuilder,
  CandlestickFieldMapBuilder,
  VizDisplayMode,
} from "@grafana/grafana-foundation-sdk/candlestick";
import { BigValueGraphMode, GraphDrawStyle, VisibilityMode } from "@grafana/grafana-foundation-sdk/common";
import {
  AnnotationEventFieldMappingBuilder,
  AnnotationEventFieldSource,
  AnnotationQueryBuilder,
  type Dashboard,
  QueryVariableBuilder,
  VariableRefresh,
  VariableSort,
} from "@grafana/grafana-foundation-sdk/dashboard";
import { PanelBuilder as StatBuilder } from "@grafana/grafana-foundation-sdk/stat";
import { PanelBuilder as TableBuilder } from "@grafana/grafana-foundation-sdk/table";
import { PanelBuilder as TimeSeriesBuilder } from "@grafana/grafana-foundation-sdk/timeseries";
import { CASSANDRA, cassandra, colour, dashboard, legend, newest, numbered, sorted } from "./parts.ts";
import { CANDLES_SPAN, LAST_TRADES_MAX, QUERIES, SPAN } from "./queries.ts";

const SYMBOL = "BINANCE:BTCUSDT";
const WIDTH = 24;

export function market(): Dashboard {
  const built = dashboard("Finnhub Sample BTC Dashboard", "oaK8xaOVz", "500ms", `now-${SPAN}`)
    .description(
      `The last ${SPAN} of one symbol, and ${CANDLES_SPAN} of candles: each panel's span is its own, by the time of ` +
        "the server, whatever the time picker says.",
    )
    .withVariable(
      new QueryVariableBuilder("symbol")
        .label("Symbol")
        .datasource(CASSANDRA)
        .query({ query: QUERIES.symbols })
        .definition(QUERIES.symbols)
        .current({ selected: true, text: SYMBOL, value: SYMBOL })
        .refresh(VariableRefresh.OnDashboardLoad)
        .sort(VariableSort.AlphabeticalAsc)
        .multi(false)
        .includeAll(false)
        .allowCustomValue(true),
    )
    .annotation(gaps())
    .withPanel(stat("Last price", "trade_timestamp", QUERIES.lastPrice))
    .withPanel(
      stat("Trades per second", "window_end", QUERIES.tradesPerSecond)
        .description("Of the last closed window of 15 seconds.")
        .graphMode(BigValueGraphMode.Area)
        .decimals(1),
    )
    .withPanel(
      stat("Receipt latency", "trade_timestamp", QUERIES.latency)
        .description("From the trade's own time to its receipt: ingest_timestamp - trade_timestamp.")
        .graphMode(BigValueGraphMode.Area)
        .unit("ms"),
    )
    .withPanel(
      series("Price", 9)
        .description("The last trades, the average of 15 seconds, and the average weighted by volume.")
        .withTarget(cassandra("A", QUERIES.price, "trade"))
        .withTarget(cassandra("B", QUERIES.averagePrice, "average of 15 s"))
        .withTarget(cassandra("C", QUERIES.vwap, "VWAP of 15 s"))
        .transformations([sorted("trade_timestamp"), sorted("window_end")])
        .legend(legend(true))
        .overrideByQuery("A", fixed("yellow"))
        .overrideByQuery("B", fixed("blue"))
        .overrideByQuery("C", fixed("purple")),
    )
    .withPanel(
      new CandlestickBuilder()
        .title("Candles")
        .description("A minute each; the last one is still open.")
        .datasource(CASSANDRA)
        .span(WIDTH / 2)
        .height(9)
        .timeFrom(CANDLES_SPAN)
        .mode(VizDisplayMode.CandlesVolume)
        .fields(
          new CandlestickFieldMapBuilder()
            .open("open")
            .high("high")
            .low("low")
            .close("close")
            .volume("volume"),
        )
        .legend(legend(false))
        .withTarget(cassandra("A", QUERIES.candles))
        .transformations([sorted("window_start")]),
    )
    .withPanel(
      series("Volume", 8)
        .description("What was traded in 15 seconds (bars), and by the last trades one by one (points).")
        .withTarget(cassandra("A", QUERIES.windowVolume, "15 s"))
        .withTarget(cassandra("B", QUERIES.volume, "trade"))
        .transformations([sorted("window_end"), sorted("trade_timestamp")])
        .legend(legend(true))
        .min(0)
        .overrideByQuery("A", [...fixed("green"), { id: "custom.drawStyle", value: GraphDrawStyle.Bars }])
        .overrideByQuery("B", [
          ...fixed("yellow"),
          { id: "custom.drawStyle", value: GraphDrawStyle.Points },
          { id: "custom.axisPlacement", value: "right" },
        ]),
    )
    .withPanel(
      series("Average price*volume from last 15 seconds", 8)
        .withTarget(cassandra("A", QUERIES.averagePriceVolume, "average of price*volume"))
        .transformations([sorted("window_end")])
        .colorScheme(colour("orange")),
    )
    .withPanel(
      new TableBuilder()
        .title("Last trades")
        .datasource(CASSANDRA)
        .span(WIDTH)
        .height(9)
        .timeFrom(SPAN)
        .withTarget(cassandra("A", QUERIES.lastTrades))
        .transformations([
          sorted("trade_timestamp", true),
          // Of either hour came so many: around the full hour there are twice as many.
          { id: "limit", options: { limitField: LAST_TRADES_MAX } },
        ])
        .overrideByRegexp("/_timestamp$/", [{ id: "unit", value: "time:HH:mm:ss.SSS" }]),
    );
  return numbered(built);
}

function fixed(fixedColor: string) {
  return [{ id: "color", value: { mode: "fixed", fixedColor } }];
}

/** Half of the width. */
function series(title: string, height: number): TimeSeriesBuilder {
  return new TimeSeriesBuilder()
    .title(title)
    .datasource(CASSANDRA)
    .span(WIDTH / 2)
    .height(height)
    .timeFrom(SPAN)
    .showPoints(VisibilityMode.Never)
    .lineWidth(1)
    .legend(legend(false));
}

/** A third of the width. */
function stat(title: string, time: string, query: string): StatBuilder {
  return new StatBuilder()
    .title(title)
    .datasource(CASSANDRA)
    .span(WIDTH / 3)
    .height(4)
    .timeFrom(SPAN)
    .graphMode(BigValueGraphMode.None)
    .colorScheme(colour("blue"))
    .noValue("no trade")
    .reduceOptions(newest())
    .withTarget(cassandra("A", query))
    .transformations([sorted(time)]);
}

/** What the feed could not know: the connection lost and made, trades refused, gaps in the log. */
function gaps(): AnnotationQueryBuilder {
  const field = (value: string) =>
    new AnnotationEventFieldMappingBuilder().source(AnnotationEventFieldSource.Field).value(value);
  return new AnnotationQueryBuilder()
    .name("Gaps")
    .datasource(CASSANDRA)
    .enable(true)
    .iconColor("red")
    .target(cassandra("Anno", QUERIES.gaps))
    .mappings({ time: field("event_timestamp"), title: field("type"), text: field("detail") });
}
