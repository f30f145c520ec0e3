"""One request that is predicted without a task of its own, from its arrival to its reply.

It is what the runner tells the answer to, in place of a future, and what the connection gives up when its client
leaves. It ends exactly once: answered, failed, or abandoned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from worker_image.server.codecs.call import Reply
from worker_image.server.errors import RequestError, unanswerable
from worker_image.server.metrics import Metrics
from worker_image.server.tensors import Tensors

if TYPE_CHECKING:
    from worker_image.server.batching.queue import Waiting

# In metrics only: nobody is there to read it.
CLIENT_LEFT = 499


class Prediction:
    """`answer` gets the reply, `refuse` makes one of an error."""

    __slots__ = ("_answer", "_encode", "_is_over", "_metrics", "_refuse", "_started", "task", "waiting")

    def __init__(
        self, metrics: Metrics, answer: Callable[[Reply], None], refuse: Callable[[RequestError], Reply]
    ) -> None:
        self._metrics = metrics
        self._answer = answer
        self._refuse = refuse
        self._encode: Callable[[Tensors], Reply] | None = None
        self._is_over = False
        self._started = time.perf_counter()
        self.waiting: Waiting[Any] | None = None
        self.task: asyncio.Task[None] | None = None
        metrics.in_flight += 1

    def encode_with(self, encode: Callable[[Tensors], Reply]) -> None:
        self._encode = encode

    def done(self) -> bool:
        return self._is_over

    def set_result(self, answer: Tensors) -> None:
        assert self._encode is not None
        try:
            reply = self._encode(answer)
        except Exception as exc:
            self.set_exception(exc)
        else:
            self._end(reply)

    def set_exception(self, exc: Exception) -> None:
        self._end(self._refuse(unanswerable(exc)))

    def abandon(self) -> None:
        """Nobody is there any more: what the model has not begun, it will not."""
        if self._is_over:
            return
        if self.waiting is not None:
            self.waiting.abandoned = True
        if self.task is not None:
            self.task.cancel()
        self._close(CLIENT_LEFT)

    def _end(self, reply: Reply) -> None:
        if self._is_over:
            return
        # Closed before it is sent: what is sent last may be what the client waits for before it asks for metrics.
        self._close(reply.status)
        self._answer(reply)

    def _close(self, status: int) -> None:
        self._is_over = True
        self._metrics.in_flight -= 1
        self._metrics.observe_response(status, time.perf_counter() - self._started)
