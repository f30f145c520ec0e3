"""The private port: metrics, health, report and state, for the control plane, Prometheus and people.

GET only, one request at a time. `answers.py` says what. It must never be reachable from where clients are.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from router.core import errors, framing
from router.core.errors import ProtocolError, Refusal
from router.core.framing import RequestHead
from router.core.rewrite import refusal_response
from router.proto.timers import Alarm

if TYPE_CHECKING:
    from router.server import Gateway

_HEAD_BYTES: Final = 16_384
_IDLE_S: Final = 120.0


class AdminConnection(asyncio.Protocol):
    """One connection of the private port."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._transport: asyncio.Transport = cast(Any, None)
        self._buffer = b""
        self._answering: asyncio.Task[None] | None = None
        self._is_fresh = True  # it asked nothing yet
        self.deadline = inf
        self.alarm_due = inf
        self.alarm: Alarm | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._gateway.admin_connections.add(self)
        self._stay()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._gateway.admin_connections.discard(self)
        self._gateway.timers.forget(self)
        if self._answering is not None:
            self._answering.cancel()

    def on_deadline(self, now: float) -> None:  # noqa: ARG002
        self._transport.abort()

    @property
    def is_expected(self) -> bool:
        """An answer is on its way, or a question may be: whoever connects is about to ask."""
        return self._is_fresh or self._answering is not None

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._go_on()

    def _go_on(self) -> None:
        """Works on the next request, if it is here and none is being answered."""
        end = self._buffer.find(b"\r\n\r\n")
        if self._answering is not None or self._transport.is_closing():
            return
        if end >= 0:
            raw, self._buffer = self._buffer[: end + 2], self._buffer[end + 4 :]
            self._read(raw)
        elif len(self._buffer) > _HEAD_BYTES:
            self._refuse(errors.too_large(431, "the request's head is too long", _HEAD_BYTES))

    def _read(self, raw: bytes) -> None:
        self._is_fresh = False
        self._stay()
        try:
            head = framing.parse_request(raw, 100)
        except ProtocolError as error:
            self._refuse(error.refusal)
            return
        if head.method not in (b"GET", b"HEAD") or head.content_length or head.chunked:
            self._refuse(Refusal(405, "NOT_SUPPORTED", "this port answers GET without a body"))
            return
        self._answering = asyncio.create_task(self._answer(head), name="admin answer")

    async def _answer(self, head: RequestHead) -> None:
        accept = b",".join(line[7:] for line in head.fields if line[:7].lower() == b"accept:")
        found = await self._gateway.answers.answer(head.path, accept)
        self._answering = None
        if self._transport.is_closing():
            return
        if found is None:
            self._refuse(Refusal(404, "NOT_FOUND", "this port serves /metrics, /healthz, /report and /debug/state"))
            return
        status, kind, body = found
        keep_alive = head.keep_alive and not self._gateway.is_draining
        self._transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b"
            % (
                status,
                HTTPStatus(status).phrase.encode(),
                kind,
                len(body),
                b"" if keep_alive else b"connection: close\r\n",
                b"" if head.method == b"HEAD" else body,
            )
        )
        if keep_alive:
            self._go_on()
        else:
            self._transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        self._transport.write(refusal_response(refusal, "-", is_head=False, connection=b"connection: close\r\n"))
        self._transport.close()

    def _stay(self) -> None:
        self.deadline = time.monotonic() + _IDLE_S
        if self.deadline < self.alarm_due:
            self._gateway.timers.watch(self)
