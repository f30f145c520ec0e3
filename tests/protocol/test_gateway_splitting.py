"""Thousands of broken answers: whatever a replica sends, a client sees one answer to each of its requests, and its own.

What the gateway passes on must be what llhttp reads too; what they dispute is a 502 or a torn connection. The same
client then asks again, on the same connection where it may, and others ask all the while.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httptools
import pytest

from tests.fakes.gateway import Answer, Client, GatewayUnderTest, until
from tests.fakes.http_readers import first_answer_by_llhttp, has_framing_in_trailers

from .conftest import StartGateway
from .splitting import Broken, answers

AT_ONCE = 64


class Breaking:
    """A replica that gives the broken answer whose number stands in the path, and right ones elsewhere."""

    def __init__(self, broken: list[Broken], closes: bool) -> None:
        self.broken = broken
        self.closes = closes  # after a broken answer; otherwise it waits, as if all were well
        self.port = 0

    async def listen(self) -> asyncio.Server:
        server = await asyncio.get_running_loop().create_server(lambda: _Serving(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server


class _Serving(asyncio.Protocol):
    def __init__(self, replica: Breaking) -> None:
        self._replica = replica
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_message_complete(self) -> None:
        name = self._target.rpartition(b"/")[2]
        if name.startswith(b"good"):
            self._transport.write(b"HTTP/1.1 200 OK\r\nX-Name: %b\r\nContent-Length: 2\r\n\r\n{}" % name)
            return
        self._transport.write(self._replica.broken[int(name)].raw)
        if self._replica.closes:
            self._transport.close()


@dataclass
class Play:
    broken: Broken
    first: Answer | None = None  # None: the connection was torn before it was whole
    hung: bool = False
    second: str = ""  # the X-Name of the answer to the next request, "" where there was none


async def play(gateway: GatewayUnderTest, number: int, broken: Broken) -> Play:
    played = Play(broken)
    client = await gateway.connect()
    try:
        played.first = await ask(client, f"/models/m/{number}")
        if played.first.field("connection") != "close":
            played.second = (await ask(client, f"/models/m/good{number}")).field("x-name")
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # torn: the client knows that it has no answer
    except TimeoutError:
        played.hung = True
    client.leave()
    return played


async def ask(client: Client, path: str) -> Answer:
    client.request(path, method="GET")
    return await client.final_answer()


def fault(played: Play, number: int) -> str:
    """What is wrong with one exchange, "" if nothing."""
    where = f"{played.broken.name}: {played.broken.raw[:200]!r}:\n    "
    if played.hung:
        return f"{where}no answer came, and no end of the connection"
    if played.second not in ("", f"good{number}"):
        return f"{where}the next request was answered with {played.second!r}"
    if played.first is None or played.first.status in (502, 504) or "x-model-version" not in dict(played.first.fields):
        return ""
    if has_framing_in_trailers(played.broken.raw):
        return ""
    read = first_answer_by_llhttp(played.broken.raw)
    if read is None or read != (played.first.status, played.first.body):
        return f"{where}passed on as {(played.first.status, played.first.body)}, but llhttp reads {read}"
    return ""


@pytest.fixture
def broken() -> list[Broken]:
    return answers()


@pytest.fixture
async def replica(broken: list[Broken], closes: bool) -> AsyncIterator[Breaking]:
    replica = Breaking(broken, closes)
    server = await replica.listen()
    yield replica
    server.close()


@pytest.mark.parametrize("closes", [True, False], ids=["and-closes", "and-waits"])
class TestBrokenAnswers:
    async def test_never_reach_a_client_as_the_answer_to_another_request(
        self, start_gateway: StartGateway, replica: Breaking, broken: list[Broken]
    ) -> None:
        gateway = await start_gateway()
        await gateway.route(replica, concurrency=1000, eject=False, request_timeout_ms=400)
        waiting = iter(enumerate(broken))
        found: list[str] = []
        passed = 0

        async def work() -> None:
            nonlocal passed
            for number, one in waiting:
                played = await play(gateway, number, one)
                found.extend(filter(None, [fault(played, number)]))
                passed += played.first is not None and played.first.status == 200

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

        assert not found, "\n".join(found[:20])
        assert len(broken) > 2000
        assert passed > 100, "some of them are right"
        await until(lambda: gateway.in_flight == 0 and gateway.queued == 0)
