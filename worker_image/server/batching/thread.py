"""The thread in which one instance of the model is loaded and called.

Owns the hand-over between it and the event loop, and nothing of what runs in it. It is a daemon: a model that hangs
must not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any


class ModelThread:
    """One thread, because some frameworks bind a model to the thread that loaded it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str = "model") -> None:
        self._loop = loop
        self._inbox: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Runs `work` in the thread and then `done` with its result on the loop. `work` must not raise."""
        self._inbox.put((work, done))

    def stack(self, frames: int) -> str:
        """The deepest frames of what runs in it now, outermost first."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "" if frame is None else "".join(traceback.format_stack(frame)[-frames:])

    def stop(self, timeout_s: float) -> bool:
        """Whether the thread ended; False when the model still computes."""
        self._inbox.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._inbox.get()) is not None:
            work, done = job
            result = work()
            if self._loop.is_closed():
                return
            self._loop.call_soon_threadsafe(done, result)
