"""Service times and chance for simulations: a table of equally likely values, and numbers that repeat.

The core has no `random`: a simulation must give the same result for the same seed, whatever is asked of it before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

# Service times are drawn from so many equally likely values; the tail beyond 1 in 4,096 is in the last one.
QUANTILES = 4096
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def chance(seed: int, index: int) -> float:
    """The index-th number in [0, 1) of a seed (SplitMix64, which can be read at any place)."""
    z = ((seed << 32) + (index + 1) * GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return ((z ^ (z >> 31)) >> 11) * 2.0**-53


@dataclass(frozen=True, slots=True)
class Service:
    """A distribution of service times: equally likely `values`, ascending."""

    values: tuple[float, ...]

    @property
    def mean_s(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @classmethod
    def fixed(cls, mean_s: float) -> Service:
        return cls((mean_s,))

    @classmethod
    def exponential(cls, mean_s: float) -> Service:
        return cls._scaled(mean_s, (-math.log1p(-share) for share in _SHARES))

    @classmethod
    def lognormal(cls, mean_s: float, cv: float) -> Service:
        """The usual shape of a model's service times; `cv` is deviation / mean."""
        sigma = math.sqrt(math.log1p(cv * cv))
        normal = NormalDist()
        return cls._scaled(mean_s, (math.exp(sigma * normal.inv_cdf(share)) for share in _SHARES))

    @classmethod
    def pareto(cls, mean_s: float, alpha: float) -> Service:
        """A heavy tail: the smaller `alpha` (above 1), the heavier; up to 2 its variance is infinite."""
        return cls._scaled(mean_s, ((1 - share) ** (-1 / alpha) for share in _SHARES))

    @classmethod
    def of_histogram(cls, bounds: Sequence[float], counts: Sequence[float]) -> Service:
        """Of a cumulative histogram as the gateway exports it, whose last bound is infinite."""
        return cls(tuple(_at_rank(bounds, counts, share * counts[-1]) for share in _SHARES))

    @classmethod
    def _scaled(cls, mean_s: float, shape: Iterable[float]) -> Service:
        values = list(shape)
        scale = mean_s * len(values) / math.fsum(values)
        return cls(tuple(value * scale for value in values))


_SHARES = tuple((i + 0.5) / QUANTILES for i in range(QUANTILES))


def _at_rank(bounds: Sequence[float], counts: Sequence[float], rank: float) -> float:
    lower, below = 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=True):
        upper = bound if math.isfinite(bound) else 2 * lower
        if count >= rank and count > below:
            return lower + (upper - lower) * (rank - below) / (count - below)
        lower, below = upper, count
    return lower


def scaled(service: Service, mean_s: float) -> Service:
    """The same shape with another mean."""
    factor = mean_s / service.mean_s if service.mean_s else 1.0
    return Service(tuple(value * factor for value in service.values))


def spread(per_second: Sequence[int], seed: int = 0) -> list[float]:
    """Arrival times from counts per second, at random within each."""
    times: list[float] = []
    for second, count in enumerate(per_second):
        start = len(times)
        times.extend(sorted(second + chance(seed, start + i) for i in range(count)))
    return times
