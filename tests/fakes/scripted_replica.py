"""A replica that does what the test says, byte by byte, and remembers what reached it.

Requests are read by llhttp, which the gateway does not use: what arrives here was understood by a second reader.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import httptools


class Call:
    """One request inside the replica, and the means to answer it."""

    def __init__(self, connection: _Connection) -> None:
        self.method = b""
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.body_bytes = 0
        self.is_complete = False
        self.is_switched = False  # no HTTP any more: what comes is `body`
        self.completed = asyncio.Event()
        self.left = connection.lost
        self._connection = connection

    def field(self, name: str) -> list[str]:
        return [value.decode("latin-1") for field, value in self.fields if field.lower() == name.encode()]

    def send(self, data: bytes) -> None:
        if not self._connection.transport.is_closing():
            self._connection.transport.write(data)

    def answer(self, body: bytes = b"{}", status: bytes = b"200 OK", *lines: bytes) -> None:
        head = b"\r\n".join((b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *lines, b"", b""))
        self.send(head + (b"" if self.method == b"HEAD" else body))

    @property
    def unsent_bytes(self) -> int:
        return self._connection.transport.get_write_buffer_size()

    def close(self) -> None:
        self._connection.transport.close()

    def reset(self) -> None:
        sock = self._connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.transport.abort()

    def pause_reading(self) -> None:
        self._connection.transport.pause_reading()

    def resume_reading(self) -> None:
        self._connection.transport.resume_reading()


Script = Callable[[Call], Awaitable[None]]


async def echo(call: Call) -> None:
    """Answers with what it got as the body, and its path in a field."""
    await call.completed.wait()
    call.answer(call.body, b"200 OK", b"X-Path: " + call.target)


class ScriptedReplica:
    """Use it as an async context manager. `script` runs for each request as soon as its head is here."""

    def __init__(self, script: Script = echo) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.connections: set[_Connection] = set()
        self.accepted = 0
        self.port = 0
        self.half_close = False  # True: works on although the gateway sent FIN
        self.errors: list[str] = []  # what llhttp refused: must stay empty
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening and drops every connection: from then on it cannot be reached."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def run(self, call: Call) -> None:
        self.calls.append(call)
        task = asyncio.create_task(_awaited(self.script(call)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _awaited(answer: Awaitable[None]) -> None:
    await answer


class _Connection(asyncio.Protocol):
    """Requests of one connection, one after the other."""

    def __init__(self, replica: ScriptedReplica) -> None:
        self._replica = replica
        self._parser = httptools.HttpRequestParser(self)
        self.lost = asyncio.Event()
        self._call = Call(self)
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        self._replica.connections.add(self)
        self._replica.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._replica.connections.discard(self)
        self.lost.set()

    def data_received(self, data: bytes) -> None:
        if self._call.is_switched:
            self._call.body += data
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._call.is_switched = True
            self._call.body += data[upgrade.args[0] :]
        except httptools.HttpParserError as exc:
            self._replica.errors.append(f"{exc}: {data[:200]!r}")
            self.transport.abort()

    def eof_received(self) -> bool:
        self.lost.set()
        return self._replica.half_close

    def on_message_begin(self) -> None:
        self._call = Call(self)

    def on_url(self, url: bytes) -> None:
        self._call.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._call.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self._call.method = self._parser.get_method()
        self._replica.run(self._call)

    def on_body(self, body: bytes) -> None:
        self._call.body_bytes += len(body)
        if self._call.body_bytes <= 1 << 22:
            self._call.body += body

    def on_message_complete(self) -> None:
        self._call.is_complete = True
        self._call.completed.set()
