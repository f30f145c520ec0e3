"""One connection to a replica: sends rebuilt requests, reads answers strictly, reports to the exchange.

Owns the parsing of answers and the decision whether the connection may be used again: only after a complete answer to a
completely sent request, with nothing behind it. A byte that nobody asked for closes it. It knows no client;
`exchange.py` decides what an answer or a failure means.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from router.core import framing, rewrite
from router.core.balance import Replica
from router.core.chunked import BodyDecoder, ChunkDecoder, LengthDecoder
from router.core.errors import ProtocolError, malformed
from router.core.framing import ResponseHead
from router.proto.flow import Flow
from router.proto.roles import Answered
from router.proto.timers import Alarm, Timers

if TYPE_CHECKING:
    from router.proto.pool import Pool

MAX_INTERIM: Final = 16
# Heads above this are parsed anew: remembering them on thousands of connections costs more than it saves.
REMEMBERED_BYTES: Final = 4096
# A replica that works on for a client who left, or past a deadline, holds its slot for so long at most.
ABANDONED_S: Final = 30.0
# The last bytes of a tunnel whose client left may take so long.
LEAVING_S: Final = 2.0


class ReplicaConnection(asyncio.Protocol):
    """One of the pool's connections."""

    __slots__ = (
        "_decoder", "_exchange", "_flow", "_interim", "_is_responding", "_is_until_close", "_memo_head", "_memo_prefix",
        "_memo_raw", "_partial", "_pool", "_released", "_reuse", "_timers", "_transport", "alarm", "alarm_due",
        "deadline", "is_closing",
    )  # fmt: skip

    def __init__(self, pool: Pool, timers: Timers) -> None:
        self._pool = pool
        self._timers = timers
        # of the connection
        self._transport: asyncio.Transport = cast(Any, None)
        self._flow: Flow = cast(Any, None)
        self.is_closing = False
        self.deadline = inf
        self.alarm_due = inf
        self.alarm: Alarm | None = None
        # A replica mostly repeats its head byte for byte: comparing saves parsing it again.
        self._memo_raw = b""
        self._memo_head: ResponseHead = cast(Any, None)
        self._memo_prefix = b""
        # of the request
        self._exchange: Answered | None = None
        self._released: Callable[[], None] | None = None  # set when the exchange left us to wait for the replica
        self._partial = b""
        self._interim = 0
        self._decoder: BodyDecoder | None = None
        self._is_responding = False
        self._is_until_close = False
        self._reuse = False

    @property
    def replica(self) -> Replica:
        return self._pool.replica

    def has_news(self) -> bool:
        """Whether the kernel has something that the loop has not brought yet: on an idle connection its end, or bytes
        that nobody asked for."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(0))

    def start(self, exchange: Answered, data: bytes) -> None:
        """Sends a request: its head and what there is of its body."""
        self._exchange = exchange
        self._transport.write(data)

    def write(self, data: bytes | bytearray) -> None:
        """A bytearray is the transport's from then on."""
        self._transport.write(data)

    def abandon(self, released: Callable[[], None]) -> None:
        """The exchange is over, but the replica may still work: `released` is called when it lets go of the request.

        FIN tells it that nobody waits; it lets go by closing or by answering, at the latest after `ABANDONED_S`.
        """
        self._exchange = None
        self._released = released
        self._flow.resume_reading()
        self._flow.end_writing()
        self.deadline = time.monotonic() + ABANDONED_S
        if self.deadline < self.alarm_due:
            self._timers.watch(self)

    def dedicate(self) -> None:
        """Closes after the answer, whatever it is: no other request may follow the one that is started."""
        self.is_closing = True

    def abort(self) -> None:
        """Ends at once: the replica must not take what it has for a complete request."""
        self._exchange = None
        self.is_closing = True
        self._transport.abort()

    def close(self) -> None:
        self.is_closing = True
        self._transport.close()

    def end_writing(self) -> None:
        """Closes our side behind what is still to be sent."""
        self._flow.end_writing()

    def leave(self) -> None:
        """Closes behind what is still to be sent, if that is read soon; what the replica sends is nobody's."""
        self._exchange = None
        self.close()
        self.deadline = time.monotonic() + LEAVING_S
        if self.deadline < self.alarm_due:
            self._timers.watch(self)

    def pause_reading(self) -> None:
        self._flow.pause_reading()

    def resume_reading(self) -> None:
        self._flow.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._flow = Flow(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closing = True
        self._timers.forget(self)
        self._pool.lose(self)
        self._let_go()
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        try:
            if self._is_until_close and exc is None:
                exchange.on_end()
            else:
                exchange.on_broken(_closed_reason(exc, self._is_responding), "reset")
        except Exception as fault:  # ours
            exchange.fault(fault)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            # Nobody asked: an answer after its request was given up, or one that would poison the next request.
            self.abort()
            self._let_go()
            return
        try:
            self._read(exchange, data)
        except Exception as exc:
            self._break(exchange, exc)

    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.on_upload_paused(True)

    def resume_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.on_upload_paused(False)

    def on_deadline(self, now: float) -> None:  # noqa: ARG002
        self.abort()
        self._let_go()

    # reading answers

    def _read(self, exchange: Answered, data: bytes) -> None:
        if self._is_responding:
            self._read_body(exchange, data)
            return
        scanned = len(self._partial)
        if scanned:
            data = self._partial + data
            self._partial = b""
        while True:
            end = data.find(b"\r\n\r\n", scanned - 3 if scanned > 3 else 0)
            if end < 0 or end > framing.RESPONSE_HEAD_BYTES:
                self._keep_partial(data, scanned)
                return
            head, prefix = self._parse(exchange, data[: end + 2])
            data = data[end + 4 :]
            if head.status >= 200:
                self._respond(exchange, head, prefix, data)
                return
            if head.status == 101:
                self._switch(exchange, head, data)
                return
            self._pass_interim(exchange, head)
            scanned = 0
            if not data:
                return

    def _keep_partial(self, data: bytes, scanned: int) -> None:
        if len(data) > framing.RESPONSE_HEAD_BYTES:
            raise malformed(f"the head of its answer is longer than {framing.RESPONSE_HEAD_BYTES} bytes")
        fault = framing.early_fault(data, max(1, scanned))
        if fault is not None:
            raise fault
        self._partial = data

    def _parse(self, exchange: Answered, raw: bytes) -> tuple[ResponseHead, bytes]:
        if exchange.is_head:
            head = framing.parse_response(raw, is_head=True)
            return head, rewrite.response_prefix(head)
        if raw != self._memo_raw:
            head = framing.parse_response(raw, is_head=False)
            if len(raw) > REMEMBERED_BYTES:
                return head, rewrite.response_prefix(head)
            self._memo_head = head
            self._memo_prefix = rewrite.response_prefix(head)
            self._memo_raw = raw
        return self._memo_head, self._memo_prefix

    def _switch(self, exchange: Answered, head: ResponseHead, rest: bytes) -> None:
        """What comes now is no HTTP and ends with the connection."""
        exchange.on_switched(head, rest)
        self._is_responding = True
        self._is_until_close = True

    def _pass_interim(self, exchange: Answered, head: ResponseHead) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise malformed(f"it sent more than {MAX_INTERIM} interim answers")
        if head.status != 100:  # 100 answers an expectation that the gateway met itself
            exchange.on_interim(head)

    def _respond(self, exchange: Answered, head: ResponseHead, prefix: bytes, data: bytes) -> None:
        now = time.monotonic()
        self._reuse = head.keep_alive
        length = head.content_length  # -1 when it is chunked
        here = len(data)
        if 0 <= length <= here:
            extra = here > length
            self._finish(exchange, extra, now)
            exchange.on_response(head, prefix, data[:length] if extra else data, True, now)
            return
        self._is_responding = True
        if head.chunked:
            self._decoder = ChunkDecoder()
        elif head.content_length >= 0:
            self._decoder = LengthDecoder(head.content_length)
        else:
            self._is_until_close = True
            exchange.on_response(head, prefix, data, False, now)
            return
        body = self._decoder.feed(data)
        if self._decoder.done:
            self._finish(exchange, bool(self._decoder.rest), now)
            exchange.on_response(head, prefix, body, True, now)
        else:
            exchange.on_response(head, prefix, body, False, now)

    def _read_body(self, exchange: Answered, data: bytes) -> None:
        decoder = self._decoder
        if decoder is None:
            exchange.on_body(data)
            return
        body = decoder.feed(data)
        if body:
            exchange.on_body(body)
        if decoder.done and self._exchange is not None:
            self._finish(exchange, bool(decoder.rest), time.monotonic())
            exchange.on_end()

    def _finish(self, exchange: Answered, extra: bool, now: float) -> None:
        """The answer is complete. Back to the pool, or closed when anything is left undone or unasked for."""
        self._exchange = None
        self._decoder = None
        self._is_responding = False
        self._interim = 0
        if extra or not self._reuse or not exchange.is_sent or self.is_closing:
            self.close()
        else:
            if not self._flow.is_reading:
                self._flow.resume_reading()
            self._pool.give(self, now)

    def _break(self, exchange: Answered, exc: Exception) -> None:
        """An answer that must not be passed on, or a fault of ours: this connection and the request end."""
        is_wanted = self._exchange is not None
        self.abort()
        try:
            if not isinstance(exc, ProtocolError):
                raise exc
            if is_wanted:
                exchange.on_broken(exc.refusal.text, "invalid")
        except Exception as fault:
            exchange.fault(fault)

    def _let_go(self) -> None:
        released, self._released = self._released, None
        if released is not None:
            released()


def _closed_reason(exc: Exception | None, is_responding: bool) -> str:
    how = "reset" if isinstance(exc, ConnectionError) else "closed"
    return f"its connection was {how} {'inside' if is_responding else 'before'} the answer"
