"""The dashboards that are checked in: made by the code as it is now, and fit to be looked at."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scripts.dashboards.__main__ import DIRECTORY, files
from scripts.dashboards.look import Ask, graph

WIDTH = 24
NAMES = ["control-plane", "fleet", "gateway", "model"]
RULES = DIRECTORY.parents[1] / "prometheus" / "rules"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text())
    return found


def panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in read(name)["panels"] if panel["type"] != "row"]


def queries(name: str) -> Iterator[str]:
    for panel in panels(name):
        yield from (target["expr"] for target in panel["targets"])
    yield from (mark["expr"] for mark in read(name)["annotations"]["list"])


def test_the_files_are_what_the_code_makes() -> None:
    """`make dashboards` mends it."""
    made = files()

    assert sorted(DIRECTORY.glob("*.json")) == sorted(made)
    assert [path.name for path, text in made.items() if path.read_text() != text] == []


def test_have_the_names_that_links_and_the_managed_grafana_rely_on() -> None:
    found = {name: (read(name)["uid"], read(name)["tags"]) for name in NAMES}

    assert found == {name: (f"modelfleet-{name}", ["modelfleet"]) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
class TestEachDashboard:
    def test_fills_the_width_and_no_panel_covers_another(self, name: str) -> None:
        cells: Counter[tuple[int, int]] = Counter()
        for panel in read(name)["panels"]:
            at = panel["gridPos"]
            cells.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
        height = max(y for _, y in cells) + 1

        assert cells.most_common(1)[0][1] == 1
        assert set(cells) == {(x, y) for x in range(WIDTH) for y in range(height)}

    def test_numbers_its_panels(self, name: str) -> None:
        numbers = [panel["id"] for panel in read(name)["panels"]]

        assert all(after == before + 1 for before, after in pairwise(numbers))

    def test_says_of_every_panel_what_it_shows_in_what_unit_and_why_it_may_be_empty(self, name: str) -> None:
        for panel in panels(name):
            defaults = panel["fieldConfig"]["defaults"]
            assert panel["description"].endswith("."), panel["title"]
            assert defaults.get("unit") or panel["options"]["yAxis"]["unit"], panel["title"]
            assert defaults.get("noValue"), panel["title"]

    def test_has_titles_that_are_told_apart_within_a_row(self, name: str) -> None:
        row, seen = "", set()
        for panel in read(name)["panels"]:
            row = panel["title"] if panel["type"] == "row" else row
            assert (row, panel["title"], panel["type"]) not in seen
            seen.add((row, panel["title"], panel["type"]))

    def test_gives_the_columns_of_its_tables_the_names_that_they_are_styled_by(self, name: str) -> None:
        """Grafana calls the value of an only query `Value`, of several `Value #A` and so on."""
        for panel in panels(name):
            if panel["type"] != "table":
                continue
            asked = [target["refId"] for target in panel["targets"]]
            fields = ["Value"] if len(asked) == 1 else [f"Value #{letter}" for letter in asked]
            organize = panel["transformations"][1]["options"]
            titles = {organize["renameByName"][field] for field in fields}

            assert {o["matcher"]["options"] for o in panel["fieldConfig"]["overrides"]} >= titles
            assert panel["options"]["sortBy"][0]["displayName"] in organize["renameByName"].values()

    def test_draws_no_line_over_what_is_not_known(self, name: str) -> None:
        graphs = [panel for panel in panels(name) if panel["type"] == "timeseries"]

        assert [p["title"] for p in graphs if p["fieldConfig"]["defaults"]["custom"]["spanNulls"]] == []

    def test_takes_rates_over_what_is_seen_at_a_glance(self, name: str) -> None:
        """A window of its own would leave out what happened between two points of a long time."""
        ranges = {match for query in queries(name) for match in re.findall(r"\[([^\]]+)\]", query)}
        in_graphs = {
            match
            for panel in panels(name)
            if panel["type"] in ("timeseries", "heatmap")
            for target in panel["targets"]
            for match in re.findall(r"rate\([^\]]*\[([^\]]+)\]", target["expr"])
        }

        assert ranges <= {"$__rate_interval", "$__range", "5m", "1m"}
        assert in_graphs <= {"$__rate_interval"}

    def test_asks_for_one_cluster_and_uses_variables_that_it_has(self, name: str) -> None:
        has = {variable["name"] for variable in read(name)["templating"]["list"]}
        builtin = {"__rate_interval", "__range"}

        for query in queries(name):
            assert set(re.findall(r"\$(\w+)", query)) <= has | builtin, query
            selectors = re.findall(r"\{([^{}]*)\}", query)
            assert [found for found in selectors if "$cluster" not in found] == [], query

    def test_uses_recorded_series_that_the_rules_make(self, name: str) -> None:
        made = set(re.findall(r"record: (\S+)", "".join(path.read_text() for path in RULES.glob("*.yml"))))

        assert {found for query in queries(name) for found in re.findall(r"\w+:\w+:\w+", query)} <= made


def test_a_series_has_the_same_colour_wherever_its_name_is_known() -> None:
    found: dict[str, set[str]] = {}
    for name in NAMES:
        for panel in panels(name):
            for override in panel["fieldConfig"]["overrides"]:
                for each in override["properties"]:
                    if each["id"] == "color" and override["matcher"]["id"] != "byFrameRefID":
                        found.setdefault(override["matcher"]["options"], set()).add(each["value"]["fixedColor"])

    assert {word for word, colours in found.items() if len(colours) > 1} == set()
    assert {"/^2/", "/^5/", "/^ready$/", "p95"} <= found.keys()


def test_links_lead_to_a_dashboard_that_there_is_with_variables_that_it_has() -> None:
    has = {variable["name"] for variable in read("model")["templating"]["list"]}
    text = "".join(path.read_text() for path in DIRECTORY.glob("*.json"))
    links = set(re.findall(r'"(/d/[^"]+)"', text))

    assert links
    for link in links:
        assert link.startswith("/d/modelfleet-model?")
        assert set(re.findall(r"var-(\w+)=", link)) <= has


def test_an_objective_is_a_dashed_line() -> None:
    panel = graph("Latency", "It.", Ask("a", "p95"), Ask("b", "objective", dashed=True), unit="s").build()

    (dashed,) = [
        o for o in panel.field_config.overrides
        if "custom.lineStyle" in {p.id_val for p in o.properties}
    ]  # fmt: skip
    assert (dashed.matcher.id_val, dashed.matcher.options) == ("byFrameRefID", "B")


def test_the_directory_is_the_repositorys() -> None:
    assert Path(__file__).parents[3] / "configs" / "grafana" / "dashboards" == DIRECTORY
