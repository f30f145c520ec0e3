"""Which part of its life a server is in, and since when: what readiness answers while it is not ready.

Written by the model's thread (one attribute at a time) and read by the event loop; it decides nothing.
"""

from __future__ import annotations

import time


class Phase:
    """`importing`, `loading`, `warming`, `ready` or `draining`; `error` is the sentence of a model that failed."""

    def __init__(self, started: float) -> None:
        self.name = "importing"
        self.error = ""
        self.lengths: dict[str, float] = {}
        self._started = started
        self._since = started

    @property
    def is_ready(self) -> bool:
        return self.name == "ready"

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
        self.lengths[self.name] = now - self._since
        self._since = now
        self.name = name
