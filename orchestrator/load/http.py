"""One HTTP/1.1 connection that carries one request at a time, with as little Python a request as it gets.

The request is the same bytes each time; of an answer only its status is looked at, and the body where it is an error's.
httpx took 1,900 µs of CPU a request here, this 16 (16 connections, a server that answers at once). It decides nothing
and counts nothing: `Asker` is told what happened.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

import httptools

# Of an error's body: enough for its code.
_KEPT_BODY_BYTES = 4096


class Asker(Protocol):
    """Who asks over a connection. Each request ends with `answered` or `lost`; an idle connection may be lost too."""

    def connected(self, connection: Connection) -> None: ...
    def answered(self, connection: Connection, status: int, body: bytes) -> None: ...
    def lost(self, connection: Connection, reason: str) -> None: ...


class Connection(asyncio.Protocol):
    """`due_ns` is when the request under way should have left; None: it is idle. `is_open` until it is lost."""

    __slots__ = ("_asker", "_body", "_parser", "_request", "_status", "_transport", "due_ns", "is_open")

    def __init__(self, asker: Asker, request: bytes) -> None:
        self._asker = asker
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._body = b""
        self.due_ns: int | None = None
        self.is_open = False

    def ask(self, due_ns: int) -> None:
        self.due_ns = due_ns
        cast("asyncio.Transport", self._transport).write(self._request)

    def abort(self) -> None:
        """Nobody is told of the request that it carried."""
        self.due_ns = None
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    # -- of asyncio ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True
        self._asker.connected(self)

    def data_received(self, data: bytes) -> None:
        if self.due_ns is None:
            self._lose("an answer to nothing")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._lose(f"not HTTP: {type(exc).__name__}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose("connection reset" if isinstance(exc, ConnectionError) else "connection closed")

    def _lose(self, reason: str) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._asker.lost(self, reason)
        self.abort()

    # -- of httptools -------------------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._status >= 400 and len(self._body) < _KEPT_BODY_BYTES:
            self._body += body

    def on_message_complete(self) -> None:
        if self._status < 200:
            return
        body, self._body = self._body, b""
        if not self._parser.should_keep_alive():
            self.is_open = False
        self._asker.answered(self, self._status, body)
        if not self.is_open:
            self.abort()


def head(method: str, path: str, host: str, body: bytes, fields: dict[str, Any]) -> bytes:
    """The whole request as it is written."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in {"content-type": "application/json", **fields}.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
