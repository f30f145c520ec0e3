"""Named background tasks whose reference is kept and whose failure is never silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger("modelfleet")


class TaskGroup:
    """Tasks of one owner, ended together."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"{self._name}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("task failed", task=task.get_name(), exc_info=error)


async def wait_until_set(event: asyncio.Event, timeout_s: float) -> None:
    """Returns when `event` is set, or after `timeout_s`.

    Not `asyncio.wait_for`: on Python 3.11 that loses a cancellation which comes in the moment of the event, and a loop
    that was told to end goes on.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


async def forever(name: str, work: Callable[[], Awaitable[None]], pause_s: float = 1.0) -> None:
    """Runs `work` again whenever it ends or raises: a bug in one loop must not end the control plane."""
    while True:
        try:
            await work()
        except Exception:  # the one place that outlives our own bugs: it logs them whole
            log.exception("loop failed; it starts again", loop=name)
        await asyncio.sleep(pause_s)
