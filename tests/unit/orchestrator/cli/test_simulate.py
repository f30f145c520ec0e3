"""simulate: the answer for a trace, whose settings it takes, and what it says when something is not known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.admin_api import FakeAdminApi, FakeGateway, World, revision
from tests.unit.orchestrator.cli.conftest import Run

MANIFEST = """
cluster: demo
models:
  iris:
    backend: sklearn
    concurrency: 2
    slo: {latency_ms: 1000}
    scaling: {min: 1, max: 3}
    versions: {"1": {source: a}, "2": {source: a}}
    traffic: {"1": 90, "2": 10}
"""
PAGE = """
modelfleet_model_seconds_bucket{model="iris",version="1",le="0.25"} 0
modelfleet_model_seconds_bucket{model="iris",version="1",le="0.5"} 10
modelfleet_model_seconds_bucket{model="iris",version="1",le="+Inf"} 10
modelfleet_model_seconds_sum{model="iris",version="1"} 4
"""
GIVEN = ("--service-time", "400ms", "--cold-start", "3s")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A request each second, and for a minute ten of them."""
    path = tmp_path / "busy.csv"
    times = sorted([float(t) for t in range(300)] + [120 + t / 9 for t in range(540)])
    path.write_text("t_seconds\n" + "".join(f"{at}\n" for at in times))
    return path


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "models.yaml"
    path.write_text(MANIFEST)
    return path


@pytest.fixture
def metrics_page(world: World) -> Iterator[FakeGateway]:
    with FakeGateway(lambda method, path, body: (200, {}, PAGE.encode())) as gateway:
        world.metrics_url = gateway.url
        yield gateway


class TestAnswer:
    def test_of_a_trace_alone_needs_objective_and_service_time(self, run: Run, trace: Path) -> None:
        result = run("simulate", "--trace", str(trace), "--slo", "1s", "--max", "9", *GIVEN)

        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[0] == "840 requests of busy.csv in 4:59, p95 ≤ 1 s"
        assert lines[1].startswith("a replica takes 1 request at a time, 0.4 s each (p95 0.778 s), and 3 s to start")
        rows = [line.split()[:2] for line in lines if line.startswith(("the policy", "always"))]
        assert rows[0] == ["the", "policy"]
        assert {row[0] for row in rows[1:]} == {"always"}
        assert "replicas ready" in lines

    def test_stands_beside_the_present_settings(self, run: Run, trace: Path, manifest: Path) -> None:
        asked = ["--model", "iris", "--slo", "2s", "--max", "8", "--standby", "1", *GIVEN]

        result = run("simulate", "--trace", str(trace), *asked, "-o", "json")

        shown = json.loads(result.stdout)
        assert shown["target"] == "iris@1"
        names = [outcome["name"] for outcome in shown["outcomes"]]
        assert names[:2] == ["p95 ≤ 2 s, max 8, standby 1", "as it is"]
        first, second = (outcome["settings"] for outcome in shown["outcomes"][:2])
        assert (first["slo_s"], first["max"], first["standby"], first["concurrency"]) == (2, 8, 1, 2)
        assert (second["slo_s"], second["max"], second["standby"]) == (1, 3, 0)
        assert all(outcome["requests"] == 840 for outcome in shown["outcomes"])

    def test_without_changes_is_how_it_is(self, run: Run, trace: Path, manifest: Path) -> None:
        shown = json.loads(run("simulate", "--trace", str(trace), "--model", "iris@2", *GIVEN, "-o", "json").stdout)

        assert shown["target"] == "iris@2"
        assert shown["outcomes"][0]["settings"]["max"] == 3
        assert sum(point["arrivals"] for point in shown["outcomes"][0]["timeline"]) == 840

    def test_more_replicas_serve_better_and_cost_more(self, run: Run, trace: Path) -> None:
        """The answer must follow the question: a larger minimum cannot be cheaper, nor serve worse."""

        def of(least: int) -> tuple[int, float]:
            asked = ["--slo", "1s", "--min", str(least), "--max", "12", *GIVEN]
            outcome = json.loads(run("simulate", "--trace", str(trace), *asked, "-o", "json").stdout)["outcomes"][0]
            return outcome["late"], outcome["replica_s"]

        (few_late, few_cost), (many_late, many_cost) = of(1), of(10)

        assert many_late <= few_late
        assert many_cost > few_cost

    def test_decisions_are_said_with_their_reason(self, run: Run, trace: Path) -> None:
        result = run("simulate", "--trace", str(trace), "--slo", "1s", "--max", "9", *GIVEN, "--decisions")

        assert any("busy slots" in line and " -> " in line for line in result.stdout.splitlines())

    def test_suggests_what_no_other_beats(self, run: Run, trace: Path) -> None:
        asked = ["--trace", str(trace), "--slo", "1s", "--max", "9", *GIVEN, "--suggest"]

        found = json.loads(run("simulate", *asked, "-o", "json").stdout)["suggestions"]

        assert len(found) >= 2
        lates = [each["late"] for each in found]
        assert lates == sorted(lates, reverse=True)
        assert "Settings that no others beat" in run("simulate", *asked).stdout

    @pytest.mark.parametrize(
        ("name", "begins"), [("a.html", b"<!doctype html>"), ("a.svg", b"<svg"), ("a.png", b"\x89PNG")]
    )
    def test_is_drawn(self, run: Run, trace: Path, tmp_path: Path, name: str, begins: bytes) -> None:
        result = run("simulate", "--trace", str(trace), "--slo", "1s", *GIVEN, "--plot", str(tmp_path / name))

        assert result.exit_code == 0
        assert (tmp_path / name).read_bytes().startswith(begins)

    def test_compresses_and_scales_the_trace(self, run: Run, trace: Path) -> None:
        asked = ["--slo", "1s", *GIVEN, "--compress", "1m", "--scale", "2", "-o", "json"]

        shown = json.loads(run("simulate", "--trace", str(trace), *asked).stdout)["trace"]

        assert shown["requests"] == 1680
        assert shown["length_s"] == pytest.approx(60, abs=0.2)


