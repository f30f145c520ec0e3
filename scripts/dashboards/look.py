"""How panels look: colours, units, legends, thresholds, and what an empty one says. Knows no metric.

A panel that this module makes has a description and stands in the grid by its width alone; `frame.py` numbers them.
Unknown is a gap in a graph and a sentence in a number, never a zero.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

# Units of Grafana's.
SECONDS, REQUESTS_PER_S, RATIO, COUNT, BYTES, MONEY, PER_S = (
    "s",
    "reqps",
    "percentunit",
    "short",
    "bytes",
    "none",
    "ops",
)

GOOD, NOTE, WARN, BAD, OTHER = "green", "blue", "orange", "red", "purple"
# One colour for each word, on every dashboard: where a label makes the legend, and where the legend is the word.
BY_LABEL = {
    "{{code}}": {"/^2/": GOOD, "/^3/": NOTE, "/^4/": WARN, "/^5/": BAD},
    "{{state}}": {
        "/^ready$/": GOOD, "/^loading$/": "light-blue", "/^starting$/": NOTE, "/^draining$/": WARN,
        "/^standby$/": OTHER, "/^failed$/": BAD,
    },
    "{{direction}}": {"/^up$/": GOOD, "/^down$/": WARN},
    "{{result}}": {"/^equal$/": GOOD, "/^different$/": WARN, "/^failed$/": BAD},
}  # fmt: skip
BY_LEGEND = {
    "p50": NOTE, "p95": WARN, "p99": OTHER, "ready": GOOD, "standby": OTHER,
    "waiting for a slot": WARN, "in the model": NOTE, "in the gateway": OTHER,
}  # fmt: skip

DATA_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, slots=True)
class Ask:
    """A query and what its series are called. `dashed`: a line to compare with, such as an objective."""

    expr: str
    legend: str = ""
    dashed: bool = False
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """From `value` on it is of `colour`."""

    value: float
    colour: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: an instant query that has the table's labels and no others."""

    title: str
    expr: str
    unit: str = COUNT
    steps: tuple[Step, ...] = ()
    decimals: int | None = None


class _Panel(Protocol):
    """What every builder of a panel can do."""

    def build(self) -> models.Panel: ...
    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: models.DataSourceRef) -> Self: ...
    def height(self, h: int) -> Self: ...
    def span(self, w: int) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...
    def thresholds(self, thresholds: Builder[models.ThresholdsConfig]) -> Self: ...
    def color_scheme(self, color: Builder[models.FieldColor]) -> Self: ...
    def data_links(self, links: list[Builder[models.DashboardLink]]) -> Self: ...
    def with_target(self, target: Builder[Dataquery]) -> Self: ...
    def override_by_name(self, name: str, properties: list[models.DynamicConfigValue]) -> Self: ...
    def override_by_regexp(self, regexp: str, properties: list[models.DynamicConfigValue]) -> Self: ...
    def override_by_query(self, query_ref_id: str, properties: list[models.DynamicConfigValue]) -> Self: ...


P = TypeVar("P", bound=_Panel)


def graph(
    title: str,
    says: str,
    *asks: Ask,
    unit: str,
    width: int = 8,
    height: int = 8,
    stacked: bool = False,
    as_shares: bool = False,
    bars: bool = False,
    empty: str = "",
    limits: Sequence[Step] = (),
    links: Iterable[dashboard.DashboardLink] = (),
) -> timeseries.Panel:
    """Series over time. `limits` are lines; `empty` says why there may be nothing."""
    panel = _dressed(timeseries.Panel(), title, says, unit, width, height, empty)
    panel.min(0).span_nulls(False).line_width(1.5).show_points(common_models.VisibilityMode.AUTO)
    panel.fill_opacity(60 if bars else 30 if stacked or as_shares else 8)
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    panel.legend(_legend()).tooltip(_tooltip())
    if stacked or as_shares:
        mode = common_models.StackingMode.PERCENT if as_shares else common_models.StackingMode.NORMAL
        panel.stacking(common.StackingConfig().mode(mode).group("A"))
    if bars:
        # Whole things are counted, and Prometheus guesses what happened at the edges of its window.
        panel.draw_style(common_models.GraphDrawStyle.BARS).decimals(0)
    if limits:
        panel.thresholds(_thresholds(Step(0, "transparent"), *limits))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED))
    for name, ask in _named(asks):
        panel.with_target(_range(name, ask))
    _colour(panel, asks)
    for name, ask in _named(asks):
        if ask.dashed:
            panel.override_by_query(name, _dashed())
    panel.data_links(list(links))
    return panel


