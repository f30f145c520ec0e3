"""One replica's load, and which of several takes the next request.

Owns `Replica`, the count of requests inside it, and the four ways to choose (`VersionRoute.balance`). The default is
the least in flight of two at random: nearly as good as the least loaded of all, without all gateways choosing the same
one. Whatever the way, a replica without a free slot is never chosen and one with a free slot always found (late
binding). Choosing and counting are one step, so that nothing can come between; `admission.py` says when it is undone.
docs/decisions/0012-balance-sticky-shadow.md says what each way is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, inf
from typing import Any, Final, Protocol

from router.core.ejection import Health
from router.core.rows import NO_SLOT
from router.core.sticky import hash64, mix

# How fast a peak is forgotten: after so many seconds 1/e of it is left. Finagle's default.
DECAY_S: Final = 10.0
# The cost of a replica that was never measured and has a request inside: one request tries it first.
UNKNOWN_S: Final = 1e9


class Replica:
    """One endpoint of a version, as long as it is in a table or has a request inside it.

    `pool` belongs to `proto/pool.py`: the core never looks into it.
    """

    __slots__ = (
        "capacity", "health", "host", "id", "in_flight", "limit", "model", "peak", "pool", "port", "retired", "seed",
        "slot",
    )  # fmt: skip

    def __init__(self, id_: str, host: str, port: int) -> None:
        self.id = id_
        self.host = host
        self.port = port
        self.model = ""  # whose it is by the table in force
        self.in_flight = 0
        self.limit = 1  # most requests in flight now, of all processes; kept by `admission.py`
        self.capacity = 1  # and of this process: what the others leave of it
        self.slot = NO_SLOT  # its place in the shared page
        self.health = Health()
        self.peak = Peak()
        self.retired = False  # left the table: takes nothing new, finishes what it has
        self.pool: Any = None
        self.seed = hash64(id_.encode())  # what it is to sticky callers

    def __repr__(self) -> str:
        return f"Replica({self.id!r}, {self.host}:{self.port}, in_flight={self.in_flight})"


class Peak:
    """A latency that follows peaks at once and forgets them slowly.

    Finagle's (finagle-core, com.twitter.finagle.loadbalancer.PeakEwma), which linkerd's proxy took over: a latency
    above the estimate becomes the estimate; one below is averaged in with the weight 1 - e^(-t/decay), t the time since
    the last one. Looking decays too, so that a replica that nobody dares to ask is asked again.
    """

    __slots__ = ("at", "latency_s")

    def __init__(self) -> None:
        self.latency_s = 0.0
        self.at = -inf  # when it was last measured or looked at

    def observe(self, seconds: float, now: float) -> None:
        if seconds >= self.latency_s:
            self.latency_s = seconds
        else:
            kept = exp((self.at - now) / DECAY_S)
            self.latency_s = self.latency_s * kept + seconds * (1.0 - kept)
        self.at = now

    def cost(self, in_flight: int, now: float) -> float:
        """What one more request beside `in_flight` would wait."""
        self.observe(0.0, now)
        if not self.latency_s:
            return UNKNOWN_S + in_flight if in_flight else 0.0
        return self.latency_s * (in_flight + 1)


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


def reserve_for(replicas: Sequence[Replica], affinity: int) -> Replica | None:
    """The replica that a sticky caller keeps, or the next in its order with a free slot, counted; None without any.

    It spills over at once: waiting for its own replica would cost latency, and give up late binding, for warm caches.
    """
    chosen, highest = None, -1
    for replica in replicas:
        if replica.in_flight < replica.capacity:
            rank = mix(affinity ^ replica.seed)
            if rank > highest:
                chosen, highest = replica, rank
    if chosen is not None:
        chosen.in_flight += 1
    return chosen


class Balancer(Protocol):
    """A way to choose other than the default, with what it remembers of one version."""

    def reserve(self, replicas: Sequence[Replica], tried: Sequence[Replica], now: float) -> Replica | None:
        """As the function `reserve`."""

    def saw(self, replica: Replica, seconds: float, now: float) -> None:
        """`replica` gave a good answer after `seconds`."""


def balancer(way: str, below: Callable[[int], int]) -> Balancer | None:
    """The way called `way` in a table; None: the default."""
    if way == "round_robin":
        return RoundRobin()
    if way == "least":
        return Least()
    return PeakEwma(below) if way == "peak_ewma" else None


class RoundRobin:
    """In turn, over the replicas that have a free slot."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = 0

    def reserve(self, replicas: Sequence[Replica], tried: Sequence[Replica], now: float) -> Replica | None:  # noqa: ARG002
        count = len(replicas)
        for turn in range(self._turn, self._turn + count):
            replica = replicas[turn % count]
            if replica.in_flight < replica.capacity and replica not in tried:
                self._turn = turn % count + 1
                replica.in_flight += 1
                return replica
        return None

    def saw(self, replica: Replica, seconds: float, now: float) -> None: ...


class Least:
    """The fewest in flight of all. Equals take turns, so that an idle fleet shares what trickles in."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = 0

    def reserve(self, replicas: Sequence[Replica], tried: Sequence[Replica], now: float) -> Replica | None:  # noqa: ARG002
        count = len(replicas)
        chosen, taken = None, 0
        for turn in range(self._turn, self._turn + count):
            replica = replicas[turn % count]
            if replica.in_flight >= replica.capacity or replica in tried:
                continue
            if chosen is None or replica.in_flight < chosen.in_flight:
                chosen, taken = replica, turn
        if chosen is not None:
            self._turn = taken % count + 1
            chosen.in_flight += 1
        return chosen

    def saw(self, replica: Replica, seconds: float, now: float) -> None: ...


class PeakEwma:
    """The cheaper of two at random, by peak latency times requests in flight and this one.

    Of two and not the cheapest of all: that would be everybody's favourite at once, in all processes and gateways,
    until its latency had told them; and it would cost a computation for each replica.
    """

    __slots__ = ("_below",)

    def __init__(self, below: Callable[[int], int]) -> None:
        self._below = below

    def reserve(self, replicas: Sequence[Replica], tried: Sequence[Replica], now: float) -> Replica | None:
        free = [replica for replica in replicas if replica.in_flight < replica.capacity and replica not in tried]
        count = len(free)
        if not count:
            return None
        chosen = free[0]
        if count > 1:
            chosen = free.pop(self._below(count))
            other = free[self._below(count - 1)]
            if other.peak.cost(other.in_flight, now) < chosen.peak.cost(chosen.in_flight, now):
                chosen = other
        chosen.in_flight += 1
        return chosen

    def saw(self, replica: Replica, seconds: float, now: float) -> None:
        replica.peak.observe(seconds, now)


def _lighter_of_two(replicas: Sequence[Replica], count: int, below: Callable[[int], int]) -> Replica:
    first = below(count)
    second = below(count - 1)
    if second >= first:
        second += 1
    one, other = replicas[first], replicas[second]
    return one if one.in_flight <= other.in_flight else other
