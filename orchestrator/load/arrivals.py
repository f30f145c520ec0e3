"""When requests leave: at a steady rate, at random, or as a trace says. Pure, and the same for the same seed.

Moments are seconds from the start, ascending.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count

from orchestrator.core.scaling.distributions import chance
from orchestrator.load.traces import Trace

# Copies of an arrival fall within so many seconds of it (before it is played faster), so that a burst stays one.
_JITTER_S = 0.5


def constant(rate_per_s: float, duration_s: float) -> Iterator[float]:
    """Evenly spaced: the kindest there is to a queue."""
    return (index / rate_per_s for index in range(math.ceil(rate_per_s * duration_s)))


def poisson(rate_per_s: float, duration_s: float, seed: int) -> Iterator[float]:
    """As many independent clients make them: exponential gaps."""
    at = 0.0
    for index in count():
        at += -math.log1p(-chance(seed, index)) / rate_per_s
        if at >= duration_s:
            return
        yield at


def scaled(times: Sequence[float], factor: float, seed: int) -> Sequence[float]:
    """`factor` arrivals for each one: copies close by, and what is left over by chance."""
    if factor == 1.0:
        return times
    made: list[float] = []
    drawn = 0
    for at in times:
        copies = int(factor) + (chance(seed, drawn) < factor % 1)
        drawn += 1
        for number in range(copies):
            jitter = (chance(seed, drawn) - 0.5) * 2 * _JITTER_S if number else 0.0
            drawn += bool(number)
            made.append(max(0.0, at + jitter))
    return sorted(made)


def played(
    trace: Trace, *, speed: float = 1.0, factor: float = 1.0, length_s: float | None = None, seed: int = 0
) -> Trace:
    """The trace `speed` times as fast, `factor` times as much, and cut after `length_s`."""
    times = scaled(trace.times, factor, seed)
    faster = times if speed == 1.0 else [at / speed for at in times]
    kept = faster if length_s is None else [at for at in faster if at < length_s]
    return Trace(trace.name, kept, trace.grain_s / speed)
