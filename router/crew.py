"""This process among the others of its gateway: who it is, its row of the shared page, and the bells.

Owns the tie between one process and the page: whom it counts together with (`core/rows.py`), when it looks again at
what the others wrote, and how they wake each other. A process without a supervisor (in a test, a benchmark) is a crew
of one that shares nothing. Nothing here is called for a request that does not wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from router.core.rows import Rows, alone
from router.job import Job
from router.page import Field, Page, Phase

# While a request waits here, a slot that no bell rang for is found by then at the latest.
LOOK_S: Final = 0.005


class Crew:
    """`pid` is the gateway's: its supervisor's, or that of a process without one."""

    def __init__(self, job: Job | None = None) -> None:
        self.job = job
        self.pid = job.supervisor_pid if job else os.getpid()
        self.started_at = job.started_at if job else time.time()
        self.page = Page(job.page) if job else None
        self.rows = alone()
        self.was_asked = asyncio.Event()
        self._met: Callable[[], None] = lambda: None
        self._seen = -1  # the page's changes
        self._look: asyncio.TimerHandle | None = None
        if self.page and job:
            self.page.set(job.row, Field.PID, os.getpid())
            self.rows = Rows(self.page, self.page.row(job.row), self.wake, _fence())

    @property
    def generation(self) -> int:
        """The newest generation of processes that serves."""
        return self.page.generation if self.page else 1

    def join(self, met: Callable[[], None]) -> None:
        """Begins to count with the others, now and whenever one comes or goes: `met` is called then."""
        if self.job is None:
            return
        self._met = met
        self.rows.began_waiting = self._look_later
        asyncio.get_running_loop().add_reader(self.job.bells[self.job.row], self._on_bell)
        self._meet()

    def enter(self, phase: Phase) -> None:
        """Says what this process does, to all and to the supervisor."""
        if self.page and self.job:
            self.page.set(self.job.row, Field.PHASE, phase)
            _ring(self.job.supervisor_bell)

    def applied_table(self) -> None:
        if self.page and self.job:
            self.page.set(self.job.row, Field.TABLES, self.page.get(self.job.row, Field.TABLES) + 1)

    def wake(self, row: int) -> None:
        """Rings the bell of a row. One that was made after this process started is not here: that row looks by itself
        after `LOOK_S`."""
        bell = self.job.bells.get(row) if self.job else None
        if bell is not None:
            _ring(bell)

    def _on_bell(self) -> None:
        assert self.job is not None
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.job.bells[self.job.row])
        self._meet()
        self._look_at_lanes()
        assert self.page is not None
        if self.page.asked > self.page.get(self.job.row, Field.ANSWERED):
            self.was_asked.set()

    def _meet(self) -> None:
        """Looks who is there."""
        assert self.page is not None
        assert self.job is not None
        changes = self.page.changes
        if changes == self._seen:
            return
        self._seen = changes
        others = [self.page.row(number) for number in self.page.held_rows if number != self.job.row]
        was_alone, self.rows.others = not self.rows.others, others
        if not others:
            self.rows.waiting.clear()
        if was_alone != (not others):
            self._met()

    def _look_later(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_S, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._look_at_lanes()
        if self.rows.waiting:
            self._look_later()

    def _look_at_lanes(self) -> None:
        now = time.monotonic()
        for lane in list(self.rows.waiting):
            lane.look(now)


def _ring(bell: int) -> None:
    with contextlib.suppress(BlockingIOError):  # it rings already
        os.eventfd_write(bell, 1)


def _fence() -> Callable[[], None]:
    """A lock's atomic operation orders memory on both sides of it: on x86 alone a read may overtake an older write."""
    lock = threading.Lock()

    def fence() -> None:
        lock.acquire()
        lock.release()

    return fence
