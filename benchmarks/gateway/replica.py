"""A small fast replica to be killed, stopped and made to talk nonsense: a process of its own.

It answers after `--service-ms`, works on any number of requests at once, and writes the id of each request that it has
whole into a journal, before it works on it: the journal survives whatever happens to the process. SIGUSR1 switches
between answers and garbage. SIGTERM ends it as a model server ends: no new connection, idle ones closed, what is inside
finished.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
from typing import Final, cast

import uvloop

ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GARBAGE: Final = b"\x00\xffthis is not HTTP\r\n\r\n"
_LENGTH: Final = re.compile(rb"content-length: (\d+)")
_ID: Final = re.compile(rb"x-request-id: (\S+)")


class Replica:
    """What the connections of the process share."""

    def __init__(self, journal: int, service_s: float) -> None:
        self.connections: set[Connection] = set()
        self.is_ending = False
        self.ended = asyncio.Event()
        self._journal = journal
        self._service_s = service_s
        self._is_garbage = False

    def take(self, connection: Connection, request_id: bytes) -> None:
        os.write(self._journal, request_id + b"\n")
        asyncio.get_running_loop().call_later(self._service_s, self._answer, connection)

    def toggle_garbage(self) -> None:
        self._is_garbage = not self._is_garbage

    def end(self, server: asyncio.Server) -> None:
        self.is_ending = True
        server.close()
        for connection in list(self.connections):
            connection.end_when_idle()
        self._settle()

    def lose(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._settle()

    def _answer(self, connection: Connection) -> None:
        connection.answer(GARBAGE if self._is_garbage else ANSWER)

    def _settle(self) -> None:
        if self.is_ending and not self.connections:
            self.ended.set()


class Connection(asyncio.Protocol):
    """One request at a time, as the gateway sends them."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._data = b""
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._replica.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._replica.lose(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or len(body) < int(length[1] if length else 0):
            return
        self._data = b""
        self._is_busy = True
        found = _ID.search(head)
        self._replica.take(self, found[1] if found else b"")

    def answer(self, data: bytes) -> None:
        self._is_busy = False
        if not self._transport.is_closing():
            self._transport.write(data)
        if self._replica.is_ending:
            self._transport.close()

    def end_when_idle(self) -> None:
        if not self._is_busy:
            self._transport.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", required=True)
    parser.add_argument("--service-ms", type=float, default=5)
    options = parser.parse_args()
    journal = os.open(options.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    replica = Replica(journal, options.service_ms / 1000)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, replica.toggle_garbage)
    server = await loop.create_server(lambda: Connection(replica), "127.0.0.1", options.port)
    loop.add_signal_handler(signal.SIGTERM, replica.end, server)
    await replica.ended.wait()


if __name__ == "__main__":
    uvloop.run(main())
