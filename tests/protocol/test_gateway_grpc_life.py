"""gRPC's port through the gateway's life: several processes, hot restarts, ends, and TLS."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from router.config import Tls
from router.contract import Endpoint, ModelRoute, VersionRoute
from tests.fakes.certificates import Certificate, self_signed
from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.gateway_process import RunningGateway
from tests.fakes.oip import OPTIONS, OipClient, request, serve
from tests.fakes.scripted_replica import Call, ScriptedReplica

from .conftest import StartGateway


@pytest.fixture
async def running(
    tmp_path: Path, free_port: Callable[[], int], replica: ScriptedReplica
) -> AsyncIterator[RunningGateway]:
    replica.script = serve
    running = RunningGateway(tmp_path, free_port(), free_port(), free_port())
    running.route(m=ModelRoute({"1": VersionRoute((Endpoint("r", "127.0.0.1", replica.port),))}, {"1": 1}))
    try:
        yield running
    finally:
        await running.stop()


class Load:
    """Clients that ask without pause, over connections that are kept and over new ones, and streams."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway
        self._is_over = False
        self.answers = 0
        self.failures: Counter[tuple[str, str]] = Counter()
        kinds = [self._keep] * 6 + [self._fresh] * 2
        self._tasks = [asyncio.create_task(kind()) for kind in kinds]

    async def carried(self, more: int) -> None:
        enough = self.answers + more
        await until(lambda: self.answers >= enough, f"{more} more answers", 20)

    async def end(self) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _keep(self) -> None:
        client = OipClient(self._gateway.grpc_port)
        while not self._is_over:
            await self._ask(client)
        await client.close()

    async def _fresh(self) -> None:
        while not self._is_over:
            client = OipClient(self._gateway.grpc_port)
            await self._ask(client)
            await client.close()

    async def _ask(self, client: OipClient) -> None:
        try:
            await client.ask()
            self.answers += 1
        except grpc.aio.AioRpcError as error:
            self.failures[error.code().name, error.details() or ""] += 1


class TestProcesses:
    async def test_a_hot_restart_loses_no_call(self, running: RunningGateway) -> None:
        await running.start(processes=2)
        load = Load(running)

        for _ in range(3):
            await load.carried(100)
            await running.restart()
        await load.carried(100)
        await load.end()

        assert load.failures == {}
        assert await running.metric('modelfleet_requests_total{model="m",version="1",code="200"}') >= load.answers

    async def test_a_stream_outlives_a_hot_restart_and_is_told_when_it_ends(self, running: RunningGateway) -> None:
        await running.start(limits={"drain_timeout_s": 4})
        client = OipClient(running.grpc_port)
        stream = client.stream()
        await stream.write(request(id="before"))
        assert (await stream.read()).infer_response.id == (await stream.read()).infer_response.id == "before"

        await running.restart()
        await stream.write(request(id="after"))

        assert (await stream.read()).infer_response.id == (await stream.read()).infer_response.id == "after"
        with pytest.raises(grpc.aio.AioRpcError, match="the gateway hands over to another; open the stream again"):
            await stream.read()
        assert await stream.code() == StatusCode.UNAVAILABLE
        await client.close()

    async def test_goes_on_when_one_of_its_processes_is_killed(self, running: RunningGateway) -> None:
        await running.start(processes=2)
        load = Load(running)
        await load.carried(50)

        running.workers[0].kill()
        await load.carried(200)
        await load.end()

        # A client whose connection broke refuses by itself for a second: their number says nothing.
        assert {code for code, _ in load.failures} <= {"UNAVAILABLE"}

    async def test_finishes_its_calls_when_it_ends(self, running: RunningGateway, replica: ScriptedReplica) -> None:
        go_on = asyncio.Event()

        async def wait(call: Call) -> None:
            await go_on.wait()
            await serve(call)

        replica.script = wait
        await running.start()
        client = OipClient(running.grpc_port)
        asking = asyncio.create_task(client.ask())
        await until(lambda: replica.calls)

        running.signal(15)
        late = OipClient(running.grpc_port)
        await until(lambda: not _listens(running.grpc_port), "the port is closed")
        go_on.set()

        assert (await asking).model_name == "m"
        assert await running.exit_code() == 0
        await client.close()
        await late.close()

    async def test_without_a_port_there_is_no_grpc(self, running: RunningGateway) -> None:
        port, running.grpc_port = running.grpc_port, None  # type: ignore[assignment]
        await running.start()

        assert not _listens(port)
        assert running.event("gateway listening")["grpc"] == ""

    async def test_another_port_needs_another_gateway(
        self, running: RunningGateway, free_port: Callable[[], int]
    ) -> None:
        await running.start()

        running.configure(grpc_port=free_port())
        running.signal(1)
        await until(lambda: running.event("gateway not restarted; it goes on as it is"), within_s=20)

        assert (
            "a running gateway keeps its address"
            in running.event("gateway not restarted; it goes on as it is")["reason"]
        )


class TestTls:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Certificate:
        return self_signed(tmp_path, "server")

    def connect(self, gateway: GatewayUnderTest, server: Certificate, client: Certificate | None = None) -> OipClient:
        own = (client.key.read_bytes(), client.certificate.read_bytes()) if client is not None else (None, None)
        credentials = grpc.ssl_channel_credentials(server.certificate.read_bytes(), *own)
        channel = grpc.aio.secure_channel(f"localhost:{gateway.grpc_port}", credentials, OPTIONS)
        return OipClient(gateway.grpc_port, channel)

    async def test_speaks_grpc_and_tells_the_replica(
        self, start_gateway: StartGateway, server: Certificate, replica: ScriptedReplica
    ) -> None:
        replica.script = serve
        gateway = await start_gateway(tls=Tls(str(server.certificate), str(server.key)))
        await gateway.route(replica)
        client = self.connect(gateway, server)

        answer = await client.ask("ModelInfer", request(count=100_000))
        plain = await OipClient(gateway.grpc_port).refusal()
        await client.close()

        assert answer.outputs[0].shape[0] == 100_000
        assert replica.calls[0].field("x-forwarded-proto") == ["https"]
        assert plain.code() == StatusCode.UNAVAILABLE

    async def test_shows_a_renewed_certificate(
        self, start_gateway: StartGateway, server: Certificate, tmp_path: Path
    ) -> None:
        gateway = await start_gateway(tls=Tls(str(server.certificate), str(server.key)))
        other = self_signed(tmp_path, "other")
        shutil.copy(other.key, server.key)
        shutil.copy(other.certificate, server.certificate)

        await until(lambda: '"certificate read"' in (tmp_path / "gateway.log").read_text(), within_s=10)
        client = self.connect(gateway, other)

        assert (await client.ask("ServerLive", b"")).live is True
        await client.close()

    async def test_asks_for_a_clients_certificate_and_logs_its_name(
        self, start_gateway: StartGateway, server: Certificate, replica: ScriptedReplica, tmp_path: Path
    ) -> None:
        replica.script = serve
        caller = self_signed(tmp_path, "caller")
        tls = Tls(str(server.certificate), str(server.key), str(caller.certificate))
        gateway = await start_gateway(access_log=str(tmp_path / "access.log"), tls=tls)
        await gateway.route(replica)
        known, stranger = self.connect(gateway, server, caller), self.connect(gateway, server)

        await known.ask()
        refusal = await stranger.refusal()
        await known.close()
        await stranger.close()

        assert refusal.code() == StatusCode.UNAVAILABLE
        gateway.gateway.access_log.flush()  # type: ignore[union-attr]
        assert json.loads((tmp_path / "access.log").read_text().splitlines()[0])["client_name"] == "caller"


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
