"""Which waiting requests go to the model together: pure bookkeeping, no clock, no thread, no numpy.

The rule: the oldest request decides what kind of batch is next, and the waiting requests of the same kind join it,
oldest first, up to the limit that `sizing.py` knows. A request with more rows than that goes alone. Nobody waits for
company while the model is free, unless `max_delay_s` asks for it. What is late or abandoned is not computed.
`runner.py` is the only caller; times are seconds of one monotonic clock, given by the caller.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from worker_image.server.batching.sizing import Sizing

Payload = TypeVar("Payload")

# Of the time that the most urgent request has left: its batch must not take more of it.
DEADLINE_SHARE = 0.5


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
    def __init__(self, sizing: Sizing, max_delay_s: float = 0.0) -> None:
        self._sizing = sizing
        self._max_delay_s = max_delay_s
        self._groups: dict[Hashable, deque[Waiting[Payload]]] = {}
        self._length = 0

    def __len__(self) -> int:
        """How many wait; those that were abandoned meanwhile are still among them."""
        return self._length

    def push(self, waiting: Waiting[Payload]) -> None:
        # A request that cannot share is a group of its own, known by its identity.
        key = waiting if waiting.key is None else waiting.key
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = deque()
        group.append(waiting)
        self._length += 1

    def take(self, now: float) -> Taken[Payload]:
        taken: Taken[Payload] = Taken([], [])
        groups = self._groups
        while groups and not taken.batch and taken.wait_s is None:
            key = next(iter(groups)) if len(groups) == 1 else min(groups, key=lambda key: groups[key][0].arrived)
            group = groups[key]
            before = len(group)
            if not self._must_wait(group, now, taken):
                self._fill(group, now, taken)
            self._length -= before - len(group)
            if not group:
                del groups[key]
        return taken

    def _must_wait(self, group: deque[Waiting[Payload]], now: float, taken: Taken[Payload]) -> bool:
        """Whether more company may come, in the time that was set for it, to the oldest of the living."""
        if not self._max_delay_s or group[0].key is None:
            return False
        alive = [waiting for waiting in group if _is_alive(waiting, now)]
        if not alive or sum(waiting.rows for waiting in alive) >= self._sizing.limit:
            return False
        wait_s = alive[0].arrived + self._max_delay_s - now
        if wait_s <= 0:
            return False
        taken.wait_s = wait_s
        return True

    def _fill(self, group: deque[Waiting[Payload]], now: float, taken: Taken[Payload]) -> None:
        batch, most, rows = taken.batch, self._sizing.limit, 0
        while group:
            waiting = group[0]
            if _is_alive(waiting, now):
                if batch and rows + waiting.rows > most:
                    return
                rows += waiting.rows
                batch.append(waiting)
            elif not waiting.abandoned:
                taken.expired.append(waiting)
            group.popleft()
        self._spare_the_urgent(group, now, batch, rows)

    def _spare_the_urgent(
        self, group: deque[Waiting[Payload]], now: float, batch: list[Waiting[Payload]], rows: int
    ) -> None:
        """Puts the youngest back until what is left is done in time for those that can make it at all.

        Called only when nobody waits beyond this batch. Under a backlog smaller batches would make everybody later.
        """
        seconds_of = self._sizing.seconds_of
        alone_s = seconds_of(1)
        while len(batch) > 1:
            left = [each.deadline - now for each in batch if each.deadline is not None]
            urgent_s = min((left_s for left_s in left if left_s >= alone_s), default=None)
            if urgent_s is None or seconds_of(rows) <= urgent_s * DEADLINE_SHARE:
                return
            waiting = batch.pop()
            group.appendleft(waiting)
            rows -= waiting.rows


def _is_alive(waiting: Waiting[Payload], now: float) -> bool:
    return not waiting.abandoned and (waiting.deadline is None or waiting.deadline > now)
