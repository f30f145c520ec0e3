"""bench against a whole cluster of real processes: what it measures of a model whose time is known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import REPOSITORY, Cluster, fleet

SLEEPS_20_MS = "time.sleep(0.02)"


@pytest.fixture
def world(tmp_path: Path, cluster: str, free_port: Callable[[], int]) -> Iterator[Cluster]:
    """One model of 20 ms that takes one request at a time, on one replica."""
    running = Cluster(tmp_path, cluster, free_port).start()
    try:
        source = running.write_model("slow", predict=SLEEPS_20_MS)
        section = {"versions": {"1": {"source": source}}, "concurrency": 1, "queue": {"max": 20}}
        running.apply({**fleet(slow=section), "cluster": cluster, "engine": "process"})
        yield running
    finally:
        running.close()


def bench(world: Cluster, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-c", "from orchestrator.cli.main import main; main()"]
    command += ["--state-dir", str(world.state_dir), "bench", "slow", "-o", "json", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_measures_the_model_and_what_waits_for_it(world: Cluster) -> None:
    """One replica of 20 ms carries 50 requests/s. At 5 nothing waits to speak of; at 200 the queue is full."""
    calm_code, calm = bench(world, "--rate", "5", "--arrivals", "constant", "--duration", "4s", "--assert", "errors<1")
    full_code, full = bench(world, "--rate", "200", "--duration", "3s", "--assert", "errors<1%")

    assert (calm_code, calm["answered"], calm["errors"]["count"]) == (0, 20, 0)
    assert 20 <= calm["latency_ms"]["p50"] < 60
    assert full_code == 1
    assert full["errors"]["by_kind"]["503 OVERLOADED"] > 100
    assert full["latency_ms"]["p50"] > 150
    assert full["sent"] == full["answered"] + full["errors"]["count"]
    assert full["limits"][0]["ok"] is False


def test_of_a_closed_loop_of_four_makes_each_wait_for_three(world: Cluster) -> None:
    code, seen = bench(world, "--concurrency", "4", "--duration", "3s")

    assert code == 0, seen
    assert 5 < seen["rate_per_s"] <= 51, seen
    assert seen["latency_ms"]["p50"] >= 75
    assert seen["errors"]["count"] == 0
