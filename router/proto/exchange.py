"""One request's life between a client and the replicas: admission, sending, retrying, answering, and the end.

Owns the rule that a slot is given back exactly once, on every path. Bytes come from `downstream.py` and
`upstream.py`; what may be retried is said by `core/retry.py`, who gets a slot by `core/admission.py`.

    QUEUED -> CONNECTING -> SENT -> ANSWERING -> DONE
    ^------------+-----------+  a failure that may be retried; every phase goes to DONE on failure, deadline or leaving
"""

from __future__ import annotations

import time
from typing import Any, Final, cast

from router.core import errors, rewrite
from router.core.admission import Lane
from router.core.balance import Replica
from router.core.ejection import PATIENT_S, SLOW_FACTOR
from router.core.errors import Refusal
from router.core.framing import ResponseHead
from router.core.retry import may_retry
from router.core.table import Fleet
from router.proto.request import Request
from router.proto.roles import Client
from router.proto.upstream import ReplicaConnection

# A table without a dead replica comes within a third of a second of its end: three times that is waited for it.
REPLACEMENT_S: Final = 1.0
# nginx's code for a client that left before its answer; it is counted, never sent.
CLIENT_LEFT: Final = 499


# Phases. Plain integers: looking an enum member up costs as much as the comparison, ten times a request.
_QUEUED: Final = 0  # also before the start
_CONNECTING: Final = 1
_SENT: Final = 2
_ANSWERING: Final = 3
_DONE: Final = 4  # final: the slot is given back or waits for the replica alone, nothing more is called


