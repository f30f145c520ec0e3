"""Thousands of smuggling payloads against a real gateway: whatever reaches a replica is what the client was answered for.

Two readers that are not ours (llhttp, h11) judge both sides. A payload whose meaning they dispute must be refused at the
dispute at the latest; what they agree on may be carried. Nothing here is asleep for long: what a payload leaves open is
closed by the gateway's own time limits.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httptools
import pytest

from tests.fakes.gateway import Answer, GatewayUnderTest, until
from tests.fakes.http_readers import Seen, disputes, read_by_h11, read_by_llhttp

from .conftest import StartGateway
from .smuggling import Payload, payloads

AT_ONCE = 64
# What a client sends behind a payload. It asks to close, so that an exchange ends as soon as all is answered.
NEXT = b"GET /models/m/next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


class Recorder:
    """A replica that keeps every byte by connection, and answers each request with a number and what it understood."""

    def __init__(self) -> None:
        self.connections: list[bytearray] = []
        self.seen: dict[int, Seen] = {}
        self.errors: list[str] = []
        self.port = 0
        self.numbers = itertools.count()

    async def listen(self) -> asyncio.Server:
        server = await asyncio.get_running_loop().create_server(lambda: _Recording(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server


class _Recording(asyncio.Protocol):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._bytes = bytearray()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        recorder.connections.append(self._bytes)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._recorder.errors.append(f"{exc}: {bytes(self._bytes)[-300:]!r}")
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._target = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        number = next(self._recorder.numbers)
        method = self._parser.get_method()
        self._recorder.seen[number] = Seen(method, self._target, self._body)
        head = b"HTTP/1.1 200 OK\r\nX-Number: %d\r\nContent-Length: 2\r\n\r\n" % number
        self._transport.write(head if method == b"HEAD" else head + b"{}")


@dataclass
class Play:
    """What came back for one payload: `numbers` holds the replica's number, or None where the gateway said no."""

    payload: Payload
    answers: list[Answer] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)
    broken: str = ""  # why the bytes that came back are not answers


async def play(gateway: GatewayUnderTest, payload: Payload) -> Play:
    played = Play(payload)
    client = await gateway.connect()
    client.send(payload.raw + NEXT)
    raw = await client.closed()
    heads = [seen.method == b"HEAD" for seen in read_by_llhttp(payload.raw + NEXT).messages]
    heads = heads or [payload.raw.startswith(b"HEAD ")]
    while raw:
        is_head = len(played.answers) < len(heads) and heads[len(played.answers)]
        try:
            answer, raw = take_answer(raw, is_head)
        except AssertionError as exc:
            played.broken = str(exc)
            break
        if answer.status != 100:
            played.answers.append(answer)
            played.numbers.append(int(answer.field("x-number")) if answer.field("x-number") else None)
    client.leave()
    return played


def take_answer(raw: bytes, is_head: bool) -> tuple[Answer, bytes]:
    """The first answer of `raw`, which must be whole, and what follows it."""
    head, mark, rest = raw.partition(b"\r\n\r\n")
    assert mark, raw[:200]
    line, *lines = head.decode("latin-1").split("\r\n")
    pairs = [(name.lower(), value.strip()) for name, _, value in (one.partition(":") for one in lines)]
    answer = Answer(int(line.split(" ")[1]), pairs, b"", head)
    if answer.status != 100:
        length = 0 if is_head else int(answer.field("content-length"))
        assert len(rest) >= length, raw[:200]
        answer.body, rest = rest[:length], rest[length:]
    return answer, rest


def faults(played: Play, recorder: Recorder) -> list[str]:
    """What is wrong with one exchange, in words."""
    found = [played.broken] if played.broken else []
    carried = [None if number is None else recorder.seen[number] for number in played.numbers]
    found += disputes(played.payload.raw + NEXT, carried)
    return [f"{played.payload.name}: {text}\n    {played.payload.raw[:300]!r}" for text in found]


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    server = await recorder.listen()
    yield recorder
    server.close()


@pytest.mark.parametrize("buffer_bytes", [1 << 20, 4], ids=["held", "streamed"])
class TestSmuggling:
    async def test_gets_nothing_to_a_replica_that_its_client_was_not_answered_for(
        self, start_gateway: StartGateway, recorder: Recorder, buffer_bytes: int
    ) -> None:
        """Held bodies are judged before a replica is asked; streamed ones while it reads, which must then see them torn."""
        gateway = await start_gateway(
            buffer_bytes=buffer_bytes, header_timeout_s=0.5, body_timeout_s=0.5, idle_timeout_s=0.5
        )
        await gateway.route(recorder, concurrency=1000, eject=False)
        played = await play_all(gateway, payloads())

        found = [fault for play in played for fault in faults(play, recorder)]
        assert not found, "\n".join(found[:20])
        assert recorder.errors == []
        answered = [number for play in played for number in play.numbers if number is not None]
        assert sorted(answered) == sorted(recorder.seen), "each request inside the replica has one answer outside"
        assert all(judge(bytes(stream)) == "" for stream in recorder.connections)
        assert len(played) > 3000
        assert sum(number is not None for play in played for number in play.numbers[:1]) > 200, "some are right"
        await until(lambda: gateway.in_flight == 0 and gateway.queued == 0)


async def play_all(gateway: GatewayUnderTest, chosen: list[Payload]) -> list[Play]:
    waiting = iter(chosen)
    played: list[Play] = []

    async def work() -> None:
        played.extend([await play(gateway, payload) for payload in waiting])

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return played


def judge(stream: bytes) -> str:
    """What h11 says against the bytes of one connection to the replica. A torn request may end it, nothing else."""
    ours, theirs = read_by_llhttp(stream), read_by_h11(stream)
    if ours.messages != theirs.messages:
        return f"llhttp and h11 read different requests in {stream[:500]!r}"
    return "" if theirs.rest in ("", "inside") else f"h11: {theirs.rest}: {stream[-500:]!r}"
