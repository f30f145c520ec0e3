"""What the gateway counts for each version: codes, durations, refusals, retries.

Plain numbers that the request path adds to without allocation; `metrics.py` turns them into Prometheus' text. The
counts of a version outlive tables; they end with the version, minutes after it left the table (`Fleet.forget`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from router import contract

BUCKETS_S: Final = contract.BUCKETS_S


class Exemplar(NamedTuple):
    """A request whose trace is recorded, for the bucket it fell in. `at`: seconds since the epoch."""

    trace_id: str
    seconds: float
    at: float


def bucket_of(seconds: float) -> int:
    return bisect_left(BUCKETS_S, seconds)


class Histogram:
    """Counts by bucket; the last one has no upper bound."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds


class VersionStats:
    """The counters of one version of one model."""

    __slots__ = ("arrived", "codes", "ejections", "model_s", "queue_s", "request_s", "retries", "shed")

    def __init__(self) -> None:
        self.arrived = 0  # at admission, whatever became of them
        self.codes: dict[int, int] = {}
        self.shed: dict[str, int] = {}
        self.retries: dict[str, int] = {}
        self.ejections: dict[str, int] = {}
        self.request_s = Histogram()
        self.queue_s = Histogram()
        self.model_s = Histogram()

    def answered(self, status: int, seconds: float) -> None:
        self.codes[status] = self.codes.get(status, 0) + 1
        self.request_s.add(seconds)

    def served(self, status: int, seconds: float, model_s: float) -> None:
        """`answered` and `model_s.add` of one request, written out: it is called for every request."""
        self.codes[status] = self.codes.get(status, 0) + 1
        histogram = self.request_s
        histogram.counts[bisect_left(BUCKETS_S, seconds)] += 1
        histogram.total_s += seconds
        histogram = self.model_s
        histogram.counts[bisect_left(BUCKETS_S, model_s)] += 1
        histogram.total_s += model_s

    def shed_one(self, reason: str) -> None:
        self.shed[reason] = self.shed.get(reason, 0) + 1

    def ejected(self, reason: str) -> None:
        self.ejections[reason] = self.ejections.get(reason, 0) + 1

    def retried(self, reason: str) -> None:
        self.retries[reason] = self.retries.get(reason, 0) + 1


def dump(counters: object, names: Iterable[str]) -> dict[str, Any]:
    """The counters of an object by their names, in plain values, for another process to `add`."""
    values = ((name, getattr(counters, name)) for name in names)
    return {name: [of.counts, of.total_s] if isinstance(of, Histogram) else of for name, of in values}


def add(counters: object, dumped: Mapping[str, Any]) -> None:
    """Adds what another process, perhaps of another release, has counted: what only it knows is left out."""
    for name, theirs in dumped.items():
        mine = getattr(counters, name, None)
        if isinstance(mine, Histogram):
            mine.counts = [a + b for a, b in zip(mine.counts, theirs[0], strict=True)]
            mine.total_s += theirs[1]
        elif isinstance(mine, dict):
            setattr(counters, name, {key: mine.get(key, 0) + theirs.get(key, 0) for key in {**mine, **theirs}})
        elif isinstance(mine, int):
            setattr(counters, name, mine + theirs)
