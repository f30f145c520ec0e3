"""One copy of a live request: it waits for a slot that nobody wants, is sent, and its answer kept beside the live one.

Owns the rule that its slot is given back exactly once, and that everything it keeps is counted and let go. It speaks to
the pool and to connections as an exchange does, but has no client, and is sent but once. Who is copied, and what is
done with a pair of answers, is `shadow.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf
from typing import Any, Final, Protocol, cast

from router.core import rewrite
from router.core.balance import Replica
from router.core.compare import FAILED, Answer, Verdict
from router.core.errors import malformed
from router.core.framing import ResponseHead
from router.core.shadow import ShadowRule
from router.core.table import Fleet
from router.proto.request import Request
from router.proto.timers import Alarm, Timers
from router.proto.upstream import ReplicaConnection
from router.samples import Sample

# Tells a model that its answer reaches nobody. A client's own field of this name goes nowhere.
MARK: Final = b"x-modelfleet-shadow: 1\r\n"

# Phases.
_NEW: Final = 0  # its request has not been sent
_WAITING: Final = 1  # for a slot
_CONNECTING: Final = 2
_SENT: Final = 3
_ANSWERED: Final = 4  # the slot is given back; the live answer is missing, or the pair is to be compared
_OVER: Final = 5  # final: counted


class Keeper(Protocol):
    """What the copies of a process share."""

    fleet: Fleet
    timers: Timers
    being: set[Copy]
    answer_bytes: int
    held_bytes: int

    def hold(self, size: int) -> bool:
        """Counts bytes that a copy keeps; False when they would be too many."""

    def compare(self, copy: Copy) -> None:
        """Both answers of `copy` are here."""

    @property
    def fault(self) -> Callable[[Exception, str], None]:
        """Reports an exception of ours in the work on the request with this id."""


class Kept:
    """One answer, as far as it is kept."""

    __slots__ = ("_keeper", "_pieces", "fields", "is_too_large", "is_whole", "size", "status")

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._pieces: list[bytes] = []
        self.status = 0
        self.fields: tuple[bytes, ...] = ()
        self.size = 0
        self.is_whole = False
        self.is_too_large = False

    def begin(self, head: ResponseHead) -> None:
        self.drop()
        self.status = head.status
        self.fields = head.fields
        self.is_too_large = False

    def add(self, data: bytes) -> None:
        if self.is_too_large or not data:
            return
        if self.size + len(data) > self._keeper.answer_bytes or not self._keeper.hold(len(data)):
            self.drop()
            self.is_too_large = True
        else:
            self.size += len(data)
            self._pieces.append(data)

    def drop(self) -> None:
        self._keeper.held_bytes -= self.size
        self._pieces = []
        self.size = 0

    def answer(self) -> Answer:
        return Answer(self.status, self.fields, b"".join(self._pieces))


class Copy:
    """One copy, from the sending of its live request until both answers are compared or it is given up."""

    __slots__ = (
        "_connection", "_has_slot", "_held_bytes", "_is_live_over", "_keeper", "_live_version", "_phase", "_replica",
        "_request", "_request_id", "_sent_at", "_traceparent", "alarm", "alarm_due", "body", "deadline",
        "is_head", "is_sent", "live", "rule", "shadow",
    )  # fmt: skip

    def __init__(
        self,
        keeper: Keeper,
        rule: ShadowRule,
        live_version: str,
        request: Request,
        request_id: str,
        traceparent: bytes,
    ) -> None:
        self._keeper = keeper
        self.rule = rule
        self._live_version = live_version
        self._request = request
        self._request_id = request_id
        self._traceparent = traceparent
        self.body: bytes | bytearray = b""
        self.live = Kept(keeper)
        self.shadow = Kept(keeper)
        self.is_head = request.method == b"HEAD"
        self.is_sent = True  # it is never streamed
        self._phase = _NEW
        self._held_bytes = 0  # of its body
        self._is_live_over = False
        self._replica: Replica = cast(Any, None)
        self._has_slot = False
        self._connection: ReplicaConnection | None = None
        self._sent_at = 0.0
        self.deadline = inf
        self.alarm_due = inf
        self.alarm: Alarm | None = None

    @property
    def is_over(self) -> bool:
        return self._phase == _OVER

    # told by the live request

    def dispatch(self) -> None:
        """The live request was sent: for the first time, or again."""
        if self._phase != _NEW:
            return
        copies, lane = self.rule.copies, self.rule.lane
        reason = copies.refuses(lane, self.rule.shadow.queue_max)
        if not reason and not self._keeper.hold(len(self.body)):
            reason = "memory"
        if reason:
            copies.drop(reason)
            self._phase = _OVER
            return
        self._phase = _WAITING
        self._held_bytes = len(self.body)
        copies.being.add(self)
        self._keeper.being.add(self)
        asyncio.get_running_loop().call_soon(self._begin)

    def live_begins(self, head: ResponseHead, body: bytes) -> None:
        if self._phase != _OVER:
            self.live.begin(head)
            self.live.add(body)

    def live_goes_on(self, body: bytes) -> None:
        if self._phase != _OVER:
            self.live.add(body)

    def live_ends(self) -> None:
        self._is_live_over = True
        self._pair()

    # called by the lane's copies

    def take_slot(self, replica: Replica) -> None:
        self._phase = _CONNECTING
        self._replica = replica
        self._has_slot = True
        try:
            self._set_deadline(time.monotonic() + self.rule.lane.route.request_timeout_ms / 1000)
            connection = replica.pool.take(surely_open=True)
            if connection is None:
                replica.pool.connect(self)
            else:
                self._send(connection)
        except Exception as exc:
            self.fault(exc)

    def end(self, reason: str, *, at_once: bool = False) -> None:
        """`at_once`: its slot does not wait for the replica to let go."""
        if self._phase != _OVER:
            self._leave(at_once=at_once)
            self.rule.copies.drop(reason)
            self._be_over()

    # called by the pool

    def on_connected(self, connection: ReplicaConnection) -> bool:
        if self._phase != _CONNECTING or connection.replica is not self._replica:
            return False
        self._send(connection)
        return True

    def on_connect_failed(self, replica: Replica, reason: str) -> None:  # noqa: ARG002
        if self._phase == _CONNECTING and replica is self._replica:
            self._fail("connect")

    # called by the connection

    def on_interim(self, head: ResponseHead) -> None: ...

    def on_switched(self, head: ResponseHead, rest: bytes) -> None:  # noqa: ARG002
        raise malformed("it switched protocols without being asked to")

    def on_response(self, head: ResponseHead, prefix: bytes, body: bytes, complete: bool, now: float) -> None:  # noqa: ARG002
        self.rule.lane.saw_answer(self._replica, head.status, now - self._sent_at, now)
        self.shadow.begin(head)
        if complete:
            self._connection = None
            self.shadow.add(body)
            self._answered(now)
        else:
            self.on_body(body)

    def on_body(self, data: bytes) -> None:
        self.shadow.add(data)
        if self.shadow.is_too_large and self._connection is not None:
            self._connection.abort()
            self.on_end()

    def on_end(self) -> None:
        self._connection = None
        self._answered(time.monotonic())

    def on_broken(self, reason: str, kind: str) -> None:  # noqa: ARG002
        self._connection = None
        self._fail(kind)

    def on_upload_paused(self, paused: bool) -> None: ...

    # called by timers, and by whoever catches an exception of ours

    def on_deadline(self, now: float) -> None:
        if self._phase == _WAITING:
            self.end("queue_timeout")
        elif self._phase == _CONNECTING:
            self._fail("connect")
        elif self._phase == _SENT:
            self.rule.lane.saw_failure(self._replica, "timeout", now)
            self._leave()
            self.rule.copies.fail("timeout")
            self._be_over()

    def fault(self, exc: Exception) -> None:
        """The copy ends; what it was made of does not notice."""
        self._keeper.fault(exc, self._request_id)
        self.end("fault", at_once=True)

    # its end

    def judge(self, result: str) -> None:
        if self._phase == _OVER:
            return
        if result == FAILED:
            self.rule.copies.fail("5xx")
        else:
            self.rule.copies.count(result)
        self._be_over()

    def sample(self, verdict: Verdict, live: Answer, shadow: Answer) -> Sample:
        lane = self.rule.lane
        return Sample(
            request_id=self._request_id,
            model=lane.model,
            live_version=self._live_version,
            shadow_version=lane.version,
            result=verdict.result,
            difference=verdict.difference,
            method=self._request.method,
            path=self._request.path,
            request=bytes(self.body),
            live_status=live.status,
            live=live.body,
            shadow_status=shadow.status,
            shadow=shadow.body,
        )

    # steps

    def _begin(self) -> None:
        if self._phase != _WAITING:
            return
        try:
            now, lane, copies = time.monotonic(), self.rule.lane, self.rule.copies
            copies.wait(self)
            self._set_deadline(now + lane.route.queue_timeout_ms / 1000)
            copies.serve(lane, now)
        except Exception as exc:
            self.fault(exc)

    def _send(self, connection: ReplicaConnection) -> None:
        self._phase = _SENT
        self._connection = connection
        self._sent_at = now = time.monotonic()
        request, left_ms = self._request, max(1, int((self.deadline - now) * 1000))
        head = request.prefix + MARK, self._request_id.encode(), self._traceparent, left_ms
        connection.start(self, rewrite.request(*head, len(self.body), request.method, self.body))

    def _answered(self, now: float) -> None:
        self.rule.copies.seconds.add(now - self._sent_at)
        self.shadow.is_whole = True
        self._phase = _ANSWERED
        self._set_deadline(inf)
        self._release()
        self._pair()

    def _pair(self) -> None:
        """Goes on when both answers have come to their ends."""
        if self._phase != _ANSWERED or not self._is_live_over:
            return
        if not self.live.is_whole:
            self.judge("unpaired")
        elif self.live.is_too_large or self.shadow.is_too_large:
            self.judge("too_large")
        else:
            self._keeper.compare(self)

    def _fail(self, kind: str) -> None:
        """`kind` is one of `ejection.WEIGHT`."""
        self.rule.lane.saw_failure(self._replica, kind, time.monotonic())
        self._release()
        self.rule.copies.fail(kind)
        self._be_over()

    def _leave(self, *, at_once: bool = False) -> None:
        """Takes the copy out of wherever it is."""
        connection, self._connection = self._connection, None
        self.rule.copies.leave(self)
        if connection is None:
            self._release()
        elif at_once or self.shadow.status:
            connection.abort()
            self._release()
        else:
            connection.abandon(self._release)

    def _release(self) -> None:
        if not self._has_slot:
            return
        self._has_slot = False
        self.rule.lane.release_copy(self._replica, time.monotonic())
        if self._replica.retired:
            self._keeper.fleet.settle(self._replica)

    def _be_over(self) -> None:
        self._phase = _OVER
        self._keeper.timers.forget(self)
        self.rule.copies.being.discard(self)
        self._keeper.being.discard(self)
        self._keeper.held_bytes -= self._held_bytes
        self.live.drop()
        self.shadow.drop()

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        if deadline < self.alarm_due:
            self._keeper.timers.watch(self)
