"""Reads what each replica uses, every few seconds, and keeps the last two readings of each: for metrics and status.

What could not be read is not there: an engine that does not answer makes all of it unknown, never zero. Decides
nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from orchestrator.adapters.engine import Engine, EngineUnavailable, ReplicaUsage

log = structlog.get_logger("modelfleet")

EVERY_S = 5.0
# Where reading takes long (over the engine's API) it is done less often: it takes at most this share of the time.
MOST_SHARE = 0.1
SELDOM_S = 60.0


class ResourceWatch:
    """`usages` are the newest readings, by replica."""

    def __init__(self, engine: Engine, threads: ThreadPoolExecutor, may_ask: Callable[[], bool]) -> None:
        """`may_ask` is false while nobody knows which replicas there are."""
        self._engine = engine
        self._threads = threads
        self._may_ask = may_ask
        self._before: dict[str, ReplicaUsage] = {}
        self.usages: dict[str, ReplicaUsage] = {}

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            await self.read()
            await asyncio.sleep(pause_s(time.monotonic() - began))

    async def read(self) -> None:
        """Takes in one reading of all replicas."""
        if not self._may_ask():
            self._forget()
            return
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._engine.usage)
        except EngineUnavailable as exc:
            log.debug("usage unknown", reason=str(exc))
            self._forget()
            return
        self._before, self.usages = self.usages, {usage.id: usage for usage in found}

    def cores(self, replica_id: str) -> float | None:
        """How many cores it used on average between its last two readings."""
        now, before = self.usages.get(replica_id), self._before.get(replica_id)
        if now is None or before is None or now.cpu_s is None or before.cpu_s is None:
            return None
        span_s = now.at - before.at
        return None if span_s <= 0 or now.cpu_s < before.cpu_s else (now.cpu_s - before.cpu_s) / span_s

    def _forget(self) -> None:
        self._before, self.usages = {}, {}


def pause_s(took_s: float) -> float:
    """How long not to read again after a reading that took so long."""
    return min(SELDOM_S, max(EVERY_S, took_s / MOST_SHARE))
