"""Service times as a gateway's own page tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from orchestrator.whatif import measured
from router import metrics
from router.core.stats import VersionStats


@dataclass
class Lane:
    """A version with its numbers, as the gateway counts them."""

    model: str
    version: str
    stats: VersionStats = field(default_factory=VersionStats)
    replicas: Sequence[object] = ("r",)
    in_flight: int = 0
    queued: int = 0
    oldest_wait_s: float = 0.0
    copies: None = None


@pytest.fixture
def page() -> str:
    """Of iris@1 90 requests of 20 ms and 10 of 80 ms; of iris@2 none; of iris10@1 others."""
    lanes = [Lane("iris", "1"), Lane("iris", "2"), Lane("iris10", "1")]
    for seconds in [0.0199] * 90 + [0.0749] * 10:
        lanes[0].stats.served(200, seconds, seconds)
    lanes[2].stats.served(200, 5.0, 5.0)
    return metrics.render(lanes, {}, {}).decode()  # type: ignore[arg-type]


def test_have_the_exact_mean_and_the_shape_of_the_buckets(page: str) -> None:
    service = measured.service_times(page, "iris", "1")

    assert service is not None
    assert service.mean_s == pytest.approx(0.9 * 0.0199 + 0.1 * 0.0749)
    assert 0.01 < service.values[2000] < 0.025
    assert 0.05 < service.values[-1] < 0.1


@pytest.mark.parametrize(("model", "version"), [("iris", "2"), ("iris", "3"), ("nope", "1")])
def test_of_what_answered_nothing_are_unknown(page: str, model: str, version: str) -> None:
    assert measured.service_times(page, model, version) is None
