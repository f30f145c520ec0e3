"""simulate of what a real Prometheus recorded of a real gateway: no request more or less than there were."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import REPOSITORY, Cluster, fleet, until
from tests.integration.prometheus_server import PrometheusServer

pytestmark = pytest.mark.prometheus


@pytest.fixture
def world(tmp_path: Path, cluster: str, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """One model of 20 ms."""
    running = Cluster(tmp_path, cluster, free_port).start()
    try:
        source = running.write_model("iris", predict="time.sleep(0.02)")
        section = {"versions": {"1": {"source": source}}, "concurrency": 1, "slo": {"latency_ms": 200}}
        section["scaling"] = {"min": 1, "max": 4}
        running.apply({**fleet(iris=section), "cluster": cluster, "engine": "process"})
        yield running
    finally:
        running.close()


@pytest.fixture
def prometheus(world: Cluster, tmp_path: Path, free_port: Callable[[], int]) -> Iterator[PrometheusServer]:
    server = PrometheusServer(tmp_path / "prometheus", free_port(), world.metrics_port, every_s=1).start()
    try:
        yield server
    finally:
        server.kill()


def command(world: Cluster, *arguments: str) -> dict[str, Any]:
    """The JSON that a verb answers with."""
    words = [
        sys.executable,
        "-c",
        "from orchestrator.cli.main import main; main()",
        "--state-dir",
        str(world.state_dir),
    ]
    done = subprocess.run(
        [*words, *arguments, "-o", "json"], cwd=REPOSITORY, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.stdout, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def counted(prometheus: PrometheusServer) -> float:
    """What the newest scrape says of arrivals."""
    found = prometheus.ask('sum(modelfleet_arrivals_total{model="iris"})')
    return float(found[0]["value"][1]) if found else -1.0  # type: ignore[index]


def test_finds_every_request_and_how_long_replicas_took(world: Cluster, prometheus: PrometheusServer) -> None:
    until("the gateway was scraped", lambda: counted(prometheus) >= 0, 30)
    before = counted(prometheus)
    sent = command(world, "bench", "iris", "--rate", "15", "--duration", "8s")["sent"]
    until("every request was scraped", lambda: counted(prometheus) >= before + sent, 30)

    shown = command(world, "simulate", "--from-prometheus", "10m", "--model", "iris", "--prometheus", prometheus.url)

    # The sample request of bench asks for metadata alone, which is no inference.
    assert shown["target"] == "iris@1"
    assert sent <= shown["trace"]["requests"] <= sent + 1
    assert 0.5 < shown["trace"]["grain_s"] < 3
    assert 0.02 <= shown["service_s"]["mean"] < 0.08
    assert shown["objective"] == {"latency_s": 0.2, "percentile": 95.0, "is_derived": False}
    assert any("Prometheus remembers" in note for note in shown["notes"])
    assert shown["outcomes"][0]["name"] == "as it is"


def test_says_that_a_model_was_never_asked(world: Cluster, prometheus: PrometheusServer) -> None:
    until("the gateway was scraped", lambda: counted(prometheus) >= 0, 30)
    words = [
        sys.executable,
        "-c",
        "from orchestrator.cli.main import main; main()",
        "--state-dir",
        str(world.state_dir),
    ]
    asked = ["simulate", "--from-prometheus", "1h", "--model", "iris", "--prometheus", prometheus.url]

    done = subprocess.run([*words, *asked], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "knows no request of iris@1 in the last 1 h" in done.stderr
