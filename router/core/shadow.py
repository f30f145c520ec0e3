"""Shadows: which requests of a model are copied to another version of it, and what is counted of the copies.

Owns the choice (`ShadowRule`) and, at the version that is copied to, the bound on copies and those that wait
(`Copies`). A copy waits here and not in the version's queue, and is given a slot only when no request waits for one, so
that it can neither fill a queue nor come before anybody. What is counted stays apart from the version's own counters:
rollouts and the autoscaler read those. Pure; sending and comparing is `proto/shadow.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

from router.contract import Shadow
from router.core.stats import Histogram

if TYPE_CHECKING:
    from router.core.admission import Lane
    from router.core.balance import Replica

# Percents are counted in millionths, so that no sum of them is ever rounded.
_WHOLE: Final = 100_000_000
_MINUTE_S: Final = 60.0
_SAFE: Final = (b"GET", b"HEAD")
_STREAMS: Final = (b"/infer_stream", b"/generate_stream")


class Copy(Protocol):
    """A copy on its way."""

    def take_slot(self, replica: Replica) -> None:
        """Called once, when a slot was reserved for it. It waits no more then."""

    def end(self, reason: str) -> None:
        """Its shadow is gone: it counts as dropped, and nothing more is done for it."""


class Copies:
    """All copies that go to one version. It lives as long as the version's lane: counters never go back."""

    __slots__ = ("_waiting", "being", "drops", "failures", "results", "seconds")

    def __init__(self) -> None:
        self._waiting: OrderedDict[Copy, None] = OrderedDict()
        self.being: set[Copy] = set()  # from the dispatch of the live request until the answers are compared
        self.results: dict[str, int] = {}
        self.drops: dict[str, int] = {}  # by reason
        self.failures: dict[str, int] = {}  # by reason
        self.seconds = Histogram()  # in the replica, until the answer is whole

    @property
    def alive(self) -> int:
        return len(self.being)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def refuses(self, lane: Lane, queue_max: int) -> str:
        """Why one more is dropped at once; "" when it is not."""
        if len(self.being) >= queue_max:
            return "queue_full"
        return "" if lane.replicas else "not_ready"

    def count(self, result: str) -> None:
        self.results[result] = self.results.get(result, 0) + 1

    def drop(self, reason: str) -> None:
        self.count("dropped")
        self.drops[reason] = self.drops.get(reason, 0) + 1

    def fail(self, reason: str) -> None:
        self.count("failed")
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def wait(self, copy: Copy) -> None:
        self._waiting[copy] = None

    def leave(self, copy: Copy) -> None:
        """Nothing happens when it does not wait."""
        self._waiting.pop(copy, None)

    def serve(self, lane: Lane, now: float) -> None:
        """Hands the slots that no request wants to the copies that wait, oldest first."""
        while self._waiting:
            replica = lane.reserve_for_copy(now)
            if replica is None:
                return
            copy, _ = self._waiting.popitem(last=False)
            copy.take_slot(replica)

    def end(self, reason: str) -> None:
        """Ends all of them."""
        for copy in list(self.being):
            copy.end(reason)


class ShadowRule:
    """One model's shadow, as the table in force has it. `lane` is the version that is copied to."""

    __slots__ = ("_credit", "_minute_ends", "_samples", "_share", "copies", "lane", "shadow")

    def __init__(self, shadow: Shadow, lane: Lane) -> None:
        if lane.copies is None:
            lane.copies = Copies()
        self.shadow = shadow
        self.lane = lane
        self.copies = lane.copies
        self._share = round(shadow.percent * _WHOLE / 100)
        self._credit = 0
        self._samples = 0
        self._minute_ends = 0.0

    def takes(self, method: bytes, path: bytes) -> bool:
        """Whether this request is copied: `percent` of those that may be, evenly spread and exact over time."""
        if not may_be_copied(method, path):
            return False
        self._credit += self._share
        if self._credit < _WHOLE:
            return False
        self._credit -= _WHOLE
        return True

    def may_sample(self, now: float) -> bool:
        """Takes one of the minute's samples, if there is one left."""
        if now >= self._minute_ends:
            self._minute_ends = now + _MINUTE_S
            self._samples = 0
        self._samples += 1
        return self._samples <= self.shadow.samples_per_minute


def may_be_copied(method: bytes, path: bytes) -> bool:
    """Predictions of the v1 and v2 protocols; of a model's own paths only what is safe by its method (RFC 9110, 9.2.1),
    for nobody but the model knows what else they do. A stream is not copied: it lasts as long as its reader likes, and
    its events name the version. `path` is the one that the replica gets."""
    if path.startswith(b"/models/"):
        return method in _SAFE
    return method == b"POST" and not path.endswith(_STREAMS)
