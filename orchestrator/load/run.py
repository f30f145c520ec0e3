"""One run of the load generator: sends requests when they are due, and tallies what comes back.

*Open loop*: requests leave at their own moments, whether or not earlier ones were answered, and a latency counts from
the moment its request was due; so a stall is paid by every request that falls into it (no coordinated omission).
*Closed loop*: so many requests are under way at any time, the next leaves when one is answered. What is counted is
`tally.py`'s, what is written `http.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from orchestrator.load.http import Connection
from orchestrator.load.pacing import Alarm
from orchestrator.load.tally import Tally

# A generator that is behind sends so many at once before it looks at answers again.
_AT_ONCE = 32
_SWEEP_S = 0.02
_WATCH_S = 0.25
# In a closed loop a refused connection is tried again after a pause, or the generator would do nothing else.
_RECONNECT_S = 0.05
_MOST_CONNECTING = 128
# An answer that says that the request itself is wrong: all others would be answered so too.
_NOT_THE_REQUESTS_FAULT = (408, 429, 499)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go, and the bytes of one. `timeout_s` counts from when a request was due."""

    host: str
    port: int
    request: bytes
    tls: ssl.SSLContext | None = None
    timeout_s: float = 30.0
    connections: int = 1000


@dataclass(frozen=True, slots=True)
class Refused:
    """The very first answer, which says that no request of this kind can be answered."""

    status: int
    body: bytes


