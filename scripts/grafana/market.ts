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
import { CANDLES_SPAN, LAST_TRADES_MAX, QUERIES, RATE_SPAN, SPAN } from "./queries.ts";

const SYMBOL = "BINANCE:BTCUSDT";
const WIDTH = 24;
/** Every other unit rounds: without one Grafana shows three figures, 1.38 for 1.37633. */
const AS_IT_IS = "string";
/** No line over a time without trades: a gap longer than this is one. */
const GAP_MS = 60_000;

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
    .withPanel(stat("Last price", "trade_timestamp", QUERIES.lastPrice).unit(AS_IT_IS))
    .withPanel(
      stat("Trades per second", "window_end", QUERIES.tradesPerSecond, RATE_SPAN)
        .description(
          "Of the last closed window of 15 seconds; nothing when there was no trade in half a minute.",
        )
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
        .description(
          "The last trades, each of them: a panel of several queries would keep one of each millisecond.",
        )
        .withTarget(cassandra("A", QUERIES.price, "trade"))
        .unit(AS_IT_IS)
        .transformations([sorted("trade_timestamp")])
        .colorScheme(colour("yellow")),
    )
    .withPanel(
      series("Average price of 15 seconds", 9)
        .description("The average of 15 seconds, and the average weighted by volume.")
        .withTarget(cassandra("A", QUERIES.averagePrice, "average"))
        .withTarget(cassandra("B", QUERIES.vwap, "VWAP"))
        .unit(AS_IT_IS)
        .transformations([sorted("window_end")])
        .legend(legend(true))
        .overrideByQuery("A", fixed("blue"))
        .overrideByQuery("B", fixed("purple")),
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
        .unit(AS_IT_IS)
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
        .description("What was traded in 15 seconds.")
        .withTarget(cassandra("A", QUERIES.windowVolume, "15 s"))
        .unit(AS_IT_IS)
        .transformations([sorted("window_end")])
        .min(0)
        .drawStyle(GraphDrawStyle.Bars)
        .colorScheme(colour("green")),
    )
    .withPanel(
      series("Volume of each trade", 8)
        .description("The last trades one by one.")
        .withTarget(cassandra("A", QUERIES.volume, "trade"))
        .unit(AS_IT_IS)
        .transformations([sorted("trade_timestamp")])
        .min(0)
        .drawStyle(GraphDrawStyle.Points)
        .showPoints(VisibilityMode.Always)
        .colorScheme(colour("yellow")),
    )
    .withPanel(
      series("Average price*volume from last 15 seconds", 8)
        .withTarget(cassandra("A", QUERIES.averagePriceVolume, "average of price*volume"))
        .unit(AS_IT_IS)
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
        .unit(AS_IT_IS)
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
    .insertNulls(GAP_MS)
    .legend(legend(false));
}

/** A third of the width. */
function stat(title: string, time: string, query: string, span = SPAN): StatBuilder {
  return new StatBuilder()
    .title(title)
    .datasource(CASSANDRA)
    .span(WIDTH / 3)
    .height(4)
    .timeFrom(span)
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
