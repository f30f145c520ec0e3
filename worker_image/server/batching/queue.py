"""Which waiting requests go to the model together: pure bookkeeping, no clock, no thread, no numpy.

The rule: the oldest request decides what kind of batch is next, and every waiting request of the same kind joins it,
oldest first, up to `max_rows`. A request with more rows than that goes alone and whole. Nobody waits for company while
the model is free, unless `max_delay_s` asks for it. `runner.py` is the only caller; times are seconds of one monotonic
clock, given by the caller.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Payload = TypeVar("Payload")


@dataclasses.dataclass(slots=True, eq=False)
class Waiting(Generic[Payload]):
    """One request in the queue. Equal `key`s may share a batch, None never does; past `deadline` it must not be
    computed.
    """

    payload: Payload
    key: Hashable
    rows: int
    arrived: float
    deadline: float | None = None
    abandoned: bool = False


@dataclasses.dataclass(slots=True)
class Taken(Generic[Payload]):
    """What leaves the queue: `batch` to compute, `expired` to answer with an error, or `wait_s` to ask again after."""

    batch: list[Waiting[Payload]]
    expired: list[Waiting[Payload]]
    wait_s: float | None = None


class BatchQueue(Generic[Payload]):
    def __init__(self, max_rows: int, max_delay_s: float = 0.0) -> None:
        self._max_rows = max_rows
        self._max_delay_s = max_delay_s
        self._groups: dict[Hashable, deque[Waiting[Payload]]] = {}

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups.values())

    def push(self, waiting: Waiting[Payload]) -> None:
        # A request that cannot share is a group of its own, known by its identity.
        key = waiting if waiting.key is None else waiting.key
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = deque()
        group.append(waiting)

    def take(self, now: float) -> Taken[Payload]:
        taken: Taken[Payload] = Taken([], [])
        while self._groups and not taken.batch and taken.wait_s is None:
            key = min(self._groups, key=lambda key: self._groups[key][0].arrived)
            group = self._groups[key] = self._alive(self._groups[key], now, taken.expired)
            if group:
                self._take_from(group, now, taken)
            if not group:
                del self._groups[key]
        return taken

    def _take_from(self, group: deque[Waiting[Payload]], now: float, taken: Taken[Payload]) -> None:
        count, rows = self._count(group)
        wait_s = group[0].arrived + self._max_delay_s - now
        may_grow = count == len(group) and rows < self._max_rows and group[0].key is not None
        if wait_s > 0 and may_grow:
            taken.wait_s = wait_s
        else:
            taken.batch = [group.popleft() for _ in range(count)]

    def _count(self, group: deque[Waiting[Payload]]) -> tuple[int, int]:
        """How many from the head of `group` fit into one batch, at least one, and their rows."""
        count, rows = 1, group[0].rows
        for waiting in list(group)[1:]:
            if rows + waiting.rows > self._max_rows:
                break
            count += 1
            rows += waiting.rows
        return count, rows

    @staticmethod
    def _alive(group: deque[Waiting[Payload]], now: float, expired: list[Waiting[Payload]]) -> deque[Waiting[Payload]]:
        """`group` without the requests that nobody waits for; those that are too late are added to `expired`."""
        alive: deque[Waiting[Payload]] = deque()
        for waiting in group:
            if waiting.abandoned:
                continue
            is_late = waiting.deadline is not None and waiting.deadline <= now
            (expired if is_late else alive).append(waiting)
        return alive
