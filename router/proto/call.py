"""A request without a connection of its own: what an exchange needs of a client, for a request that came over gRPC.

Owns its way to a version (key, limits, traffic), its deadline, its line in the access log, and its end; of its answer
it makes a whole or a stream of messages. To queue, replica and metrics it is a request like any other: the exchange is
the same, but hands the answer on in its parts instead of as the bytes of HTTP/1.1. What a message means says `rpc.py`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, cast

from router.access import entry_of
from router.core import errors, oip
from router.core.admission import Lane
from router.core.errors import Refusal
from router.core.framing import ResponseHead
from router.core.hpack import Field
from router.core.keys import Caller
from router.core.target import Target
from router.proto.exchange import CLIENT_LEFT, Exchange
from router.proto.place import ANSWERING
from router.proto.request import Request
from router.proto.roles import Ending
from router.proto.shadow import CopiedExchange
from router.proto.timers import Alarm

if TYPE_CHECKING:
    from router.server import Gateway

# Smaller bodies are bounded by the number of requests.
UNCOUNTED_BYTES: Final = 16_384
# So much of a streamed answer is kept for a client that reads slower than the replica writes.
AHEAD_BYTES: Final = 262_144
# A client's own deadline comes here as its leaving, as far before ours as the message took to come.
_AT_DEADLINE_S: Final = 0.02


class Asker(Protocol):
    """Whoever made a call, and gets what becomes of it."""

    def answered(self, call: Call) -> None:
        """All of the answer is here, or there is none but `call.refusal`."""

    def goes_on(self, call: Call) -> None:
        """Another message of a streamed answer is here."""


class Call:
    """One request, and what was answered. Its exchange calls what has no underscore."""

    __slots__ = (
        "_asker", "_caller", "_client_name", "_exchange", "_gateway", "_held_bytes", "_is_too_much", "_peer", "_pieces",
        "_request", "_request_id", "_traceparent", "alarm", "alarm_due", "content_type", "deadline", "fields", "model",
        "refusal", "status", "version",
    )  # fmt: skip

    minor = 0  # of its HTTP version, as if: there is nowhere to put an interim answer

    def __init__(self, gateway: Gateway, asker: Asker, request: Request, peer: bytes, client_name: str) -> None:
        self._gateway = gateway
        self._asker = asker
        self._request = request
        self._peer = peer
        self._client_name = client_name
        self._request_id = request.request_id or gateway.make_request_id()
        self._traceparent = request.traceparent or gateway.make_traceparent()
        self._caller: Caller | None = None
        self._exchange: Exchange | None = None
        self._held_bytes = 0  # of its body and answer, as counted by the gateway
        self._is_too_much = False
        self._pieces: list[bytes] = []
        self.model = self.version = ""
        self.status = 0
        self.content_type = b""
        self.refusal: Refusal | None = None
        self.fields: tuple[Field, ...] = ((b"x-request-id", self._request_id.encode()),)  # of the answer
        self.deadline = inf
        self.alarm_due = inf
        self.alarm: Alarm | None = None

    def start(self, body: bytes | bytearray, arrived: float, timeout_s: float) -> None:
        """Sends it on its way. `timeout_s`: from its arrival; 0 is the version's own."""
        try:
            self._start(body, arrived, timeout_s)
        except Exception as exc:
            self.fault(exc, self._exchange)

    def cancel(self) -> None:
        """The client left."""
        exchange, now = self._exchange, time.monotonic()
        try:
            if exchange is not None and now >= exchange.deadline - _AT_DEADLINE_S:
                exchange.expire(now)
            elif exchange is not None:
                exchange.cancel(CLIENT_LEFT)
                self._log(exchange.describe())
        except Exception as exc:
            self.fault(exc, exchange)
        self._exchange = None
        self.let_go()

    def refuse(self, refusal: Refusal) -> None:
        """Answers no before it had an exchange."""
        self._gateway.count_unrouted(refusal.status)
        self._log({"status": refusal.status, "code": refusal.code})
        self._end(refusal)

    def hold(self, size: int) -> bool:
        """Counts bytes that are kept for it. False: they are too many."""
        if not self._gateway.memory.take(size):
            return False
        self._held_bytes += size
        return True

    def let_go(self) -> None:
        """Nothing is kept for it any more."""
        self._give(self._held_bytes)
        self._gateway.timers.forget(self)

    def body(self) -> bytes:
        return b"".join(self._pieces)

    def said(self) -> Refusal:
        """What the replica answered instead of what was asked of it."""
        return oip.refusal_in(self.status, self.content_type, self.body(), self.model, self.version)

    # called by the exchange

    def set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.alarm_due:
            self._gateway.timers.watch(self)

    def begin(self, head: ResponseHead, lane: Lane, queue_s: float, model_s: float) -> None:
        """The answer's head is here."""
        self.model, self.version = lane.model, lane.version
        self.status = head.status
        self.content_type = next((_value(line) for line in head.fields if line[:13].lower() == b"content-type:"), b"")
        timing = b"queue;dur=%.2f, model;dur=%.2f" % (queue_s * 1000, model_s * 1000)
        self.fields += ((b"x-model-version", lane.version_bytes), (b"server-timing", timing))

    def write(self, data: bytes) -> None:
        if self._is_too_much or (len(data) > UNCOUNTED_BYTES and not self.hold(len(data))):
            self._is_too_much = True
            self._pieces = []
        elif data:
            self._pieces.append(data)

    def connection_line(self) -> bytes:
        return b""

    def close_after_answer(self) -> None: ...

    def pause_body(self, paused: bool) -> None: ...

    def answered(self, now: float) -> None:  # noqa: ARG002
        if self._gateway.access_log is not None and self._exchange is not None:
            self._log(self._exchange.describe())
        self._end(errors.memory_taken(self._gateway.config.limits.held_bytes) if self._is_too_much else None)

    def refused(self, refusal: Refusal) -> None:
        exchange = self._exchange
        if exchange is not None:
            self._log(exchange.describe())
        self._end(refusal)

    def cut(self, visibly: bool) -> None:  # noqa: ARG002
        exchange = cast(Exchange, self._exchange)
        told = exchange.describe()
        self._log(told)
        model, version = str(told["model"]), str(told["version"])
        if exchange.status == 504:
            self._end(errors.model_timeout(model, version, cast(float, told["model_ms"]) / 1000))
        else:
            self._end(errors.replica_failed(model, version, "its answer broke off"))

    def fault(self, exc: Exception, exchange: Ending | None) -> None:
        """The one place where an exception of ours ends."""
        self._gateway.fault(exc, self._request_id, self._traceparent)
        if exchange is not self._exchange:
            return  # it was answered before
        has_begun = exchange is not None and exchange.give_up()
        if self._exchange is not None and not has_begun:
            self._exchange.count(500)
            self._log(self._exchange.describe())
        elif self._caller is not None:
            self._caller.leave(500)
        self._end(errors.fault())

    # called by the timers

    def on_deadline(self, now: float) -> None:
        exchange = self._exchange
        try:
            if exchange is None:
                return
            if now >= exchange.next_deadline:
                exchange.expire(now)
            elif not exchange.look(now):
                self.set_deadline(exchange.next_deadline)
        except Exception as exc:
            self.fault(exc, exchange)

    # steps

    def _start(self, body: bytes | bytearray, arrived: float, timeout_s: float) -> None:
        found = self._resolve()
        if isinstance(found, Refusal):
            if self._gateway.traced_calls is not None:
                self._gateway.traced_calls.refused(
                    self._request, self._request_id, self._traceparent, arrived, self._peer, found
                )
            self.refuse(found)
            return
        gateway, request = self._gateway, self._request
        arguments = self, gateway.fleet, found, request, self._request_id, self._traceparent, arrived, self._caller
        if gateway.traced_calls is None:
            kinds: tuple[Callable[..., Exchange], Callable[..., Exchange]] = (CallExchange, CopiedCallExchange)
        else:
            kinds = gateway.traced_calls.kinds(request, self._request_id, self._traceparent, arrived, self._peer)
        exchange = kinds[0](*arguments) if found.shadow is None else gateway.shadows.exchange(*arguments, kinds)
        self._exchange, self._caller = exchange, None
        if timeout_s:
            deadline = arrived + timeout_s
            exchange.deadline = min(deadline, exchange.deadline) if request.timeout_s else deadline
            exchange.queue_deadline = exchange.deadline
        exchange.start(body, time.monotonic())

    def _resolve(self) -> Lane | Refusal:
        """Where it goes, if its key and all limits let it."""
        gateway, request = self._gateway, self._request
        target, caller = request.target, request.caller
        if caller is not None or gateway.fleet.limited:
            refusal = gateway.door.stop(caller, cast(Target | Refusal, target), time.monotonic())
            if refusal is not None:
                return refusal
        found = (
            target if isinstance(target, Refusal) else gateway.fleet.resolve(cast(Target, target), request.pin, request)
        )
        if isinstance(found, Lane) and request.is_readiness and not found.replicas:
            # Who asks for readiness wants to know now, not when it has come.
            if found.is_asleep:
                found = errors.is_asleep(found.model)
            else:
                found = errors.not_ready(found.model, found.version, found.route.state)
        if isinstance(caller, Caller):
            if isinstance(found, Lane):
                caller.enter()
                self._caller = caller
            else:
                caller.told(found.status)
        return found

    def _give(self, size: int) -> None:
        self._gateway.memory.give(size)
        self._held_bytes -= size

    def _end(self, refusal: Refusal | None) -> None:
        self._exchange = None
        self.refusal = refusal
        self._gateway.timers.forget(self)
        self._asker.answered(self)

    def _log(self, entry: dict[str, object]) -> None:
        log = self._gateway.access_log
        if log is None or not log.wants(cast(int, entry["status"])):
            return
        entry = {**entry, "protocol": "grpc"}
        log.write(entry_of(self._request, self._request_id, self._peer, self._client_name, self._traceparent, entry))