def number(
    title: str,
    says: str,
    *asks: Ask,
    unit: str,
    width: int = 3,
    height: int = 4,
    steps: Sequence[Step] = (),
    empty: str = "no data",
    decimals: int | None = None,
    words: dict[str, tuple[str, str]] | None = None,
) -> stat.Panel:
    """What is now: instant queries, so that what is not known is not shown as it last was.

    `words` are shown in place of a number, each with its colour.
    """
    panel = _dressed(stat.Panel(), title, says, unit, width, height, empty)
    panel.color_mode(common_models.BigValueColorMode.VALUE).graph_mode(common_models.BigValueGraphMode.NONE)
    panel.text_mode(
        common_models.BigValueTextMode.VALUE_AND_NAME if len(asks) > 1 else common_models.BigValueTextMode.AUTO
    )
    panel.reduce_options(common.ReduceDataOptions().values(False).calcs(["lastNotNull"]))
    panel.thresholds(_thresholds(Step(0, GOOD if steps else NOTE), *steps))
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    if decimals is not None:
        panel.decimals(decimals)
    if words:
        shown = {value: models.ValueMappingResult(text=text, color=colour) for value, (text, colour) in words.items()}
        panel.mappings([models.ValueMap(shown)])
    for name, ask in _named(asks):
        panel.with_target(_instant(name, ask))
    return panel


def ranking(
    title: str,
    says: str,
    ask: Ask,
    unit: str,
    width: int = 8,
    height: int = 8,
    steps: Sequence[Step] = (),
    empty: str = "",
    links: Iterable[dashboard.DashboardLink] = (),
) -> bargauge.Panel:
    """Bars, the longest first."""
    panel = _dressed(bargauge.Panel(), title, says, unit, width, height, empty)
    panel.display_mode(common_models.BarGaugeDisplayMode.BASIC)
    panel.orientation(common_models.VizOrientation.HORIZONTAL).min(0)
    panel.reduce_options(common.ReduceDataOptions().values(False).calcs(["lastNotNull"]))
    panel.thresholds(_thresholds(Step(0, GOOD if steps else NOTE), *steps))
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    panel.with_target(_instant("A", ask))
    panel.data_links(list(links))
    return panel


def grid(
    title: str,
    says: str,
    labels: dict[str, str],
    *columns: Column,
    sort_by: str,
    width: int = 24,
    height: int = 10,
    empty: str = "",
    links: dict[str, dashboard.DashboardLink] | None = None,
) -> table.Panel:
    """Rows by `labels` (label: its title), one instant query a column. `links` belong to a title of a label."""
    panel = _dressed(table.Panel(), title, says, COUNT, width, height, empty)
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    panel.thresholds(_thresholds(Step(0, "text")))
    panel.filterable(True)
    panel.sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
    for name, column in zip(string.ascii_uppercase, columns, strict=False):
        panel.with_target(_instant(name, Ask(column.expr)).format(PromQueryFormat.TABLE))
        panel.override_by_name(column.title, _cells(column))
    for label, link in (links or {}).items():
        panel.override_by_name(label, [models.DynamicConfigValue("links", [link.build()])])
    panel.with_transformation(models.DataTransformerConfig("merge", options={}))
    panel.with_transformation(models.DataTransformerConfig("organize", options=_order(labels, columns)))
    return panel


