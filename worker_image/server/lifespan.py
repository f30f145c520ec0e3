"""The lifespan of an author's ASGI app: https://asgi.readthedocs.io/en/latest/specs/lifespan.html

Owns the task in which the app waits between its startup and its shutdown, and what is said of a startup that failed. An
app that knows no lifespan, which the specification allows, is taken as started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from worker_image.server import log
from worker_image.server.errors import ModelFailed, last_line_of, one_line

Application = Callable[..., Awaitable[None]]
Message = MutableMapping[str, Any]
# Starlette tells a failed startup, and raises its cause just after.
_CAUSE_S = 1.0


class Lifespan:
    """`state` is the app's: what its startup puts there is in the scope of every request."""

    def __init__(self, app: Application, directory: Path) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._directory = directory
        self._task: asyncio.Task[None] | None = None
        self._asked: asyncio.Queue[Message] = asyncio.Queue()
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._was_asked = False

    async def startup(self) -> None:
        """Raises `ModelFailed` with the app's own reason."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = asyncio.create_task(_run(self._app, scope, self._receive, self._told.put), name="lifespan")
        told = await self._ask("lifespan.startup")
        if told is not None and told["type"] == "lifespan.startup.failed":
            await asyncio.wait([self._task], timeout=_CAUSE_S)
            raise self._failure(str(told.get("message", "")))
        if told is None and self._was_asked and self._task.exception() is not None:
            raise self._failure("")

    async def shutdown(self) -> None:
        if self._task is None or self._task.done():
            return
        told = await self._ask("lifespan.shutdown")
        if told is not None and told["type"] == "lifespan.shutdown.failed":
            log.event("app shutdown failed", level="error", reason=str(told.get("message", "")))

    async def _ask(self, kind: str) -> Message | None:
        """The app's answer, None when it ended without one."""
        assert self._task is not None
        self._asked.put_nowait({"type": kind})
        answer = asyncio.ensure_future(self._told.get())
        await asyncio.wait([answer, self._task], return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        return None

    async def _receive(self) -> Message:
        self._was_asked = True
        return await self._asked.get()

    def _failure(self, message: str) -> ModelFailed:
        assert self._task is not None
        cause = self._task.exception() if self._task.done() else None
        if cause is None:
            # Starlette's message is a whole trace, whose last line says what happened.
            said = message.strip().rpartition("\n")[2] or "no reason given"
            return ModelFailed("MODEL_RAISED", f"app: its startup failed ({said}); correct the model")
        where = last_line_of(cause, self._directory)
        failed = ModelFailed("MODEL_RAISED", f"app: its startup raised {one_line(cause)}{where}; correct the model")
        failed.__cause__ = cause
        return failed


async def _run(app: Application, scope: Message, receive: Any, send: Any) -> None:
    """SystemExit would end the event loop with it."""
    try:
        await app(scope, receive, send)
    except SystemExit as exc:
        raise RuntimeError(one_line(exc)) from exc
