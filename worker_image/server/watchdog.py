"""Ends a server whose model hangs: nobody can end a thread, so the process is what is started again.

Two cases. Code that hangs but lets the interpreter go on is seen here, its callers are answered, and the process ends
with a reason. Code that holds the interpreter's lock stops the event loop too: then a timer of `faulthandler`, which
needs no lock, prints where every thread stands and ends the process.

That timer counts the time in which a whole process is paused as well, and would end it when it is woken. So whoever
pauses a server tells it before (`Rest`).
"""

from __future__ import annotations

import asyncio
import faulthandler
from collections.abc import Sequence
from typing import Protocol

from worker_image.server import log
from worker_image.server.errors import ModelFailed, RequestError, stuck

# Code that hangs while it holds the interpreter's lock is given so much longer: our own way out says more.
GRACE_S = 5.0
# Those of the model's own code are the deepest; ours above them say nothing, and a long line is cut by who keeps it.
_FRAMES = 6
# The timer is set anew so often. Each time costs a thread, so it is not done for each batch.
MOST_PAUSE_S = 1.0


# Who said that it will pause the server does so within this time.
REST_S = 10.0


class Rest:
    """The server is about to be paused. Counted in time that passes for it: a pause of hours is none of it."""

    def __init__(self) -> None:
        self._left_s = 0.0

    def begin(self) -> None:
        """Takes the timer back; it is set again after `REST_S` of running, whether there was a pause or not."""
        self._left_s = REST_S
        faulthandler.cancel_dump_traceback_later()

    def lasts(self, step_s: float) -> bool:
        """Whether it lasts another step of so long."""
        self._left_s = max(0.0, self._left_s - step_s)
        return self._left_s > 0.0


class Watched(Protocol):
    """Whatever calls the model: for how long the slowest call has lasted, and a way to answer all who wait."""

    def longest_s(self) -> float: ...

    def stacks(self, frames: int) -> list[str]:
        """Where each thread that calls the model stands: its deepest frames."""
        ...

    def give_up(self, error: RequestError) -> None: ...


async def until_stuck(watched: Sequence[Watched], timeout_s: float, rest: Rest, *, may_restart: bool) -> None:
    """Returns when one call of the model has lasted longer than `timeout_s`. With `may_restart` the instance sees to
    that itself, and only the event loop is watched.
    """
    step_s = min(MOST_PAUSE_S, timeout_s / 4)
    try:
        while may_restart or max(each.longest_s() for each in watched) <= timeout_s:
            if not rest.lasts(step_s):
                faulthandler.dump_traceback_later(timeout_s + GRACE_S, exit=True, file=log.fileno())
            await asyncio.sleep(step_s)
    finally:
        faulthandler.cancel_dump_traceback_later()


def give_up(watched: Sequence[Watched], timeout_s: float) -> ModelFailed:
    """Answers whoever waits for the model and shows where it hangs; gives what the process is to end with."""
    error = stuck(timeout_s)
    for each in watched:
        for stack in each.stacks(_FRAMES):
            log.event("model hangs", level="error", stack=stack)
        each.give_up(error)
    return ModelFailed("PREDICT_TIMEOUT", error.sentence)
