"""Keeps one gateway running with the listener that the manifest in force asks for, and knows what it says.

The gateway is not the control plane's to lose: it is adopted when it runs, started when it does not, restarted hot when
its settings change, and replaced only when its address does.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx

from orchestrator.adapters.gateway import GatewayFailed, GatewayProcess, Listener, report
from orchestrator.loops.journal import Journal
from orchestrator.loops.tasks import wait_until_set
from router.contract import GatewayReport

CHECK_EVERY_S = 1.0


class GatewayKeeper:
    """`listener` is what should be; `error` why there is no gateway, "" while there is one."""

    def __init__(
        self, process: GatewayProcess, journal: Journal, client: httpx.AsyncClient, threads: ThreadPoolExecutor
    ) -> None:
        self._process = process
        self._journal = journal
        self._client = client
        self._threads = threads
        self._changed = asyncio.Event()
        # Guards finding and starting: two at once would start two gateways.
        self._lock = asyncio.Lock()
        self.listener: Listener | None = None
        self.pid: int | None = None
        self.error = ""
        self._served: Listener | None = None  # what runs

    @property
    def is_current(self) -> bool:
        """The gateway runs as it is wanted."""
        return self._served is not None and self._served == self.listener

    def want(self, listener: Listener) -> None:
        self.listener = listener
        self._changed.set()

    async def report(self) -> GatewayReport | None:
        """What the gateway says of itself now; None: it does not answer."""
        if self.listener is None or self.pid is None:
            return None
        return await report(self._client, self.listener)

    def metrics_urls(self) -> dict[str, str]:
        """The gateways that should answer, by their names for people."""
        if self.listener is None:
            return {}
        return {f"127.0.0.1:{self.listener.metrics_port}": self.listener.metrics_url}

    def ports(self) -> dict[str, int]:
        """The ports that a gateway of ours holds, by their names in the manifest. Blocks on a file."""
        return self._process.ports()

    async def run(self) -> None:
        while True:
            await self.ensure()
            self._changed.clear()
            await wait_until_set(self._changed, CHECK_EVERY_S if not self.error else 2.0)

    async def ensure(self) -> None:
        """Adopts or starts the wanted gateway unless it runs already; remembers why it could not.

        After it no gateway of ours is half started: a port that is taken then is somebody else's.
        """
        async with self._lock:
            await self._ensure()

    async def _ensure(self) -> None:
        listener = self.listener
        if listener is None:
            return
        loop = asyncio.get_running_loop()
        self.pid = await loop.run_in_executor(self._threads, self._process.find, listener)
        if self.pid is not None:
            self._served = listener
            self.error = ""
            return
        before = await loop.run_in_executor(self._threads, self._process.running, listener.metrics_port)
        # What runs meanwhile, and if the new settings fail, is the one before: its word counts.
        self.pid = before
        try:
            self.pid = await loop.run_in_executor(self._threads, self._process.start, listener)
        except GatewayFailed as exc:
            if str(exc) != self.error:
                self._journal.record("gateway_failed", str(exc), level="error")
            self.error = str(exc)
            return
        self._served = listener
        self.error = ""
        did = "took over new settings without losing a request and " if self.pid == before else ""
        self._journal.record("gateway_started", f"gateway {did}listens at {listener.url} (process id {self.pid})")

    async def stop(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._process.stop)
        self.pid = None
