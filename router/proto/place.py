"""A request's place: in the queue of its version, then in a slot of one of its replicas, until that has a connection.

Owns the rule that a slot is given back exactly once, on every path, and what follows when a replica fails: another one,
a moment's wait for one, or 502. What is sent and answered on the connection is `exchange.py`; what may be retried is
said by `core/retry.py`, who gets a slot by `core/admission.py`.

    QUEUED -> CONNECTING -> SENT -> ANSWERING -> DONE
    ^------------+-----------+  a failure that may be retried; every phase goes to DONE on failure, deadline or leaving
"""

from __future__ import annotations

import time
from typing import Final

from router.core import errors
from router.core.admission import Lane
from router.core.balance import Replica
from router.core.errors import Refusal
from router.core.keys import Caller
from router.core.retry import may_retry
from router.core.table import Fleet
from router.proto.request import Request
from router.proto.roles import Client
from router.proto.upstream import ReplicaConnection

# A table without a dead replica comes within a third of a second of its end: three times that is waited for it.
REPLACEMENT_S: Final = 1.0

# Phases. Plain integers: looking an enum member up costs as much as the comparison, ten times a request.
QUEUED: Final = 0  # also before the start
CONNECTING: Final = 1
SENT: Final = 2
ANSWERING: Final = 3
DONE: Final = 4  # final: the slot is given back or waits for the replica alone, nothing more is called


