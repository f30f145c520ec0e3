"""Wakes the event loop at a moment, to some 50 µs.

Timers of uvloop and asyncio count whole milliseconds, which would make every request up to one late. Linux' timerfd is
a descriptor that becomes readable at a moment; where there is none, the loop's own timers do.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1


class _Moment(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Moment), ("value", _Moment))


class Alarm:
    """Calls `ring` at the moment of `time.monotonic_ns()` that was set last. Needs a running loop; close it."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._descriptor = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._on_readable)

    def set(self, at_ns: int) -> None:
        if self._descriptor < 0:
            self._timer = self._loop.call_later(max(0, at_ns - time.monotonic_ns()) / 1e9, self._ring)
            return
        seconds, nanoseconds = divmod(max(1, at_ns), 1_000_000_000)  # 0 would disarm it
        setting = _Setting(_Moment(0, 0), _Moment(seconds, nanoseconds))
        self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(setting), None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _on_readable(self) -> None:
        os.read(self._descriptor, 8)
        self._ring()
