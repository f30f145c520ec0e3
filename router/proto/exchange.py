"""One request's life on a replica's connection: sending, answering, and the end.

Bytes come from `downstream.py` and `upstream.py`; how it gets a connection, and another when the first fails, is
`place.py`, with the phases that both halves go through.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, cast

from router.core import errors, rewrite
from router.core.admission import Lane
from router.core.balance import Replica
from router.core.ejection import PATIENT_S
from router.core.errors import Refusal, malformed
from router.core.framing import ResponseHead
from router.core.keys import Caller
from router.core.retry import may_retry
from router.core.table import Fleet
from router.proto.place import ANSWERING, CONNECTING, DONE, QUEUED, SENT, Place
from router.proto.request import Request
from router.proto.roles import Client
from router.proto.upstream import ReplicaConnection

if TYPE_CHECKING:
    from router.core.spans import Trace
    from router.tracer import Tracer

# One write of head and body costs less than two, up to bodies whose copying costs more.
JOINED_BYTES: Final = 65_536
# nginx's code for a client that left before its answer; it is counted, never sent.
CLIENT_LEFT: Final = 499


class Exchange(Place):
    """A request from its admission to its end.

    The client calls `start`, `send_body`, `end_body`, `expire` and `cancel`; lane, pool and connection call the rest.
    """

    __slots__ = (
        "_backlog", "_method", "_prefix", "_request_id", "_sent_at", "_trace", "_traceparent", "_tracer",
        "_upload_length", "_writes_chunks", "answer_bytes", "body_bytes", "is_head", "is_sent", "status",
    )  # fmt: skip

    # Of one whose trace is recorded, and set on no other: `traced.py`.
    _tracer: Tracer
    _trace: Trace

    def __init__(
        self,
        client: Client,
        fleet: Fleet,
        lane: Lane,
        request: Request,
        request_id: str,
        traceparent: bytes,
        arrived: float,
        caller: Caller | None = None,
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._lane = lane
        self._request = request
        self._arrived = arrived
        self.deadline = self.queue_deadline = arrived + (request.timeout_s or lane.route.request_timeout_ms / 1000)
        self.is_batch = request.is_batch
        self.caller = caller
        self.tried = ()
        self._failure = ""
        self._phase = QUEUED
        self._attempts = 0
        self._has_slot = False
        self._replica = cast(Any, None)
        self._connection = None
        self._queued_at = 0.0
        self._slot_at = 0.0
        self._is_whole = True
        self._method = request.method
        self._prefix = request.prefix
        self._request_id = request_id.encode()
        self._traceparent = traceparent
        self.is_head = request.method == b"HEAD"
        self.status = 0
        self._sent_at = 0.0
        self._backlog: bytes | bytearray = b""  # of the body, framed: what is not sent, or all of it when it is whole
        self._upload_length = 0
        self.is_sent = True
        self._writes_chunks = False
        self.body_bytes = 0
        self.answer_bytes = 0

    @property
    def is_answering(self) -> bool:
        return self._phase == ANSWERING

    @property
    def backlog_bytes(self) -> int:
        """How much of a streamed body waits for a connection."""
        return 0 if self._is_whole else len(self._backlog)

    def describe(self) -> dict[str, object]:
        """For the access log, once it is over."""
        now = time.monotonic()
        slot_at, sent_at = self._slot_at or now, self._sent_at or now
        return {
            "model": self._lane.model,
            "version": self._lane.version,
            "replica": self._replica.id if self._attempts else "",
            "status": self.status,
            "body_bytes": self.body_bytes,
            "answer_bytes": self.answer_bytes,
            "queue_ms": round((slot_at - self._queued_at) * 1000, 3),
            "model_ms": round((now - sent_at) * 1000, 3),
            "total_ms": round((now - self._arrived) * 1000, 3),
            "retries": max(0, self._attempts - 1),
        }

    # called by the client

    def start(self, body: bytes | bytearray, now: float) -> None:
        """Admits a request whose body is here as a whole."""
        self._backlog = body
        self._upload_length = self.body_bytes = len(body)
        self._admit(now)

    def start_streaming(self, length: int, now: float) -> None:
        """Admits a request whose body of `length` bytes (-1: unknown) comes by `send_body` and `end_body`."""
        self._backlog = bytearray()
        self._upload_length = length
        self._is_whole = False
        self.is_sent = False
        self._admit(now)

    def send_body(self, data: bytes) -> None:
        if data and self._phase != DONE:
            self.body_bytes += len(data)
            self._upload(rewrite.chunk(data) if self._upload_length < 0 else data)

    def end_body(self) -> None:
        self.is_sent = True
        if self._upload_length < 0 and self._phase != DONE:
            self._upload(rewrite.LAST_CHUNK)

    def cancel(self, status: int = CLIENT_LEFT) -> None:
        """The client left, or its body will never be whole: nobody wants the answer."""
        if self._phase == DONE:
            return
        phase, self._phase = self._phase, DONE
        self._leave(phase)
        self._count(status, time.monotonic())

    def expire(self, now: float) -> None:
        """The deadline passed: of the queue when it waits there, else of the request."""
        phase, is_sent = self._phase, self.is_sent
        self._leave(phase)
        if phase == ANSWERING:
            self._phase = DONE
            self._count(504, now)
            self._client.cut(visibly=not self._writes_chunks)
        else:
            self._answer_refusal(self._expiry(phase, is_sent, now), now)

    def look(self, now: float) -> bool:
        """At an alarm before the deadline: whether it waits for a replica's first byte, and if so, that it shall.

        When that has taken long, the replica is asked whether it is alive; a request that may be sent again leaves one
        that is not (`on_silent`).
        """
        if self._phase != SENT or not self._is_whole:
            return False
        health = self._replica.health
        look_at = self._sent_at + health.patience_s()
        if not self._may_move():
            look_at = self.deadline
        elif health.is_known_silent(now):
            self.on_silent(self._replica)
            return True
        elif look_at <= now:
            self._replica.pool.question(self)
            look_at = now + PATIENT_S
        self._client.set_deadline(min(self.deadline, look_at))
        return True

    def count(self, status: int) -> None:
        """For the request's end when it was not the exchange that ended it."""
        self._count(status, time.monotonic())

    def give_up(self) -> bool:
        has_begun = super().give_up()
        if has_begun and self.caller is not None:  # nobody will count it
            self._give_key_back(self.caller, 500)
        return has_begun

    def pause_answer(self, paused: bool) -> None:
        """The client reads slower than the replica writes."""
        if self._connection is not None and self._phase == ANSWERING:
            if paused:
                self._connection.pause_reading()
            else:
                self._connection.resume_reading()

    # called by the pool

    def on_silent(self, replica: Replica) -> None:
        if self._phase != SENT or replica is not self._replica:
            return
        connection, now = self._connection, time.monotonic()
        if not replica.health.is_known_silent(now):
            self._lane.saw_failure(replica, "silent", now)
        # Where it may not move, or nowhere, it stays: the replica may come to itself before the deadline.
        if self._retry("reset", was_sent=True, now=now) and connection is not None:
            connection.abort()

    # called by the connection

    def on_interim(self, head: ResponseHead) -> None:
        if self._client.minor:  # RFC 9110 section 15.2: never to HTTP/1.0
            self._client.write(rewrite.interim(head))

    def on_switched(self, head: ResponseHead, rest: bytes) -> None:  # noqa: ARG002
        raise malformed("it switched protocols without being asked to")

    def on_response(self, head: ResponseHead, prefix: bytes, body: bytes, complete: bool, now: float) -> None:
        status = head.status
        lane = self._lane
        model_s = now - self._sent_at
        lane.saw_answer(self._replica, status, model_s, now)
        if status == 503 and complete and self._retry("503", was_sent=True, now=now):
            return
        self.status = status
        client = self._client
        queue_s = self._slot_at - self._queued_at
        framing = b"" if head.content_length >= 0 else self._framing(len(body) if complete else -1)
        begin = body if complete else b""
        answer = rewrite.response(
            prefix, self._request_id, lane.version_bytes, queue_s, model_s, framing, client.connection_line(), begin
        )
        self._phase = ANSWERING
        client.write(answer)
        if complete:
            self._connection = None  # it is in the pool: the client's back-pressure must not reach it
            self.answer_bytes = len(body)
            self._finish(now)
        else:
            self.on_body(body)

    def on_body(self, data: bytes) -> None:
        if data:
            self.answer_bytes += len(data)
            self._client.write(rewrite.chunk(data) if self._writes_chunks else data)

    def on_end(self) -> None:
        self._connection = None
        if self._writes_chunks:
            self._client.write(rewrite.LAST_CHUNK)
        self._finish(time.monotonic())

    def on_broken(self, reason: str, kind: str) -> None:
        if self._phase == ANSWERING:
            self._phase = DONE
            now = time.monotonic()
            self._lane.saw_failure(self._replica, kind, now)
            self._release()
            self._count(502, now)
            self._client.cut(visibly=not self._writes_chunks)
        else:
            self._fail(reason, kind, was_sent=True)

    def on_upload_paused(self, paused: bool) -> None:
        self._client.pause_body(paused)

    # steps

    def _send(self, connection: ReplicaConnection, now: float) -> None:
        self._phase = SENT
        self._connection = connection
        self._sent_at = now
        left_ms = int((self.deadline - now) * 1000)
        if left_ms < 1:
            left_ms = 1
        body = self._backlog
        is_apart = len(body) > JOINED_BYTES
        request = rewrite.request(
            self._prefix,
            self._request_id,
            self._traceparent,
            left_ms,
            self._upload_length,
            self._method,
            b"" if is_apart else body,
        )
        connection.start(self, request)
        if is_apart:
            connection.write(body)
        if self._is_whole:
            look_at = now + PATIENT_S
            has_others = len(self._lane.replicas) > 1
            self._client.set_deadline(look_at if has_others and look_at < self.deadline else self.deadline)
        else:
            self._backlog = bytearray()
            self._client.pause_body(False)

    def _upload(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.write(data)
        else:
            self._backlog += data

    def _framing(self, length: int) -> bytes:
        if length >= 0:
            return b"content-length: %d\r\n" % length
        if self._client.minor:
            self._writes_chunks = True
            return b"transfer-encoding: chunked\r\n"
        self._client.close_after_answer()  # an HTTP/1.0 client reads until then
        return b""

    def _finish(self, now: float) -> None:
        self._phase = DONE
        lane = self._lane
        lane.stats.served(self.status, now - self._arrived, now - self._sent_at)
        lane.served(now - self._slot_at)
        if self.caller is not None:
            self._give_key_back(self.caller, self.status)
        self._give_back(now)
        self._client.answered(now)

    def _may_move(self) -> bool:
        lane = self._lane
        return len(lane.replicas) > 1 and may_retry(
            lane.route, "reset", was_sent=True, is_whole=self._is_whole, attempts=self._attempts
        )

    def _leave(self, phase: int) -> None:
        """Takes the request out of wherever it is in `phase`. The slot goes back when the replica lets go of it."""
        connection, self._connection = self._connection, None
        if phase == QUEUED:
            self._lane.leave(self)
        elif connection is None:
            self._release()
        elif phase == SENT and self.is_sent:
            connection.abandon(self._release)
        else:
            connection.abort()
            self._release()

    def _expiry(self, phase: int, is_sent: bool, now: float) -> Refusal:
        lane = self._lane
        if not is_sent and phase != QUEUED:
            return errors.body_deadline()
        if phase == QUEUED and self._failure and now < self.deadline:
            return errors.replica_failed(lane.model, lane.version, self._failure)
        if phase == QUEUED:
            lane.stats.shed_one("queue_timeout")
            absence = "" if lane.replicas else lane.route.state
            return errors.queue_timeout(lane.model, lane.version, now - self._queued_at, absence)
        if phase == CONNECTING:
            return errors.connect_timeout(lane.model, lane.version, now - self._slot_at)
        if now - self._sent_at >= self._replica.health.patience_s():
            lane.saw_failure(self._replica, "timeout", now)
        return errors.model_timeout(lane.model, lane.version, now - self._sent_at)

    def _count(self, status: int, now: float) -> None:
        self.status = status
        self._lane.stats.answered(status, now - self._arrived)
        if self.caller is not None:
            self._give_key_back(self.caller, status)

    def _give_key_back(self, caller: Caller, status: int) -> None:
        """Once, even if a fault ends the request a second time."""
        self.caller = None
        caller.leave(status)
