"""Connections to one replica: kept while they are idle, made when they are missing.

A request takes an idle connection at once, the one used last, or waits for a new one. There are never more busy
connections than the lane allows requests, so the pool itself has no limit and no queue.
"""

from __future__ import annotations

import asyncio
import time
from math import inf
from typing import Final, Protocol

from router.config import Limits
from router.core.balance import Replica
from router.proto.timers import Timers
from router.proto.upstream import ReplicaConnection

# Below the 5 s after which uvicorn closes an idle connection: who closes first never meets a request on its way.
IDLE_S: Final = 4.0
# A replica answers within this time that it is alive, however busy: its event loop is not where it predicts.
ALIVE_S: Final = 1.0
_ALIVE: Final = b"GET /v2/health/live HTTP/1.1\r\nhost: modelfleet\r\nconnection: close\r\n\r\n"


class Connecting(Protocol):
    """Whoever waits for a connection; it may have lost interest meanwhile."""

    def on_connected(self, connection: ReplicaConnection) -> bool:
        """Takes the connection. False: not wanted any more, it goes to the pool."""

    def on_connect_failed(self, replica: Replica, reason: str) -> None: ...

    def fault(self, exc: Exception) -> None:
        """An exception of ours while one of these was called."""


class Doubting(Protocol):
    """A request that its replica has not answered for long."""

    def on_silent(self, replica: Replica) -> None:
        """The replica did not answer the question whether it is alive either."""

    def fault(self, exc: Exception) -> None:
        """An exception of ours while that was called."""


class Pool:
    """The connections to `replica`."""

    __slots__ = ("_connecting", "_doubting", "_is_open", "_limits", "_timers", "idle", "replica")

    def __init__(self, replica: Replica, limits: Limits, timers: Timers) -> None:
        self.replica = replica
        self.idle: list[ReplicaConnection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._doubting: set[Doubting] = set()  # who wait for the answer to one question
        self._limits = limits
        self._timers = timers
        self._is_open = True

    def take(self, *, surely_open: bool) -> ReplicaConnection | None:
        """An idle connection, or None. `surely_open`: the kernel is asked too, for a request that is sent but once: the
        replica may have closed a connection a moment ago, and the loop has not said so yet."""
        while self.idle:
            connection = self.idle.pop()
            if connection.is_closing:
                continue
            if surely_open and connection.has_news():
                connection.close()
                continue
            connection.deadline = inf
            return connection
        return None

    def give(self, connection: ReplicaConnection, now: float) -> None:
        """Keeps a connection whose last answer was complete. A replica that left the table gets none back."""
        if not self._is_open or self.replica.retired:
            connection.close()
            return
        self.idle.append(connection)
        connection.deadline = now + IDLE_S
        if connection.deadline < connection.alarm_due:
            self._timers.watch(connection)

    def lose(self, connection: ReplicaConnection) -> None:
        """A connection closed; it may have been idle."""
        if connection in self.idle:
            self.idle.remove(connection)

    def connect(self, waiting: Connecting) -> None:
        name = f"connect {self.replica.id}"
        task = asyncio.get_running_loop().create_task(self._connect(waiting), name=name)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def question(self, doubting: Doubting) -> None:
        """Asks the replica whether it is alive; `doubting` is told if it is not. One question is asked at a time.

        A stopped or hung process keeps its connections, and the kernel goes on taking requests for it: only a question
        that every model server answers whatever its model does (docs/CONTRACTS.md) tells it from a long prediction.
        """
        self._doubting.add(doubting)
        if len(self._doubting) == 1:
            task = asyncio.get_running_loop().create_task(self._ask(), name=f"ask {self.replica.id}")
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def close(self) -> None:
        """Closes what is idle; connections in use close when their request ends."""
        self._is_open = False
        for connection in self.idle.copy():
            connection.close()
        self.idle.clear()

    async def _connect(self, waiting: Connecting) -> None:
        replica = self.replica
        try:
            connection = await self._open()
        except TimeoutError:
            reason = f"no connection within {self._limits.upstream_connect_timeout_s:g} s"
        except OSError as exc:
            reason = f"no connection: {(exc.strerror or str(exc)).lower()}"
        else:
            self._hand_over(connection, waiting)
            return
        try:
            waiting.on_connect_failed(replica, reason)
        except Exception as exc:
            waiting.fault(exc)

    async def _ask(self) -> None:
        is_alive = await _answers(self.replica)
        doubting, self._doubting = self._doubting, set()
        for each in () if is_alive else doubting:
            try:
                each.on_silent(self.replica)
            except Exception as exc:
                each.fault(exc)

    async def _open(self) -> ReplicaConnection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._limits.upstream_connect_timeout_s):
            _, connection = await loop.create_connection(
                lambda: ReplicaConnection(self, self._timers), self.replica.host, self.replica.port
            )
        return connection

    def _hand_over(self, connection: ReplicaConnection, waiting: Connecting) -> None:
        try:
            if not waiting.on_connected(connection):
                self.give(connection, time.monotonic())
        except Exception as exc:
            connection.abort()
            waiting.fault(exc)


async def _answers(replica: Replica) -> bool:
    """Whether it answers anything at all to the question whether it is alive."""
    try:
        async with asyncio.timeout(ALIVE_S):
            reader, writer = await asyncio.open_connection(replica.host, replica.port)
            try:
                writer.write(_ALIVE)
                return bool(await reader.read(1))
            finally:
                writer.close()
    except (TimeoutError, OSError):
        return False