class Exchange:
    """A request from its admission to its end.

    The client calls `start`, `send_body`, `end_body`, `expire` and `cancel`; lane, pool and connection call the rest.
    """

    __slots__ = (
        "_arrived", "_attempts", "_backlog", "_client", "_connection", "_failure", "_fleet", "_is_whole", "_lane",
        "_method", "_phase", "_prefix", "_queued_at", "_replica", "_request", "_request_id", "_sent_at", "_slot_at",
        "_traceparent", "_upload_length", "_writes_chunks", "answer_bytes", "body_bytes", "caller", "deadline",
        "is_batch", "is_head", "is_sent", "queue_deadline", "status", "tried",
    )  # fmt: skip

    def __init__(
        self,
        client: Client,
        fleet: Fleet,
        lane: Lane,
        request: Request,
        request_id: str,
        traceparent: bytes,
        arrived: float,
        caller: object = None,
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._lane = lane
        self._request = request
        self._method = request.method
        self._prefix = request.prefix
        self._request_id = request_id.encode()
        self._traceparent = traceparent
        self._arrived = arrived
        self.deadline = arrived + (request.timeout_s or lane.route.request_timeout_ms / 1000)
        self.queue_deadline = self.deadline
        self.is_batch = request.is_batch
        self.caller = caller
        self.is_head = request.method == b"HEAD"
        self.tried: tuple[Replica, ...] = ()
        self._failure = ""  # what the last replica failed with
        self.status = 0
        self._phase = _QUEUED
        self._attempts = 0
        self._replica: Replica = cast(Any, None)
        self._connection: ReplicaConnection | None = None
        self._queued_at = 0.0
        self._slot_at = 0.0
        self._sent_at = 0.0
        self._backlog: bytes | bytearray = b""  # of the body, framed: what is not sent, or all of it when it is whole
        self._upload_length = 0
        self._is_whole = True
        self.is_sent = True
        self._writes_chunks = False
        self.body_bytes = 0
        self.answer_bytes = 0

    @property
    def is_answering(self) -> bool:
        return self._phase == _ANSWERING

    @property
    def next_deadline(self) -> float:
        return min(self.deadline, self.queue_deadline)

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

    def start(self, body: bytes, now: float) -> None:
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
        if data and self._phase != _DONE:
            self.body_bytes += len(data)
            self._upload(rewrite.chunk(data) if self._upload_length < 0 else data)

    def end_body(self) -> None:
        self.is_sent = True
        if self._upload_length < 0 and self._phase != _DONE:
            self._upload(rewrite.LAST_CHUNK)

    def cancel(self, status: int = CLIENT_LEFT) -> None:
        """The client left, or its body will never be whole: nobody wants the answer."""
        if self._phase == _DONE:
            return
        phase, self._phase = self._phase, _DONE
        self._leave(phase)
        self._count(status, time.monotonic())

    def expire(self, now: float) -> None:
        """The deadline passed: of the queue when it waits there, else of the request."""
        phase, self._phase = self._phase, _DONE
        is_sent = self.is_sent
        self._leave(phase)
        if phase == _ANSWERING:
            self._count(504, now)
            self._client.cut(visibly=not self._writes_chunks)
        else:
            self._answer_refusal(self._expiry(phase, is_sent, now), now)

    def pause_answer(self, paused: bool) -> None:
        """The client reads slower than the replica writes."""
        if self._connection is not None and self._phase == _ANSWERING:
            if paused:
                self._connection.pause_reading()
            else:
                self._connection.resume_reading()

    # called by the lane

    def take_slot(self, replica: Replica) -> None:
        now = time.monotonic()
        self._replica = replica
        self._slot_at = now
        self._phase = _CONNECTING
        self.queue_deadline = self.deadline
        if not self._attempts:
            self._lane.stats.queue_s.add(now - self._queued_at)
        self._attempts += 1
        connection = replica.pool.take()
        if connection is not None:
            self._send(connection, now)
            return
        self._client.set_deadline(self.deadline)
        replica.pool.connect(self)

    def wait_on(self, is_promised: bool) -> None:
        wait_s = self._lane.route.queue_timeout_ms / 1000 if is_promised else REPLACEMENT_S
        latest = self.deadline if is_promised else self.queue_deadline
        self.queue_deadline = min(latest, time.monotonic() + wait_s)
        self._client.set_deadline(self.queue_deadline)

    def refuse(self, refusal: Refusal) -> None:
        self._phase = _DONE
        self._answer_refusal(refusal, time.monotonic())

    # called by the pool

    def on_connected(self, connection: ReplicaConnection) -> bool:
        # A retry may wait for a second connection while the first is still being made.
        if self._phase != _CONNECTING or connection.replica is not self._replica:
            return False
        self._send(connection, time.monotonic())
        return True

    def on_connect_failed(self, replica: Replica, reason: str) -> None:
        if self._phase == _CONNECTING and replica is self._replica:
            self._fail(reason, "connect", was_sent=False)

    # called by the connection

    def on_interim(self, head: ResponseHead) -> None:
        if self._client.minor:  # RFC 9110 section 15.2: never to HTTP/1.0
            self._client.write(rewrite.interim(head))

    def on_response(self, head: ResponseHead, prefix: bytes, body: bytes, complete: bool) -> None:
        status = head.status
        now = time.monotonic()
        self._lane.saw_answer(self._replica, status, now - self._sent_at, now)
        if status == 503 and complete and self._retry("503", was_sent=True, now=now):
            return
        self._phase = _ANSWERING
        self.status = status
        length = len(body) if complete else head.content_length
        framing = b"" if self.is_head or status == 204 or status == 304 else self._framing(length)
        suffix = rewrite.response_suffix(
            self._request_id,
            self._lane.version_bytes,
            (self._slot_at - self._queued_at) * 1000,
            (now - self._sent_at) * 1000,
            framing,
            self._client.connection_line(),
        )
        if complete:
            self._connection = None  # it is in the pool: the client's back-pressure must not reach it
            self.answer_bytes = len(body)
            self._client.write(prefix + suffix + body)
            self._finish(now)
            return
        self._client.write(prefix + suffix)
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
        if self._phase == _ANSWERING:
            self._phase = _DONE
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

    def _admit(self, now: float) -> None:
        self._queued_at = now
        lane = self._lane
        affinity = None if lane.sticky is None else lane.sticky.affinity(self._request.raw)
        replica = lane.reserve(now, affinity)
        if replica is not None:
            self.take_slot(replica)
            return
        refusal = lane.enqueue(self, now)
        if refusal is not None:
            self.refuse(refusal)
            return
        self.queue_deadline = min(self.deadline, now + self._lane.route.queue_timeout_ms / 1000)
        self._client.set_deadline(self.queue_deadline)

    def _send(self, connection: ReplicaConnection, now: float) -> None:
        self._phase = _SENT
        self._connection = connection
        self._sent_at = now
        left_ms = max(1, int((self.deadline - now) * 1000))
        suffix = rewrite.request_suffix(self._request_id, self._traceparent, left_ms, self._upload_length, self._method)
        connection.start(self, self._prefix + suffix + self._backlog)
        if self._is_whole:
            self._client.set_deadline(self.deadline)
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
        self._phase = _DONE
        self._lane.stats.model_s.add(now - self._sent_at)
        self._lane.served(now - self._slot_at)
        self._count(self.status, now)
        self._release()
        self._client.answered()

    def _fail(self, reason: str, kind: str, was_sent: bool) -> None:
        """No answer from this replica: another one, or 502."""
        lane, now = self._lane, time.monotonic()
        lane.saw_failure(self._replica, kind, now)
        self._failure = reason
        if self._retry("connect" if kind == "connect" else "reset", was_sent=was_sent, now=now):
            return
        if kind == "connect" and self._park(now):
            return
        self._phase = _DONE
        self._release()
        self._answer_refusal(errors.replica_failed(lane.model, lane.version, reason), now)

    def _retry(self, cause: str, *, was_sent: bool, now: float) -> bool:
        """Goes to another replica if that is allowed and there is one. The slot is given back then."""
        lane = self._lane
        tried = (*self.tried, self._replica)
        allowed = may_retry(
            lane.route, cause, was_sent=was_sent, is_whole=self._is_whole, attempts=self._attempts
        ) and lane.may_retry(tried)
        if allowed:
            self._phase = _QUEUED
            self._connection = None
            self.tried = tried
            self._release()
            lane.stats.retried(cause)
            lane.retry(self, now)
        return allowed

    def _leave(self, phase: int) -> None:
        """Takes the request out of wherever it is in `phase`. The slot goes back when the replica lets go of it."""
        connection, self._connection = self._connection, None
        if phase == _QUEUED:
            self._lane.leave(self)
        elif connection is None:
            self._release()
        elif phase == _SENT and self.is_sent:
            connection.abandon(self._release)
        else:
            connection.abort()
            self._release()

    def _release(self) -> None:
        replica = self._replica
        self._lane.release(replica, time.monotonic())
        if replica.retired:
            self._fleet.settle(replica)

    def _park(self, now: float) -> bool:
        """Waits a moment when no replica could be reached, for the control plane replaces a dead one soon.

        Nothing was sent, so that this is safe for every version.
        """
        lane = self._lane
        tried = (*self.tried, self._replica)
        if any(replica not in tried for replica in lane.replicas):
            return False
        self._release()
        if not lane.park(self):
            self._phase = _DONE
            self._answer_refusal(errors.overloaded(lane.model, lane.version, lane.route.queue_max), now)
            return True
        self._phase = _QUEUED
        self._connection = None
        self.tried = tried
        self.queue_deadline = min(self.deadline, now + REPLACEMENT_S)
        self._client.set_deadline(self.queue_deadline)
        return True

    def _expiry(self, phase: int, is_sent: bool, now: float) -> Refusal:
        lane = self._lane
        if not is_sent and phase != _QUEUED:
            return errors.body_deadline()
        if phase == _QUEUED and self._failure and now < self.deadline:
            return errors.replica_failed(lane.model, lane.version, self._failure)
        if phase == _QUEUED:
            lane.stats.shed_one("queue_timeout")
            return errors.queue_timeout(lane.model, lane.version, now - self._queued_at)
        if phase == _CONNECTING:
            return errors.connect_timeout(lane.model, lane.version, now - self._slot_at)
        if now - self._sent_at >= max(PATIENT_S, SLOW_FACTOR * self._replica.health.latency_s):
            lane.saw_failure(self._replica, "timeout", now)
        return errors.model_timeout(lane.model, lane.version, now - self._sent_at)

    def _answer_refusal(self, refusal: Refusal, now: float) -> None:
        self._count(refusal.status, now)
        self._client.refused(refusal)

    def _count(self, status: int, now: float) -> None:
        self.status = status
        self._lane.stats.answered(status, now - self._arrived)
