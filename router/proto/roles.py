"""What the two sides of an exchange ask of each other: interfaces, so that neither side imports the other.

`downstream.py` is a `Client`, and `upstream.py` works for an `Answered`: between them stands `exchange.py`.

An exception inside a callback is a fault of ours. It must not reach the event loop, which would close the connection it
happened on and leave the request at its other end without an answer, or another request that the call was made for.
Whoever calls for an event catches it and gives it to `fault` of the request it worked on.
"""

from __future__ import annotations

from typing import Protocol

from router.core.errors import Refusal
from router.core.framing import ResponseHead
from router.proto.flow import Flow


class Connection(Protocol):
    """A client's connection, as the gateway counts and ends it."""

    def drain(self) -> None:
        """To be closed: now when it is idle, else after its answer."""

    def abort(self) -> None: ...


class Client(Protocol):
    """The downstream side, as an exchange sees it."""

    minor: int  # of its HTTP version

    def write(self, data: bytes) -> None: ...

    def connection_line(self) -> bytes:
        """The `connection` line of an answer that begins now, "" when there is nothing to say."""

    def close_after_answer(self) -> None: ...

    def set_deadline(self, deadline: float) -> None: ...

    def pause_body(self, paused: bool) -> None: ...

    def answered(self, now: float) -> None:
        """The answer is complete."""

    def refused(self, refusal: Refusal) -> None:
        """There is no answer but this one."""

    def cut(self, visibly: bool) -> None:
        """The answer broke off. `visibly`: only a reset can tell the client so."""

    def fault(self, exc: Exception, exchange: Ending) -> None:
        """An exception of ours in this exchange: it ends with 500, or cut off when its answer had begun."""


class Ending(Protocol):
    """An exchange that a fault ends."""

    def give_up(self) -> bool:
        """Leaves queue, replica and slot, whatever the fault left behind. True: an answer had begun."""


class Answered(Protocol):
    """The request a connection works for."""

    is_head: bool
    is_sent: bool  # all of the request, its body included, was written

    def on_interim(self, head: ResponseHead) -> None: ...

    def on_switched(self, head: ResponseHead, rest: bytes) -> None:
        """101: from now on the connection carries another protocol, `rest` first. Raises `ProtocolError`."""

    def on_response(self, head: ResponseHead, prefix: bytes, body: bytes, complete: bool, now: float) -> None:
        """The answer's head and what came of its body. When it is `complete` the connection is in the pool again."""

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_broken(self, reason: str, kind: str) -> None:
        """No complete answer will come. `kind` is `reset` or `invalid`."""

    def on_upload_paused(self, paused: bool) -> None: ...

    def fault(self, exc: Exception) -> None:
        """An exception of ours while one of these was called."""


class Sender(Protocol):
    """The client's connection, as a body on its way in sees it."""

    flow: Flow

    def set_deadline(self, deadline: float) -> None: ...

    def hold(self, size: int) -> bool:
        """Counts the bytes of its request that are kept in memory, now `size` in all. False: they are too many."""

    def body_held(self, body: bytes, rest: bytes) -> None:
        """All of the body is here. `rest` came behind it."""

    def body_streams(self, length: int) -> Streamed | None:
        """The body is too long to hold: its request goes on its way. None when it was refused."""

    def body_streamed(self, rest: bytes) -> None:
        """The last piece of a streamed body was passed on. `rest` came behind it."""

    def body_failed(self, refusal: Refusal) -> None:
        """The body will never be whole."""


class Streamed(Protocol):
    """The exchange of a streamed body."""

    @property
    def next_deadline(self) -> float: ...

    @property
    def backlog_bytes(self) -> int:
        """How much of the body waits for a connection."""

    def send_body(self, data: bytes) -> None: ...

    def end_body(self) -> None: ...