class Run:
    """One run; begin it once, within an event loop. `refused` and `was_interrupted` say how it ended early."""

    def __init__(self, target: Target, slo_s: float | None = None, watch: Callable[[Run], None] | None = None) -> None:
        self._target = target
        self._timeout_ns = int(target.timeout_s * 1e9)
        self._watch = watch
        self._idle: list[Connection] = []
        self._waiting: deque[int] = deque()
        # In the order of their sending, which is that of their deadlines.
        self._under_way: dict[Connection, None] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._open = 0
        self._arrivals: Iterator[float] = iter(())
        self._next_ns: int | None = None
        # Set in a closed loop: until then an answer is followed by a request.
        self._closed_until_ns: int | None = None
        self._all_sent = False
        self._done = asyncio.Event()
        self.slo_ns = None if slo_s is None else int(slo_s * 1e9)
        self.tally = Tally(time.monotonic_ns(), self.slo_ns)
        self.refused: Refused | None = None
        self.was_interrupted = False
        self.most_connections = 0
        self.is_out_of_connections = False

    @property
    def in_flight(self) -> int:
        return len(self._under_way) + len(self._waiting)

    async def open_loop(self, arrivals: Iterable[float], duration_s: float = 0.0) -> Tally:
        """`arrivals` are seconds from now, ascending. `duration_s`: the least that the tally spans, for its rate;
        nothing waits for it. Raises `OSError` when nobody listens there at all."""
        await self._connect_first()
        self._arrivals = iter(arrivals)
        self._alarm = Alarm(self._leave)
        try:
            self._begin()
            self._next_ns = self._draw()
            self._leave()
            await self._ended()
        finally:
            self._alarm.close()
        if not self.was_interrupted:
            self.tally.ended_ns = max(self.tally.ended_ns, self.tally.began_ns + int(duration_s * 1e9))
        return self.tally

    async def closed_loop(self, concurrency: int, duration_s: float) -> Tally:
        """Keeps `concurrency` requests under way. Raises `OSError` when nobody listens there at all."""
        await self._connect_first()
        now = self._begin()
        self._closed_until_ns = now + int(duration_s * 1e9)
        for _ in range(concurrency):
            self._send(now, now)
        await self._ended()
        return self.tally

    def interrupt(self) -> None:
        """Ends it now; what is under way stays unfinished."""
        self.was_interrupted = True
        self.tally.ended_ns = time.monotonic_ns()
        self._all_sent = True
        self._done.set()

    # -- the run's frame ------------------------------------------------------------------------------------------

    async def _connect_first(self) -> None:
        """So that an address at which nobody listens is one error, not one for each request."""
        async with asyncio.timeout(self._target.timeout_s):
            await self._connect()

    def _begin(self) -> int:
        now = time.monotonic_ns()
        self.tally = Tally(now, self.slo_ns)
        return now

    async def _ended(self) -> None:
        loop = asyncio.get_running_loop()
        watching = asyncio.create_task(self._keep_watch(), name="watch") if self._watch else None
        was_enabled = gc.isenabled()
        gc.disable()  # nothing here makes cycles by the request, and a collection is a pause of milliseconds
        self._sweep(loop)
        try:
            await self._done.wait()
        finally:
            self._sweeper.cancel()
            if was_enabled:
                gc.enable()
            if watching:
                watching.cancel()
            await self._close()

    async def _close(self) -> None:
        self._all_sent = True
        for connection in [*self._idle, *self._under_way]:
            connection.abort()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    async def _keep_watch(self) -> None:
        while self._watch:
            await asyncio.sleep(_WATCH_S)
            self._watch(self)

    def _end_if_done(self) -> None:
        if self._all_sent and not self._under_way and not self._waiting:
            self._done.set()

    # -- sending --------------------------------------------------------------------------------------------------

    def _draw(self) -> int | None:
        at = next(self._arrivals, None)
        return None if at is None else self.tally.began_ns + int(at * 1e9)

    def _leave(self) -> None:
        """Sends all that is due, and sets the alarm for the next."""
        now = time.monotonic_ns()
        for _ in range(_AT_ONCE):
            due = self._next_ns
            if self._all_sent or due is None:
                self._all_sent = True
                self._end_if_done()
                return
            if due > now:
                self._alarm.set(due)
                return
            self._send(due, now)
            self._next_ns = self._draw()
        asyncio.get_running_loop().call_soon(self._leave)

    def _send(self, due: int, now: int) -> None:
        self.tally.note_sent(due, now)
        if self._idle:
            self._ask(self._idle.pop(), due)
        else:
            self._waiting.append(due)
            self._open_more()

    def _ask(self, connection: Connection, due: int) -> None:
        self._under_way[connection] = None
        connection.ask(due)

    def _follow(self) -> None:
        """In a closed loop: the request after one that ended."""
        if self._closed_until_ns is None or self._all_sent:
            return
        now = time.monotonic_ns()
        if now < self._closed_until_ns:
            self._send(now, now)
        else:
            self._all_sent = True

    def _open_more(self) -> None:
        if self._waiting and self._open >= self._target.connections:
            self.is_out_of_connections = True
        room = min(self._target.connections - self._open, _MOST_CONNECTING) - len(self._connecting)
        for _ in range(min(room, len(self._waiting) - len(self._connecting))):
            task = asyncio.create_task(self._open_one(), name="connect")
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        target = self._target
        await asyncio.get_running_loop().create_connection(
            lambda: Connection(self, target.request), target.host, target.port, ssl=target.tls
        )

    async def _open_one(self) -> None:
        try:
            await self._connect()
        except ConnectionRefusedError:
            self._fail_oldest("connection refused")
        except OSError as exc:
            self._fail_oldest(f"no connection: {exc.strerror or type(exc).__name__}")

    def _fail_oldest(self, kind: str) -> None:
        if not self._waiting:
            return
        self.tally.note_failure(self._waiting.popleft(), time.monotonic_ns(), kind)
        if self._closed_until_ns is not None:
            asyncio.get_running_loop().call_later(_RECONNECT_S, self._follow_or_end)
        self._end_if_done()

    def _follow_or_end(self) -> None:
        self._follow()
        self._end_if_done()

    # -- what connections tell ------------------------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        self._open += 1
        self.most_connections = max(self.most_connections, self._open)
        self._reuse(connection)

    def answered(self, connection: Connection, status: int, body: bytes) -> None:
        due = self._taken_from(connection)
        if not self.tally.answered and not self.tally.errors and _is_refusal(status):
            self.refused = Refused(status, body)
            self._done.set()
        self.tally.note_answer(due, time.monotonic_ns(), status, body)
        if connection.is_open:
            self._reuse(connection)
        else:
            self._open -= 1
            self._open_more()
        self._follow_or_end()

    def lost(self, connection: Connection, reason: str) -> None:
        self._open -= 1
        if connection.due_ns is None:
            with contextlib.suppress(ValueError):
                self._idle.remove(connection)
            return
        self.tally.note_failure(self._taken_from(connection), time.monotonic_ns(), reason)
        self._open_more()
        self._follow_or_end()

    def _taken_from(self, connection: Connection) -> int:
        due = connection.due_ns
        assert due is not None
        connection.due_ns = None
        del self._under_way[connection]
        return due

    def _reuse(self, connection: Connection) -> None:
        if self._waiting:
            self._ask(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)

    # -- deadlines ------------------------------------------------------------------------------------------------

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Gives up on requests whose time is over."""
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep, loop)
        latest = time.monotonic_ns() - self._timeout_ns
        over = []
        for connection in self._under_way:
            if connection.due_ns is None or connection.due_ns > latest:
                break
            over.append(connection)
        for connection in over:
            self.tally.note_failure(self._taken_from(connection), time.monotonic_ns(), "timeout")
            connection.abort()
            self._open -= 1
            self._follow()
        while self._waiting and self._waiting[0] <= latest:
            self.tally.note_failure(self._waiting.popleft(), time.monotonic_ns(), "timeout without a connection")
            self._follow()
        self._open_more()
        if self._closed_until_ns is not None and time.monotonic_ns() >= self._closed_until_ns:
            self._all_sent = True
        self._end_if_done()


def _is_refusal(status: int) -> bool:
    return 400 <= status < 500 and status not in _NOT_THE_REQUESTS_FAULT
