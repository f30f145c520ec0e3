"""The half of a client connection that answers: writing, deadlines, the access log, and how a connection ends.

One request at a time is worked on; the half that reads them is `downstream.py`. A request that was refused before its
body was read ends the connection, gently: the answer is sent, the rest is read and dropped for a moment, so that no
reset overtakes the answer.
"""

from __future__ import annotations

import asyncio
import sys
import time
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from router.access import entry_of
from router.core import errors, rewrite
from router.core.errors import Refusal
from router.core.keys import Caller
from router.proto.exchange import Exchange
from router.proto.flow import Flow
from router.proto.request import Request
from router.proto.roles import Ending
from router.proto.timers import Alarm

if TYPE_CHECKING:
    from router.server import Gateway

# How long the rest of a refused request is read and dropped, so that the client can read the answer first.
LINGER_S: Final = 2.0

# Phases. Plain integers: looking an enum member up costs as much as the comparison, ten times a request.
HEAD: Final = 0  # between requests or inside a head
BODY: Final = 1  # the body is still coming
BUSY: Final = 2  # only the answer is missing
LINGER: Final = 3  # final: everything that comes is dropped
TUNNEL: Final = 4  # no HTTP any more: bytes go both ways


class Answering:
    """A client's connection, as far as its requests do not matter. The exchange calls what has no underscore."""

    __slots__ = (
        "_ahead", "_caller", "_client_name", "_exchange", "_gateway", "_held_bytes", "_is_stalled", "_keep_alive",
        "_limits", "_peer", "_phase", "_request", "_request_id", "_timers", "_traceparent", "_transport",
        "_unread_bytes", "alarm", "alarm_due", "deadline", "flow", "minor",
    )  # fmt: skip

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._limits = gateway.config.limits
        self._timers = gateway.timers
        # of the connection
        self._transport: asyncio.Transport = cast(Any, None)
        self.flow: Flow = cast(Any, None)
        self._peer = b"unknown"
        self._client_name = ""  # of its certificate
        self._phase = HEAD
        self._ahead = b""  # bytes of the next request, or of a head that is not complete
        self.deadline = inf
        self.alarm_due = inf
        self.alarm: Alarm | None = None
        # of the request. The last one stays: a client mostly repeats its head byte for byte, and comparing is cheaper
        # than parsing.
        self._request: Request = cast(Any, None)
        self._request_id = ""
        self._traceparent = b""
        self._keep_alive = True
        self.minor = 1
        self._is_stalled = False  # the client does not read its answers
        self._unread_bytes = sys.maxsize  # when that was looked at last
        self._held_bytes = 0  # of its body, as counted by the gateway
        self._caller: Caller | None = None  # whose key the request has, from the door until its exchange begins
        self._exchange: Exchange | None = None

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.alarm_due:
            self._timers.watch(self)

    def connection_line(self) -> bytes:
        if self._phase == BODY or not self._keep_alive or self._gateway.is_draining:
            self._keep_alive = False
            return b"connection: close\r\n"
        return b"" if self.minor else b"connection: keep-alive\r\n"

    def close_after_answer(self) -> None:
        self._keep_alive = False

    def answered(self, now: float) -> None:
        if self._gateway.access_log is not None:
            self._log_exchange()
        self._exchange = None
        self._request_done(now)

    def refused(self, refusal: Refusal) -> None:
        self._log_exchange()
        self._exchange = None
        self._refuse(refusal)

    def cut(self, visibly: bool) -> None:
        self._log_exchange()
        self._exchange = None
        self._phase = LINGER
        if visibly and not self.minor:
            self.flow.reset()
        else:
            self._transport.close()
            self.set_deadline(time.monotonic() + LINGER_S)

    def fault(self, exc: Exception, exchange: Ending | None) -> None:
        """The one place where an exception of ours ends: with 500, or cut off when an answer had begun."""
        self._gateway.fault(exc, self._request_id, self._traceparent)
        try:
            self._end_by_fault(exchange)
        except Exception as second:
            self._gateway.fault(second, self._request_id, self._traceparent)
            self._transport.abort()

    # called by the gateway

    def abort(self) -> None:
        self._transport.abort()

    # called by the transport

    def pause_writing(self) -> None:
        self._is_stalled = True
        self._await_reader(time.monotonic())
        if self._exchange is not None:
            self._exchange.pause_answer(True)

    def resume_writing(self) -> None:
        self._is_stalled = False
        self._gateway.unread.remove(self)
        if self._exchange is not None:
            self.set_deadline(self._exchange.next_deadline)
            self._exchange.pause_answer(False)
        elif self._phase == HEAD:
            self._go_on()

    # called by the timers

    def on_deadline(self, now: float) -> None:
        try:
            self._expire(now)
        except Exception as exc:
            self.fault(exc, self._exchange)

    # called by the upload

    def hold(self, size: int) -> bool:
        more = size - self._held_bytes
        if more < 0:
            self._gateway.memory.give(-more)
        elif more and not self._gateway.memory.take(more):
            return False
        self._held_bytes = size
        return True

    # steps

    def _go_on(self) -> None:
        """Works on what was sent ahead."""
        raise NotImplementedError

    def _await_reader(self, now: float) -> None:
        """The client must read some of what waits for it, however little, within the write timeout."""
        self._unread_bytes = self._transport.get_write_buffer_size()
        self._gateway.unread.add(self, self._unread_bytes)
        deadline = now + self._limits.write_timeout_s
        self.set_deadline(deadline if self._exchange is None else min(deadline, self._exchange.next_deadline))

    def _expire(self, now: float) -> None:
        raise NotImplementedError

    def _request_done(self, now: float) -> None:
        """The answer is written: on to the next request, or close."""
        raise NotImplementedError

    def _end_by_fault(self, exchange: Ending | None) -> None:
        has_begun = exchange is not None and exchange.give_up()
        if exchange is not self._exchange:
            return  # this client got its answer before
        if has_begun or self._phase == LINGER:
            self._phase = LINGER
            self._transport.abort()
        elif self._exchange is None:
            self._fail(errors.fault())
        else:
            self._end_with(errors.fault())
            self._exchange.count(500)
            self._log_exchange()
        self._exchange = None

    def _write_own(self, status: int, body: bytes) -> None:
        line = self.connection_line()
        is_head = self._request.method == b"HEAD"
        self._transport.write(rewrite.own_response(status, body, self._request_id, is_head=is_head, connection=line))
        self._request_done(time.monotonic())

    def _refuse(self, refusal: Refusal) -> None:
        """Answers no. The connection goes on when the request was read to its end."""
        if self._phase == BODY:
            self._end_with(refusal)
        else:
            self._write_refusal(refusal)
            self._request_done(time.monotonic())

    def _fail(self, refusal: Refusal, head: bytes = b"") -> None:
        """Answers a request that cannot be read, and ends the connection: nobody knows where the next one begins.

        `head` is what there is of it: even then HEAD is answered without a body.
        """
        if self._phase == HEAD:
            self._request_id = self._gateway.make_request_id()
        self._leave_door(refusal.status)
        self._count_unrouted(refusal)
        self._end_with(refusal, is_head=head.lstrip(b"\r\n").startswith(b"HEAD "))

    def _leave_door(self, status: int) -> None:
        """The request will have no exchange after all."""
        if self._caller is not None:
            self._caller.leave(status)
            self._caller = None

    def _end_with(self, refusal: Refusal, is_head: bool = False) -> None:
        self._keep_alive = False
        self._write_refusal(refusal, is_head)
        self._linger()

    def _write_refusal(self, refusal: Refusal, is_head: bool = False) -> None:
        line = self.connection_line()
        is_head = is_head or (self._phase != HEAD and self._request.method == b"HEAD")
        self._transport.write(rewrite.refusal_response(refusal, self._request_id, is_head=is_head, connection=line))

    def _turn_away(self, refusal: Refusal) -> None:
        """Refuses a connection before it asked anything, cheaply: it is not counted, so it must not stay."""
        self._request_id = self._gateway.make_request_id()
        self._gateway.count_unrouted(refusal.status)
        self._keep_alive = False
        self._write_refusal(refusal)
        self._phase = LINGER
        self._transport.close()
        self.set_deadline(time.monotonic() + LINGER_S)

    def _count_unrouted(self, refusal: Refusal) -> None:
        """Counts and logs a refusal that belongs to no version."""
        self._gateway.count_unrouted(refusal.status)
        self._log({"status": refusal.status, "code": refusal.code})

    def _log_exchange(self) -> None:
        if self._gateway.access_log is not None and self._exchange is not None:
            self._log(self._exchange.describe())

    def _log(self, entry: dict[str, object]) -> None:
        log = self._gateway.access_log
        if log is None or not log.wants(cast(int, entry["status"])):
            return
        request = self._request if self._phase != HEAD else None
        log.write(entry_of(request, self._request_id, self._peer, self._client_name, self._traceparent, entry))

    def _linger(self) -> None:
        """Ends the connection so that the client can still read the answer: what it sends is dropped for a moment."""
        self._phase = LINGER
        self._ahead = b""
        self.flow.resume_reading()
        self.flow.end_writing()
        self.set_deadline(time.monotonic() + LINGER_S)