def distribution(title: str, says: str, expr: str, unit: str, width: int = 8, empty: str = "") -> heatmap.Panel:
    """How often each bucket of a histogram was hit, over time. `expr` keeps the label `le`."""
    panel = heatmap.Panel().title(title).description(says).datasource(DATA_SOURCE).height(8).span(width)
    panel.calculate(False).cell_gap(1).show_value(common_models.VisibilityMode.NEVER)
    panel.color(heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Blues").steps(32))
    panel.y_axis(heatmap.YAxisConfig().unit(unit)).no_value(empty)
    panel.with_target(_range("A", Ask(expr, "{{le}}")).format(PromQueryFormat.HEATMAP))
    return panel


def link(title: str, url: str) -> dashboard.DashboardLink:
    """A link of a series or a cell."""
    return dashboard.DashboardLink(title).url(url)


def _dressed(panel: P, title: str, says: str, unit: str, width: int, height: int, empty: str) -> P:
    panel.title(title).description(says).datasource(DATA_SOURCE).unit(unit).span(width).height(height)
    if empty:
        panel.no_value(empty)
    return panel


def _named(asks: Iterable[Ask]) -> Iterable[tuple[str, Ask]]:
    return zip(string.ascii_uppercase, asks, strict=False)


def _range(name: str, ask: Ask) -> prometheus.Dataquery:
    query = prometheus.Dataquery().ref_id(name).expr(ask.expr).legend_format(ask.legend or "__auto").range()
    return query.exemplar(True) if ask.exemplars else query


def _instant(name: str, ask: Ask) -> prometheus.Dataquery:
    return prometheus.Dataquery().ref_id(name).expr(ask.expr).legend_format(ask.legend or "__auto").instant()


def _thresholds(base: Step, *steps: Step) -> dashboard.ThresholdsConfig:
    """The first has no lower end."""
    all_steps = [models.Threshold(None, base.colour), *(models.Threshold(s.value, s.colour) for s in steps)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(all_steps)


def _legend() -> common.VizLegendOptions:
    legend = common.VizLegendOptions().display_mode(common_models.LegendDisplayMode.LIST).show_legend(True)
    return legend.placement(common_models.LegendPlacement.BOTTOM).calcs([])


def _tooltip() -> common.VizTooltipOptions:
    return (
        common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI).sort(common_models.SortOrder.DESCENDING)
    )


def _colour(panel: _Panel, asks: Iterable[Ask]) -> None:
    """Gives the words their colours where a legend may be one of them."""
    for ask in asks:
        for pattern, colour in BY_LABEL.get(ask.legend, {}).items():
            panel.override_by_regexp(pattern, [_fixed(colour)])
        if colour := BY_LEGEND.get(ask.legend, ""):
            panel.override_by_name(ask.legend, [_fixed(colour)])


def _fixed(colour: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def _dashed() -> list[models.DynamicConfigValue]:
    return [
        _fixed(BAD),
        models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
        models.DynamicConfigValue("custom.fillOpacity", 0),
        models.DynamicConfigValue("custom.stacking", {"mode": "none", "group": "A"}),
    ]


def _cells(column: Column) -> list[models.DynamicConfigValue]:
    found = [models.DynamicConfigValue("unit", column.unit)]
    if column.decimals is not None:
        found.append(models.DynamicConfigValue("decimals", column.decimals))
    if column.steps:
        steps = _thresholds(Step(0, GOOD), *column.steps).build()
        found.append(models.DynamicConfigValue("thresholds", steps))
        found.append(models.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
    return found


def _order(labels: dict[str, str], columns: Sequence[Column]) -> dict[str, Any]:
    # Grafana names the value after its query where there are several.
    is_one = len(columns) == 1
    values = ["Value" if is_one else f"Value #{name}" for name, _ in zip(string.ascii_uppercase, columns, strict=False)]
    titles = {**labels, **dict(zip(values, (column.title for column in columns), strict=True))}
    return {
        "excludeByName": {"Time": True},
        "indexByName": {field: at for at, field in enumerate(titles)},
        "renameByName": titles,
    }
