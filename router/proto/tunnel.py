"""A request that asks for a WebSocket: an exchange up to its answer, and a tunnel when that is 101.

Owns what differs from other requests. It takes a connection of its own, which is never used again. The deadline is the
handshake's; the tunnel ends when neither side sends for a while, when either closes, or with the gateway. It holds its
slot and counts as in flight for as long. Bytes go both ways unread, each waiting in its sender's socket while the
other side does not read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from router.core import rewrite, websocket
from router.core.framing import ResponseHead
from router.proto.exchange import CLIENT_LEFT, Exchange
from router.proto.place import ANSWERING, DONE, SENT
from router.proto.upstream import ReplicaConnection

# The status that a tunnel is counted and logged with.
SWITCHED: Final = 101


class Upgrade(Exchange):
    """`accept` is what the replica must answer; `open` makes the client's side a tunnel too."""

    __slots__ = ("_accept", "_idle_timeout_s", "_open")

    may_reuse_connection = False

    def ask(self, accept: bytes, idle_timeout_s: float, open_: Callable[[], None], now: float) -> None:
        """Instead of `start`."""
        self._accept = accept
        self._idle_timeout_s = idle_timeout_s
        self._open = open_
        self.start(b"", now)

    @property
    def is_open(self) -> bool:
        return self._phase == ANSWERING and self.status == SWITCHED

    # called by the client

    def send_body(self, data: bytes) -> None:
        self._saw_traffic()
        super().send_body(data)

    def end_body(self) -> None:
        """The client closed its side: the replica is told, and may still send."""
        if self._connection is not None and self.is_open:
            self._connection.end_writing()

    def cancel(self, status: int = CLIENT_LEFT) -> None:
        if not self.is_open:
            super().cancel(status)
            return
        connection, self._connection = self._connection, None
        self._phase = DONE
        if connection is not None:
            connection.leave()  # a last message, which says why, may be on its way
        self._count(SWITCHED, time.monotonic())
        self._release()

    def expire(self, now: float) -> None:
        if not self.is_open:
            super().expire(now)
            return
        self.cancel()
        self._client.cut(visibly=False)

    # called by the connection

    def on_switched(self, head: ResponseHead, rest: bytes) -> None:
        websocket.check_answer(head, self._accept)
        now = time.monotonic()
        self._lane.saw_answer(self._replica, SWITCHED, now - self._sent_at, now)
        self.status = SWITCHED
        self._lane.stats.answered(SWITCHED, now - self._arrived)
        self._phase = ANSWERING
        self._client.write(rewrite.switched(head, self._request_id, self._lane.version_bytes))
        self._saw_traffic()
        self._open()
        self.on_body(rest)

    def on_body(self, data: bytes) -> None:
        if self.is_open:
            self._saw_traffic()
        super().on_body(data)

    # steps

    def _send(self, connection: ReplicaConnection, now: float) -> None:
        self._phase = SENT
        self._connection = connection
        self._sent_at = now
        suffix = rewrite.upgrade_suffix(self._request_id, self._traceparent)
        # who refused may still have taken it for a tunnel, and would read the next request as its bytes
        connection.dedicate()
        connection.start(self, self._prefix + suffix)
        self._client.set_deadline(self.deadline)

    def _saw_traffic(self) -> None:
        self.deadline = self.queue_deadline = time.monotonic() + self._idle_timeout_s
        self._client.set_deadline(self.deadline)

    def _finish(self, now: float) -> None:
        """Its life says nothing of how long a request takes."""
        if not self.is_open:
            super()._finish(now)
            return
        self._phase = DONE
        self._count(SWITCHED, now)
        self._release()
        self._client.answered(now)

    def _count(self, status: int, now: float) -> None:
        """The handshake was counted at its end; a tunnel's caller is busy for as long as it lives."""
        if self.status != SWITCHED:
            super()._count(status, now)
        elif self.caller is not None:
            self._give_key_back(self.caller, SWITCHED)
