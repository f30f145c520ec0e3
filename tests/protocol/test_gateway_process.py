"""The gateway as a process: its command line, its ports, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from router.contract import Endpoint, ModelRoute, Table, VersionRoute, encode
from tests.fakes.gateway import Client, until
from tests.fakes.scripted_replica import Call, ScriptedReplica


class Process:
    """`python -m router`, with its log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log
        self._clients: list[Client] = []
        self.port = 0

    @property
    def events(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    async def listening(self) -> None:
        await until(lambda: self.event("gateway listening") and self.event("table applied"), "the gateway is up")
        self.port = int(self.event("gateway listening")["address"].rpartition(":")[2])

    def event(self, name: str) -> dict[str, str]:
        return next((event for event in self.events if event["event"] == name), {})

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        return client

    async def disconnect(self) -> None:
        """Python before 3.11.5 closes no connection that is merely forgotten, and its loop then does not end."""
        for client in self._clients:
            client.writer.close()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 20)


async def run(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "router", *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode or 0, errors.decode()


@pytest.fixture
async def process(tmp_path: Path, replica: ScriptedReplica) -> AsyncIterator[Process]:
    table = tmp_path / "table.json"
    route = VersionRoute((Endpoint("r", "127.0.0.1", replica.port),))
    table.write_bytes(encode(Table("e", 1, "c", {"m": ModelRoute({"1": route}, {"1": 1})})))
    log = tmp_path / "gateway.log"
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "router", "--table", str(table), "--port", "0", "--metrics-port", "0", "--grpc-port", "0",
        "--log-file", str(log), "--drain-timeout-s", "5",
    )  # fmt: skip
    process = Process(started, log)
    try:
        await process.listening()
        yield process
    finally:
        await process.disconnect()
        if started.returncode is None:
            started.kill()
            await started.wait()


class TestDrain:
    async def test_finishes_what_is_in_flight_and_exits_0(self, process: Process, replica: ScriptedReplica) -> None:
        go_on = asyncio.Event()

        async def wait(call: Call) -> None:
            await call.completed.wait()
            await go_on.wait()
            call.answer(b"finished")

        replica.script = wait
        busy, idle = await process.connect(), await process.connect()
        await idle.ask("/v2", method="GET")
        busy.request()
        await until(lambda: replica.calls)

        process.terminate()
        assert await idle.closed() == b""
        with pytest.raises(ConnectionRefusedError):
            await process.connect()
        go_on.set()
        answer = await busy.answer()

        assert (answer.body, answer.field("connection")) == (b"finished", "close")
        assert await process.exit_code() == 0
        assert process.event("gateway drained")["connections_cut"] == 0

    async def test_cuts_what_does_not_finish_in_time(self, process: Process, replica: ScriptedReplica) -> None:
        async def never(call: Call) -> None:
            await asyncio.Event().wait()

        replica.script = never
        client = await process.connect()
        client.request()
        await until(lambda: replica.calls)

        process.terminate()

        assert await client.closed() == b""
        assert await process.exit_code() == 0


class TestCommandLine:
    async def test_says_that_a_port_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / "t").write_bytes(encode(Table("e", 1, "c", {})))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]

            code, said = await run("--table", str(tmp_path / "t"), "--port", str(port))

        assert code == 2
        assert f"Error: --port: {port} on 127.0.0.1: address already in use; it must be free" in said

    async def test_says_what_is_wrong_with_a_table(self, tmp_path: Path) -> None:
        (tmp_path / "t").write_text('{"epoch": 1}')

        code, said = await run("--table", str(tmp_path / "t"))

        assert (code, "Traceback" in said) == (2, False)
        assert "routing table" in said

    async def test_says_what_is_wrong_with_a_config(self, tmp_path: Path) -> None:
        code, said = await run("--config", str(tmp_path / "none.json"))

        assert (code, "Traceback" in said) == (2, False)
        assert "no such file" in said

    async def test_refuses_a_limit_out_of_range(self, tmp_path: Path) -> None:
        (tmp_path / "t").write_bytes(encode(Table("e", 1, "c", {})))

        code, said = await run("--table", str(tmp_path / "t"), "--fields", "1")

        assert (code, "fields" in said) == (2, True)


class TestPorts:
    async def test_are_shared_with_a_successor_so_that_no_connection_is_refused(
        self, tmp_path: Path, replica: ScriptedReplica, free_port: Callable[[], int]
    ) -> None:
        """The control plane starts the new gateway before it ends the old one."""
        (tmp_path / "token").write_text("t")
        route = VersionRoute((Endpoint("r", "127.0.0.1", replica.port),))
        (tmp_path / "table").write_bytes(encode(Table("e", 1, "c", {"m": ModelRoute({"1": route}, {"1": 1})})))
        port, metrics_port = free_port(), free_port()
        processes = []
        for name in ("old", "new"):
            config = tmp_path / f"{name}.json"
            config.write_text(
                json.dumps({
                    "port": port, "metrics_port": metrics_port, "control_url": "http://127.0.0.1:9",
                    "token_file": str(tmp_path / "token"), "table_cache": str(tmp_path / "table"),
                    "log_file": str(tmp_path / f"{name}.log"),
                })
            )  # fmt: skip
            started = await asyncio.create_subprocess_exec(sys.executable, "-m", "router", "--config", str(config))
            processes.append(Process(started, tmp_path / f"{name}.log"))
            await processes[-1].listening()
        old, new = processes

        old.terminate()
        assert await old.exit_code() == 0
        client = await new.connect()

        assert (await client.ask()).status == 200
        new.terminate()
        assert await new.exit_code() == 0
        await new.disconnect()
