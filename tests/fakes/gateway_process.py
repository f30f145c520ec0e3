"""`python -m router` with real processes: the supervisor and those that it starts, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from router.contract import ApiKey, ModelRoute, Table, encode
from tests.fakes.gateway import Answer, Client, until


class RunningGateway:
    """A gateway with its table, its settings and its log in `directory`."""

    def __init__(self, directory: Path, port: int, metrics_port: int, grpc_port: int | None = None) -> None:
        self.directory = directory
        self.port = port
        self.metrics_port = metrics_port
        self.grpc_port = grpc_port
        self._table = directory / "table.json"
        self._config = directory / "config.json"
        self._log = directory / "gateway.log"
        self._revision = 0
        self._process: asyncio.subprocess.Process | None = None
        self._clients: list[Client] = []

    def route(self, keys: dict[str, ApiKey] | None = None, **models: ModelRoute) -> None:
        """Writes a table; it is in force once `tag` says so."""
        self._revision += 1
        fresh = self._table.with_suffix(".new")
        fresh.write_bytes(encode(Table("e", self._revision, "c", models, keys or {})))
        fresh.replace(self._table)

    def configure(self, **settings: Any) -> None:
        self._config.write_text(
            json.dumps({
                "port": self.port, "metrics_port": self.metrics_port, "grpc_port": self.grpc_port, "table_file": str(self._table),
                "log_file": str(self._log), **settings,
            })
        )  # fmt: skip

    def break_config(self) -> None:
        self._config.write_text('{"limits": {"fields": 1}}')

    async def start(self, **settings: Any) -> None:
        self.configure(**settings)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "router", "--config", str(self._config)
        )
        await until(lambda: self.event("gateway serves"), "the gateway serves", 30)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def workers(self) -> list[psutil.Process]:
        found = []
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now, or is a zombie
                if "router.worker" in child.cmdline():
                    found.append(child)
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def event(self, name: str, **keys: object) -> dict[str, Any]:
        found = (e for e in self.events if e["event"] == name and all(e.get(k) == v for k, v in keys.items()))
        return next(found, {})

    async def connect(self, port: int | None = None) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", port or self.port, limit=1 << 26))
        self._clients.append(client)
        return client

    async def connect_to_each(self, count: int) -> list[Client]:
        """One connection to the private port of each of `count` processes."""
        found: dict[int, Client] = {}
        while len(found) < count:
            client = await self.connect(self.metrics_port)
            state = (await client.ask("/debug/state", method="GET")).json
            found.setdefault(int(state["process"]), client)
        return list(found.values())

    async def ask(self, *arguments: Any, **named: Any) -> Answer:
        return await (await self.connect()).ask(*arguments, **named)

    async def admin(self, path: str) -> Answer:
        return await (await self.connect(self.metrics_port)).ask(path, method="GET")

    async def report(self) -> dict[str, Any]:
        answer = await self.admin("/report")
        return dict(answer.json)

    async def metric(self, line: str) -> float:
        """The value of a sample, 0 when there is none."""
        text = (await self.admin("/metrics")).body.decode()
        return sum(float(each.rpartition(" ")[2]) for each in text.splitlines() if each.startswith(line))

    async def eventually(self, what: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first report for which `condition` holds."""
        async with asyncio.timeout(20):
            while True:
                if condition(report := await self.report()):
                    return report
                await asyncio.sleep(0.01)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def restart(self) -> None:
        """A hot restart, to its success."""
        generation = (await self.report())["generation"]
        self.signal(signal.SIGHUP)
        await self.eventually("the new generation serves", lambda report: report["generation"] > generation)

    async def exit_code(self) -> int:
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), 30)

    async def stop(self) -> None:
        for client in self._clients:
            client.leave()
        if self._process is not None and self._process.returncode is None:
            workers = self.workers
            self._process.terminate()
            try:
                await self.exit_code()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
            for worker in psutil.wait_procs(workers, 5)[1]:
                worker.kill()
