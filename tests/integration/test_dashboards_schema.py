"""The dashboards are what Grafana publishes as its type of a dashboard, of the oldest and the newest release we know.

`scripts/dashboards/schema/` holds the types; TypeScript's own compiler judges the JSON, written as a literal of that type.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.dashboards.__main__ import DIRECTORY
from tests.conftest import fail_or_skip

SCHEMA = Path(__file__).parents[2] / "scripts" / "dashboards" / "schema"
NAMES = ["control-plane", "fleet", "gateway", "model"]

pytestmark = [pytest.mark.npm, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the types, and TypeScript beside them."""
    made = tmp_path_factory.mktemp("schema") / "check"
    shutil.copytree(SCHEMA, made, ignore=shutil.ignore_patterns("node_modules"))
    install = ["npm", "ci", "--loglevel=error"]
    done = subprocess.run(install, cwd=made, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        fail_or_skip(f"npm ci failed: {done.stderr[-500:]}")
    return made


def refused(compiler: Path, release: str, dashboards: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What is wrong, by the name of the dashboard."""
    for name, dashboard in dashboards.items():
        literal = json.dumps(dashboard, indent=1)
        source = f"import type {{ Dashboard }} from './dashboard';\nexport const dashboard: Dashboard = {literal};\n"
        (compiler / f"{name}.ts").write_text(source)
    command = ["node", "node_modules/typescript/bin/tsc", "-p", f"tsconfig.{release}.json"]
    done = subprocess.run(command, cwd=compiler, capture_output=True, text=True, timeout=120, check=False)
    for name in dashboards:
        (compiler / f"{name}.ts").unlink()
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name = line.partition(".ts(")[0]
        assert name in dashboards or line.startswith(" "), done.stdout
        found.setdefault(name, line)
    assert bool(found) == bool(done.returncode), done.stdout + done.stderr
    return {name: line for name, line in found.items() if name in dashboards}


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("release", ["10", "13"])
def test_each_dashboard_is_of_the_type_that_grafana_publishes(compiler: Path, release: str) -> None:
    assert refused(compiler, release, {name: read(name) for name in NAMES}) == {}


def _graph(dashboard: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries")
    return found


BREAKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no_schema_version": lambda d: d.pop("schemaVersion"),
    "an_unknown_field": lambda d: d.update(panel=[]),
    "an_unknown_kind_of_panel": lambda d: _graph(d).update(type="graph"),
    "a_panel_without_description": lambda d: _graph(d).pop("description"),
    "an_option_of_another_panel": lambda d: _graph(d)["options"].update(colorMode="value"),
    "a_misspelt_mode": lambda d: _graph(d)["options"]["tooltip"].update(mode="multiple"),
    "a_misspelt_custom_field": lambda d: _graph(d)["fieldConfig"]["defaults"]["custom"].update(spanNull=False),
    "a_unit_that_is_a_number": lambda d: _graph(d)["fieldConfig"]["defaults"].update(unit=1),
    "a_query_without_a_name": lambda d: _graph(d)["targets"][0].pop("refId"),
    "a_position_without_a_width": lambda d: _graph(d)["gridPos"].pop("w"),
    "an_unknown_kind_of_variable": lambda d: d["templating"]["list"][0].update(type="list"),
    "an_annotation_without_a_query": lambda d: d["annotations"]["list"][0].pop("expr"),
}


@pytest.mark.parametrize("release", ["10", "13"])
def test_a_broken_dashboard_is_refused(compiler: Path, release: str) -> None:
    whole, broken = read("fleet"), {}
    for name, break_it in BREAKS.items():
        broken[name] = copy.deepcopy(whole)
        break_it(broken[name])

    assert refused(compiler, release, broken).keys() == BREAKS.keys()
