"""A connection to a TLS port until its handshake is done: then the port's own kind of connection takes it over.

Owns the time a handshake may take and its place among the connections, so that slow handshakes are bounded like slow
requests; one that sends nothing costs no TLS state. A handshake that fails is closed in silence, for port scanners must
not fill the log. Plain HTTP is a person's mistake: it is told so, and the log names it once a minute.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from router.core import errors
from router.core.rewrite import refusal_response
from router.proto.timers import Alarm

if TYPE_CHECKING:
    from router.server import Gateway

# How long a connection that closes waits for the client's own close_notify.
SHUTDOWN_S: Final = 2.0
# The type of the record that a ClientHello comes in (RFC 8446 section 5.1).
_HANDSHAKE: Final = 0x16


class Entrance(asyncio.Protocol):
    """One connection, from accept to the end of its handshake."""

    __slots__ = (
        "_context",
        "_gateway",
        "_held",
        "_is_over",
        "_make",
        "_task",
        "_transport",
        "alarm",
        "alarm_due",
        "deadline",
    )

    def __init__(self, gateway: Gateway, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol]) -> None:
        self._gateway = gateway
        self._context = context
        self._make = make
        self._transport: asyncio.Transport = cast(Any, None)
        self._task: asyncio.Task[None] | None = None
        self._held: list[bytes] = []  # what was decrypted before the client's connection took over
        self._is_over = False
        self.deadline = inf
        self.alarm_due = inf
        self.alarm: Alarm | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if self._gateway.admit(self, str(peer[0]) if peer else "") is not None:
            self._transport.abort()  # a refusal in words would cost a handshake
            return
        self.deadline = time.monotonic() + self._gateway.config.limits.header_timeout_s
        self._gateway.timers.watch(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._is_over = True
        self._leave()

    def data_received(self, data: bytes) -> None:
        if self._task is not None:
            self._held.append(data)
        elif data[0] == _HANDSHAKE:
            self._transport.pause_reading()
            self._task = asyncio.get_running_loop().create_task(self._enter(data), name="handshake")
        else:
            self._refuse_plain(data)

    def eof_received(self) -> bool:
        self._is_over = True
        return False

    def on_deadline(self, now: float) -> None:  # noqa: ARG002
        self.abort()

    # called by the gateway

    def drain(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._transport.abort()

    # steps

    async def _enter(self, hello: bytes) -> None:
        try:
            transport = await self._shake_hands(hello)
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            self._transport.abort()
            return
        finally:
            self._leave()
        if transport is None or transport.is_closing() or self._is_over:
            self._transport.abort()
            return
        client = self._make()
        client.connection_made(transport)
        transport.set_protocol(client)
        for data in self._held:
            client.data_received(data)

    async def _shake_hands(self, hello: bytes) -> asyncio.Transport | None:
        """`hello` was read before TLS began, and goes where its socket's next bytes will go."""
        loop = asyncio.get_running_loop()
        left_s = max(0.001, self.deadline - time.monotonic())
        self.deadline = inf
        starting = loop.create_task(
            loop.start_tls(
                self._transport, self, self._context, server_side=True,
                ssl_handshake_timeout=left_s, ssl_shutdown_timeout=SHUTDOWN_S,
            )
        )  # fmt: skip
        await asyncio.sleep(0)  # it is the transport's protocol now, and reading is still paused
        tls = cast(asyncio.BufferedProtocol, self._transport.get_protocol())
        buffer = cast(memoryview, tls.get_buffer(len(hello)))
        buffer[: len(hello)] = hello
        tls.buffer_updated(len(hello))
        return await starting

    def _refuse_plain(self, data: bytes) -> None:
        if data[:1].isalpha():
            self._gateway.hint_at_tls()
            line = b"connection: close\r\n"
            self._transport.write(refusal_response(errors.plain_http(), "-", is_head=False, connection=line))
        self._transport.close()

    def _leave(self) -> None:
        self._gateway.timers.forget(self)
        self._gateway.forget(self)
