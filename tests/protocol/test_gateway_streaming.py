"""Bodies in both directions: whole, in pieces, faster than the other side reads."""

from __future__ import annotations

import asyncio
import hashlib
import os

from tests.fakes.gateway import GatewayUnderTest, request, until
from tests.fakes.scripted_replica import Call, ScriptedReplica

from .conftest import StartGateway

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class TestUpload:
    async def test_longer_than_the_buffer_is_streamed_while_it_comes(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(buffer_bytes=1024)
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(request(length=20_000) + b"x" * 10_000)
        await until(lambda: replica.calls and replica.calls[0].body_bytes == 10_000, "half of the body arrived")
        client.send(b"y" * 10_000)

        assert (await client.answer()).body == b"x" * 10_000 + b"y" * 10_000
        assert replica.calls[0].field("content-length") == ["20000"]

    async def test_in_chunks_is_streamed_in_chunks_of_our_own(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(buffer_bytes=1024)
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(request("/v2/models/m/infer", "transfer-encoding: chunked", method="PUT"))
        for _ in range(100):
            client.send(b"64;ext=1\r\n" + b"z" * 100 + b"\r\n")
        client.send(b"0\r\nTrailer-Field: 1\r\n\r\n")

        assert (await client.answer()).body == b"z" * 10_000
        assert replica.calls[0].field("trailer-field") == []

    async def test_that_is_small_reaches_the_replica_whole_with_its_length(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(
            request("/v2/models/m/infer", "transfer-encoding: chunked", method="PUT") + b"3\r\nabc\r\n0\r\n\r\n"
        )

        assert (await client.answer()).body == b"abc"
        assert replica.calls[0].field("content-length") == ["3"]

    async def test_waits_in_the_clients_socket_while_the_replica_does_not_read(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        go_on = asyncio.Event()

        async def slow(call: Call) -> None:
            call.pause_reading()
            await go_on.wait()
            call.resume_reading()
            await call.completed.wait()
            call.answer(b"%d" % call.body_bytes)

        replica.script = slow
        await gateway.route(replica)
        client = await gateway.connect()
        size = 48 << 20

        client.send(request(length=size))
        sent = 0
        while sent < size and client.writer.transport.get_write_buffer_size() < 4 << 20:
            client.send(b"u" * (1 << 20))
            sent += 1 << 20
            await asyncio.sleep(0.01)
        assert sent < size, "the gateway took all of a body that nobody reads"

        go_on.set()
        for _ in range((size - sent) >> 20):
            client.send(b"u" * (1 << 20))
            await client.writer.drain()
        assert (await client.answer()).body == b"%d" % size

    async def test_goes_into_the_queue_without_being_taken_in_whole(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(buffer_bytes=65_536)
        await gateway.route(state="starting")
        client = await gateway.connect()
        client.send(request(length=32 << 20) + b"q" * (32 << 20))
        await until(lambda: gateway.queued == 1)

        await gateway.route(replica)

        assert (await client.answer()).status == 200
        assert replica.calls[0].body_bytes == 32 << 20

    async def test_answered_early_ends_the_connection_after_the_answer(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        async def refuse(call: Call) -> None:
            call.answer(b"big", b"413 Too Large")

        gateway = await start_gateway(buffer_bytes=1024)
        replica.script = refuse
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(request(length=8 << 20) + b"x" * (1 << 20))
        answer = await client.answer()

        assert (answer.status, answer.body, answer.field("connection")) == (413, b"big", "close")


class TestDownload:
    async def test_reaches_the_client_piece_by_piece(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        go_on = asyncio.Event()

        async def events(call: Call) -> None:
            call.send(CHUNKED_HEAD + b"9\r\ndata: 1\n\n\r\n")
            await go_on.wait()
            call.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

        replica.script = events
        await gateway.route(replica)
        client = await gateway.connect()

        client.request()
        assert (await client.head()).field("transfer-encoding") == "chunked"
        assert await client.chunk() == b"data: 1\n\n"
        go_on.set()
        assert (await client.chunk(), await client.chunk()) == (b"data: 2\n\n", b"")
        assert (await client.ask("/v2", method="GET")).status == 200

    async def test_is_never_chunked_for_http_1_0(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        async def chunks(call: Call) -> None:
            call.send(CHUNKED_HEAD + b"5\r\nhello\r\n")
            await asyncio.sleep(0.02)
            call.send(b"6\r\n world\r\n0\r\n\r\n")

        replica.script = chunks
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(b"GET /v2/models/m HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        answer = await client.answer()

        assert (answer.body, answer.field("transfer-encoding"), answer.field("connection")) == (
            b"hello world", "", "close",
        )  # fmt: skip

    async def test_without_a_length_ends_with_the_replicas_connection(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async def until_close(call: Call) -> None:
            call.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"z" * 100_000)
            call.close()

        replica.script = until_close
        await gateway.route(replica)

        answer = await gateway.ask()

        assert (len(answer.body), answer.field("transfer-encoding")) == (100_000, "chunked")

    async def test_of_megabytes_arrives_unchanged(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        body = os.urandom(1 << 20) * 8

        async def big(call: Call) -> None:
            call.answer(body)

        replica.script = big
        await gateway.route(replica)

        answer = await gateway.ask()

        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()

    async def test_waits_in_the_replica_while_the_client_does_not_read(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        size = 64 << 20
        taken = 0

        async def pour(call: Call) -> None:
            nonlocal taken
            call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for _ in range(64):
                call.send(b"d" * (1 << 20))
                await until(lambda: call.unsent_bytes <= 1 << 20, "the gateway reads on", 60)
                taken += 1 << 20

        replica.script = pour
        await gateway.route(replica)
        client = await gateway.connect()
        client.writer.transport.pause_reading()

        client.request()
        await until(lambda: taken > 0)
        seen = -1
        while seen != taken:  # until nothing moves any more
            seen = taken
            await asyncio.sleep(0.2)
        assert taken < size / 2, "the gateway took an answer that nobody reads"

        client.writer.transport.resume_reading()
        assert len((await client.answer()).body) == size

    async def test_of_a_client_that_pipelines_and_never_reads_stops(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        """Answers to requests sent ahead must not pile up in memory."""

        async def big(call: Call) -> None:
            call.answer(b"x" * 500_000)

        replica.script = big
        await gateway.route(replica)
        client = await gateway.connect()
        client.writer.transport.pause_reading()

        client.send(request() * 200)
        seen = -1
        while seen != len(replica.calls) or not seen:
            seen = len(replica.calls)
            await asyncio.sleep(0.2)
        assert seen < 100

        client.writer.transport.resume_reading()
        for _ in range(200):
            assert len((await client.answer()).body) == 500_000

    async def test_of_interim_answers_comes_before_the_final_one(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async def hints(call: Call) -> None:
            call.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            call.answer(b"ok")

        replica.script = hints
        await gateway.route(replica)
        client = await gateway.connect()

        client.request()

        assert [(await client.head()).status, (await client.answer()).body] == [103, b"ok"]
