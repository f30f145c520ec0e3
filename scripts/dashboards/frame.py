"""What all dashboards share: the variables, annotations and links around their panels, and how JSON is made of them.

The JSON is a function of this code alone: panels are numbered in their order, keys are sorted, there is no time in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import table

from scripts.dashboards.look import BAD, DATA_SOURCE, GOOD, NOTE, OTHER

TAG = "modelfleet"
# The release that the SDK's panels are of: without it Grafana takes them for panels of years ago, and mends them.
GRAFANA = "10.4.0"
# Each look costs a Prometheus some thirty queries, and rules are evaluated each 15 s at most. The console is live.
REFRESH = "30s"
# All that Grafana puts in for "All": labels that are empty too.
EVERYTHING = ".*"
_MODEL_PAGE = "/d/modelfleet-model?${__url_time_range}&var-datasource=${datasource}&var-cluster=${cluster}&var-model="
# Links of a series, of a cell, and of the cell beside it, to the model that they are about.
SERIES_PAGE = _MODEL_PAGE + "${__field.labels.model}"
CELL_PAGE = _MODEL_PAGE + "${__value.raw}"


@dataclass(frozen=True, slots=True)
class Section:
    """A titled row of panels, which fill the width."""

    title: str
    panels: Sequence[Builder[models.Panel]]


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation: `expr` has a value where something happened; `text` may name labels of it."""

    name: str
    expr: str
    text: str
    colour: str
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard before it is Grafana's."""

    uid: str
    title: str
    says: str
    sections: Sequence[Section]
    variables: Sequence[Builder[models.VariableModel]] = ()
    marks: Sequence[Mark] = ()


class _Annotation(models.AnnotationQuery):
    """With what the Prometheus data source adds to it, which the SDK leaves out."""

    text = ""

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), "titleFormat": self.name, "textFormat": self.text, "step": "30s"}


def render(board: Board) -> str:
    """The file's text."""
    return JSONEncoder(sort_keys=True, indent=1).encode(_made(board)) + "\n"


def _made(board: Board) -> models.Dashboard:
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.says)
        .tags([TAG])
        .timezone("browser")
        .refresh(REFRESH)
        .time("now-1h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .editable()
        .link(_others())
        .variables([_data_source(), _cluster(), *board.variables])
    )
    for section in board.sections:
        made.with_row(dashboard.Row(section.title))
        for panel in section.panels:
            made.with_panel(panel)
    built = made.build()
    built.annotations.list_val = [_annotation(mark) for mark in (*board.marks, ALERTS)]
    for number, found in enumerate(built.panels or [], 1):
        found.id_val = number
        if isinstance(found, models.Panel):
            found.plugin_version = GRAFANA
    _leave_out_what_grafana_does_not_know(built)
    return built


def _leave_out_what_grafana_does_not_know(built: models.Dashboard) -> None:
    """The SDK writes fields that the published schema has not (tests/integration/test_dashboards_schema.py)."""
    for variable in built.templating.list_val or []:
        variable.auto = variable.auto_min = variable.auto_count = None
    for panel in built.panels or []:
        if isinstance(panel, models.Panel) and isinstance(panel.options, table.Options):
            panel.options.footer = None


def _others() -> dashboard.DashboardLink:
    """To those with our tag, with the cluster and the time that are chosen here."""
    others = dashboard.DashboardLink("Modelfleet").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    return others.include_vars(True).keep_time(True).icon("external link").as_dropdown(False)


def _data_source() -> dashboard.DatasourceVariable:
    """The managed Grafana's has the uid `prometheus`; in another one the first Prometheus is taken."""
    chosen = models.VariableOption(selected=True, text="Prometheus", value="prometheus")
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus").current(chosen)


def _cluster() -> dashboard.QueryVariable:
    """The gateway names its cluster also while the control plane is away."""
    return choice("cluster", "Cluster", "label_values(modelfleet_gateway_info, cluster)")


def choice(
    name: str, label: str, query: str, *, several: bool = False, regex: str = "", keeps_order: bool = False
) -> dashboard.QueryVariable:
    """A variable that is filled by a query of Grafana's Prometheus data source."""
    made = dashboard.QueryVariable(name).label(label).datasource(DATA_SOURCE)
    made.query({"query": query, "refId": "StandardVariableQuery"})
    made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    made.sort(models.VariableSort.DISABLED if keeps_order else models.VariableSort.NATURAL_ASC)
    made.multi(several).include_all(several)
    if several:
        made.all_value(EVERYTHING).current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    return made.regex(regex) if regex else made


def _annotation(mark: Mark) -> _Annotation:
    made = _Annotation(
        name=mark.name, datasource=DATA_SOURCE, enable=mark.shown, hide=False, icon_color=mark.colour, built_in=0,
        expr=mark.expr,
    )  # fmt: skip
    made.text = mark.text
    return made


# The cluster has no name in what an alert about an absent control plane says.
ALERTS = Mark(
    "Alerts",
    'sum by (alertname, severity, model, version) (ALERTS{alertstate="firing",cluster=~"$cluster|"})',
    "{{alertname}} {{model}} {{version}}",
    BAD,
    shown=False,
)
REVISIONS = Mark(
    "Revisions",
    'count_values by (cluster) ("revision", '
    'modelfleet_revision{cluster="$cluster"} '
    'and changes(modelfleet_revision{cluster="$cluster"}[$__rate_interval]) > 0)',
    "revision {{revision}} is in force",
    NOTE,
)
_ROLLED_OUT = 'modelfleet_rollouts_total{cluster="$cluster",model="$model",version=~"$version"}'
# Its series begin with the first event, which is no increase to Prometheus: five outcomes of each version are many to
# begin at zero.
ROLLOUTS = Mark(
    "Rollouts",
    "sum by (version, outcome) ("
    f"increase({_ROLLED_OUT}[$__rate_interval]) > 0 or ({_ROLLED_OUT} unless {_ROLLED_OUT} offset $__rate_interval))",
    "{{outcome}} {{version}}",
    GOOD,
)
DECISIONS = Mark(
    "Scale decisions",
    "sum by (version, direction) "
    '(increase(modelfleet_scale_decisions_total{cluster="$cluster",model="$model",version=~"$version"}[$__rate_interval]))'
    " > 0",
    "version {{version}} goes {{direction}}",
    OTHER,
)
