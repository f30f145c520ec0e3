"""Requests per second with a burst: one number for each limit (GCRA, the generic cell rate algorithm).

The number is the moment at which a bucket would be full again if nobody came (its theoretical arrival time). Each
request moves it by 1/rate; one that would move it further than the burst ahead of now is refused. So over any window
of t seconds at most burst + rate * t requests pass, and the whole rate is reachable. The number stands in a buffer of
doubles that the caller owns: processes that share the buffer share the limit (two that read it in the same microsecond
may both pass: the limit is then off by one, never corrupt). `now` is a clock that all of them share: time.monotonic().
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, MutableSequence
from typing import Final, TypeAlias

from router.contract import RateLimit

# What rounding may add up to over a burst: who keeps exactly to the rate must not be refused for it. It lets through
# less than one request more, up to a million per second.
ROUNDING_S: Final = 1e-6

Cells: TypeAlias = "MutableSequence[float] | memoryview[float]"
# Gives a limit of that name its place: the buffer and the index in it. The same name gets the same place again.
Place = Callable[[str], tuple[Cells, int]]


def private_place(_name: str) -> tuple[Cells, int]:
    """A place that nobody shares."""
    return array("d", [0.0]), 0


class RateGate:
    """One limit. `cells[index]` is its state; 0.0 is a full bucket."""

    __slots__ = ("_cells", "_index", "_reach_s", "_step_s", "limit")

    def __init__(self, cells: Cells, index: int, limit: RateLimit) -> None:
        self._cells = cells
        self._index = index
        self.limit = limit
        self._step_s = 1.0 / limit.requests_per_s
        self._reach_s = (limit.burst - 1) * self._step_s + ROUNDING_S

    def wait_s(self, now: float) -> float:
        """How long until one request may pass; 0 when one may now."""
        wait_s: float = self._cells[self._index] - now - self._reach_s
        return max(0.0, wait_s)

    def spend(self, now: float) -> None:
        """Lets one request pass. To be called when `wait_s` is 0."""
        cells, index = self._cells, self._index
        full_at = cells[index]
        cells[index] = max(now, full_at) + self._step_s

    def changed(self, limit: RateLimit, now: float) -> RateGate:
        """The same bucket under another limit: what was spent stays spent, but no more than all of the new burst."""
        gate = RateGate(self._cells, self._index, limit)
        self._cells[self._index] = min(self._cells[self._index], now + limit.burst * gate._step_s)
        return gate


def gate_for(before: RateGate | None, limit: RateLimit | None, name: str, place: Place, now: float) -> RateGate | None:
    """The gate of `limit` in a new table. One whose limit is the same is kept: a table refills no bucket."""
    if limit is None:
        return None
    if before is None:
        return RateGate(*place(name), limit)
    return before if before.limit == limit else before.changed(limit, now)
