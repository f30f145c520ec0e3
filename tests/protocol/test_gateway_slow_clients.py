"""Clients that send or read slowly: they hold no slot and no memory for longer than the limits allow."""

from __future__ import annotations

import asyncio

from tests.fakes.gateway import Client, GatewayUnderTest, request, until
from tests.fakes.scripted_replica import Call, ScriptedReplica, echo

from .conftest import StartGateway

BIG = 64 << 20


async def pour(call: Call) -> None:
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
    for _ in range(BIG >> 20):
        call.send(b"d" * (1 << 20))
        await until(lambda: call.unsent_bytes <= 1 << 20 or call.left.is_set(), "the gateway reads on", 60)


async def not_reading(gateway: GatewayUnderTest) -> Client:
    client = await gateway.connect()
    client.writer.transport.pause_reading()
    client.request()
    return client


class TestAReader:
    async def test_that_takes_nothing_is_cut_and_frees_its_slot(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(write_timeout_s=0.3)
        replica.script = pour
        await gateway.route(replica, concurrency=1)
        await not_reading(gateway)
        await until(lambda: gateway.in_flight == 1)

        await until(lambda: gateway.in_flight == 0, within_s=5)

        await until(lambda: not gateway.gateway.connections)
        assert gateway.count(499) == 1
        replica.script = echo
        assert (await gateway.ask(body=b"next")).body == b"next"

    async def test_that_takes_a_little_now_and_then_is_left_alone(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(write_timeout_s=0.4)
        replica.script = pour
        await gateway.route(replica)
        client = await not_reading(gateway)
        await until(lambda: gateway.gateway.unread.bytes > 0)

        for _ in range(8):  # twice the timeout, each piece more than the sockets between us hold
            client.writer.transport.resume_reading()
            await asyncio.wait_for(client.reader.readexactly(6 << 20), 5)
            client.writer.transport.pause_reading()
            await asyncio.sleep(0.1)
        client.writer.transport.resume_reading()

        assert len(await asyncio.wait_for(client.reader.read(20_000_000), 5)) > 0
        assert len(gateway.gateway.connections) == 1

    async def test_is_let_go_when_all_of_them_take_too_much_memory(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(held_bytes=2 << 20)
        replica.script = pour
        await gateway.route(replica)

        for count in range(1, 13):
            await not_reading(gateway)
            await until(lambda count=count: len(replica.calls) == count)  # type: ignore[misc]
        await until(lambda: len(gateway.gateway.connections) < 12)

        assert gateway.gateway.unread.bytes <= 2 << 20
        assert gateway.in_flight <= 11


class TestASender:
    async def test_is_refused_when_bodies_take_all_the_memory_and_let_in_when_they_went(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(held_bytes=1_000_000)
        await gateway.route(replica)
        slow = []
        for _ in range(3):
            slow.append(await gateway.connect())
            slow[-1].send(request(length=400_000) + b"x" * 300_000)
        await until(lambda: gateway.gateway.memory.held_bytes == 900_000)

        refused = await gateway.ask(body=b"x" * 200_000)

        assert (refused.status, refused.code, refused.field("retry-after")) == (503, "OVERLOADED", "1")
        assert gateway.gateway.memory.held_bytes == 900_000
        assert (await gateway.ask(body=b"small")).status == 200

        slow[0].leave()
        await until(lambda: gateway.gateway.memory.held_bytes == 600_000)
        assert (await gateway.ask(body=b"x" * 200_000)).status == 200
        await until(lambda: gateway.gateway.memory.held_bytes == 600_000)
        slow[1].send(b"x" * 100_000)
        assert (await slow[1].answer()).status == 200

    async def test_counts_while_its_request_waits_for_a_slot(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(held_bytes=100_000)
        await gateway.route(state="starting")
        waiting = [await gateway.connect() for _ in range(4)]
        for client in waiting:
            client.send(request(body=b"x" * 30_000))

        statuses = asyncio.gather(*(client.answer() for client in waiting))
        await until(lambda: gateway.queued == 3)
        await gateway.route(replica)

        assert sorted(answer.status for answer in await statuses) == [200, 200, 200, 503]
        await until(lambda: gateway.gateway.memory.held_bytes == 0)

    async def test_of_a_long_body_counts_only_what_waits_here(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(held_bytes=200_000, buffer_bytes=50_000)
        await gateway.route(replica)
        clients = [await gateway.connect() for _ in range(8)]

        for client in clients:
            client.send(request(length=1_000_000) + b"x" * 1_000_000)

        assert [(await client.answer()).status for client in clients] == [200] * 8
        assert gateway.gateway.memory.held_bytes == 0
