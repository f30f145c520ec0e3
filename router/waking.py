"""Tells the control plane that requests wait for versions that are asleep.

Owns the call: one for all such versions at a time, at once when the first request begins to wait, and again while they
are still asleep in the table in force (the call or what it led to was lost, or the control plane is away). What to do
about it is the control plane's to decide, and its answer is the next table. The waiting itself is in
`core/admission.py`: nothing here runs on a request's way, and requests keep their deadlines whatever becomes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Final

import msgspec

from router.calls import SourceError, authorization, backoff_s, fetch
from router.contract import Asked, WakeCall
from router.core.admission import Lane

if TYPE_CHECKING:
    from router.server import Gateway

# The control plane answers within milliseconds, and so does its next table come.
ANSWER_S: Final = 2.0
AGAIN_S: Final = 0.5


class Waking:
    """The calls of one process. A table from a file has nobody behind it who could be told."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._lanes: set[Lane] = set()
        self._new = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def wake(self, lane: Lane) -> None:
        """Somebody waits for `lane`, which is asleep. To be called as often as one likes."""
        if lane in self._lanes or not self._gateway.config.control_url:
            return
        self._lanes.add(lane)
        self._new.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="waking")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        failures = 0
        try:
            while asked := self._asked():
                self._new.clear()
                failures = 0 if await self._tell(asked, failures) else failures + 1
                await self._pause(backoff_s(failures, random.random()) if failures else AGAIN_S)
        finally:
            self._task = None

    def _asked(self) -> tuple[Asked, ...]:
        """Of those that are asleep still and have somebody waiting; the others are forgotten."""
        self._lanes = {lane for lane in self._lanes if lane.is_asleep and lane.queued}
        return tuple(Asked(lane.model, lane.version, lane.queued_everywhere) for lane in self._lanes)

    async def _tell(self, asked: tuple[Asked, ...], failures: int) -> bool:
        config, log = self._gateway.config, self._gateway.log
        names = ", ".join(f"{each.model}@{each.version}" for each in asked)
        try:
            url = f"{config.control_url.rstrip('/')}/internal/v1/wake"
            body = msgspec.json.encode(WakeCall(asked))
            status, _ = await fetch(url, authorization(config), body, ANSWER_S)
        except SourceError as exc:
            reason = str(exc)
        else:
            reason = "" if status < 300 else f"control plane answered {status}"
        if not reason:
            log.info("versions to be woken", asked=names, queued=sum(each.queued for each in asked))
        elif not failures:
            log.warning("versions not woken; it is tried again while requests wait", asked=names, reason=reason)
        return not reason

    async def _pause(self, seconds: float) -> None:
        """Returns early when another version is to be woken."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._new.wait()
