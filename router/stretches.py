"""Long work in short stretches, between which requests get their turn.

Owns how long a stretch is. The work is a generator that yields often; it must leave everything right at each yield.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Final, TypeVar

T = TypeVar("T")

# No request waits longer than this behind one.
STRETCH_S: Final = 0.001


async def in_stretches(steps: Generator[None, None, T]) -> T:
    """Runs `steps` to their end, and returns what they return."""
    began = time.monotonic()
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if time.monotonic() - began > STRETCH_S:
            await asyncio.sleep(0)
            began = time.monotonic()
