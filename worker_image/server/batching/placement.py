"""Whether a batch runs in the model's thread or on the event loop itself: pure, told of every batch's cost.

A hand-over to the thread and back costs about 0.2 ms here, twice what a small scikit-learn model takes for a whole
batch, and two threads of one interpreter take turns anyway. So a batch runs inline when the last `STREAK` ones were
cheaper than `CHEAP_S`, it is no larger than they were, and the framework's time depends on the rows alone. Everything
else, and always code of the user's own, runs in the thread: it can block nothing there. One dear batch ends the streak.
"""

from __future__ import annotations

CHEAP_S = 0.0003
STREAK = 20


class Placement:
    """`is_steady`: the model is a framework's, not somebody's code that may sleep, wait or hang."""

    def __init__(self, *, is_steady: bool) -> None:
        self._is_steady = is_steady
        self._streak = 0
        self._most_rows = 0

    def is_inline(self, rows: int) -> bool:
        return self._is_steady and self._streak >= STREAK and rows <= self._most_rows

    def observe(self, rows: int, cpu_s: float) -> None:
        """`cpu_s` is time of the calling thread alone: waiting for the interpreter's lock says nothing of the model."""
        if cpu_s >= CHEAP_S:
            self._streak = 0
            self._most_rows = min(self._most_rows, rows - 1)
        else:
            self._streak += 1
            self._most_rows = max(self._most_rows, rows)
