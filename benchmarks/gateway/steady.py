"""A steady open-loop client that looks at every answer: what each request met, by cause.

For thousands of requests a second at most; it measures outcomes, `openloop.py` measures speed. Requests leave at their
own moments, on an idle connection or a new one. No request is ever sent twice.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

OK: Final = "200"
# Above any deadline that the requests carry: an answer later than this does not come.
PATIENCE_S: Final = 15.0


@dataclass
class Outcome:
    """One request. `cause` is `200`, or the status with the gateway's words, or what became of the connection."""

    request_id: str
    sent_at: float
    cause: str = ""
    took_s: float = 0.0


class Client:
    """Asks for `path` with a small body and an id of its own in every request."""

    def __init__(self, port: int, path: str, timeout_ms: int, prefix: str) -> None:
        self.outcomes: list[Outcome] = []
        self._port = port
        self._prefix = prefix
        self._head = f"POST {path} HTTP/1.1\r\nhost: h\r\nx-request-timeout-ms: {timeout_ms}\r\ncontent-length: 2\r\n"
        self._idle: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, arrivals: Sequence[float]) -> None:
        began = time.monotonic()
        for number, arrival in enumerate(arrivals):
            wait_s = began + arrival - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            task = asyncio.create_task(self._one(f"{self._prefix}-{number}"), name=f"request {number}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)
        for connection in self._idle:
            connection.close()

    async def _one(self, request_id: str) -> None:
        outcome = Outcome(request_id, time.monotonic())
        self.outcomes.append(outcome)
        try:
            async with asyncio.timeout(PATIENCE_S):
                outcome.cause = await self._ask(f"{self._head}x-request-id: {request_id}\r\n\r\n{{}}".encode())
        except TimeoutError:
            outcome.cause = "no answer"
        except OSError as exc:
            outcome.cause = f"no connection: {exc.strerror or exc}"
        outcome.took_s = time.monotonic() - outcome.sent_at

    async def _ask(self, request: bytes) -> str:
        connection = None
        while self._idle and connection is None:
            connection = self._idle.pop()
            connection = None if connection.is_closed else connection
        if connection is None:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
        cause = await connection.ask(request)
        if not connection.is_closed:
            self._idle.append(connection)
        return cause


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.is_closed = False
        self._data = b""
        self._answered: asyncio.Future[str] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._tell(f"connection {'reset' if exc else 'closed'} {'inside' if self._data else 'before'} the answer")

    def eof_received(self) -> None:
        self.is_closed = True

    def data_received(self, data: bytes) -> None:
        self._data += data
        cause = read_cause(self._data)
        if cause is not None:
            self.is_closed |= b"\r\nconnection: close\r\n" in self._data
            self._data = b""
            self._tell(cause)

    async def ask(self, request: bytes) -> str:
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answered

    def close(self) -> None:
        self._transport.close()

    def _tell(self, cause: str) -> None:
        answered, self._answered = self._answered, None
        if answered is not None and not answered.done():
            answered.set_result(cause)


def _reason(sentence: str) -> str:
    """The gateway's sentence without its figures, so that equal causes are counted together."""
    return re.sub(r"\d+(?:\.\d+)?", "N", sentence)


def read_cause(data: bytes) -> str | None:
    """What an answer says: `200`, or its status and the gateway's words. None while it is not whole."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    status, length = head[9:12].decode(), 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if len(body) < length:
        return None
    if status == OK:
        return OK if body == b"ok" else "200 with another body"
    try:
        answer = json.loads(body)
        return f"{status} {answer['code']}: {_reason(answer['error'])}"
    except (ValueError, KeyError):
        return f"{status} without a code"
