"""A version that is asleep: its requests wait, the control plane is told once and again until it is awake, and nobody is
woken who need not be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from router.contract import Endpoint, ModelRoute, Shadow, VersionRoute
from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.oip import OipClient, request, serve
from tests.fakes.scripted_replica import Call, ScriptedReplica

StartGateway = Callable[..., Awaitable[GatewayUnderTest]]
ASLEEP = VersionRoute(state="asleep: a request wakes it", concurrency=2)


class ControlPlane:
    """Notes each call to wake somebody, as docs/CONTRACTS.md says; `status` is its answer."""

    def __init__(self) -> None:
        self.calls: list[list[dict[str, Any]]] = []
        self.status = b"202 Accepted"

    async def __call__(self, call: Call) -> None:
        await call.completed.wait()
        assert (call.method, call.target) == (b"POST", b"/internal/v1/wake")
        assert call.field("authorization") == ["Bearer secret"]
        self.calls.append(json.loads(call.body)["asked"])
        call.answer(b"", self.status)


@pytest.fixture
def control() -> ControlPlane:
    return ControlPlane()


@pytest.fixture
async def plane(control: ControlPlane) -> AsyncIterator[ScriptedReplica]:
    async with ScriptedReplica(control) as plane:
        yield plane
        assert plane.errors == []


@pytest.fixture
async def gateway(start_gateway: StartGateway, plane: ScriptedReplica, tmp_path: Path) -> GatewayUnderTest:
    (tmp_path / "token").write_text("secret\n")
    url = f"http://127.0.0.1:{plane.port}"
    started = await start_gateway(control_url=url, token_file=str(tmp_path / "token"))
    await started.table(m=ModelRoute({"1": ASLEEP}, {"1": 1}))
    return started


class TestWaking:
    async def test_a_request_waits_tells_the_control_plane_and_is_answered_once_a_replica_is_there(
        self, gateway: GatewayUnderTest, control: ControlPlane, replica: ScriptedReplica
    ) -> None:
        client = await gateway.connect()
        client.request(body=b"hello")
        await until(lambda: control.calls)
        assert gateway.queued == 1

        await gateway.route(replica)

        assert (await client.answer()).body == b"hello"
        assert control.calls == [[{"model": "m", "version": "1", "queued": 1}]]

    async def test_a_burst_is_one_call_and_the_first_replica_gets_no_more_than_it_holds(
        self, gateway: GatewayUnderTest, control: ControlPlane, replica: ScriptedReplica
    ) -> None:
        go_on = asyncio.Event()

        async def hold(call: Call) -> None:
            await go_on.wait()
            call.answer(b"done")

        replica.script = hold
        clients = [await gateway.connect() for _ in range(100)]
        for client in clients:
            client.request()
        await until(lambda: gateway.queued == 100)
        await until(lambda: control.calls)

        await gateway.route(replica, concurrency=2)
        await until(lambda: len(replica.calls) == 2)
        assert (gateway.in_flight, gateway.queued) == (2, 98)
        go_on.set()

        answers = await asyncio.gather(*(client.answer() for client in clients))
        assert {(a.status, a.body) for a in answers} == {(200, b"done")}
        assert len(control.calls) == 1

    async def test_a_call_that_fails_is_made_again_while_requests_wait(
        self, gateway: GatewayUnderTest, control: ControlPlane, replica: ScriptedReplica
    ) -> None:
        control.status = b"503 Service Unavailable"
        client = await gateway.connect()
        client.request(body=b"x")

        await until(lambda: len(control.calls) >= 2)
        await gateway.route(replica)

        assert (await client.answer()).status == 200

    async def test_a_call_that_led_to_nothing_is_made_again(
        self, gateway: GatewayUnderTest, control: ControlPlane, replica: ScriptedReplica
    ) -> None:
        """The control plane may have been killed right after its answer."""
        client = await gateway.connect()
        client.request()

        await until(lambda: len(control.calls) >= 2)
        await gateway.route(replica)

        assert (await client.answer()).status == 200

    async def test_no_call_is_made_any_more_once_nobody_waits(
        self, gateway: GatewayUnderTest, control: ControlPlane
    ) -> None:
        client = await gateway.connect()
        client.request()
        await until(lambda: control.calls)

        client.leave()
        await until(lambda: gateway.queued == 0)
        calls = len(control.calls)

        await asyncio.sleep(0.7)  # longer than between two calls: nothing is to come
        assert len(control.calls) == calls

    async def test_the_deadline_holds_while_nobody_can_be_told(
        self, gateway: GatewayUnderTest, plane: ScriptedReplica
    ) -> None:
        await plane.stop()

        answer = await gateway.ask("/v2/models/m/infer", "x-request-timeout-ms: 300")

        assert answer.status == 504
        assert "asleep: a request wakes it" in answer.json["error"]

    async def test_what_cannot_be_started_is_said_at_once_to_all_who_wait(self, gateway: GatewayUnderTest) -> None:
        clients = [await gateway.connect() for _ in range(5)]
        for client in clients:
            client.request()
        await until(lambda: gateway.queued == 5)

        await gateway.table(m=ModelRoute({"1": VersionRoute(state="failed: model.py is broken")}, {"1": 1}))

        for client in clients:
            answer = await client.answer()
            assert (answer.status, answer.code) == (503, "NOT_READY")
            assert "model.py is broken" in answer.json["error"]
            assert int(answer.field("retry-after")) > 0

    @pytest.mark.parametrize(
        ("target", "method"), [("/models/m/page", "GET"), ("/v2/models/m", "GET"), ("/v1/models/m:predict", "POST")]
    )
    async def test_a_path_that_only_the_model_knows_wakes_it_too(
        self, gateway: GatewayUnderTest, control: ControlPlane, replica: ScriptedReplica, target: str, method: str
    ) -> None:
        client = await gateway.connect()
        client.request(target, method=method)
        await until(lambda: control.calls)

        await gateway.route(replica)

        assert (await client.answer()).status == 200

    async def test_a_websocket_wakes_it_and_is_passed_through(
        self, gateway: GatewayUnderTest, control: ControlPlane, replica: ScriptedReplica
    ) -> None:
        async def switch(call: Call) -> None:
            accept = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            call.send(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%b\r\n\r\n" % accept
            )

        replica.script = switch
        sleeping = VersionRoute(state=ASLEEP.state, websocket=True)
        await gateway.table(m=ModelRoute({"1": sleeping}, {"1": 1}))
        client = await gateway.connect()
        client.request(
            "/models/m/talk", "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", method="GET",
        )  # fmt: skip
        await until(lambda: control.calls)

        await gateway.route(replica, websocket=True)

        assert (await client.head()).status == 101

    async def test_a_call_of_grpc_wakes_it_too(
        self, gateway: GatewayUnderTest, control: ControlPlane, replica: ScriptedReplica
    ) -> None:
        replica.script = serve
        client = OipClient(gateway.grpc_port)
        asking = asyncio.create_task(client.ask("ModelInfer", request()))
        await until(lambda: control.calls)

        await gateway.route(replica)

        assert (await asking).model_name == "m"
        await client.close()


class TestReadiness:
    async def test_of_a_sleeping_version_is_true_and_wakes_nobody(
        self, gateway: GatewayUnderTest, control: ControlPlane
    ) -> None:
        model = await gateway.ask("/v2/models/m/ready", method="GET")
        version = await gateway.ask("/v2/models/m/versions/1/ready", method="GET")
        client = OipClient(gateway.grpc_port)
        rpc = await client.ask("ModelReady", service_pb2.ModelReadyRequest(name="m"))
        await client.close()

        assert (model.status, model.json) == (200, {"name": "m", "ready": True})
        assert version.status == 200
        assert rpc.ready
        assert control.calls == []

    async def test_the_index_and_the_status_say_that_it_can_be_asked(
        self, gateway: GatewayUnderTest, control: ControlPlane
    ) -> None:
        index = await gateway.ask("/v2/repository/index")
        status = await gateway.ask("/v1/models/m", method="GET")

        assert index.json[0]["state"] == "READY"
        assert status.json["model_version_status"][0]["state"] == "AVAILABLE"
        assert control.calls == []

    async def test_does_not_count_as_a_use_of_the_model(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)

        await gateway.ask("/v2/models/m/ready", method="GET")
        assert gateway.gateway.fleet.lanes[("m", "1")].stats.arrived == 0

        await gateway.ask()
        assert gateway.gateway.fleet.lanes[("m", "1")].stats.arrived == 1


class TestTraffic:
    async def test_a_sleeping_version_is_woken_by_its_share_and_the_others_serve_meanwhile(
        self, gateway: GatewayUnderTest, control: ControlPlane, replica: ScriptedReplica
    ) -> None:
        awake = VersionRoute((Endpoint("r", "127.0.0.1", replica.port),))
        await gateway.table(m=ModelRoute({"1": awake, "2": ASLEEP}, {"1": 50, "2": 50}))
        clients = [await gateway.connect() for _ in range(10)]

        for client in clients:
            client.request()
        await until(lambda: len(replica.calls) == 9)
        await until(lambda: control.calls)

        assert gateway.queued == 1
        assert control.calls == [[{"model": "m", "version": "2", "queued": 1}]]
        endpoints = (Endpoint("s", "127.0.0.1", replica.port),)
        await gateway.table(m=ModelRoute({"1": awake, "2": VersionRoute(endpoints)}, {"1": 50, "2": 50}))
        assert {(await client.answer()).status for client in clients} == {200}

    async def test_copies_for_a_sleeping_shadow_are_dropped_and_wake_nobody(
        self, gateway: GatewayUnderTest, control: ControlPlane, replica: ScriptedReplica
    ) -> None:
        awake = VersionRoute((Endpoint("r", "127.0.0.1", replica.port),))
        await gateway.table(m=ModelRoute({"1": awake, "2": ASLEEP}, {"1": 1}, shadow=Shadow("2")))

        assert (await gateway.ask(body=b"{}")).status == 200

        copies = gateway.gateway.fleet.lanes[("m", "2")].copies
        assert copies is not None
        assert copies.drops == {"not_ready": 1}
        assert control.calls == []