class Place:
    """The half of an exchange that waits, connects and fails; `_send` and `_count` are the other's.

    Lane and pool hand it slots and connections. They work for other requests too, so no exception of ours may reach
    them: it ends in `fault`.
    """

    __slots__ = (
        "_arrived", "_attempts", "_client", "_connection", "_failure", "_fleet", "_has_slot", "_is_whole", "_lane",
        "_phase", "_queued_at", "_replica", "_request", "_slot_at", "caller", "deadline", "is_batch",
        "queue_deadline", "tried",
    )  # fmt: skip

    may_reuse_connection = True

    # Set by the other half: an `__init__` of this one's own costs every request 0.1 µs.
    _client: Client
    _fleet: Fleet
    _lane: Lane
    _request: Request
    _replica: Replica  # the last one
    _connection: ReplicaConnection | None
    _phase: int
    _has_slot: bool
    _is_whole: bool  # the body is here, so that it can be sent again
    _attempts: int
    _failure: str  # what the last replica failed with
    _arrived: float
    _queued_at: float
    _slot_at: float
    is_batch: bool
    caller: Caller | None  # whoever leaves the queue still has it
    deadline: float
    queue_deadline: float
    tried: tuple[Replica, ...]

    @property
    def next_deadline(self) -> float:
        return min(self.deadline, self.queue_deadline)

    def fault(self, exc: Exception) -> None:
        """For whoever caught an exception of ours while it worked on this request."""
        self._client.fault(exc, self)

    def give_up(self) -> bool:
        """Leaves queue, replica and slot, whatever a fault left behind. True: an answer had begun."""
        phase, self._phase = self._phase, DONE
        connection, self._connection = self._connection, None
        self._lane.leave(self)
        if connection is not None:
            connection.abort()
        self._release()
        return phase >= ANSWERING

    # called by the lane

    def take_slot(self, replica: Replica) -> None:
        self._take_slot(replica, time.monotonic())

    def _take_slot(self, replica: Replica, now: float) -> None:
        self._replica = replica
        self._has_slot = True
        self._slot_at = now
        self._phase = CONNECTING
        self.queue_deadline = self.deadline
        try:
            if not self._attempts:
                self._lane.stats.queue_s.add(now - self._queued_at)
            self._attempts += 1
            connection = (
                replica.pool.take(surely_open=not self._lane.route.idempotent) if self.may_reuse_connection else None
            )
            if connection is not None:
                self._send(connection, now)
                return
            self._client.set_deadline(self.deadline)
            replica.pool.connect(self)
        except Exception as exc:
            self.fault(exc)

    def wait_on(self, is_promised: bool) -> None:
        wait_s = self._lane.route.queue_timeout_ms / 1000 if is_promised else REPLACEMENT_S
        latest = self.deadline if is_promised else self.queue_deadline
        self.queue_deadline = min(latest, time.monotonic() + wait_s)
        self._client.set_deadline(self.queue_deadline)

    def refuse(self, refusal: Refusal) -> None:
        try:
            self._answer_refusal(refusal, time.monotonic())
        except Exception as exc:
            self.fault(exc)

    # called by the pool

    def on_connected(self, connection: ReplicaConnection) -> bool:
        # A retry may wait for a second connection while the first is still being made.
        if self._phase != CONNECTING or connection.replica is not self._replica:
            return False
        self._send(connection, time.monotonic())
        return True

    def on_connect_failed(self, replica: Replica, reason: str) -> None:
        if self._phase == CONNECTING and replica is self._replica:
            self._fail(reason, "connect", was_sent=False)

    # steps

    def _admit(self, now: float) -> None:
        self._queued_at = now
        lane = self._lane
        if not self._request.is_readiness:  # who watches a model does not use it: it may sleep all the same
            lane.stats.arrived += 1
        affinity = None if lane.sticky is None else lane.sticky.affinity(self._request)
        replica = lane.reserve(now, affinity)
        if replica is not None:
            self._take_slot(replica, now)
            return
        refusal = lane.enqueue(self, now)
        if refusal is not None:
            self.refuse(refusal)
            return
        if self._phase != QUEUED:  # a slot came free in another process meanwhile
            return
        self.queue_deadline = min(self.deadline, now + self._lane.route.queue_timeout_ms / 1000)
        self._client.set_deadline(self.queue_deadline)

    def _send(self, connection: ReplicaConnection, now: float) -> None:
        raise NotImplementedError

    def _count(self, status: int, now: float) -> None:
        raise NotImplementedError

    def _fail(self, reason: str, kind: str, was_sent: bool) -> None:
        """No answer from this replica: another one, or 502."""
        lane, now = self._lane, time.monotonic()
        lane.saw_failure(self._replica, kind, now)
        self._failure = reason
        if self._retry("connect" if kind == "connect" else "reset", was_sent=was_sent, now=now):
            return
        if kind == "connect" and self._park(now):
            return
        self._release()
        self._answer_refusal(errors.replica_failed(lane.model, lane.version, reason), now)

    def _retry(self, cause: str, *, was_sent: bool, now: float) -> bool:
        """Goes to another replica if that is allowed and there is one. The slot is given back then."""
        lane = self._lane
        tried = (*self.tried, self._replica)
        allowed = may_retry(
            lane.route, cause, was_sent=was_sent, is_whole=self._is_whole, attempts=self._attempts
        ) and lane.may_retry(tried, was_sent=was_sent)
        if allowed:
            self._phase = QUEUED
            self._connection = None
            self.tried = tried
            self._release()
            self._go_again(cause, now)
        return allowed

    def _go_again(self, cause: str, now: float) -> None:
        self._lane.stats.retried(cause)
        self._lane.retry(self, now)

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
            self._answer_refusal(errors.overloaded(lane.model, lane.version, lane.route.queue_max), now)
            return True
        self._phase = QUEUED
        self._connection = None
        self.tried = tried
        self.queue_deadline = min(self.deadline, now + REPLACEMENT_S)
        self._client.set_deadline(self.queue_deadline)
        return True

    def _release(self) -> None:
        if self._has_slot:
            self._give_back(time.monotonic())

    def _give_back(self, now: float) -> None:
        replica = self._replica
        self._has_slot = False
        self._lane.release(replica, now)
        if replica.retired:
            self._fleet.settle(replica)

    def _answer_refusal(self, refusal: Refusal, now: float) -> None:
        self._count(refusal.status, now)
        self._phase = DONE
        self._client.refused(refusal)
