"""This process among the others of its gateway: who it is, its rows of the shared page, and the bells.

Owns the tie between one process and the page. A process without a supervisor (in a test, a benchmark) is a crew of one
that shares nothing.
"""

from __future__ import annotations

import contextlib
import os
import time

from router.job import Job
from router.page import Field, Page, Phase


class Crew:
    """`pid` is the gateway's: its supervisor's, or that of a process without one."""

    def __init__(self, job: Job | None = None) -> None:
        self.job = job
        self.pid = job.supervisor_pid if job else os.getpid()
        self.started_at = job.started_at if job else time.time()
        self.page = Page(job.page) if job else None
        if self.page and job:
            self.page.set(job.row, Field.PID, os.getpid())

    def enter(self, phase: Phase) -> None:
        """Says what this process does, to all and to the supervisor."""
        if self.page and self.job:
            self.page.set(self.job.row, Field.PHASE, phase)
            _ring(self.job.supervisor_bell)

    def applied_table(self) -> None:
        if self.page and self.job:
            self.page.set(self.job.row, Field.TABLES, self.page.get(self.job.row, Field.TABLES) + 1)

    @property
    def generation(self) -> int:
        """The newest generation of processes that serves."""
        return self.page.generation if self.page else 1


def _ring(bell: int) -> None:
    with contextlib.suppress(BlockingIOError):  # it rings already
        os.eventfd_write(bell, 1)
