"""`modelfleet cost`: a table with totals, CSV, and what one should know."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest

from orchestrator.cli.cost import moment_of
from orchestrator.cli.errors import UsageError
from orchestrator.cli.render_cost import FIELDS
from tests.fakes.admin_api import FakeAdminApi, World, cost_report, cost_row
from tests.unit.orchestrator.cli.conftest import Run
from tests.unit.orchestrator.cli.terminal import Terminal

UNPRICED = {"cost": None, "idle_cost": None, "cost_per_1000": None}


def test_shows_each_model_and_the_total(api: FakeAdminApi, run: Run, world: World) -> None:
    world.cost = cost_report(
        cost_row(model="iris", cost=3.0), cost_row(model="rose", idle_share=None), advice="iris@1 idles most: sleep more",
    )  # fmt: skip

    result = run("cost")

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert "what runs now costs 0.165 EUR an hour" in lines[0]
    assert lines[1].split() == [
        "a",
        "core",
        "0.04,",
        "a",
        "GiB",
        "0.005",
        "an",
        "hour,",
        "as",
        "asked",
        "for,",
        "used",
        "or",
        "not",
    ]
    assert lines[3].split() == [
        "MODEL", "HOURS", "CPU", "H", "GIB", "H", "COST", "IDLE", "COST", "IDLE", "PREDICTIONS", "PER", "1,000",
    ]  # fmt: skip
    assert lines[4].split() == ["iris", "48.0", "96.0", "24.0", "3.00", "2.97", "75%", "12,345", "0.321"]
    assert lines[5].split()[6] == "-", "nobody knows what idled"
    assert lines[6].split()[0] == "total"
    assert lines[-1] == "iris@1 idles most: sleep more"


def test_without_prices_shows_hours_and_how_to_add_prices(api: FakeAdminApi, run: Run, world: World) -> None:
    row = cost_row(model="iris", unpriced_hours=48, **UNPRICED)
    world.cost = cost_report(row, total=row, prices=None, cost_per_hour=None)

    out = run("cost").stdout

    assert "COST" not in out
    assert "No prices are known, so these are hours alone; add prices to the manifest, and apply it: `pricing: {" in out


def test_says_what_is_unknown_and_what_has_no_price(api: FakeAdminApi, run: Run, world: World) -> None:
    world.cost = cost_report(cost_row(model="iris"), total=cost_row(unknown_hours=3.25, unpriced_hours=12))

    out = run("cost").stdout

    assert "3.25 replica hours are unknown: no control plane was there to see when these replicas ended" in out
    assert "12.0 replica hours have no cost: there were no prices then" in out


def test_names_versions_and_times(api: FakeAdminApi, run: Run, world: World) -> None:
    world.cost = cost_report(cost_row(model="iris", version="2"), by="version")
    assert run("cost", "--by", "version").stdout.splitlines()[4].split()[:2] == ["iris", "2"]

    at = time.mktime((2026, 11, 3, 0, 0, 0, 0, 0, -1))
    world.cost = cost_report(cost_row(start=at), by="day")
    assert run("cost", "--by", "day").stdout.splitlines()[4].split()[0] == "2026-11-03"


def test_shows_standby_where_there_was_any(api: FakeAdminApi, run: Run, world: World) -> None:
    world.cost = cost_report(cost_row(model="iris", standby_hours=5), total=cost_row(standby_hours=5))

    assert "STANDBY H" in run("cost").stdout


def test_fits_eighty_columns(api: FakeAdminApi, world: World) -> None:
    name = "model-of-the-bank"
    row = cost_row(model=name, standby_hours=5.0, replica_hours=12_345.6, cost=1234.5, idle_cost=987.6)
    world.cost = cost_report(row, total=row)
    with Terminal(["cost"]) as terminal:
        assert terminal.end() == 0

    table = next(line for line in terminal.text.splitlines() if line.startswith(name))
    assert table.split()[1:] == ["12,345.6", "1,234.50", "987.60", "75%", "12,345", "0.321"]


def test_says_so_when_nothing_ran(api: FakeAdminApi, run: Run, world: World) -> None:
    world.cost = cost_report(total=cost_row(cost=0, idle_cost=0))

    assert "Nothing ran in this time." in run("cost").stdout


def test_csv_has_a_line_for_each_row_and_leaves_empty_what_is_unknown(
    api: FakeAdminApi, run: Run, world: World
) -> None:
    world.cost = cost_report(cost_row(model="iris", **UNPRICED), cost_row(model="rose"))

    result = run("cost", "-o", "csv")

    found = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(found[0]) == [*FIELDS, "currency", "since", "until"]
    assert [row["model"] for row in found] == ["iris", "rose"]
    assert (found[0]["cost"], found[1]["cost"], found[1]["currency"]) == ("", "3.96", "EUR")
    assert float(found[0]["cpu_hours"]) == 96


def test_json_is_what_the_control_plane_said(api: FakeAdminApi, run: Run, world: World) -> None:
    assert json.loads(run("cost", "-o", "json").stdout) == json.loads(world.cost.model_dump_json())


def test_says_in_its_help_that_there_is_csv(run: Run) -> None:
    assert "table|json|csv" in run("cost", "--help").stdout
    assert "csv" not in run("status", "--help").stdout


def test_csv_of_another_verb_is_refused(api: FakeAdminApi, run: Run) -> None:
    result = run("status", "-o", "csv")

    assert result.exit_code == 2
    assert "Error: --output csv: this verb has tables and JSON alone" in result.stderr


class TestSince:
    NOW = time.mktime((2026, 11, 28, 12, 0, 0, 0, 0, -1))

    @pytest.mark.parametrize(
        ("text", "age_s"),
        [("24h", 86_400), ("7d", 7 * 86_400), ("90m", 5400), ("2026-11-28", 43_200), ("2026-11-28T11:30", 1800)],
    )
    def test_is_an_age_or_a_date(self, text: str, age_s: float) -> None:
        assert moment_of(text, self.NOW) == self.NOW - age_s

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("yesterday", "not a number with a unit"),
            ("2026-13-01", "is no date"),
            ("2027-01-01", "lies in the future"),
            ("0s", "not longer than nothing"),
        ],
    )
    def test_anything_else_is_said(self, text: str, complaint: str) -> None:
        with pytest.raises(UsageError, match=complaint):
            moment_of(text, self.NOW)


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.0, "0"), (0.00465, "0.0046"), (0.25, "0.25"), (9.99, "9.99"), (12.34, "12.3"), (12_345.6, "12,345.6")],
)
def test_hours_have_digits_that_count(api: FakeAdminApi, run: Run, world: World, hours: float, text: str) -> None:
    row = cost_row(model="iris", replica_hours=hours)
    world.cost = cost_report(row, total=row)

    assert run("cost").stdout.splitlines()[4].split()[1] == text
