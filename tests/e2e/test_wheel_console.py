"""The web console of an installed wheel: somebody with pip and no clone, no npm and no Node has it with its charts."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.browsing import DRAWN, chromium
from tests.integration.cluster import Cluster, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
DRAW = """
async () => {
  const { Chart } = await import("/console/static/js/chart.js");
  const { milliseconds } = await import("/console/static/js/format.js");
  const chart = new Chart("probe", "Probe", {
    series: [{ label: "p95", color: "share-1" }], format: milliseconds, spanS: 60, signal: new AbortController().signal,
  });
  document.getElementById("main").append(chart.element);
  chart.show([1000, 1001, 1002], [[1, 3, 2]]);
}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place], cwd=ROOT, check=True)
    return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it asks for alone, in the versions of the lock."""
    place = tmp_path_factory.mktemp("installed")
    versions = re.findall(r"^[\w.-]+==[^\\\n]+", (ROOT / "requirements/dev.lock").read_text(), re.MULTILINE)
    (place / "constraints.txt").write_text("\n".join(versions))
    found = place / "venv/bin/python"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, place / "venv"], check=True)
    install = ["pip", "install", "--quiet", "--python", found, "--constraint", place / "constraints.txt", wheel]
    subprocess.run([*uv, *install], check=True)
    return found


@pytest.fixture
def installed(python: Path, tmp_path: Path, cluster: str, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """A control plane of what was installed: from another directory, with no path to the clone."""
    found = Cluster(tmp_path, cluster, free_port)
    found.python, found.directory = python, tmp_path
    found.environ["PYTHONPATH"] = ""
    try:
        yield found.start()
    finally:
        found.close()


def test_has_what_the_page_needs_and_nothing_that_only_its_makers_need(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    console = {name.removeprefix("orchestrator/console/") for name in names if name.startswith("orchestrator/console/")}

    assert {"index.html", "static/js/main.js", "static/console.css", "static/vendor/uPlot.esm.js"} <= console
    assert "static/vendor/uPlot.LICENSE.txt" in console
    assert not [name for name in console if "node_modules" in name or name.endswith((".json", ".npmrc"))]


def test_an_installed_wheel_serves_the_console_with_charts(installed: Cluster) -> None:
    with chromium() as browser:
        page = browser.new_page()
        page.goto(f"{installed.url}/console/")
        page.get_by_role("heading", name="Sign in").wait_for()
        page.evaluate(DRAW)

        canvas = page.get_by_role("figure", name="Probe").locator("canvas")
        until("the curve is drawn", lambda: canvas.count() and canvas.evaluate(DRAWN))
