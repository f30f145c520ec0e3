"""Between the event loop and the model's threads: requests in, batches to the threads, answers back to their callers.

While every instance is busy, requests gather in the queue; when one is free, all that gathered and fit go at once.
Everything but the computing runs on the event loop, so no lock is needed. An instance computes in its thread, where it
cannot block the loop, but for batches that `placement.py` knows to be cheap; it never runs twice at a time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from worker_image.server import log, trace
from worker_image.server.batching.execute import Part, Predict, PredictMany, execute
from worker_image.server.batching.placement import Placement
from worker_image.server.batching.queue import BatchQueue, Waiting
from worker_image.server.batching.sizing import Sizing
from worker_image.server.batching.thread import ModelThread
from worker_image.server.errors import RequestError
from worker_image.server.tensors import Tensors, parameters_key, rows_of
from worker_image.server.trace import Trace

# While each turn of the event loop still brings requests, a batch waits for the next turn, at most this many: 11,400
# instead of 9,900 predictions/s with 16 connections (iris, one core). A turn that brings none costs microseconds, and
# no timer is involved.
MOST_TURNS = 4
# Parts of a request larger than a batch that are under way at one time, for each instance: one computes while the next
# waits, and between them others have their turn.
PARTS_AHEAD = 2
# Of what nobody asked for.
NO_FIELDS: Mapping[bytes, bytes] = MappingProxyType({})


Answer = TypeVar("Answer")


class Instance(NamedTuple):
    """One copy of the model: it is called in `thread` only. `explain` and `predict_many` if it has them."""

    thread: ModelThread
    predict: Predict
    explain: Predict | None = None
    predict_many: PredictMany | None = None


class Rules(NamedTuple):
    """What a model's requests may ask for. `max_request_rows` None: any number of rows. `model` is for the errors.
    `joins_rows` False: requests are batched side by side, whatever their shapes, and none is split.
    """

    model: str
    can_batch: bool
    is_steady: bool
    max_request_rows: int | None = None
    joins_rows: bool = True


class Computed(NamedTuple):
    """What became of a batch, request by request, and what it cost: wall-clock and the thread's own CPU time.

    `began`: by `time.perf_counter`."""

    answers: list[Tensors | Exception]
    seconds: float
    cpu_s: float
    began: float


class Told(Protocol):
    """Who waits for an answer: a future, or whatever else is told once how it ended."""

    def done(self) -> bool: ...
    def set_result(self, answer: Tensors, /) -> None: ...
    def set_exception(self, exc: Exception, /) -> None: ...


class Request:
    """A request's tensors, and who waits for the answer. `fields` are its header's, for the log; `trace` if it has one
    that is kept."""

    __slots__ = ("fields", "part", "told", "trace")

    def __init__(self, part: Part, told: Told, fields: Mapping[bytes, bytes]) -> None:
        self.part = part
        self.told = told
        self.fields = fields
        self.trace: Trace | None = None


class Running:
    """A batch that is being computed, and when its latest call of the model began: one that fails is called again in
    halves, and each call has its own time.
    """

    __slots__ = ("batch", "called")

    def __init__(self, batch: list[Request], called: float) -> None:
        self.batch = batch
        self.called = called

    def timed(self, call: Callable[..., Answer]) -> Callable[..., Answer]:
        def timed(*arguments: Any) -> Answer:
            self.called = time.monotonic()
            return call(*arguments)

        return timed


class Runner:
    """Owns the queue of one model. `observe(rows, seconds)` is told of every batch."""

    def __init__(
        self,
        instances: Sequence[Instance],
        rules: Rules,
        sizing: Sizing,
        max_delay_s: float,
        observe: Callable[[int, float], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._instances = instances
        self._idle = list(instances)
        self._running: dict[ModelThread, Running] = {}
        self._rules = rules
        self.can_batch = rules.can_batch
        self._sizing = sizing
        self._queue = BatchQueue[Request](sizing, max_delay_s)
        self._observe = observe
        # With several instances a batch on the event loop would keep the others waiting for work.
        self._placement = Placement(is_steady=rules.is_steady and len(instances) == 1)
        self._soon = False
        self._seen = 0
        self._turns = 0
        # A caller that was alone the last time has nobody to wait for: a turn is a tenth of a cheap prediction.
        self._is_alone = True
        self._timer: asyncio.TimerHandle | None = None

    def submit(
        self, part: Part, time_left_s: float | None, told: Told, fields: Mapping[bytes, bytes] = NO_FIELDS
    ) -> Waiting[Request] | None:
        """Tells `told` the model's answer, what the model raised, or `DEADLINE` when the time ran out in the queue.

        None: the request is larger than a batch, ask with `predict`. Raises `TOO_LARGE`.
        """
        rows = part.rows
        if rows is not None and rows > 1 and self.can_batch and not part.is_explained:
            most = self._rules.max_request_rows
            if most is not None and rows > most:
                said = f"inputs: {rows} rows; at most {most} are taken in a request; send fewer"
                raise RequestError("TOO_LARGE", said)
            if self._rules.joins_rows and rows > self._sizing.limit and rows > self._sizing.largest_part:
                return None
        now = time.monotonic()
        return self._push(part, now, None if time_left_s is None else now + time_left_s, told, fields)

    async def predict(self, part: Part, time_left_s: float | None) -> Tensors:
        """The model's answer to a request of any number of rows. Raises what `submit` tells."""
        answer: asyncio.Future[Tensors] = self._loop.create_future()
        waiting = self.submit(part, time_left_s, answer, _fields_here())
        if waiting is not None:
            waiting.payload.trace = trace.current.get()
            return await _answered(waiting, answer)
        deadline = None if time_left_s is None else time.monotonic() + time_left_s
        return await self._ask_in_parts(part, self._sizing.largest_part, deadline)

    def _push(
        self, part: Part, now: float, deadline: float | None, told: Told, fields: Mapping[bytes, bytes]
    ) -> Waiting[Request]:
        waiting = Waiting(Request(part, told, fields), self._key(part), part.rows or 1, now, deadline)
        self._queue.push(waiting)
        self._dispatch_soon()
        return waiting

    async def _ask(self, part: Part, deadline: float | None) -> Tensors:
        answer: asyncio.Future[Tensors] = self._loop.create_future()
        waiting = self._push(part, time.monotonic(), deadline, answer, _fields_here())
        waiting.payload.trace = trace.current.get()
        return await _answered(waiting, answer)

    async def _ask_in_parts(self, whole: Part, size: int, deadline: float | None) -> Tensors:
        """Part by part, a few at a time: smaller requests get their turn between them."""
        under_way: deque[asyncio.Task[Tensors]] = deque()
        answers: list[Tensors] = []
        try:
            for part in _parts(whole, size):
                if len(under_way) >= PARTS_AHEAD * len(self._instances):
                    answers.append(await under_way.popleft())
                under_way.append(asyncio.create_task(self._ask(part, deadline), name="part"))
            while under_way:
                answers.append(await under_way.popleft())
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def _key(self, part: Part) -> Any:
        inputs, outputs, rows, parameters, is_explained = part
        joins_rows = self._rules.joins_rows
        if is_explained or not self.can_batch or (rows is None and joins_rows):
            return None
        asked = (outputs, parameters_key(parameters)) if parameters else outputs
        if not joins_rows:
            return asked
        if len(inputs) == 1:
            name, tensor = next(iter(inputs.items()))
            return name, tensor.dtype, tensor.shape[1:], asked
        return asked, tuple(sorted((name, tensor.dtype.str, tensor.shape[1:]) for name, tensor in inputs.items()))

    def _dispatch_soon(self) -> None:
        """Not at once: requests that have arrived but were not read yet join the batch."""
        if self._soon or not self._idle:
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
        while self._idle and self._take():
            pass

    def _take(self) -> bool:
        """Whether there may be more to give to another instance now."""
        taken = self._queue.take(time.monotonic())
        for waiting in taken.expired:
            _fail(waiting.payload.told, RequestError("DEADLINE", _EXPIRED))
        if taken.batch:
            rows = sum(waiting.rows for waiting in taken.batch)
            is_inline = self._send([waiting.payload for waiting in taken.batch], rows)
            # Between two batches of its own the event loop reads and answers.
            return not is_inline and len(self._queue) > 0
        if taken.wait_s is not None:
            self._timer = self._loop.call_later(taken.wait_s, self._dispatch)
        return False

    def _is_growing(self) -> bool:
        waiting = len(self._queue)
        if waiting <= self._seen or self._turns >= MOST_TURNS or waiting >= self._sizing.limit:
            return False
        if waiting == 1 and self._is_alone:
            return False
        self._seen, self._turns = waiting, self._turns + 1
        return True

    def _send(self, batch: list[Request], rows: int) -> bool:
        """Whether it was computed here and now."""
        instance = self._idle.pop()
        parts = [request.part for request in batch]
        self._is_alone = len(batch) == 1
        sent = time.monotonic()
        running = self._running[instance.thread] = Running(batch, sent)

        def work() -> Computed:
            here = log.here
            here.batch = batch
            try:
                return self._compute(instance, parts, running)
            finally:
                here.batch = ()

        def done(computed: Computed) -> None:
            if self._running.pop(instance.thread, None) is None:
                return  # given up meanwhile
            self._idle.append(instance)
            self._finish(batch, rows, sent, computed)

        if self._placement.is_inline(rows) and not parts[0].is_explained:
            done(work())
            return True
        instance.thread.call(work, done)
        return False

    def longest_s(self) -> float:
        """How long the oldest of the calls that are under way has taken so far."""
        return time.monotonic() - min((running.called for running in self._running.values()), default=math.inf)

    def stacks(self, frames: int) -> list[str]:
        """Where each thread that computes a batch stands."""
        return [thread.stack(frames) for thread in self._running]

    def give_up(self, error: RequestError) -> None:
        """Answers the requests of every batch that is being computed with `error`; its instance is lost."""
        for running in self._running.values():
            for request in running.batch:
                _fail(request.told, error)
        self._running.clear()

    def _compute(self, instance: Instance, parts: list[Part], running: Running) -> Computed:
        started, cpu_started = time.perf_counter(), time.thread_time()
        model = self._rules.model
        if parts[0].is_explained and instance.explain is not None:
            answers = execute(parts, running.timed(instance.explain), model, check_rows=False)
        else:
            checks = self.can_batch and self._rules.joins_rows
            many = instance.predict_many and running.timed(instance.predict_many)
            answers = execute(parts, running.timed(instance.predict), model, check_rows=checks, predict_many=many)
        return Computed(answers, time.perf_counter() - started, time.thread_time() - cpu_started, started)

    def _finish(self, batch: list[Request], rows: int, sent: float, computed: Computed) -> None:
        if not batch[0].part.is_explained:
            self._learn(rows, sent, computed)
        # The next batch leaves before the answers of this one are encoded, so that the model does not wait for JSON.
        if len(self._queue):
            self._dispatch_soon()
        for request, answer in zip(batch, computed.answers, strict=True):
            if request.trace is not None:
                request.trace.computed(computed.began, computed.seconds, len(batch), rows)
            if isinstance(answer, Exception):
                _fail(request.told, answer)
            elif not request.told.done():
                request.told.set_result(answer)

    def _learn(self, rows: int, sent: float, computed: Computed) -> None:
        if not any(isinstance(answer, Exception) for answer in computed.answers):
            # What failed, and perhaps was tried again in halves, says nothing of what a call costs.
            now = time.monotonic()
            self._sizing.observe(rows, now - sent, now)
        self._observe(rows, computed.seconds)
        self._placement.observe(rows, computed.cpu_s)


def _parts(whole: Part, size: int) -> Iterator[Part]:
    for start in range(0, whole.rows or 0, size):
        inputs = {name: tensor[start : start + size] for name, tensor in whole.inputs.items()}
        yield whole._replace(inputs=inputs, rows=rows_of(inputs))


_EXPIRED = (
    "deadline: it passed while the request waited for the model; the time is what x-request-timeout-ms left; "
    "allow more time or add replicas"
)


async def _answered(waiting: Waiting[Request], answer: asyncio.Future[Tensors]) -> Tensors:
    try:
        return await answer
    finally:
        waiting.abandoned = True


def _fields_here() -> Mapping[bytes, bytes]:
    """Of the request that this task works on."""
    asking = log.asking.get()
    return asking[0] if asking else NO_FIELDS


def _fail(told: Told, exc: Exception) -> None:
    if not told.done():
        told.set_exception(exc)
