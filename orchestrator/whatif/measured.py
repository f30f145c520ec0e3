"""A version's service times as a gateway counted them. Pure: buckets in, a distribution out."""

from __future__ import annotations

from orchestrator.core.scaling.distributions import Service, scaled
from orchestrator.core.scaling.signals import Buckets


def service_of(buckets: Buckets | None) -> Service | None:
    """The buckets' shape with the exact mean, which they know to a fifth. None while nothing was answered."""
    if buckets is None or buckets.counts[-1] <= 0 or buckets.total_s <= 0:
        return None
    rough = Service.of_histogram(buckets.bounds, buckets.counts)
    return scaled(rough, buckets.total_s / buckets.counts[-1])
