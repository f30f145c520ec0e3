"""Which part of its life a server is in, since when, and how long each part took: what readiness answers.

Written by the model's thread (one attribute at a time) and read by the event loop; it decides nothing.
"""

from __future__ import annotations

import time


class Phase:
    """`importing`, `loading`, `warming`, `ready` or `draining`; `error` is the sentence of a model that failed.

    `lengths` are the seconds of the phases before it was ready, `ready_at` when that was (since the epoch, 0.0 before).
    """

    def __init__(self, started: float) -> None:
        self.name = "importing"
        self.error = ""
        self.lengths: dict[str, float] = {}
        self.ready_at = 0.0
        self._started = started
        self._since = started

    @property
    def is_ready(self) -> bool:
        return self.name == "ready"

    @property
    def takes_requests(self) -> bool:
        """While it drains, what comes on the connections that are open is answered still."""
        return self.name == "ready" or (self.name == "draining" and not self.error)

    @property
    def total_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def seconds(self) -> float:
        """How long this phase has lasted."""
        return time.monotonic() - self._since

    def begin(self, name: str) -> None:
        if name == self.name:
            return
        now = time.monotonic()
        if not self.ready_at:
            self.lengths[self.name] = now - self._since
        if name == "ready":
            self.ready_at = time.time()
        self._since = now
        self.name = name
