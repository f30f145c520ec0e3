"""One client connection: reads requests strictly and in order, answers them in order.

Owns where one request ends and the next begins, and keep-alive. One request is worked on at a time; what a client sends
ahead waits in its socket once a little of it is here. Bodies on their way in are `upload.py`, what becomes of a request
is `exchange.py`, how it is answered and how a connection ends is `answering.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from router.core import errors, index, rewrite
from router.core.admission import Lane
from router.core.errors import ProtocolError, Refusal
from router.core.head_reader import HeadReader
from router.core.keys import Caller
from router.core.target import Own, Target
from router.proto.answering import BODY, BUSY, HEAD, LINGER, TUNNEL, Answering
from router.proto.exchange import CLIENT_LEFT, Exchange
from router.proto.flow import Flow
from router.proto.request import Request, prepare
from router.proto.shadow import CopiedExchange
from router.proto.tunnel import Upgrade
from router.proto.upload import Upload
from router.proto.upstream import REMEMBERED_BYTES
from router.tls import common_name

if TYPE_CHECKING:
    from router.server import Gateway

# Requests sent ahead are taken in up to here; then they wait in the socket.
AHEAD_BYTES: Final = 65_536
# Smaller bodies that came with their heads are bounded by the number of requests.
UNCOUNTED_BYTES: Final = 16_384
# A body that is held whole must be here within the request's time, or this when the request names none.
HELD_BODY_S: Final = 120.0


class ClientConnection(Answering, asyncio.Protocol):
    """A client's connection, from accept to close."""

    __slots__ = (
        "_arrived",
        "_heads",
        "_is_advancing",
        "_is_head_begun",
        "_lane",
        "_requests_left",
        "_scheme",
        "_upload",
    )

    # What a request becomes. A gateway that traces has another class of connections, which makes others of some: this
    # way a request of one that does not pays nothing for it.
    _make: Callable[..., Exchange] = Exchange
    _make_copied: Callable[..., Exchange] = CopiedExchange
    _make_upgrade: Callable[..., Upgrade] = Upgrade

    def __init__(self, gateway: Gateway, *, is_secure: bool = False) -> None:
        super().__init__(gateway)
        self._scheme = b"https" if is_secure else b"http"
        self._requests_left = self._limits.requests_per_connection
        # of the connection
        self._heads = HeadReader(self._limits.head_bytes, self._limits.target_bytes)
        self._is_head_begun = False
        self._is_advancing = False
        # of the request
        self._arrived = 0.0
        self._lane: Lane | None = None  # where it goes, when that was asked before its body was here
        self._upload: Upload = cast(Any, None)  # of the last body that did not come with its head

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.flow = Flow(self._transport)
        peer = transport.get_extra_info("peername")
        if peer:
            self._peer = str(peer[0]).encode()
        self.set_deadline(time.monotonic() + self._limits.header_timeout_s)
        self._client_name = common_name(transport.get_extra_info("peercert"))
        refusal = self._gateway.admit(self, self._peer.decode())
        if refusal is not None:
            self._turn_away(refusal)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._phase = LINGER
        self._timers.forget(self)
        self._gateway.forget(self)
        self._gateway.unread.remove(self)
        self._cancel()
        self.hold(0)

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        try:
            if phase == HEAD:
                self._advance(self._ahead + data if self._ahead else data)
            elif phase == BODY:
                self._upload.feed(data)
            elif phase == BUSY:
                self._wait_ahead(self._ahead + data)
            elif phase == TUNNEL:
                cast(Exchange, self._exchange).send_body(data)
        except Exception as exc:
            self.fault(exc, self._exchange)

    def eof_received(self) -> bool:
        """A client that closes its side is taken as gone: its place in the queue and its slot are needed."""
        if self._phase == TUNNEL and self._transport.can_write_eof():
            cast(Exchange, self._exchange).end_body()
            return True
        self._phase = LINGER
        self._cancel()
        self._transport.close()
        return False

    # called by the gateway

    def drain(self) -> None:
        """Closes an idle connection now, any other after its answer."""
        self._keep_alive = False
        if self._phase == HEAD and not self._ahead:
            self._transport.close()

    # called by the exchange

    def pause_body(self, paused: bool) -> None:
        if self._phase != BODY and self._phase != TUNNEL:
            return
        if paused:
            self.flow.pause_reading()
        else:
            self.flow.resume_reading()
        if self._phase == BODY:
            self._upload.wait()

    # called by the upload

    def body_held(self, body: bytes, rest: bytes) -> None:
        self._phase = BUSY
        self._ahead = rest
        self._dispatch(body, time.monotonic())

    def body_streams(self, length: int) -> Exchange | None:
        lane = self._lane or self._resolve()
        if lane is not None:
            exchange = self._exchange = self._make(
                self, self._gateway.fleet, lane, self._request, self._request_id, self._traceparent, self._arrived,
                self._caller,
            )  # fmt: skip
            self._caller = None
            exchange.start_streaming(length, time.monotonic())
        return self._exchange

    def body_streamed(self, rest: bytes) -> None:
        exchange = cast(Exchange, self._exchange)
        self._phase = BUSY
        self._ahead = rest
        self.flow.resume_reading()
        exchange.end_body()
        self.set_deadline(exchange.next_deadline)

    def body_failed(self, refusal: Refusal) -> None:
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

    # reading requests

    def _advance(self, data: bytes) -> None:
        """Works on requests until one is not complete here, or waits for its answer."""
        if self._is_stalled:  # answers wait to be read: make no more of them
            self._wait_ahead(data)
            return
        self._is_advancing = True
        while data and self._phase == HEAD and not self._is_stalled:
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
            self.flow.pause_reading()

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
                request = self._request = prepare(raw, self._limits, self._peer, self._scheme, self._gateway.keyring)
            except ProtocolError as error:
                self._fail(error.refusal, raw)
                return
        self._lane = None
        self.minor = request.minor
        self._keep_alive = request.keep_alive
        self._requests_left -= 1
        if not self._requests_left:
            self._keep_alive = False
        self._request_id = request.request_id or self._gateway.make_request_id()
        self._traceparent = request.traceparent or self._gateway.make_traceparent()
        length = request.content_length
        if 0 <= length <= len(rest):
            self._ahead = rest[length:]
            self._phase = BUSY
            if length > UNCOUNTED_BYTES and not self.hold(length):
                self._count_unrouted(refusal := errors.memory_taken(self._limits.held_bytes))
                self._refuse(refusal)
                return
            self._dispatch(rest[:length], self._arrived)
        else:
            self._phase = BODY
            self._begin_body(request, rest)

    def _begin_body(self, request: Request, rest: bytes) -> None:
        if request.content_length > self._limits.body_bytes:
            refusal = errors.too_large(413, f"a body of {request.content_length} bytes", self._limits.body_bytes)
            self._fail(refusal)
            return
        is_own = isinstance(request.target, Own)
        if is_own and not (request.target is Own.INDEX and 0 < request.content_length <= index.BODY_BYTES):
            self._answer_own(cast(Own, request.target))
            return
        held_until = self._arrived + (request.timeout_s or HELD_BODY_S)
        upload = self._upload = Upload(self, request.content_length, self._limits, held_until)
        if not is_own and (upload.is_long or request.is_asked_first):
            # Whether the body is wanted at all is said before it is sent.
            self._lane = self._resolve()
            if self._lane is None:
                return
        if request.expects_continue and not rest:
            self._transport.write(rewrite.CONTINUE)
        upload.begin(rest)

    # to the exchange

    def _dispatch(self, body: bytes, now: float) -> None:
        """Sends a request whose body is here on its way."""
        target = self._request.target
        if isinstance(target, Own):
            self._answer_own(target, body)
            return
        lane = self._lane or self._resolve()
        if lane is None:
            return
        if self._request.handshake is not None:
            self._upgrade(lane, self._request.handshake, now)
            return
        make = self._make if lane.shadow is None else self._copying
        exchange = self._exchange = make(
            self, self._gateway.fleet, lane, self._request, self._request_id, self._traceparent, self._arrived,
            self._caller,
        )  # fmt: skip
        self._caller = None
        exchange.start(body, now)

    def _copying(self, *arguments: Any) -> Exchange:
        exchange: Callable[..., Exchange] = self._gateway.shadows.exchange
        return exchange(*arguments, kinds=(self._make, self._make_copied))

    def _upgrade(self, lane: Lane, handshake: bytes | Refusal, now: float) -> None:
        """Sends a request for a WebSocket on its way."""
        if not lane.route.websocket:
            handshake = errors.no_websocket(lane.model, lane.version)
        if isinstance(handshake, Refusal):
            self._leave_door(handshake.status)
            self._count_unrouted(handshake)
            self._refuse(handshake)
            return
        self._keep_alive = False  # whatever the answer: who takes a refused upgrade for a tunnel sends no requests
        upgrade = self._exchange = self._make_upgrade(
            self, self._gateway.fleet, lane, self._request, self._request_id, self._traceparent, self._arrived,
            self._caller,
        )  # fmt: skip
        self._caller = None
        upgrade.ask(handshake, self._limits.idle_timeout_s, self._open_tunnel, now)

    def _open_tunnel(self) -> None:
        self._phase = TUNNEL
        ahead, self._ahead = self._ahead, b""
        self.flow.resume_reading()
        if ahead:
            cast(Exchange, self._exchange).send_body(ahead)

    def _resolve(self) -> Lane | None:
        """Where the request goes; None when it was refused here."""
        if (self._request.caller is not None or self._gateway.fleet.limited) and not self._passes_door():
            return None
        request = self._request
        target = request.target
        if request.is_status:
            self._tell(self._gateway.status(cast(Target, target)))
            return None
        if isinstance(target, Refusal):
            found: Lane | Refusal = target
        else:
            # Never one of the gateway's own: those are answered before.
            found = self._gateway.fleet.resolve(target, request.pin, request)  # type: ignore[arg-type]
        if isinstance(found, Lane):
            if found.replicas or not request.is_readiness:
                if request.caller is not None:
                    self._caller = cast(Caller, request.caller)  # the door lets nobody else pass
                    self._caller.enter()
                return found
            # Who asks for readiness wants to know now, not when it has come.
            if found.is_asleep:
                self._tell(index.ready(found.model))
                return None
            found = errors.not_ready(found.model, found.version, found.route.state)
        if request.caller is not None:
            cast(Caller, request.caller).told(found.status)
        self._count_unrouted(found)
        self._refuse(found)
        return None

    def _passes_door(self) -> bool:
        """Whether the request's key lets it in, and its limits do; it is answered when not."""
        request, gateway = self._newest_request(), self._gateway
        refusal = gateway.door.stop(request.caller, cast(Target | Refusal, request.target), time.monotonic())
        if refusal is not None:
            self._count_unrouted(refusal)
            self._refuse(refusal)
        return refusal is None

    def _newest_request(self) -> Request:
        """The request as the keys in force now say whose it is."""
        keyring = self._gateway.keyring
        if self._request.keys_revision != keyring.revision:
            self._request = prepare(self._request.raw, self._limits, self._peer, self._scheme, keyring)
        return self._request

    def _answer_own(self, own: Own, body: bytes = b"") -> None:
        if own is Own.INDEX:
            self._tell(self._gateway.index(self._newest_request(), body))
        else:
            self._write_own(*self._gateway.answer_own(own))

    def _tell(self, answer: bytes | Refusal) -> None:
        """Answers a question about models that no replica is asked."""
        caller = self._request.caller
        if isinstance(caller, Caller):
            caller.told(answer.status if isinstance(answer, Refusal) else 200)
        if isinstance(answer, Refusal):
            self._count_unrouted(answer)
            self._refuse(answer)
        else:
            self._write_own(200, answer)

    def _cancel(self) -> None:
        self._leave_door(CLIENT_LEFT)
        exchange = self._exchange
        if exchange is None:
            return
        try:
            exchange.cancel()
            self._log_exchange()
        except Exception as exc:
            self.fault(exc, exchange)
        self._exchange = None

    # ends

    def _expire(self, now: float) -> None:
        exchange = self._exchange
        is_in_time = exchange is None or now < exchange.next_deadline
        if exchange is not None and is_in_time and exchange.look(now):
            return
        unread_bytes = self._transport.get_write_buffer_size()
        if unread_bytes and is_in_time:
            if unread_bytes < self._unread_bytes:
                self._await_reader(now)
            else:
                self._transport.abort()
        elif self._phase == BODY and is_in_time:
            self._upload.expire(now)
        elif exchange is not None and self._phase != LINGER:
            if is_in_time:  # it rang for a look at a replica that has begun to answer since
                self.set_deadline(exchange.next_deadline)
            else:
                exchange.expire(now)
        elif self._phase == HEAD and self._ahead.strip():
            self._fail(errors.head_timeout(self._limits.header_timeout_s), self._ahead)
        else:
            self._transport.abort()

    def _request_done(self, now: float) -> None:
        """The answer is written: on to the next request, or close."""
        if len(self._request.raw) > REMEMBERED_BYTES:
            self._request = cast(Any, None)
        if self._held_bytes:
            self.hold(0)
        if self._phase == BODY:  # answered before its body was read
            self._linger()
        elif self._keep_alive:
            self._phase = HEAD
            self.set_deadline(now + self._limits.idle_timeout_s)
            if not self._is_advancing and (self._ahead or not self.flow.is_reading):
                self._go_on()
        else:
            self._phase = LINGER
            self._transport.close()
            self.set_deadline(now + self._limits.idle_timeout_s)

    def _go_on(self) -> None:
        """Works on what was sent ahead. Whoever calls worked on another request: a fault in this one is not its own."""
        self.flow.resume_reading()
        if self._ahead:
            try:
                self._advance(self._ahead)
            except Exception as exc:
                self.fault(exc, self._exchange)
