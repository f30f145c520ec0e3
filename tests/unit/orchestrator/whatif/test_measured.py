"""Service times as a gateway counted them."""

from __future__ import annotations

import math

import pytest

from orchestrator.core.scaling.signals import Buckets
from orchestrator.whatif import measured

BOUNDS = (0.015, 0.02, 0.05, 0.075, math.inf)


def test_have_the_exact_mean_and_the_shape_of_the_buckets() -> None:
    """90 requests of 19 ms and 10 of 70 ms."""
    service = measured.service_of(Buckets(BOUNDS, (0, 90, 90, 100, 100), 90 * 0.019 + 10 * 0.07))

    assert service is not None
    assert service.mean_s == pytest.approx(0.0241)
    assert 0.014 < service.values[2000] < 0.021
    assert 0.05 < service.values[-1] < 0.085


@pytest.mark.parametrize("buckets", [None, Buckets(BOUNDS, (0, 0, 0, 0, 0), 0.0)])
def test_of_what_answered_nothing_are_unknown(buckets: Buckets | None) -> None:
    assert measured.service_of(buckets) is None
