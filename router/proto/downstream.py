"""One client connection: reads requests strictly and in order, answers them in order.

Owns the parsing of requests, the buffering of small bodies, keep-alive and how a connection ends. One request is worked
on at a time; what a client sends ahead waits in its socket once a little of it is here. A request that was refused
before its body was read ends the connection, gently: the answer is sent, the rest is read and dropped for a moment, so
that no reset overtakes the answer. Where a request goes and what becomes of it is `exchange.py`.
"""

from __future__ import annotations

import asyncio
import time
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from router.core import errors, rewrite
from router.core.admission import Lane
from router.core.errors import ProtocolError, Refusal
from router.core.head_reader import HeadReader
from router.core.target import Own, Target
from router.proto.exchange import Exchange
from router.proto.flow import Flow
from router.proto.intake import Intake
from router.proto.request import Request, prepare
from router.proto.timers import Alarm
from router.proto.upstream import REMEMBERED_BYTES

if TYPE_CHECKING:
    from router.server import Gateway

# How long the rest of a refused request is read and dropped, so that the client can read the answer first.
LINGER_S: Final = 2.0
# Requests sent ahead are taken in up to here; then they wait in the socket.
AHEAD_BYTES: Final = 65_536
# A body that is held whole must be here within the request's time, or this when the request names none.
HELD_BODY_S: Final = 120.0


# Phases. Plain integers: looking an enum member up costs as much as the comparison, ten times a request.
_HEAD: Final = 0  # between requests or inside a head
_BODY: Final = 1  # the body is still coming
_BUSY: Final = 2  # only the answer is missing
_LINGER: Final = 3  # final: everything that comes is dropped


