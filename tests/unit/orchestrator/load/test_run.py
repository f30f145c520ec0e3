"""Runs against a real server on a real socket, which answers, stalls, hangs, breaks and goes away as it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from orchestrator.load import http
from orchestrator.load.arrivals import constant
from orchestrator.load.run import Run, Target
from orchestrator.load.tally import Tally

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
REQUEST = http.head("POST", "/v1/models/m:predict", "h", b"{}", {})
Answer = Callable[["Server", asyncio.StreamWriter], Awaitable[None]]


class Server:
    """`asked` counts requests, `connections` those opened; `answer` writes what it likes."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0
        self.connections = 0
        self.bodies: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.bodies.append(head + await reader.readexactly(2))
                self.asked += 1
                await self.answer(self, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def at_once(server: Server, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[Server, Target]]:
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield server, Target(host="127.0.0.1", port=port, request=REQUEST, timeout_s=5)
    finally:
        listening.close()


def limited(target: Target, **changes: float) -> Target:
    known = {name: getattr(target, name) for name in ("host", "port", "request", "timeout_s", "connections")}
    return Target(**{**known, **changes})  # type: ignore[arg-type]


def adds_up(tally: Tally) -> bool:
    return tally.sent == tally.answered + tally.failed + tally.unfinished


class TestOpenLoop:
    async def test_sends_each_request_once_and_as_it_is(self) -> None:
        async with serving(at_once) as (server, target):
            tally = await Run(target).open_loop(constant(200, 0.5))

        assert (tally.sent, tally.answered, tally.errors) == (100, 100, {})
        assert server.bodies == [REQUEST] * 100

    async def test_keeps_its_connections(self) -> None:
        async with serving(at_once) as (server, target):
            await Run(target).open_loop(constant(100, 0.3))

        assert server.connections < 10

    async def test_lets_each_request_pay_for_a_stall_from_when_it_was_due(self) -> None:
        """Coordinated omission would show one slow request of a hundred; 40 of them fell into the stall."""
        ends: list[float] = []

        async def stalls(server: Server, writer: asyncio.StreamWriter) -> None:
            ends.append(time.monotonic() + 0.6)
            await asyncio.sleep(max(0.0, ends[0] - time.monotonic()))
            writer.write(OK)

        async with serving(stalls) as (_, target):
            tally = await Run(target).open_loop(constant(100, 1.0))

        assert tally.answered == 100
        assert tally.latency.beyond(0.1) >= 40
        assert (tally.latency.percentile_s(99) or 0) > 0.5

    async def test_counts_a_wait_for_a_connection_from_when_the_request_was_due(self) -> None:
        async def slowly(server: Server, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.05)
            writer.write(OK)

        async with serving(slowly) as (server, target):
            run = Run(limited(target, connections=1))
            tally = await run.open_loop([0.0] * 6)

        assert server.connections == 1
        assert run.is_out_of_connections
        assert (tally.latency.most_s or 0) > 0.29

    async def test_counts_errors_by_status_and_code(self) -> None:
        async def refuses(server: Server, writer: asyncio.StreamWriter) -> None:
            if server.asked % 2:
                writer.write(OK)
                return
            body = b'{"error": "full", "code": "OVERLOADED", "request_id": "r"}'
            writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

        async with serving(refuses) as (_, target):
            tally = await Run(target, slo_s=10).open_loop(constant(100, 0.2))

        assert tally.errors == {"503 OVERLOADED": 10}
        assert (tally.answered, tally.late) == (10, 10)

    async def test_gives_a_request_up_at_its_time(self) -> None:
        async def hangs(server: Server, writer: asyncio.StreamWriter) -> None:
            if server.asked > 2:
                await asyncio.sleep(30)
            writer.write(OK)

        async with serving(hangs) as (_, target):
            began = time.monotonic()
            tally = await Run(limited(target, timeout_s=0.3)).open_loop([0.0, 0.1, 0.2, 0.3])

        assert tally.errors == {"timeout": 2}
        assert time.monotonic() - began < 5

    async def test_counts_connections_that_break(self) -> None:
        async def breaks(server: Server, writer: asyncio.StreamWriter) -> None:
            if server.asked > 1:
                writer.close()
            else:
                writer.write(OK)

        async with serving(breaks) as (_, target):
            tally = await Run(target).open_loop([0.0, 0.1, 0.2])

        assert tally.answered == 1
        assert sum(tally.errors.values()) == 2
        assert set(tally.errors) <= {"connection closed", "connection reset"}

    async def test_counts_what_is_not_http(self) -> None:
        async def babbles(server: Server, writer: asyncio.StreamWriter) -> None:
            writer.write(OK if server.asked == 1 else b"hello\r\n\r\n")

        async with serving(babbles) as (_, target):
            tally = await Run(target).open_loop([0.0, 0.1])

        assert [kind.startswith("not HTTP") for kind in tally.errors] == [True]

    async def test_reads_answers_in_chunks_and_in_pieces(self) -> None:
        async def in_pieces(server: Server, writer: asyncio.StreamWriter) -> None:
            for piece in (b"HTTP/1.1 200 OK\r\ntransfer-enc", b"oding: chunked\r\n\r\n2\r\n{", b"}\r\n0\r\n", b"\r\n"):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

        async with serving(in_pieces) as (_, target):
            tally = await Run(target).open_loop(constant(50, 0.2))

        assert (tally.answered, tally.errors) == (10, {})

    async def test_opens_another_connection_after_an_answer_that_ends_one(self) -> None:
        async def closes(server: Server, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
            writer.close()

        async with serving(closes) as (server, target):
            tally = await Run(target).open_loop([0.0, 0.1, 0.2])

        assert (tally.answered, tally.errors) == (3, {})
        assert server.connections == 3

    async def test_ends_with_the_first_answer_when_that_refuses_the_request_itself(self) -> None:
        async def unknown(server: Server, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 404 No\r\ncontent-length: 2\r\n\r\n{}")

        async with serving(unknown) as (_, target):
            run = Run(target)
            await asyncio.wait_for(run.open_loop(constant(10, 60)), 10)

        assert run.refused is not None
        assert run.refused.status == 404

    async def test_ends_at_once_when_interrupted(self) -> None:
        third = asyncio.Event()

        async def hangs(server: Server, writer: asyncio.StreamWriter) -> None:
            if server.asked == 3:
                third.set()
            await asyncio.sleep(30)

        async with serving(hangs) as (_, target):
            run = Run(target)
            running = asyncio.create_task(run.open_loop(constant(100, 60)))
            await asyncio.wait_for(third.wait(), 10)
            run.interrupt()
            tally = await asyncio.wait_for(running, 5)

        assert run.was_interrupted
        assert tally.unfinished == tally.sent >= 3
        assert adds_up(tally)

    async def test_counts_refused_connections_of_a_server_that_went_away(self) -> None:
        async def ends(server: Server, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
            listening.close()

        server = Server(ends)
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        target = Target(host="127.0.0.1", port=listening.sockets[0].getsockname()[1], request=REQUEST)

        tally = await Run(target).open_loop([0.0, 0.2, 0.3])

        assert (tally.answered, tally.errors) == (1, {"connection refused": 2})

    async def test_of_nobody_raises(self, free_port: Callable[[], int]) -> None:
        with pytest.raises(OSError):
            await Run(Target(host="127.0.0.1", port=free_port(), request=REQUEST)).open_loop([0.0])

    async def test_leaves_on_time(self) -> None:
        """Half of the requests within 5 ms even on a busy machine; timers of whole milliseconds would do that too, so
        this catches only a pacing that is broken."""
        async with serving(at_once) as (_, target):
            tally = await Run(target).open_loop(constant(100, 0.5))

        assert (tally.lag.percentile_s(50) or 0) < 0.005


class TestClosedLoop:
    async def test_keeps_so_many_under_way(self) -> None:
        most = now = 0

        async def slowly(server: Server, writer: asyncio.StreamWriter) -> None:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.02)
            now -= 1
            writer.write(OK)

        async with serving(slowly) as (server, target):
            tally = await Run(limited(target, connections=4)).closed_loop(4, 0.5)

        assert most == 4
        assert server.connections == 4
        assert tally.answered > 20
        assert adds_up(tally)
        assert tally.unfinished == 0

    async def test_goes_on_after_errors(self) -> None:
        async def breaks(server: Server, writer: asyncio.StreamWriter) -> None:
            if server.asked % 5 == 0:
                writer.close()
            else:
                writer.write(OK)

        async with serving(breaks) as (_, target):
            tally = await Run(limited(target, connections=2)).closed_loop(2, 0.3)

        assert tally.answered > 10
        assert tally.failed > 2
        assert adds_up(tally)
