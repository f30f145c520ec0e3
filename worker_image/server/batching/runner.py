"""Between the event loop and the model's thread: requests in, batches to the thread, answers back to their callers.

While the thread is busy, requests gather in the queue; when it is free, all that gathered and fit go at once.
Everything but the computing runs on the event loop, so no lock is needed. The model computes in its thread, where it
cannot block the loop, but for batches that `placement.py` knows to be cheap; it never runs twice at a time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from worker_image.server.batching.execute import Part, Predict, execute
from worker_image.server.batching.placement import Placement
from worker_image.server.batching.queue import BatchQueue, Waiting
from worker_image.server.errors import RequestError
from worker_image.server.tensors import Tensors, rows_of

# While each turn of the event loop still brings requests, a batch waits for the next turn, at most this many: 11,400
# instead of 9,900 predictions/s with 16 connections (iris, one core). A turn that brings none costs microseconds, and
# no timer is involved.
MOST_TURNS = 4


class Computed(NamedTuple):
    """What became of a batch, request by request, and what it cost: wall-clock and the thread's own CPU time."""

    answers: list[Tensors | Exception]
    seconds: float
    cpu_s: float


class ModelThread:
    """The one thread that loads and calls the model, for frameworks that bind a model to its thread.

    It is a daemon: a model that hangs must not keep the process from ending.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inbox: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Runs `work` in the thread and then `done` with its result on the loop. `work` must not raise."""
        self._inbox.put((work, done))

    def stop(self, timeout_s: float) -> bool:
        """Whether the thread ended; False when the model still computes."""
        self._inbox.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._inbox.get()) is not None:
            work, done = job
            result = work()
            if self._loop.is_closed():
                return
            self._loop.call_soon_threadsafe(done, result)


class Request:
    """A request's tensors, and the future that its caller waits on."""

    __slots__ = ("future", "part")

    def __init__(self, part: Part, future: asyncio.Future[Tensors]) -> None:
        self.part = part
        self.future = future


class Runner:
    """Owns the queue of one model. `observe(rows, seconds)` is told of every batch."""

    def __init__(
        self,
        thread: ModelThread,
        predict: Predict,
        batches: BatchQueue[Request],
        *,
        can_batch: bool,
        is_steady: bool,
        observe: Callable[[int, float], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = thread
        self._predict = predict
        self._queue = batches
        self._can_batch = can_batch
        self._observe = observe
        self._placement = Placement(is_steady=is_steady)
        self._busy = False
        self._soon = False
        self._seen = 0
        self._turns = 0
        self._timer: asyncio.TimerHandle | None = None

    async def predict(self, inputs: Tensors, outputs: tuple[str, ...], time_left_s: float | None) -> Tensors:
        """The model's answer to `inputs`. Raises what the model raised, or `DEADLINE` when its time ran out in the
        queue.
        """
        now = self._loop.time()
        deadline = None if time_left_s is None else now + time_left_s
        rows = rows_of(inputs)
        request = Request(Part(inputs, outputs, rows), self._loop.create_future())
        waiting = Waiting(request, self._key(inputs, outputs, rows), rows or 1, now, deadline)
        self._queue.push(waiting)
        self._dispatch_soon()
        try:
            return await request.future
        finally:
            waiting.abandoned = True

    def _key(self, inputs: Tensors, outputs: tuple[str, ...], rows: int | None) -> Any:
        if rows is None or not self._can_batch:
            return None
        if len(inputs) == 1:
            name, tensor = next(iter(inputs.items()))
            return name, tensor.dtype, tensor.shape[1:], outputs
        return outputs, tuple(sorted((name, tensor.dtype.str, tensor.shape[1:]) for name, tensor in inputs.items()))

    def _dispatch_soon(self) -> None:
        """Not at once: requests that have arrived but were not read yet join the batch."""
        if self._busy or self._soon:
            return
        self._soon = True
        self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        if self._is_growing():
            self._loop.call_soon(self._dispatch)
            return
        self._soon = False
        self._seen = self._turns = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy:
            return
        taken = self._queue.take(self._loop.time())
        for waiting in taken.expired:
            _fail(waiting.payload.future, RequestError("DEADLINE", _EXPIRED))
        if taken.batch:
            self._busy = True
            self._send([waiting.payload for waiting in taken.batch], sum(waiting.rows for waiting in taken.batch))
        elif taken.wait_s is not None:
            self._timer = self._loop.call_later(taken.wait_s, self._dispatch)

    def _is_growing(self) -> bool:
        waiting = len(self._queue)
        if waiting <= self._seen or self._turns >= MOST_TURNS:
            return False
        self._seen, self._turns = waiting, self._turns + 1
        return True

    def _send(self, batch: list[Request], rows: int) -> None:
        parts = [request.part for request in batch]

        def work() -> Computed:
            return self._compute(parts)

        def done(computed: Computed) -> None:
            self._finish(batch, rows, computed)

        if self._placement.is_inline(rows):
            done(work())
        else:
            self._thread.call(work, done)

    def _compute(self, parts: list[Part]) -> Computed:
        started, cpu_started = time.perf_counter(), time.thread_time()
        answers = execute(parts, self._predict, self._can_batch)
        return Computed(answers, time.perf_counter() - started, time.thread_time() - cpu_started)

    def _finish(self, batch: list[Request], rows: int, computed: Computed) -> None:
        self._busy = False
        self._observe(rows, computed.seconds)
        self._placement.observe(rows, computed.cpu_s)
        # The next batch leaves before the answers of this one are encoded, so that the model does not wait for JSON.
        if len(self._queue):
            self._dispatch_soon()
        for request, answer in zip(batch, computed.answers, strict=True):
            if isinstance(answer, Exception):
                _fail(request.future, answer)
            elif not request.future.done():
                request.future.set_result(answer)


_EXPIRED = (
    "deadline: it passed while the request waited for the model; the time is what x-request-timeout-ms left; "
    "allow more time or add replicas"
)


def _fail(future: asyncio.Future[Tensors], exc: Exception) -> None:
    if not future.done():
        future.set_exception(exc)
