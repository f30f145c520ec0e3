"""Late binding, deadlines, and clients that leave, as clients and replicas see them."""

from __future__ import annotations

import asyncio
import time

import pytest

from router.contract import Endpoint, ModelRoute, VersionRoute
from tests.fakes.gateway import Client, GatewayUnderTest, request, until
from tests.fakes.scripted_replica import Call, ScriptedReplica

from .conftest import StartGateway


class Gate:
    """A script that holds every request until the test lets it go."""

    def __init__(self) -> None:
        self.held: list[Call] = []

    async def __call__(self, call: Call) -> None:
        await call.completed.wait()
        self.held.append(call)

    def let_go(self, body: bytes = b"") -> Call:
        call = self.held.pop(0)
        call.answer(body or call.body)
        return call


async def send(gateway: GatewayUnderTest, name: str, *lines: str) -> Client:
    """Sends a request on a connection of its own, and waits until the gateway has it."""
    client = await gateway.connect()
    before = gateway.in_flight + gateway.queued
    client.request("/v2/models/m/infer", *lines, body=name.encode())
    await until(lambda: gateway.in_flight + gateway.queued == before + 1)
    return client


class TestLateBinding:
    async def test_never_gives_a_replica_more_than_its_concurrency(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        gate = Gate()
        replica.script = gate
        await gateway.route(replica, concurrency=2)

        clients = [await send(gateway, f"{i}") for i in range(5)]
        await until(lambda: len(gate.held) == 2)

        assert (gateway.in_flight, gateway.queued, len(replica.calls)) == (2, 3, 2)
        for _ in clients:
            await until(lambda: gate.held)
            gate.let_go()
        assert [(await client.answer()).body for client in clients] == [b"0", b"1", b"2", b"3", b"4"]

    async def test_gives_the_oldest_request_to_the_first_replica_that_is_free(self, gateway: GatewayUnderTest) -> None:
        slow, quick = Gate(), Gate()
        async with ScriptedReplica(slow) as one, ScriptedReplica(quick) as two:
            await gateway.route(one, two, concurrency=1)
            clients = [await send(gateway, name) for name in ("a", "b", "c", "d")]
            await until(lambda: slow.held and quick.held)

            first = quick.let_go()
            await until(lambda: quick.held)
            assert quick.held[0].body == b"c"
            quick.let_go()
            await until(lambda: quick.held)
            assert quick.held[0].body == b"d"

            assert {first.body, slow.held[0].body} == {b"a", b"b"}
            quick.let_go()
            slow.let_go()
            for client in clients:
                assert (await client.answer()).status == 200

    async def test_lets_batch_wait_for_everything_else(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        gate = Gate()
        replica.script = gate
        await gateway.route(replica, concurrency=1)
        await send(gateway, "running")
        await send(gateway, "batch", "x-priority: batch")
        await send(gateway, "live")

        await until(lambda: gate.held)
        gate.let_go()
        await until(lambda: gate.held)

        assert gate.held[0].body == b"live"
        gate.let_go()
        await until(lambda: gate.held)
        gate.let_go()

    async def test_refuses_at_once_when_the_queue_is_full(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        gate = Gate()
        replica.script = gate
        await gateway.route(replica, concurrency=1, queue_max=1)
        await send(gateway, "running")
        await send(gateway, "waiting")

        answer = await gateway.ask()

        assert (answer.status, answer.code, answer.field("retry-after")) == (503, "OVERLOADED", "1")
        for _ in range(2):
            await until(lambda: gate.held)
            gate.let_go()

    async def test_holds_a_request_until_a_replica_has_started(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(state="starting")
        client = await send(gateway, "early")

        await gateway.route(replica)

        assert (await client.answer()).body == b"early"

    async def test_refuses_with_the_state_when_no_replica_will_start(self, gateway: GatewayUnderTest) -> None:
        await gateway.route(state="failed: out of memory")

        answer = await gateway.ask()

        assert (answer.status, answer.code, answer.field("retry-after")) == (503, "NOT_READY", "2")
        assert "failed: out of memory" in answer.json["error"]

    async def test_leaves_other_versions_alone_when_one_is_full(self, gateway: GatewayUnderTest) -> None:
        gate = Gate()
        async with ScriptedReplica(gate) as full, ScriptedReplica() as free:
            routes = {
                str(n): VersionRoute((Endpoint(f"r{n}", "127.0.0.1", r.port),), concurrency=1)
                for n, r in ((1, full), (2, free))
            }
            await gateway.table(m=ModelRoute(routes, {"1": 1}))
            await send(gateway, "full")

            assert (await gateway.ask("/models/m@2/x")).status == 200
            await until(lambda: gate.held)
            gate.let_go()


class TestDeadlines:
    async def test_end_a_request_in_the_queue_on_time_and_say_so(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        gate = Gate()
        replica.script = gate
        await gateway.route(replica, concurrency=1, queue_timeout_ms=150)
        await send(gateway, "running")
        began = time.monotonic()

        answer = await gateway.ask()

        assert (answer.status, answer.code, "in the queue" in answer.json["error"]) == (504, "DEADLINE", True)
        assert 0.14 < time.monotonic() - began < 1
        assert gateway.queued == 0
        await until(lambda: gate.held)
        gate.let_go()

    async def test_end_a_request_in_the_model_on_time_though_its_replica_works_on(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        gate = Gate()
        replica.script = gate
        await gateway.route(replica, concurrency=1)
        client = await gateway.connect()
        began = time.monotonic()

        answer = await client.ask("/v2/models/m/infer", "x-request-timeout-ms: 150")

        assert (answer.status, answer.code, "in the model" in answer.json["error"]) == (504, "DEADLINE", True)
        assert 0.14 < time.monotonic() - began < 1
        assert (await client.ask("/v2", method="GET")).status == 200

    async def test_of_the_version_hold_when_the_client_names_none(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        replica.script = Gate()
        await gateway.route(replica, request_timeout_ms=100)

        assert (await gateway.ask()).status == 504

    async def test_cut_an_answer_that_stalls(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        async def stall(call: Call) -> None:
            call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

        replica.script = stall
        await gateway.route(replica, request_timeout_ms=100)
        client = await gateway.connect()

        client.request()
        await client.head()

        assert await client.closed() == b"half"
        await until(lambda: gateway.in_flight == 0)

    @pytest.mark.parametrize("how", ["close", "answer"])
    async def test_keep_the_slot_until_the_replica_lets_go(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, how: str
    ) -> None:
        """A replica that still works must not be given the next request: it has no room for it."""
        ignores_fin = asyncio.Event()

        async def stubborn(call: Call) -> None:
            await call.completed.wait()
            if len(replica.calls) > 1:
                call.answer(b"second")
                return
            await ignores_fin.wait()
            if how == "close":
                call.close()
            else:
                call.answer(b"first, too late")

        replica.script = stubborn
        replica.half_close = True
        await gateway.route(replica, concurrency=1)
        assert (await gateway.ask("/v2/models/m/infer", "x-request-timeout-ms: 50")).status == 504

        client = await send(gateway, "next")
        assert (gateway.in_flight, gateway.queued) == (1, 1)
        ignores_fin.set()

        assert (await client.answer()).body == b"second"

    async def test_refuse_at_once_what_cannot_make_it(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async def steady(call: Call) -> None:
            await call.completed.wait()
            await asyncio.sleep(0.05)
            call.answer(b"ok")

        replica.script = steady
        await gateway.route(replica, concurrency=1)
        for _ in range(20):
            await gateway.ask()
        waiting = [await send(gateway, f"{i}") for i in range(10)]
        began = time.monotonic()

        answer = await gateway.ask("/v2/models/m/infer", "x-request-timeout-ms: 200")

        assert (answer.status, answer.code) == (503, "OVERLOADED")
        assert int(answer.field("retry-after")) >= 1
        assert time.monotonic() - began < 0.15
        for client in waiting:
            assert (await client.answer()).status == 200


class TestClientsThatLeave:
    async def test_free_their_place_in_the_queue_at_once(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        gate = Gate()
        replica.script = gate
        await gateway.route(replica, concurrency=1)
        await send(gateway, "running")
        client = await send(gateway, "waiting")

        client.leave()

        await until(lambda: gateway.queued == 0)
        assert gateway.count(499) == 1
        await until(lambda: gate.held)
        gate.let_go()
        await until(lambda: gateway.in_flight == 0)
        assert [call.body for call in replica.calls] == [b"running"]

    async def test_free_the_replica(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        gate = Gate()
        replica.script = gate
        await gateway.route(replica, concurrency=1)
        client = await send(gateway, "running")
        await until(lambda: gate.held)

        client.leave()

        await asyncio.wait_for(gate.held[0].left.wait(), 5)
        await until(lambda: gateway.in_flight == 0)

    async def test_inside_a_body_leave_nothing_that_looks_complete(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(buffer_bytes=1024)
        await gateway.route(replica)
        client = await gateway.connect()
        client.send(
            request("/v2/models/m/infer", "transfer-encoding: chunked", method="PUT")
            + b"1000\r\n" + b"x" * 4096 + b"\r\n"
        )  # fmt: skip
        await until(lambda: replica.calls and replica.calls[0].body_bytes == 4096)

        client.leave()

        await asyncio.wait_for(replica.calls[0].left.wait(), 5)
        assert not replica.calls[0].is_complete

    async def test_inside_an_answer_free_the_replica(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        async def pour(call: Call) -> None:
            call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegin")

        replica.script = pour
        await gateway.route(replica)
        client = await gateway.connect()
        client.request()
        await client.head()

        client.leave()

        await asyncio.wait_for(replica.calls[0].left.wait(), 5)
        await until(lambda: gateway.in_flight == 0)
