"""Keeps the managed Prometheus running while the manifest in force asks for one. Without it costs nothing.

Nothing here holds up serving: what is wrong is one event and a line of `status`, and is tried again.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from orchestrator.adapters.prometheus_server import PrometheusFailed, PrometheusProcess, Settings
from orchestrator.loops.journal import Journal
from orchestrator.loops.tasks import wait_until_set
from orchestrator.manifest import ObservabilityConfig

CHECK_EVERY_S = 5.0
IDLE_S = 3600.0


class PrometheusKeeper:
    """`config` is what should be; `pid` of the managed server, `error` why there is none though it is wanted."""

    def __init__(self, process: PrometheusProcess, journal: Journal, threads: ThreadPoolExecutor) -> None:
        self._process = process
        self._journal = journal
        self._threads = threads
        self._changed = asyncio.Event()
        # Guards starting and ending.
        self._lock = asyncio.Lock()
        self._is_ending = False
        self._may_run = True  # by an earlier control plane
        self.config = ObservabilityConfig()
        self.pid: int | None = None
        self.error = ""

    def want(self, config: ObservabilityConfig) -> None:
        self.config = config
        self._changed.set()

    async def run(self) -> None:
        while True:
            self._changed.clear()
            await self.ensure()
            await wait_until_set(self._changed, CHECK_EVERY_S if self.config.is_managed else IDLE_S)

    async def ensure(self) -> None:
        """Has it run, or not, as the manifest says; remembers why it could not."""
        async with self._lock:
            if self._is_ending:
                return
            settings = settings_of(self.config)
            if settings is None:
                await self._end()
            else:
                await self._keep(settings)

    async def stop(self) -> None:
        """For good: the cluster goes down."""
        self._is_ending = True
        async with self._lock:
            await self._end()

    async def _keep(self, settings: Settings) -> None:
        loop = asyncio.get_running_loop()
        self._may_run = True
        self.pid = await loop.run_in_executor(self._threads, self._process.find, settings)
        if self.pid is not None:
            self.error = ""
            return
        before = await loop.run_in_executor(self._threads, self._process.running)
        try:
            self.pid = await loop.run_in_executor(self._threads, self._process.start, settings)
        except PrometheusFailed as exc:
            if str(exc) != self.error:
                self._journal.record("prometheus_failed", str(exc), level="error")
            self.error = str(exc)
            return
        self.error = ""
        if self.pid != before:  # else it reads its configuration again: the control plane has another address
            self._journal.record("prometheus_started", f"Prometheus answers at {settings.url} (process id {self.pid})")

    async def _end(self) -> None:
        self.error = ""
        if not self._may_run:
            return
        had_one = await asyncio.get_running_loop().run_in_executor(self._threads, self._process.stop)
        self.pid, self._may_run = None, False
        if had_one:
            self._journal.record("prometheus_stopped", "Prometheus ended; what it kept stays in the state directory")


def settings_of(config: ObservabilityConfig) -> Settings | None:
    """What the managed server runs with; None without one."""
    if not config.is_managed:
        return None
    return Settings(config.prometheus_port, config.retention_s, config.max_disk_bytes)
