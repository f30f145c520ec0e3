"""A request's body that did not come with its head: held until it is whole, or streamed when it is too long to hold.

Owns the time that a body may take and the back-pressure on whoever sends it. One object for each such request. What is
decoded and measured is `intake.py`; it knows nothing of where the request goes.
"""

from __future__ import annotations

import time

from router.config import Limits
from router.core import errors
from router.core.errors import ProtocolError
from router.proto.intake import Intake
from router.proto.roles import Sender, Streamed


class Upload:
    """`length` -1: a chunked body. `held_until`: a body that is held must be whole by then."""

    __slots__ = ("_exchange", "_held_until", "_intake", "_limits", "_sender")

    def __init__(self, sender: Sender, length: int, limits: Limits, held_until: float) -> None:
        self._sender = sender
        self._limits = limits
        self._held_until = held_until
        self._intake = Intake(length, limits)
        self._exchange: Streamed | None = None  # once it streams

    @property
    def is_long(self) -> bool:
        """It is too long to be held, as far as is known now."""
        return self._intake.is_too_long_to_hold

    def begin(self, data: bytes) -> None:
        """`data` came with the head."""
        if self.is_long:
            self._exchange = self._sender.body_streams(self._intake.length)
            if self._exchange is None:
                return
        if data:
            self.feed(data)
        else:
            self.wait()

    def feed(self, data: bytes) -> None:
        intake = self._intake
        try:
            piece = intake.feed(data)
        except ProtocolError as error:
            self._sender.body_failed(error.refusal)
            return
        if self._exchange is not None:
            self._pass(self._exchange, piece)
            return
        intake.hold(piece)
        if not self._sender.hold(intake.size):
            self._sender.body_failed(errors.memory_taken(self._limits.held_bytes))
        elif intake.is_whole:
            self._sender.body_held(intake.take(), intake.rest)
        elif intake.is_too_long_to_hold:
            self._exchange = self._sender.body_streams(intake.length)
            if self._exchange is not None:
                self._pass(self._exchange, intake.take())
        else:
            self.wait()

    def wait(self) -> None:
        """The next piece must come soon, unless it is us who do not read; all of it within the request's time."""
        exchange = self._exchange
        deadline = exchange.next_deadline if exchange is not None else self._held_until
        if self._sender.flow.is_reading:
            deadline = min(deadline, time.monotonic() + self._limits.body_timeout_s)
        self._sender.set_deadline(deadline)

    def expire(self, now: float) -> None:
        """The deadline of `wait` passed, and it was not the exchange's own."""
        if self._exchange is None and now >= self._held_until:
            self._sender.body_failed(errors.body_deadline())
        else:
            self._sender.body_failed(errors.body_timeout(self._limits.body_timeout_s))

    def _pass(self, exchange: Streamed, piece: bytes) -> None:
        exchange.send_body(piece)
        if self._intake.is_whole:
            self._sender.body_streamed(self._intake.rest)
            return
        backlog_bytes = exchange.backlog_bytes
        if not self._sender.hold(backlog_bytes) or backlog_bytes > self._limits.buffer_bytes:
            self._sender.flow.pause_reading()
        self.wait()
