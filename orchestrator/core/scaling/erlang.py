"""How many slots keep waiting short: Erlang's C formula, with Allen and Cunneen's correction for variability.

For m slots that all take from one queue, and a load of a busy slots on average:

    B(0) = 1,  B(m) = a B(m-1) / (m + a B(m-1))        every slot is busy, nobody waits (Erlang B)
    C(m) = B(m) / (1 - (a/m) (1 - B(m)))               an arrival must wait (Erlang C)
    P(wait > d) = C(m) exp(-(m - a) d / (S k))         k = (variability of arrivals + of service times) / 2

With k = 1 (Poisson arrivals, exponential service times) the last line is exact; Allen and Cunneen give it for the mean
wait, and the tail is taken to stretch alike. Pure arithmetic; `tests/unit/orchestrator/core/scaling/test_erlang.py`
holds it to exact values.
"""

from __future__ import annotations

import math


def erlang_b(slots: int, load: float) -> float:
    """The share of arrivals that find every slot busy when none may wait."""
    blocked = 1.0
    for m in range(1, slots + 1):
        blocked = load * blocked / (m + load * blocked)
    return blocked


def erlang_c(slots: int, load: float) -> float:
    """The share of arrivals that must wait; 1 when the load is more than the slots can carry."""
    if load <= 0:
        return 0.0
    if slots <= load:
        return 1.0
    return _waiting(erlang_b(slots, load), slots, load)


def late_share(slots: int, load: float, spare_s: float, service_s: float, variability: float = 1.0) -> float:
    """P(wait > spare_s)."""
    if slots <= load:
        return 1.0 if load > 0 else 0.0
    return erlang_c(slots, load) * math.exp(-(slots - load) * spare_s / (service_s * variability))


def slots_needed(
    load: float, spare_s: float, service_s: float, *, variability: float = 1.0, late: float = 0.01, most: int = 100_000
) -> int:
    """The fewest slots with P(wait > spare_s) <= late, at most `most`. No load needs none."""
    if load <= 0:
        return 0
    if load >= most:
        return most
    decay = spare_s / (service_s * variability)
    blocked = 1.0
    for m in range(1, most):
        blocked = load * blocked / (m + load * blocked)
        if m > load and _waiting(blocked, m, load) * math.exp(-(m - load) * decay) <= late:
            return m
    return most


def _waiting(blocked: float, slots: int, load: float) -> float:
    return blocked / (1 - (load / slots) * (1 - blocked))
