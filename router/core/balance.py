"""One replica's load, and which of several takes the next request.

Owns `Replica`, the count of requests inside it, and the choice by least in-flight of two at random: nearly as good as
the least loaded of all, without all gateways choosing the same one. Choosing and counting are one step
(`reserve`), so that nothing can come between; `admission.py` says when it is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from router.core.ejection import Health


class Replica:
    """One endpoint of a version, as long as it is in a table or has a request inside it.

    `pool` belongs to `proto/pool.py`: the core never looks into it.
    """

    __slots__ = ("capacity", "health", "host", "id", "in_flight", "pool", "port", "retired")

    def __init__(self, id_: str, host: str, port: int) -> None:
        self.id = id_
        self.host = host
        self.port = port
        self.in_flight = 0
        self.capacity = 1  # most requests in flight now; kept by `admission.py`
        self.health = Health()
        self.retired = False  # left the table: takes nothing new, finishes what it has
        self.pool: Any = None

    def __repr__(self) -> str:
        return f"Replica({self.id!r}, {self.host}:{self.port}, in_flight={self.in_flight})"


def reserve(
    replicas: Sequence[Replica],
    below: Callable[[int], int],
    tried: Sequence[Replica] = (),
) -> Replica | None:
    """Chooses a replica with a free slot and counts one request against it; None when none is free.

    `below(n)` is a random number in 0..n-1. Replicas in `tried` failed this request before and are left out.
    """
    if tried:
        replicas = [replica for replica in replicas if replica not in tried]
    count = len(replicas)
    if not count:
        return None
    chosen = replicas[0] if count == 1 else _lighter_of_two(replicas, count, below)
    if chosen.in_flight >= chosen.capacity:
        # Late binding must not queue while any slot is free, whatever the samples were.
        free = [replica for replica in replicas if replica.in_flight < replica.capacity]
        if not free:
            return None
        chosen = min(free, key=lambda replica: replica.in_flight)
    chosen.in_flight += 1
    return chosen


def _lighter_of_two(replicas: Sequence[Replica], count: int, below: Callable[[int], int]) -> Replica:
    first = below(count)
    second = below(count - 1)
    if second >= first:
        second += 1
    one, other = replicas[first], replicas[second]
    return one if one.in_flight <= other.in_flight else other
