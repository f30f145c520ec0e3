"""WebSockets through the gateway: aiohttp on both sides, and raw bytes where those are too well-behaved."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from router.core.websocket import accept_of
from tests.fakes.gateway import Client, GatewayUnderTest, request, until
from tests.fakes.scripted_replica import Call, ScriptedReplica

from .conftest import StartGateway
from .test_gateway_keys import Keys, api_key, bearer

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    + accept_of(KEY) + b"\r\n\r\n"
)  # fmt: skip
UPGRADE = (
    "upgrade: websocket", "connection: Upgrade", "sec-websocket-version: 13", f"sec-websocket-key: {KEY.decode()}",
)  # fmt: skip
Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


class WebSocketReplica:
    """An aiohttp server; `talk` is what it does with each WebSocket."""

    def __init__(self) -> None:
        self.talk: Talk = echo
        self.port = 0
        self.requests: list[web.Request] = []
        self.open = 0
        self.closed_with: list[int | None] = []
        self._runner: web.AppRunner

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            self.port = listening.getsockname()[1]
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if request.path.endswith("/refuse"):
            return web.Response(status=403, text="not you")
        channel = web.WebSocketResponse(protocols=["tensors"], max_msg_size=0)
        await channel.prepare(request)
        self.open += 1
        try:
            await self.talk(channel)
        finally:
            self.open -= 1
            self.closed_with.append(channel.close_code)
        return channel


async def echo(channel: web.WebSocketResponse) -> None:
    async for message in channel:
        if message.type == aiohttp.WSMsgType.TEXT:
            await channel.send_str(message.data)
        else:
            await channel.send_bytes(message.data)


@pytest.fixture
async def server() -> AsyncIterator[WebSocketReplica]:
    server = WebSocketReplica()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def url(gateway: GatewayUnderTest, path: str = "/models/m/chat?x=1") -> str:
    return f"http://127.0.0.1:{gateway.port}{path}"


class TestATunnel:
    async def test_carries_messages_both_ways_and_tells_both_who_they_talk_to(
        self, gateway: GatewayUnderTest, server: WebSocketReplica, session: aiohttp.ClientSession
    ) -> None:
        await gateway.route(server, websocket=True)

        async with session.ws_connect(url(gateway), protocols=["tensors"], headers={"x-request-id": "mine"}) as channel:
            for message in ("", "one", "two" * 10_000):
                await channel.send_str(message)
                assert await channel.receive_str() == message
            answer: Any = channel._response.headers

            assert (answer["x-request-id"], answer["x-model-version"], channel.protocol) == ("mine", "1", "tensors")
            assert gateway.in_flight == 1
            seen = server.requests[0]
            assert (seen.path_qs, seen.headers["x-request-id"]) == ("/models/m/chat?x=1", "mine")

        await until(lambda: gateway.in_flight == 0)
        assert gateway.count(101) == 1

    async def test_carries_large_messages_both_ways_at_once(
        self, gateway: GatewayUnderTest, server: WebSocketReplica, session: aiohttp.ClientSession
    ) -> None:
        await gateway.route(server, websocket=True)
        messages = [bytes([i]) * 3_000_000 for i in range(8)]

        async with session.ws_connect(url(gateway), max_msg_size=0) as channel:
            sending = asyncio.ensure_future(send_all(channel, messages))
            received = [await channel.receive_bytes() for _ in messages]
            await sending

        assert received == messages

    @pytest.mark.parametrize("code", [1000, 1011, 4321])
    async def test_passes_the_replicas_close_code(
        self, gateway: GatewayUnderTest, server: WebSocketReplica, session: aiohttp.ClientSession, code: int
    ) -> None:
        async def close(channel: web.WebSocketResponse) -> None:
            await channel.close(code=code, message=b"why")

        server.talk = close
        await gateway.route(server, websocket=True)

        async with session.ws_connect(url(gateway)) as channel:
            message = await channel.receive()

        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, code, "why")

    async def test_passes_the_clients_close_code(
        self, gateway: GatewayUnderTest, server: WebSocketReplica, session: aiohttp.ClientSession
    ) -> None:
        await gateway.route(server, websocket=True)

        channel = await session.ws_connect(url(gateway))
        await channel.close(code=4001)

        await until(lambda: server.closed_with == [4001])
        await until(lambda: gateway.in_flight == 0)

    async def test_ends_when_the_client_vanishes(
        self, gateway: GatewayUnderTest, server: WebSocketReplica, session: aiohttp.ClientSession
    ) -> None:
        await gateway.route(server, websocket=True)
        channel = await session.ws_connect(url(gateway))
        await until(lambda: server.open == 1)

        connection = channel._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()

        await until(lambda: server.open == 0 and gateway.in_flight == 0)

    async def test_ends_when_the_replica_dies(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, session: aiohttp.ClientSession
    ) -> None:
        async def die(call: Call) -> None:
            call.send(SWITCHED)
            await go_on.wait()
            call.reset()

        go_on = asyncio.Event()
        replica.script = die
        await gateway.route(replica, websocket=True)
        client = await upgraded(gateway)

        go_on.set()

        assert await client.closed() == b""
        await until(lambda: gateway.in_flight == 0)

    async def test_holds_a_slot_for_its_life(
        self, gateway: GatewayUnderTest, server: WebSocketReplica, session: aiohttp.ClientSession
    ) -> None:
        await gateway.route(server, websocket=True, concurrency=1)
        async with session.ws_connect(url(gateway)):
            waiting = asyncio.ensure_future(session.ws_connect(url(gateway)))
            await until(lambda: gateway.queued == 1)

        async with await waiting as channel:
            await channel.send_str("mine")
            assert await channel.receive_str() == "mine"

    async def test_holds_its_keys_place_for_its_life(
        self, start_gateway: StartGateway, server: WebSocketReplica, session: aiohttp.ClientSession
    ) -> None:
        keys = Keys(await start_gateway(), server)  # type: ignore[arg-type]
        await keys.serve({"websocket": True}, one=api_key(concurrency=1))
        headers = dict([bearer().split(": ")])

        for _ in range(2):
            async with session.ws_connect(url(keys.gateway), headers=headers):
                assert (await keys.gateway.ask("/models/m/x", bearer(), method="GET")).status == 429
            await until(lambda: keys.gateway.in_flight == 0)

    async def test_outlives_the_deadline_of_its_handshake_and_ends_when_idle(
        self, start_gateway: StartGateway, server: WebSocketReplica, session: aiohttp.ClientSession
    ) -> None:
        gateway = await start_gateway(idle_timeout_s=0.5)
        await gateway.route(server, websocket=True, request_timeout_ms=100)

        async with session.ws_connect(url(gateway)) as channel:
            for _ in range(8):
                await channel.send_str("x")
                await channel.receive_str()
                await asyncio.sleep(0.1)
            message = await channel.receive(timeout=5)

        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE)
        await until(lambda: server.open == 0 and gateway.in_flight == 0)

    async def test_ends_with_the_drain_after_its_time(
        self, start_gateway: StartGateway, server: WebSocketReplica, session: aiohttp.ClientSession
    ) -> None:
        gateway = await start_gateway(drain_timeout_s=0.3)
        await gateway.route(server, websocket=True)
        async with session.ws_connect(url(gateway)) as channel:
            draining = asyncio.ensure_future(gateway.gateway.drain())
            await channel.send_str("still")
            assert await channel.receive_str() == "still"

            assert (await channel.receive(timeout=5)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE)
            await draining

    async def test_outlives_its_replicas_place_in_the_table(
        self, gateway: GatewayUnderTest, server: WebSocketReplica, session: aiohttp.ClientSession
    ) -> None:
        """The control plane waits for it, and stops the replica at `drain_timeout_s`."""
        await gateway.route(server, websocket=True)
        async with session.ws_connect(url(gateway)) as channel:
            await gateway.route(websocket=True)

            await channel.send_str("still")
            assert await channel.receive_str() == "still"
            assert gateway.gateway.fleet.in_flight() == {"r0": 1}

        await until(lambda: not gateway.gateway.fleet.replicas)

    async def test_lets_the_replica_answer_a_client_that_closed_its_side(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async def answer_late(call: Call) -> None:
            call.send(SWITCHED + b"hello")
            await call.left.wait()
            call.send(b"bye")
            call.close()

        replica.script = answer_late
        replica.half_close = True
        await gateway.route(replica, websocket=True)
        client = await upgraded(gateway)
        client.writer.write_eof()

        assert await client.closed() == b"hellobye"
        await until(lambda: gateway.in_flight == 0)

    async def test_waits_in_the_replica_while_the_client_does_not_read(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        taken = 0

        async def pour(call: Call) -> None:
            nonlocal taken
            call.send(SWITCHED)
            for _ in range(64):
                call.send(b"d" * (1 << 20))
                await until(lambda: call.unsent_bytes <= 1 << 20, "the gateway reads on", 60)
                taken += 1 << 20
            call.close()

        replica.script = pour
        await gateway.route(replica, websocket=True)
        client = await upgraded(gateway)
        client.writer.transport.pause_reading()
        await until(lambda: taken > 0)
        seen = -1
        while seen != taken:  # until nothing moves any more
            seen = taken
            await asyncio.sleep(0.2)
        assert taken < 32 << 20, "the gateway took what nobody reads"

        client.writer.transport.resume_reading()
        assert len(await asyncio.wait_for(client.reader.read(), 30)) == 64 << 20

    async def test_takes_a_connection_of_its_own_and_leaves_the_pools(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async def switch_or_answer(call: Call) -> None:
            if call.target.endswith(b"/ws"):
                call.send(SWITCHED)
                await call.left.wait()
            else:
                call.answer(b"plain")

        replica.script = switch_or_answer
        await gateway.route(replica, websocket=True)
        await gateway.ask()
        assert replica.accepted == 1

        client = await upgraded(gateway)
        assert replica.accepted == 2
        client.leave()
        await until(lambda: gateway.in_flight == 0)

        assert (await gateway.ask()).body == b"plain"
        assert replica.accepted == 2


class TestAHandshake:
    async def test_without_the_versions_word_is_refused_clearly_and_the_connection_goes_on(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        refused = await client.ask("/models/m/ws", *UPGRADE, method="GET")

        assert (refused.status, refused.code) == (501, "NOT_SUPPORTED")
        assert "websocket: true" in refused.json["error"]
        assert (await client.ask(body=b"next")).body == b"next"
        assert len(replica.calls) == 1

    @pytest.mark.parametrize("path", ["/v2/models/m/infer", "/v1/models/m", "/v2/health/live"])
    async def test_on_another_path_is_refused(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, path: str
    ) -> None:
        await gateway.route(replica, websocket=True)

        assert (await gateway.ask(path, *UPGRADE, method="GET")).status == 501
        assert replica.calls == []

    @pytest.mark.parametrize(
        ("lines", "status"),
        [
            (UPGRADE[:1] + UPGRADE[2:], 400),
            ((*UPGRADE[:2], "sec-websocket-version: 8", UPGRADE[3]), 426),
            (UPGRADE[:3], 400),
            ((*UPGRADE, UPGRADE[3]), 400),
        ],
    )
    async def test_that_is_not_beyond_doubt_reaches_no_replica(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, lines: tuple[str, ...], status: int
    ) -> None:
        await gateway.route(replica, websocket=True)

        answer = await gateway.ask("/models/m/ws", *lines, method="GET")

        assert answer.status == status
        assert (answer.field("sec-websocket-version") == "13") == (status == 426)
        assert replica.calls == []

    async def test_that_the_replica_refuses_ends_the_connection_after_the_answer(
        self, gateway: GatewayUnderTest, server: WebSocketReplica
    ) -> None:
        """Who takes it for a tunnel would smuggle a request in what follows."""
        await gateway.route(server, websocket=True)
        client = await gateway.connect()

        client.send(request("/models/m/refuse", *UPGRADE, method="GET") + request("/models/m/smuggled", method="GET"))
        answer = await client.answer()

        assert (answer.status, answer.body, answer.field("connection")) == (403, b"not you", "close")
        assert await client.closed() == b""
        assert [seen.path for seen in server.requests] == ["/models/m/refuse"]

    async def test_that_the_replica_refuses_ends_the_replicas_connection_too(
        self, gateway: GatewayUnderTest, server: WebSocketReplica
    ) -> None:
        """Found by `make fuzz`: the pool gave it to the next request."""
        await gateway.route(server, websocket=True)

        for _ in range(2):
            assert (await gateway.ask("/models/m/refuse", *UPGRADE, method="GET")).status == 403
            assert (await gateway.ask("/models/m/refuse", method="GET")).status == 403

        upgrades = [request.transport for request in server.requests[::2]]
        others = [request.transport for request in server.requests[1::2]]
        assert upgrades == [None, None]  # closed
        assert others[0] is others[1] is not None

    @pytest.mark.parametrize(
        "answer",
        [
            SWITCHED.replace(accept_of(KEY), accept_of(b"AAAAAAAAAAAAAAAAAAAAAA==")),
            SWITCHED.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
            SWITCHED.replace(b"Connection: Upgrade\r\n", b""),
        ],
    )
    async def test_that_the_replica_answers_wrongly_is_502(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, answer: bytes
    ) -> None:
        async def wrong(call: Call) -> None:
            call.send(answer)

        replica.script = wrong
        await gateway.route(replica, websocket=True)

        assert (await gateway.ask("/models/m/ws", *UPGRADE, method="GET")).status == 502

    async def test_nobody_asked_for_is_502(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        async def wrong(call: Call) -> None:
            call.send(SWITCHED)

        replica.script = wrong
        await gateway.route(replica, websocket=True)

        assert (await gateway.ask("/models/m/ws", method="GET")).status == 502

    async def test_has_the_requests_deadline(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        async def never(call: Call) -> None:
            await call.left.wait()

        replica.script = never
        await gateway.route(replica, websocket=True, request_timeout_ms=100)

        assert (await gateway.ask("/models/m/ws", *UPGRADE, method="GET")).status == 504


async def send_all(channel: aiohttp.ClientWebSocketResponse, messages: list[bytes]) -> None:
    for message in messages:
        await channel.send_bytes(message)


async def upgraded(gateway: GatewayUnderTest) -> Client:
    client = await gateway.connect()
    client.request("/models/m/ws", *UPGRADE, method="GET")
    assert (await client.head()).status == 101
    return client