class ClientConnection(asyncio.Protocol):
    """A client's connection, from accept to close."""

    __slots__ = (
        "_ahead", "_arrived", "_exchange", "_flow", "_gateway", "_heads", "_intake", "_is_advancing",
        "_is_head_begun", "_is_stalled", "_keep_alive", "_lane", "_limits", "_peer", "_phase", "_request",
        "_request_id", "_timers", "_traceparent", "_transport", "alarm", "alarm_due", "deadline", "minor",
    )  # fmt: skip

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._limits = gateway.config.limits
        self._timers = gateway.timers
        # of the connection
        self._transport: asyncio.Transport = cast(Any, None)
        self._flow: Flow = cast(Any, None)
        self._peer = b"unknown"
        self._phase = _HEAD
        self._ahead = b""  # bytes of the next request, or of a head that is not complete
        self._heads = HeadReader(self._limits.head_bytes, self._limits.target_bytes)
        self._is_head_begun = False
        self._is_advancing = False
        self._is_stalled = False  # the client does not read its answers
        self.deadline = inf
        self.alarm_due = inf
        self.alarm: Alarm | None = None
        # of the request. The last one stays: a client mostly repeats its head byte for byte, and comparing is cheaper
        # than parsing.
        self._request: Request = cast(Any, None)
        self._request_id = ""
        self._traceparent = b""
        self._arrived = 0.0
        self._keep_alive = True
        self.minor = 1
        self._lane: Lane | None = None  # where it goes, when that was asked before its body was here
        self._intake: Intake = cast(Any, None)
        self._exchange: Exchange | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._flow = Flow(self._transport)
        peer = transport.get_extra_info("peername")
        if peer:
            self._peer = str(peer[0]).encode()
        self.set_deadline(time.monotonic() + self._limits.header_timeout_s)
        if not self._gateway.admit(self):
            self._fail(errors.connections_taken(self._limits.connections))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._phase = _LINGER
        self._timers.forget(self)
        self._gateway.forget(self)
        self._cancel()

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase == _HEAD:
            self._advance(self._ahead + data if self._ahead else data)
        elif phase == _BODY:
            self._read_body(data)
        elif phase == _BUSY:
            self._wait_ahead(self._ahead + data)

    def eof_received(self) -> bool:
        """A client that closes its side is taken as gone: its place in the queue and its slot are needed."""
        self._phase = _LINGER
        self._cancel()
        self._transport.close()
        return False

    def pause_writing(self) -> None:
        self._is_stalled = True
        if self._exchange is not None:
            self._exchange.pause_answer(True)

    def resume_writing(self) -> None:
        self._is_stalled = False
        if self._exchange is not None:
            self._exchange.pause_answer(False)
        elif self._phase == _HEAD:
            self._go_on()

    def on_deadline(self, now: float) -> None:
        exchange = self._exchange
        if self._phase == _BODY and (exchange is None or now < exchange.next_deadline):
            self._expire_body(exchange, now)
        elif exchange is not None and self._phase != _LINGER:
            exchange.expire(now)
        elif self._phase == _HEAD and self._ahead.strip():
            self._fail(errors.head_timeout(self._limits.header_timeout_s), self._ahead)
        else:
            self._transport.abort()

    # called by the gateway

    def drain(self) -> None:
        """Closes an idle connection now, any other after its answer."""
        self._keep_alive = False
        if self._phase == _HEAD and not self._ahead:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    # called by the exchange

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.alarm_due:
            self._timers.watch(self)

    def connection_line(self) -> bytes:
        if self._phase == _BODY or not self._keep_alive or self._gateway.is_draining:
            self._keep_alive = False
            return b"connection: close\r\n"
        return b"" if self.minor else b"connection: keep-alive\r\n"

    def close_after_answer(self) -> None:
        self._keep_alive = False

    def pause_body(self, paused: bool) -> None:
        if self._phase != _BODY:
            return
        if paused:
            self._flow.pause_reading()
        else:
            self._flow.resume_reading()
        self._await_body()

    def answered(self) -> None:
        self._log_exchange()
        self._exchange = None
        self._request_done()

    def refused(self, refusal: Refusal) -> None:
        self._log_exchange()
        self._exchange = None
        self._refuse(refusal)

    def cut(self, visibly: bool) -> None:
        self._log_exchange()
        self._exchange = None
        self._phase = _LINGER
        if visibly and not self.minor:
            self._flow.reset()
        else:
            self._transport.close()
            self.set_deadline(time.monotonic() + LINGER_S)

    # reading heads

    def _advance(self, data: bytes) -> None:
        """Works on requests until one is not complete here, or waits for its answer."""
        if self._is_stalled:  # answers wait to be read: make no more of them
            self._wait_ahead(data)
            return
        self._is_advancing = True
        while data and self._phase == _HEAD and not self._is_stalled:
            self._ahead = b""
            try:
                found = self._heads.cut(data)
            except ProtocolError as error:
                self._fail(error.refusal, data)
                break
            if found is None:
                self._keep_partial(data)
                break
            self._read_head(*found)
            data = self._ahead
        self._is_advancing = False

    def _wait_ahead(self, data: bytes) -> None:
        self._ahead = data
        if len(data) > AHEAD_BYTES:
            self._flow.pause_reading()

    def _keep_partial(self, data: bytes) -> None:
        self._ahead = data
        if not self._is_head_begun:
            self._is_head_begun = True
            self.set_deadline(time.monotonic() + self._limits.header_timeout_s)

    def _read_head(self, raw: bytes, rest: bytes) -> None:
        self._arrived = time.monotonic()
        self._is_head_begun = False
        request = self._request
        if request is None or raw != request.raw:
            try:
                request = self._request = prepare(raw, self._limits, self._peer, self._gateway.keyring)
            except ProtocolError as error:
                self._fail(error.refusal, raw)
                return
        self._lane = None
        self.minor = request.minor
        self._keep_alive = request.keep_alive
        self._request_id = request.request_id or self._gateway.make_request_id()
        self._traceparent = request.traceparent or self._gateway.make_traceparent()
        length = request.content_length
        if 0 <= length <= len(rest):
            self._ahead = rest[length:]
            self._phase = _BUSY
            self._dispatch(rest[:length])
        else:
            self._phase = _BODY
            self._begin_body(request, rest)

    # reading bodies

    def _begin_body(self, request: Request, rest: bytes) -> None:
        if request.content_length > self._limits.body_bytes:
            refusal = errors.too_large(413, f"a body of {request.content_length} bytes", self._limits.body_bytes)
            self._fail(refusal)
            return
        if isinstance(request.target, Own):
            self._answer_own(request.target)
            return
        self._intake = Intake(request.content_length, self._limits)
        is_long = self._intake.is_too_long_to_hold
        if is_long or request.expects_continue:
            # Whether the body is wanted at all is said before it is sent.
            self._lane = self._resolve()
            if self._lane is None:
                return
        if request.expects_continue and not rest:
            self._transport.write(rewrite.CONTINUE)
        self._await_body()
        if is_long:
            self._stream()
        if rest and self._phase == _BODY:
            self._read_body(rest)

    def _read_body(self, data: bytes) -> None:
        try:
            piece = self._intake.feed(data)
        except ProtocolError as error:
            self._fail_body(error.refusal)
            return
        if self._exchange is not None:
            self._pass_body(self._exchange, piece)
            return
        self._intake.hold(piece)
        if self._intake.is_whole:
            self._phase = _BUSY
            self._ahead = self._intake.rest
            self._dispatch(self._intake.take())
        elif self._intake.is_too_long_to_hold:
            exchange = self._stream()
            if exchange is not None:
                self._pass_body(exchange, self._intake.take())
        else:
            self._await_body()

    def _pass_body(self, exchange: Exchange, piece: bytes) -> None:
        exchange.send_body(piece)
        if self._intake.is_whole:
            self._phase = _BUSY
            self._ahead = self._intake.rest
            self._flow.resume_reading()
            exchange.end_body()
            self.set_deadline(exchange.next_deadline)
            return
        if exchange.backlog_bytes > self._limits.buffer_bytes:
            self._flow.pause_reading()
        self._await_body()

    def _await_body(self) -> None:
        """The next piece must come soon, unless it is us who do not read; all of it within the request's time."""
        exchange = self._exchange
        deadline = exchange.next_deadline if exchange is not None else self._held_deadline()
        if self._flow.is_reading:
            deadline = min(deadline, time.monotonic() + self._limits.body_timeout_s)
        self.set_deadline(deadline)

    def _held_deadline(self) -> float:
        return self._arrived + (self._request.timeout_s or HELD_BODY_S)

    def _expire_body(self, exchange: Exchange | None, now: float) -> None:
        if exchange is None and now >= self._held_deadline():
            self._fail_body(errors.body_deadline())
        else:
            self._fail_body(errors.body_timeout(self._limits.body_timeout_s))

    def _fail_body(self, refusal: Refusal) -> None:
        exchange = self._exchange
        if exchange is None:
            self._fail(refusal)
            return
        was_answering = exchange.is_answering
        exchange.cancel(refusal.status)
        self._log_exchange()
        self._exchange = None
        if was_answering:
            self._transport.abort()
        else:
            self._end_with(refusal)

    # to the exchange

    def _dispatch(self, body: bytes) -> None:
        """Sends a request whose body is here on its way."""
        target = self._request.target
        if isinstance(target, Own):
            self._answer_own(target)
            return
        lane = self._lane or self._resolve()
        if lane is not None:
            exchange = self._exchange = Exchange(
                self, self._gateway.fleet, lane, self._request, self._request_id, self._traceparent, self._arrived
            )
            exchange.start(body, time.monotonic())

    def _stream(self) -> Exchange | None:
        """Sends a request on its way whose body is still coming. None when it was refused."""
        lane = self._lane or self._resolve()
        if lane is None:
            return None
        exchange = self._exchange = Exchange(
            self, self._gateway.fleet, lane, self._request, self._request_id, self._traceparent, self._arrived
        )
        exchange.start_streaming(self._intake.length, time.monotonic())
        return self._exchange

    def _resolve(self) -> Lane | None:
        """Where the request goes; None when it was refused here."""
        request = self._request
        target = request.target
        if isinstance(target, Refusal):
            found: Lane | Refusal = target
        else:
            found = self._gateway.fleet.resolve(cast(Target, target), request.pin, request.raw)
        if isinstance(found, Lane):
            if found.replicas or not request.is_readiness:
                return found
            # Who asks for readiness wants to know now, not when it has come.
            found = errors.not_ready(found.model, found.version, found.route.state)
        self._count_unrouted(found)
        self._refuse(found)
        return None

    def _cancel(self) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.cancel()
            self._log_exchange()
            self._exchange = None

    # answering

    def _answer_own(self, own: Own) -> None:
        status, body = self._gateway.answer_own(own)
        line = self.connection_line()
        is_head = self._request.method == b"HEAD"
        self._transport.write(rewrite.own_response(status, body, self._request_id, is_head=is_head, connection=line))
        self._request_done()

    def _refuse(self, refusal: Refusal) -> None:
        """Answers no. The connection goes on when the request was read to its end."""
        if self._phase == _BODY:
            self._end_with(refusal)
        else:
            self._write_refusal(refusal)
            self._request_done()

    def _fail(self, refusal: Refusal, head: bytes = b"") -> None:
        """Answers a request that cannot be read, and ends the connection: nobody knows where the next one begins.

        `head` is what there is of it: even then HEAD is answered without a body.
        """
        if self._phase == _HEAD:
            self._request_id = self._gateway.make_request_id()
        self._count_unrouted(refusal)
        self._keep_alive = False
        self._write_refusal(refusal, is_head=head.lstrip(b"\r\n").startswith(b"HEAD "))
        self._linger()

    def _end_with(self, refusal: Refusal) -> None:
        self._keep_alive = False
        self._write_refusal(refusal)
        self._linger()

    def _write_refusal(self, refusal: Refusal, is_head: bool = False) -> None:
        line = self.connection_line()
        is_head = is_head or (self._phase != _HEAD and self._request.method == b"HEAD")
        self._transport.write(rewrite.refusal_response(refusal, self._request_id, is_head=is_head, connection=line))

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
        entry = {"request_id": self._request_id, "client": self._peer.decode(), **entry}
        if self._phase != _HEAD:
            request = self._request
            entry |= {"method": request.method.decode(), "path": request.path.decode()}
            entry["trace_id"] = self._traceparent.split(b"-")[1].decode()
        log.write(entry)

    def _request_done(self) -> None:
        """The answer is written: on to the next request, or close."""
        if len(self._request.raw) > REMEMBERED_BYTES:
            self._request = cast(Any, None)
        if self._phase == _BODY:  # answered before its body was read
            self._linger()
        elif self._keep_alive:
            self._phase = _HEAD
            self.set_deadline(time.monotonic() + self._limits.idle_timeout_s)
            if not self._is_advancing:
                self._go_on()
        else:
            self._phase = _LINGER
            self._transport.close()
            self.set_deadline(time.monotonic() + self._limits.idle_timeout_s)

    def _go_on(self) -> None:
        """Works on what was sent ahead."""
        self._flow.resume_reading()
        if self._ahead:
            self._advance(self._ahead)

    def _linger(self) -> None:
        """Ends the connection so that the client can still read the answer: what it sends is dropped for a moment."""
        self._phase = _LINGER
        self._ahead = b""
        self._flow.resume_reading()
        self._flow.end_writing()
        self.set_deadline(time.monotonic() + LINGER_S)
