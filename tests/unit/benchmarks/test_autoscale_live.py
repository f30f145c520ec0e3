"""The pure parts of the live benchmark; the rest of it is the benchmark."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.autoscale import live
from benchmarks.autoscale.live import Seen
from orchestrator.core.scaling.distributions import Service
from orchestrator.load import traces

OPTIONS = argparse.Namespace(minutes=1.0, part=0.1, scale=1.0, slo_ms=200.0, max=6, standby=0)
LIVE = Seen("live, by the policy", 5.0, 1000, 4, 7)


def test_plays_what_bench_will_play(tmp_path: Path) -> None:
    times = live.played(OPTIONS, tmp_path / "a.csv")

    assert 55 < times[-1] <= 60
    assert list(traces.read(tmp_path / "a.csv").times) == pytest.approx([at - times[0] for at in times], abs=1e-5)


def test_simulates_the_same_arrivals_without_the_silence_before_them(tmp_path: Path) -> None:
    times = live.played(OPTIONS, tmp_path / "a.csv")

    tries = live.simulated(times, OPTIONS, Service.fixed(0.02), cold_s=1.0)

    assert len(tries) == len(live.SEEDS)
    # One replica for the minute, and more for the bursts; the silence would be 65 s more.
    assert all(55 < seen.replica_s < 6 * 70 for seen in tries)
    assert all(1 < seen.most <= 6 for seen in tries)


@pytest.mark.parametrize(
    ("simulated", "code"),
    [
        (replace(LIVE, late_percent=8.9, replica_s=1240), 0),
        (replace(LIVE, late_percent=9.1), 1),
        (replace(LIVE, replica_s=1260), 1),
        (replace(LIVE, replica_s=790), 1),
    ],
)
def test_fails_beyond_the_stated_error(simulated: Seen, code: int) -> None:
    assert live.show([LIVE, simulated]) == code