class TestWhatIsMeasured:
    def test_settings_are_those_in_force(self, api: FakeAdminApi, world: World, run: Run, trace: Path) -> None:
        world.revisions = [revision(1, current=True, manifest=MANIFEST)]

        shown = json.loads(run("simulate", "--trace", str(trace), "--model", "iris", *GIVEN, "-o", "json").stdout)

        assert shown["outcomes"][0]["settings"]["max"] == 3

    @pytest.mark.usefixtures("metrics_page")
    def test_service_times_are_the_gateways(
        self, api: FakeAdminApi, world: World, run: Run, trace: Path, manifest: Path
    ) -> None:
        asked = ["--trace", str(trace), "--model", "iris", "--manifest", str(manifest)]

        shown = json.loads(run("simulate", *asked, "-o", "json").stdout)

        assert shown["service_s"]["mean"] == pytest.approx(0.4)
        assert shown["notes"] == ["service times are those of iris@1 since the gateway started"]

    def test_unknown_service_times_are_asked_for(self, run: Run, trace: Path, manifest: Path) -> None:
        result = run("simulate", "--trace", str(trace), "--model", "iris")

        assert result.exit_code == 2
        assert "the service time of iris@1 is unknown: nobody measured it" in result.stderr
        assert "Hint: give it with --service-time 20ms" in result.stderr


class TestRefusal:
    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            ([], "no recorded traffic was given"),
            (["--trace", "TRACE", "--from-prometheus", "1h"], "both were given"),
            (["--from-prometheus", "1h"], "--from-prometheus: whose traffic?"),
            (["--from-prometheus", "60d", "--model", "iris"], "at most 14 days"),
            (["--trace", "nowhere.csv"], "trace 'nowhere.csv': No such file"),
            (["--trace", "TRACE", "--model", "iriss"], "no model 'iriss'"),
            (["--trace", "TRACE", "--model", "iris@7"], "no version of iris '7'"),
            (["--trace", "TRACE", "--min", "5", "--max", "2", *GIVEN], "max 2 with min 5: no count is between them"),
            (["--trace", "TRACE", "--plot", "a.gif", *GIVEN], "--plot 'a.gif': its ending says no format"),
            (["--trace", "TRACE", "--plot", "no/where.svg", *GIVEN], "there is no such folder"),
            (["--trace", "TRACE", "--manifest", "models.yaml"], "--manifest without --model"),
            (["--trace", "TRACE", "--slo", "fast", *GIVEN], "duration 'fast'"),
            (["--trace", "TRACE", "--slo", "0s", *GIVEN], "--slo 0s: not longer than nothing"),
            (["--trace", "TRACE", "--service-time", "0ms"], "--service-time 0ms: not longer than nothing"),
            (["--trace", "TRACE", "--compress", "0s", *GIVEN], "--compress 0s: not longer than nothing"),
            (["--trace", "TRACE", "--speed", "2", "--compress", "1m", *GIVEN], "--speed and --compress"),
        ],
    )
    def test_of_what_cannot_be_meant_ends_with_two(
        self, run: Run, trace: Path, manifest: Path, arguments: list[str], sentence: str
    ) -> None:
        result = run("simulate", *[str(trace) if each == "TRACE" else each for each in arguments])

        assert result.exit_code == 2, result.output
        assert sentence in result.stderr

    def test_of_a_prometheus_that_is_not_there(self, run: Run, manifest: Path) -> None:
        result = run("simulate", "--from-prometheus", "1h", "--model", "iris", "--prometheus", "http://127.0.0.1:9")

        assert result.exit_code == 1
        assert "Prometheus at http://127.0.0.1:9 cannot be asked" in result.stderr

    def test_of_what_is_no_prometheus(self, run: Run, manifest: Path, metrics_page: FakeGateway) -> None:
        result = run("simulate", "--from-prometheus", "1h", "--model", "iris", "--prometheus", metrics_page.url)

        assert result.exit_code == 1
        assert "answers what no Prometheus does" in result.stderr