class StreamedCall(Call):
    """A call whose answer is messages that come one after another, each as soon as the replica wrote it."""

    __slots__ = ("_messages", "_reader", "_waiting_bytes", "asked", "is_over", "is_streamed")

    def __init__(self, gateway: Gateway, asker: Asker, request: Request, peer: bytes, client_name: str) -> None:
        super().__init__(gateway, asker, request, peer, client_name)
        self._reader = oip.FrameReader(gateway.config.limits.body_bytes)
        self._messages: deque[bytes] = deque()
        self._waiting_bytes = 0
        self.asked: oip.Asked | None = None
        self.is_streamed = False  # the replica answers with messages, not with an error
        self.is_over = False

    def begin(self, head: ResponseHead, lane: Lane, queue_s: float, model_s: float) -> None:
        super().begin(head, lane, queue_s, model_s)
        self.is_streamed = head.status == 200 and self.content_type == oip.MESSAGES

    def write(self, data: bytes) -> None:
        if not self.is_streamed:
            super().write(data)
            return
        for message in self._reader.feed(data):
            self.add(message)
        self._asker.goes_on(self)

    def add(self, message: bytes) -> None:
        if self._is_too_much or not self.hold(len(message)):
            self._is_too_much = True
            return
        self._messages.append(message)
        self._waiting_bytes += len(message)
        if self._waiting_bytes > AHEAD_BYTES and self._exchange is not None:
            self._exchange.pause_answer(True)

    def take(self) -> bytes | None:
        """The next message, if it is here."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._waiting_bytes -= len(message)
        self._give(len(message))
        if not self._messages and self._exchange is not None:
            self._exchange.pause_answer(False)
        return message

    def _end(self, refusal: Refusal | None) -> None:
        self.is_over = True
        if refusal is None and self.is_streamed and not self._reader.is_between:
            refusal = errors.replica_failed(self.model, self.version, "its answer broke off")
        super()._end(refusal)


class CallExchange(Exchange):
    """An exchange that hands the answer on in its parts."""

    __slots__ = ()

    def on_response(self, head: ResponseHead, prefix: bytes, body: bytes, complete: bool, now: float) -> None:  # noqa: ARG002
        lane = self._lane
        model_s = now - self._sent_at
        lane.saw_answer(self._replica, head.status, model_s, now)
        if head.status == 503 and complete and self._retry("503", was_sent=True, now=now):
            return
        self.status = head.status
        cast(Call, self._client).begin(head, lane, self._slot_at - self._queued_at, model_s)
        self._phase = ANSWERING
        if complete:
            self._connection = None
            self.answer_bytes = len(body)
            self._client.write(body)
            self._finish(now)
        else:
            self.on_body(body)


class CopiedCallExchange(CopiedExchange, CallExchange):
    """One that a shadow copies."""

    __slots__ = ()


def _value(line: bytes) -> bytes:
    return line.partition(b":")[2].strip()
