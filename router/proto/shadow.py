"""Copies of live requests on their way to a shadow version, and what becomes of both answers.

Owns the rule that a copy can neither slow nor fail the request it was made of: it begins when that one has been sent,
in a later turn of the loop; it waits behind every request, and is dropped rather than waited for; a fault in it ends it
alone. The live answer passes as it came and is kept beside. Answers are compared one pair at a time and in slices with
rests between, so that at most a third of the loop's time goes there. A copy's own life is `copy.py`; what is copied and
counted is `core/shadow.py`, what is equal `core/compare.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final, cast

from router.config import Limits
from router.core.admission import Lane
from router.core.compare import Verdict, compare
from router.core.framing import ResponseHead
from router.core.keys import Caller
from router.core.shadow import ShadowRule
from router.core.table import Fleet
from router.core.target import Target
from router.proto.copy import Copy
from router.proto.exchange import Exchange
from router.proto.request import Request
from router.proto.roles import Client
from router.proto.timers import Timers
from router.proto.upstream import ReplicaConnection
from router.samples import SampleLog

# Longer answers are not compared: decoding this much JSON keeps the loop busy for 3 ms, and cannot be sliced.
ANSWER_BYTES: Final = 1 << 20
# Of what a gateway may hold of bodies, copies and answers take a quarter.
HELD_SHARE: Final = 4
SLICE_S: Final = 0.0005
RESTS: Final = 2


class Shadows:
    """All copies of one process."""

    def __init__(
        self,
        fleet: Fleet,
        timers: Timers,
        limits: Limits,
        samples: SampleLog | None,
        fault: Callable[[Exception, str], None],
    ) -> None:
        self.fleet = fleet
        self.timers = timers
        self.answer_bytes = min(limits.buffer_bytes, ANSWER_BYTES)
        self.being: set[Copy] = set()
        self.held_bytes = 0
        self._held_most = limits.held_bytes // HELD_SHARE
        self._samples = samples
        self.fault = fault
        self._pairs: deque[Copy] = deque()
        self._comparing: asyncio.Task[None] | None = None
        self._worked_s = 0.0  # since the last rest

    def exchange(
        self,
        client: Client,
        fleet: Fleet,
        lane: Lane,
        request: Request,
        request_id: str,
        traceparent: bytes,
        arrived: float,
        caller: Caller | None = None,
        kinds: tuple[Callable[..., Exchange], Callable[..., Exchange]] | None = None,
    ) -> Exchange:
        """The exchange of a request whose body is here and whose version has a shadow: copied, or as any other.

        `kinds`: its classes, for a client that does not speak HTTP/1.1."""
        plain, copied = kinds or (Exchange, CopiedExchange)
        rule = cast(ShadowRule, lane.shadow)
        if not rule.takes(request.method, cast(Target, request.target).path):
            return plain(client, fleet, lane, request, request_id, traceparent, arrived, caller)
        exchange = cast(CopiedExchange, copied(client, fleet, lane, request, request_id, traceparent, arrived, caller))
        exchange.copy = Copy(self, rule, lane.version, request, request_id, traceparent)
        return exchange

    def hold(self, size: int) -> bool:
        """Counts bytes that a copy keeps; False when they would be too many."""
        if self.held_bytes + size > self._held_most:
            return False
        self.held_bytes += size
        return True

    def compare(self, copy: Copy) -> None:
        """Both answers of `copy` are here."""
        self._pairs.append(copy)
        if self._comparing is None:
            self._comparing = asyncio.get_running_loop().create_task(self._compare_all(), name="compare shadows")

    def close(self) -> None:
        """Ends all copies at once: the gateway has no live request any more."""
        for copy in list(self.being):
            copy.end("draining", at_once=True)
        if self._comparing is not None:
            self._comparing.cancel()

    async def _compare_all(self) -> None:
        try:
            while self._pairs:
                copy = self._pairs.popleft()
                try:
                    await self._compare_one(copy)
                except Exception as exc:
                    copy.fault(exc)
        finally:
            self._comparing = None

    async def _compare_one(self, copy: Copy) -> None:
        live, shadow, rule = copy.live.answer(), copy.shadow.answer(), copy.rule
        verdict = await self._in_slices(compare(live, shadow, rule.shadow.tolerance))
        if copy.is_over:
            return
        if verdict.difference and self._samples is not None and rule.may_sample(time.monotonic()):
            await self._samples.write(copy.sample(verdict, live, shadow))
        copy.judge(verdict.result)

    async def _in_slices(self, steps: Generator[None, None, Verdict]) -> Verdict:
        while True:
            began = time.monotonic()
            try:
                next(steps)
            except StopIteration as stop:
                return cast(Verdict, stop.value)
            finally:
                self._worked_s += time.monotonic() - began
            if self._worked_s > SLICE_S:
                rest_s, self._worked_s = self._worked_s * RESTS, 0.0
                await asyncio.sleep(rest_s)


class CopiedExchange(Exchange):
    """A live request that is copied. It differs from others in what it tells its copy, and in nothing else."""

    __slots__ = ("copy",)

    copy: Copy

    def start(self, body: bytes | bytearray, now: float) -> None:
        self.copy.body = body
        super().start(body, now)

    def on_response(self, head: ResponseHead, prefix: bytes, body: bytes, complete: bool, now: float) -> None:
        self._tell(self.copy.live_begins, head, body if complete else b"")
        super().on_response(head, prefix, body, complete, now)

    def on_body(self, data: bytes) -> None:
        super().on_body(data)
        self._tell(self.copy.live_goes_on, data)

    def _send(self, connection: ReplicaConnection, now: float) -> None:
        super()._send(connection, now)
        self._tell(self.copy.dispatch)

    def _finish(self, now: float) -> None:
        self.copy.live.is_whole = True
        super()._finish(now)
        self._tell(self.copy.live_ends)

    def _count(self, status: int, now: float) -> None:
        super()._count(status, now)
        self._tell(self.copy.live_ends)

    def _tell(self, event: Callable[..., None], *arguments: Any) -> None:
        try:
            event(*arguments)
        except Exception as exc:
            self.copy.fault(exc)
