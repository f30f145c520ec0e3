"""The arithmetic of the benchmarks: percentiles, arrival times, an ideal queue, bars and how they are shown.

Pure: no clock, no sockets, no processes. tests/unit/benchmarks holds it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

AT_LEAST: Final = "at least"
AT_MOST: Final = "at most"


@dataclass(frozen=True)
class Bar:
    """A measured value and the limit that it must keep."""

    what: str
    value: float
    rule: Literal["at least", "at most"]
    limit: float

    @property
    def is_met(self) -> bool:
        return self.value >= self.limit if self.rule == AT_LEAST else self.value <= self.limit

    def render(self) -> str:
        verdict = "met" if self.is_met else "MISSED"
        return f"{self.what:<64}{self.value:>10.3f}   {self.rule} {self.limit:g}: {verdict}"


def percentile(values: Sequence[float], share: float = 0.99) -> float:
    """The least of `values` that `share` of them do not exceed (nearest rank). Raises `ValueError` without any."""
    if not values:
        raise ValueError("percentile of no values")
    rank = -int(-share * len(values) // 1)  # rounded up
    return sorted(values)[max(0, rank - 1)]


def poisson_arrivals(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Moments from 0 to `seconds`, in order, with exponential gaps: the same for the same seed."""
    chance = random.Random(seed)
    arrivals = []
    at = chance.expovariate(rate_per_s)
    while at < seconds:
        arrivals.append(at)
        at += chance.expovariate(rate_per_s)
    return arrivals


def central_queue(arrivals: Sequence[float], service_s: float, servers: int = 2) -> list[float]:
    """Latencies of `arrivals` (in order) at one ideal queue before `servers` that each take `service_s`: M/D/c."""
    free_at = [0.0] * servers
    latencies = []
    for arrival in arrivals:
        done = max(arrival, heapq.heappop(free_at)) + service_s
        heapq.heappush(free_at, done)
        latencies.append(done - arrival)
    return latencies
