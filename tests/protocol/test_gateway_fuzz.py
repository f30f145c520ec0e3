"""Random damage on both sides: nothing may crash, hang, or reach the other side unparsed."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.scripted_replica import Call, ScriptedReplica, echo

from .conftest import StartGateway

REQUESTS = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello",
    b"POST /v1/models/m:predict HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    b"GET /models/m/x?a=b HTTP/1.0\r\nconnection: keep-alive\r\nexpect: 100-continue\r\n\r\n",
    b"HEAD http://h/v2/models/m HTTP/1.1\r\nhost: h\r\nconnection: x-b, close\r\nx-b: 1\r\n\r\n",
)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: 1\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nhello",
)
TOKENS = (b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"0", b"ffff", b"chunked", b"content-length: 3\r\n",
          b"transfer-encoding: chunked\r\n", b"\r\n\r\n", b"HTTP/1.1", b"\xff", b";", b",")  # fmt: skip


def damaged(chance: random.Random, raw: bytes) -> bytes:
    """`raw` with a few bytes cut out, doubled, replaced, or put in."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(raw) + 1)
        end = min(len(raw), at + chance.choice((0, 0, 1, 1, 2, 8)))
        put = chance.choice((b"", chance.choice(TOKENS), raw[at:end] * 2, bytes([chance.randrange(256)])))
        raw = raw[:at] + put + raw[end:]
    return raw


def cut(chance: random.Random, raw: bytes) -> list[bytes]:
    ends = sorted(chance.randrange(len(raw) + 1) for _ in range(chance.randint(0, 3)))
    return [raw[a:b] for a, b in zip([0, *ends], [*ends, len(raw)], strict=True)]


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> GatewayUnderTest:
    return await start_gateway(buffer_bytes=1024, header_timeout_s=1.0, body_timeout_s=1.0, idle_timeout_s=1.0)


@pytest.mark.parametrize("seed", range(4))
class TestDamage:
    async def test_of_requests_never_reaches_a_replica_ambiguously(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, seed: int
    ) -> None:
        """What arrives is read by llhttp: `replica.errors` must stay empty, as its fixture asserts."""
        chance = random.Random(seed)
        await gateway.route(replica, concurrency=100)

        for _ in range(150):
            client = await gateway.connect()
            with contextlib.suppress(ConnectionError, RuntimeError):  # it may have closed already
                for piece in cut(chance, damaged(chance, chance.choice(REQUESTS)) + chance.choice(REQUESTS)):
                    client.send(piece)
                    await asyncio.sleep(0)
                client.writer.write_eof()
                await client.closed()
            client.leave()

        assert (await gateway.ask(body=b"mine")).body == b"mine"
        await until(lambda: gateway.in_flight == 0)

    async def test_of_answers_never_reaches_another_request(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, seed: int
    ) -> None:
        chance = random.Random(seed)

        async def damage(call: Call) -> None:
            await call.completed.wait()
            for piece in cut(chance, damaged(chance, chance.choice(ANSWERS))):
                call.send(piece)
                await asyncio.sleep(0)
            if chance.random() < 0.7:
                call.close()

        await gateway.route(replica, concurrency=100, request_timeout_ms=150)
        for _ in range(60):
            replica.script = damage
            client = await gateway.connect()
            client.request("/v2/models/m/infer", "connection: close", body=b"damage")
            with contextlib.suppress(ConnectionError):
                await client.closed()
            client.leave()
            replica.script = echo
            assert (await gateway.ask(body=b"mine")).body == b"mine"

        await until(lambda: gateway.in_flight == 0)
