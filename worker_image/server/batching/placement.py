"""Whether a batch runs in the model's thread or on the event loop itself: pure, told of every batch's cost.

A hand-over to the thread and back costs about 0.2 ms here, as much as a small scikit-learn model takes for a whole
batch, and two threads of one interpreter take turns anyway. So a batch runs inline when the latest ones were cheaper
than `CHEAP_S` on average, it is no larger than they were, and the framework's time depends on the rows alone.
Everything else, and always code of the user's own, runs in the thread: it can block nothing there. One batch of
`DEAR_S` begins the count anew. A dear one below that ends nothing: a busy machine makes one in twenty so, and counting
anew for it left nine of ten batches to the thread.
"""

from __future__ import annotations

CHEAP_S = 0.0005
DEAR_S = 0.002
# So many batches are looked at before the first runs inline.
STREAK = 20
# Of the latest batch in the average.
_WEIGHT = 1 / 8


class Placement:
    """`is_steady`: the model is a framework's, not somebody's code that may sleep, wait or hang."""

    def __init__(self, *, is_steady: bool) -> None:
        self._is_steady = is_steady
        self._streak = 0
        self._most_rows = 0
        self._mean_s = 0.0

    def is_inline(self, rows: int) -> bool:
        return self._is_steady and self._streak >= STREAK and rows <= self._most_rows and self._mean_s < CHEAP_S

    def observe(self, rows: int, cpu_s: float) -> None:
        """`cpu_s` is time of the calling thread alone: waiting for the interpreter's lock says nothing of the model."""
        if cpu_s >= DEAR_S:
            self._streak, self._most_rows = 0, 0
            return
        self._mean_s += _WEIGHT * (cpu_s - self._mean_s) if self._streak else cpu_s - self._mean_s
        self._streak += 1
        self._most_rows = max(self._most_rows, rows)
