"""One client connection: cut into any pieces, pipelined, limited, timed out, closed."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.fakes.gateway import GatewayUnderTest, request, until
from tests.fakes.scripted_replica import Call, ScriptedReplica

from .conftest import StartGateway

CHUNKED = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"


class TestParsing:
    @pytest.mark.parametrize(
        "raw",
        [
            request(body=b"tensor"),
            b"\r\n" + request(body=b"tensor"),
            CHUNKED + b"3;x=y\r\nten\r\n3\r\nsor\r\n0\r\nT: 1\r\n\r\n",
        ],
        ids=["length", "empty line first", "chunks with extension and trailer"],
    )
    async def test_gives_the_same_request_byte_by_byte(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, raw: bytes
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        for byte in raw:
            client.send(bytes([byte]))
            await asyncio.sleep(0)

        assert (await client.answer()).body == b"tensor"

    async def test_gives_the_same_requests_cut_at_every_place(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()
        raw = request(body=b"tensor")

        for cut in range(1, len(raw)):
            client.send(raw[:cut])
            await asyncio.sleep(0)
            client.send(raw[cut:])
            assert (await client.answer()).body == b"tensor"

    async def test_never_mistakes_one_head_for_another(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        """The last head is remembered by its bytes: heads that differ in one must not share what was parsed."""
        await gateway.route(replica)
        client = await gateway.connect()

        for mark in "abcab":
            await client.ask("/v2/models/m/infer", f"x-mark: {mark}")

        assert [call.field("x-mark") for call in replica.calls] == [[mark] for mark in "abcab"]

    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (b"\x16\x03\x01\x00\xa5\x01", 400),
            (b"GET / HTTP/1.1\n\n", 400),
            (b"\r\n\r\n\r\n", 400),
            (b"GET / HTTP/3.0\r\n\r\n", 505),
            (
                b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
                400,
            ),
            (CHUNKED + b"zz\r\n", 400),
            (CHUNKED + b"3\r\nabcdef", 400),
        ],
    )
    async def test_refuses_and_closes_what_is_not_beyond_doubt(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, raw: bytes, status: int
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(raw)
        answer = await client.answer()
        client.writer.write_eof()

        assert (answer.status, answer.field("connection")) == (status, "close")
        assert await client.closed() == b""
        assert replica.calls == []


class TestKeepAlive:
    async def test_answers_pipelined_requests_in_order(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async def first_is_slow(call: Call) -> None:
            await call.completed.wait()
            if call.body == b"0":
                await asyncio.sleep(0.05)
            call.answer(call.body)

        replica.script = first_is_slow
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(b"".join(request(body=b"%d" % i) for i in range(10)))

        assert [(await client.answer()).body for _ in range(10)] == [b"%d" % i for i in range(10)]

    async def test_answers_pipelined_refusals_and_requests_in_order(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        client.send((request("/none") + request("/v2/health/live") + request()) * 300)

        assert [(await client.answer()).status for _ in range(900)] == [404, 200, 200] * 300

    async def test_reuses_the_replicas_connection(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        await gateway.route(replica)

        for _ in range(5):
            await gateway.ask()

        assert replica.accepted == 1

    async def test_closes_when_the_client_asks_for_it(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(request("/v2/models/m/infer", "connection: close") + request())

        assert (await client.answer()).field("connection") == "close"
        assert await client.closed() == b""
        assert len(replica.calls) == 1

    async def test_closes_after_an_http_1_0_request(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(b"GET /v2/models/m HTTP/1.0\r\n\r\n")

        assert (await client.answer()).status == 200
        assert await client.closed() == b""

    async def test_stays_open_for_http_1_0_that_asks_and_says_so(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        for _ in range(2):
            client.send(b"GET /v2/models/m HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            assert (await client.answer()).field("connection") == "keep-alive"


class TestLimits:
    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nhost: h\r\n\r\n", 414),
            (b"GET /" + b"x" * 5000, 414),
            (b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"y" * 5000, 431),
            (b"GET / HTTP/1.1\r\nhost: h\r\n" + b"x: y\r\n" * 9 + b"\r\n", 431),
            (b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 5000\r\n\r\n", 413),
            (CHUNKED + b"1000\r\n" + b"x" * 4096 + b"\r\n1\r\nx\r\n", 413),
        ],
    )
    async def test_on_target_head_fields_and_body_answer_and_close(
        self, start_gateway: StartGateway, replica: ScriptedReplica, raw: bytes, status: int
    ) -> None:
        gateway = await start_gateway(target_bytes=1024, head_bytes=4096, fields=8, body_bytes=4096)
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(raw)
        answer = await client.answer()

        assert (answer.status, answer.code, answer.field("connection")) == (status, "TOO_LARGE", "close")

    async def test_on_connections_refuse_one_more_and_recover(self, start_gateway: StartGateway) -> None:
        gateway = await start_gateway(connections=2)
        held = [await gateway.connect() for _ in range(2)]
        for client in held:
            assert (await client.ask("/v2", method="GET")).status == 200

        refused = await gateway.connect()
        assert ((await refused.answer()).status, await refused.closed()) == (503, b"")

        held[0].leave()
        await until(lambda: len(gateway.gateway.connections) < 2)
        assert (await gateway.ask("/v2", method="GET")).status == 200

    async def test_let_the_client_read_the_answer_while_it_still_sends(self, start_gateway: StartGateway) -> None:
        """A reset would overtake the answer in the client's socket."""
        gateway = await start_gateway(body_bytes=4096)
        client = await gateway.connect()

        client.send(request(length=8_000_000) + b"x" * 8_000_000)

        assert (await client.answer()).status == 413

    async def test_on_requests_of_a_connection_close_it_with_the_last_answer(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(requests_per_connection=3)
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(request() * 4)
        answers = [await client.answer() for _ in range(3)]

        assert [answer.field("connection") for answer in answers] == ["", "", "close"]
        assert await client.closed() == b""
        assert len(replica.calls) == 3


class TestTimeouts:
    async def test_cut_a_head_that_comes_too_slowly(self, start_gateway: StartGateway) -> None:
        gateway = await start_gateway(header_timeout_s=0.3)
        client = await gateway.connect()
        began = time.monotonic()

        answer = asyncio.ensure_future(client.answer())
        for byte in b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"y" * 100:
            client.send(bytes([byte]))
            await asyncio.sleep(0.02)
            if answer.done():
                break

        assert (await answer).status == 408
        assert 0.25 < time.monotonic() - began < 2

    async def test_close_an_idle_connection_in_silence(self, start_gateway: StartGateway) -> None:
        gateway = await start_gateway(idle_timeout_s=0.1)
        client = await gateway.connect()
        await client.ask("/v2", method="GET")

        assert await client.closed() == b""

    @pytest.mark.parametrize("raw", [request(length=10) + b"half", CHUNKED + b"a\r\nhalf"])
    async def test_cut_a_body_that_stalls(
        self, start_gateway: StartGateway, replica: ScriptedReplica, raw: bytes
    ) -> None:
        gateway = await start_gateway(body_timeout_s=0.1)
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(raw)

        assert (await client.answer()).status == 408
        assert replica.calls == []

    async def test_cut_a_streamed_body_that_stalls_and_free_the_replica(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(body_timeout_s=0.1, buffer_bytes=1024)
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(request(length=10_000) + b"x" * 5_000)

        assert (await client.answer()).status == 408
        await until(lambda: gateway.in_flight == 0)
        assert not replica.calls[0].is_complete

    async def test_leave_a_slow_but_steady_body_alone(
        self, start_gateway: StartGateway, replica: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(body_timeout_s=0.5)
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(request(length=10))
        for _ in range(10):
            await asyncio.sleep(0.07)
            client.send(b"x")

        assert (await client.answer()).body == b"x" * 10


class TestExpectation:
    async def test_is_met_before_the_body_is_sent(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(request("/v2/models/m/infer", "expect: 100-continue", length=6))
        assert (await client.head()).status == 100
        client.send(b"tensor")

        assert (await client.answer()).body == b"tensor"
        assert replica.calls[0].field("expect") == []

    async def test_is_not_met_for_a_request_that_will_be_refused(self, gateway: GatewayUnderTest) -> None:
        await gateway.table()
        client = await gateway.connect()

        client.send(request("/v2/models/none/infer", "expect: 100-continue", length=6))

        assert (await client.answer()).status == 404

    async def test_counts_one_request_in_the_split(self, gateway: GatewayUnderTest) -> None:
        """Where it goes is decided before the body is here, and only once."""
        from router.contract import Endpoint, ModelRoute, VersionRoute

        async with ScriptedReplica() as one, ScriptedReplica() as two:
            versions = {
                str(n): VersionRoute((Endpoint(f"r{n}", "127.0.0.1", r.port),)) for n, r in ((1, one), (2, two))
            }
            await gateway.table(m=ModelRoute(versions, {"1": 1, "2": 1}))
            client = await gateway.connect()
            for _ in range(4):
                client.send(request("/v2/models/m/infer", "expect: 100-continue", length=1))
                await client.head()
                client.send(b"x")
                await client.answer()

        assert (len(one.calls), len(two.calls)) == (2, 2)
