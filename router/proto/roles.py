"""What the two sides of an exchange ask of each other: interfaces, so that neither side imports the other.

`downstream.py` is a `Client`, and `upstream.py` works for an `Answered`: between them stands `exchange.py`.
"""

from __future__ import annotations

from typing import Protocol

from router.core.errors import Refusal
from router.core.framing import ResponseHead


class Client(Protocol):
    """The downstream side, as an exchange sees it."""

    minor: int  # of its HTTP version

    def write(self, data: bytes) -> None: ...

    def connection_line(self) -> bytes:
        """The `connection` line of an answer that begins now, "" when there is nothing to say."""

    def close_after_answer(self) -> None: ...

    def set_deadline(self, deadline: float) -> None: ...

    def pause_body(self, paused: bool) -> None: ...

    def answered(self) -> None:
        """The answer is complete."""

    def refused(self, refusal: Refusal) -> None:
        """There is no answer but this one."""

    def cut(self, visibly: bool) -> None:
        """The answer broke off. `visibly`: only a reset can tell the client so."""


class Answered(Protocol):
    """The request a connection works for."""

    is_head: bool
    is_sent: bool  # all of the request, its body included, was written

    def on_interim(self, head: ResponseHead) -> None: ...

    def on_response(self, head: ResponseHead, prefix: bytes, body: bytes, complete: bool) -> None:
        """The answer's head and what came of its body. When it is `complete` the connection is in the pool again."""

    def on_body(self, data: bytes) -> None: ...

    def on_end(self) -> None: ...

    def on_broken(self, reason: str, kind: str) -> None:
        """No complete answer will come. `kind` is `reset` or `invalid`."""

    def on_upload_paused(self, paused: bool) -> None: ...
