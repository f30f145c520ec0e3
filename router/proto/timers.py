"""Deadlines of thousands of connections with one timer of the loop.

A connection has one deadline at a time, which moves with every request. Moving it later costs an assignment: the alarm
that is set already rings, sees the later deadline, and is set again. So a busy connection touches the heap a few times
a minute, not for every request.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from math import inf
from typing import Protocol


class Timed(Protocol):
    """Something with a deadline. `alarm_due` and `alarm` belong to `Timers`."""

    deadline: float  # by time.monotonic(); inf: none
    alarm_due: float
    alarm: Alarm | None

    def on_deadline(self, now: float) -> None:
        """Called once `deadline` has passed; it sets another, or closes."""


class Alarm:
    """A heap entry's reference to what it wakes, cleared when that is gone so that the entry keeps nothing alive."""

    __slots__ = ("timed",)

    def __init__(self, timed: Timed) -> None:
        self.timed: Timed | None = timed


class Timers:
    """Calls `on_deadline` of what it watches."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._wake_at = inf
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, timed: Timed) -> None:
        """To be called when `timed.deadline` became earlier than `timed.alarm_due`."""
        self.forget(timed)
        timed.alarm = Alarm(timed)
        timed.alarm_due = timed.deadline
        heapq.heappush(self._heap, (timed.deadline, next(self._order), timed.alarm))
        if timed.deadline < self._wake_at:
            self._schedule(timed.deadline)

    def forget(self, timed: Timed) -> None:
        if timed.alarm is not None:
            timed.alarm.timed = None
            timed.alarm = None
            timed.alarm_due = inf

    def _schedule(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._wake_at = at
        # The loop counts in whole milliseconds: one more, so that it does not wake before the time.
        self._handle = self._loop.call_later(max(0.0, at - time.monotonic()) + 0.001, self._ring)

    def _ring(self) -> None:
        self._handle = None
        self._wake_at = inf
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            alarm = heapq.heappop(self._heap)[2]
            if alarm.timed is not None:
                self._ring_one(alarm.timed, now)
        if self._heap and self._heap[0][0] < self._wake_at:
            self._schedule(self._heap[0][0])

    def _ring_one(self, timed: Timed, now: float) -> None:
        self.forget(timed)
        if timed.deadline <= now:
            timed.deadline = inf
            try:
                timed.on_deadline(now)
            except Exception as exc:  # of this one: the others' deadlines hold
                self._loop.call_exception_handler({"message": f"at a deadline of {timed!r}", "exception": exc})
        elif timed.deadline != inf:
            self.watch(timed)
