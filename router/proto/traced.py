"""Requests whose trace is recorded: the same exchanges, which tell their trace what happens to them.

Nothing here is met by a request that is not sampled, and by none of a gateway without tracing: it has no
`TracedConnection`. What a trace consists of is `core/spans.py`'s. A replica is asked for its part by a field of its
own, and answers with one; both are the gateway's own words, which no client can send and none gets to see
(`core/framing.py` reads and drops them).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from router.core.balance import Replica
from router.core.errors import Refusal
from router.core.framing import ResponseHead
from router.core.spans import Trace
from router.core.trace_context import is_sampled
from router.proto.answering import HEAD
from router.proto.call import CallExchange, CopiedCallExchange
from router.proto.downstream import ClientConnection
from router.proto.exchange import Exchange
from router.proto.place import QUEUED
from router.proto.request import Request
from router.proto.shadow import CopiedExchange
from router.proto.tunnel import Upgrade
from router.proto.upstream import ReplicaConnection

if TYPE_CHECKING:
    from router.tracer import Tracer

_ASK: Final = b"x-modelfleet-trace: 1\r\n"


class Traced(Exchange):
    """What the exchanges below have in common: they differ from others in what they tell, and in nothing else."""

    __slots__ = ()

    def trace_with(self, tracer: Tracer, trace: Trace) -> Any:
        """To be called before it starts. Returns itself."""
        self._tracer = tracer
        self._trace = trace
        self._prefix += _ASK
        return self

    # what happens

    def _admit(self, now: float) -> None:
        self._trace.waits(now)
        super()._admit(now)
        if self._phase == QUEUED and self._lane.is_asleep:
            self._trace.root.add("wake", now, state=self._lane.route.state)

    def _take_slot(self, replica: Replica, now: float) -> None:
        method = self._method.decode()
        self._traceparent = self._trace.begins_try(replica.id, replica.host, replica.port, method, now)
        super()._take_slot(replica, now)

    def _send(self, connection: ReplicaConnection, now: float) -> None:
        if now > self._slot_at:
            self._trace.try_event("connected", now)
        super()._send(connection, now)

    def on_response(self, head: ResponseHead, prefix: bytes, body: bytes, complete: bool, now: float) -> None:
        self._trace.answers(head.status, head.told, self._sent_at, now)
        super().on_response(head, prefix, body, complete, now)

    def on_switched(self, head: ResponseHead, rest: bytes) -> None:
        now = time.monotonic()
        self._trace.answers(head.status, b"", self._sent_at, now)
        super().on_switched(head, rest)

    def _fail(self, reason: str, kind: str, was_sent: bool) -> None:
        self._trace.try_failed(kind, reason, time.monotonic())
        super()._fail(reason, kind, was_sent)

    def on_broken(self, reason: str, kind: str) -> None:
        if self.is_answering:  # else it fails, or is sent again
            self._trace.try_failed(kind, reason, time.monotonic())
        super().on_broken(reason, kind)

    def _go_again(self, cause: str, now: float) -> None:
        self._trace.retries(cause, now)
        super()._go_again(cause, now)

    def _park(self, now: float) -> bool:
        is_parked = super()._park(now)
        if is_parked and not self._trace.is_over:
            self._trace.waits(now)
            self._trace.root.add("parked", now)
        return is_parked

    def _answer_refusal(self, refusal: Refusal, now: float) -> None:
        if refusal.status >= 500:
            self._trace.root.error = refusal.code
            self._trace.try_failed(refusal.code, "", now)
        super()._answer_refusal(refusal, now)

    def _finish(self, now: float) -> None:
        super()._finish(now)
        self._end_trace(self.status, now)

    def _count(self, status: int, now: float) -> None:
        super()._count(status, now)
        self._end_trace(status, now)

    def give_up(self) -> bool:
        has_begun = super().give_up()
        if has_begun:
            self._end_trace(500, time.monotonic())
        return has_begun

    def _end_trace(self, status: int, now: float) -> None:
        self._trace.root.attributes["http.request.body.size"] = self.body_bytes
        self._trace.root.attributes["http.response.body.size"] = self.answer_bytes
        self._tracer.end(self._trace, self._lane, status, now - self._arrived, now)


class TracedExchange(Traced):
    __slots__ = ()


class TracedCopiedExchange(Traced, CopiedExchange):
    """One that a shadow copies, too."""

    __slots__ = ()


class TracedUpgrade(Traced, Upgrade):
    """One that may become a tunnel. Its trace ends with the tunnel."""

    __slots__ = ()


class TracedCall(Traced, CallExchange):
    """One that came over gRPC."""

    __slots__ = ()


class TracedCopiedCall(Traced, CopiedCallExchange):
    __slots__ = ()


class TracedCalls:
    """How calls of gRPC are traced."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def kinds(
        self, request: Request, request_id: str, traceparent: bytes, arrived: float, peer: bytes
    ) -> tuple[Callable[..., Exchange], Callable[..., Exchange]]:
        """What makes the exchange of a call, plain and for one that is copied."""
        if not is_sampled(traceparent):
            return CallExchange, CopiedCallExchange
        trace = self._tracer.begin_call(request, request_id, traceparent, arrived, peer)

        def maker(kind: type[Traced]) -> Callable[..., Exchange]:
            return lambda *arguments: kind(*arguments).trace_with(self._tracer, trace)

        return maker(TracedCall), maker(TracedCopiedCall)

    def refused(
        self, request: Request, request_id: str, traceparent: bytes, arrived: float, peer: bytes, refusal: Refusal
    ) -> None:
        """A call that no version was chosen for."""
        if is_sampled(traceparent):
            trace, now = self._tracer.begin_call(request, request_id, traceparent, arrived, peer), time.monotonic()
            trace.root.attributes["error.type"] = refusal.code
            self._tracer.end(trace, None, refusal.status, now - arrived, now)


class TracedConnection(ClientConnection):
    """A client's connection to a gateway that traces."""

    __slots__ = ()

    def _make(self, *arguments: Any) -> Exchange:
        return self._traced(TracedExchange, Exchange, arguments)

    def _make_copied(self, *arguments: Any) -> Exchange:
        return self._traced(TracedCopiedExchange, CopiedExchange, arguments)

    def _make_upgrade(self, *arguments: Any) -> Upgrade:
        return cast(Upgrade, self._traced(TracedUpgrade, Upgrade, arguments))

    def _traced(self, traced: type[Traced], plain: type[Exchange], arguments: tuple[Any, ...]) -> Exchange:
        if not is_sampled(self._traceparent):
            return plain(*arguments)
        exchange: Exchange = traced(*arguments).trace_with(self._tracer, self._begin_trace())
        return exchange

    def _count_unrouted(self, refusal: Refusal) -> None:
        """A refusal that belongs to no version has a trace too, unless nobody knows what it was an answer to."""
        super()._count_unrouted(refusal)
        if self._phase != HEAD and is_sampled(self._traceparent):
            now, trace = time.monotonic(), self._begin_trace()
            trace.root.attributes["error.type"] = refusal.code
            self._tracer.end(trace, None, refusal.status, now - self._arrived, now)

    def _begin_trace(self) -> Trace:
        return self._tracer.begin(
            self._request, self._request_id, self._traceparent, self._arrived, self._peer, self._scheme
        )

    @property
    def _tracer(self) -> Tracer:
        return cast("Tracer", self._gateway.tracer)
