"""Streams: answers that a model gives one after the other, and the threads in which its generators run.

Owns how many streams run at one time, each stream's deadline, and that every generator is closed: at its end, on an
error, when its time is up and when its caller left. It knows no protocol: whoever takes the answers encodes them (see
`codecs/sse.py`). Each stream has a thread of its own while it is open, so none can block another, a batch or the event
loop; an answer is made only when it is asked for, so a slow reader slows his own generator and nobody's memory grows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from worker_image.server import log
from worker_image.server.backends.steps import Steps
from worker_image.server.batching.execute import Part
from worker_image.server.batching.thread import ModelThread
from worker_image.server.errors import RequestError, one_line
from worker_image.server.tensors import Parameters, Tensors

# The gateway cuts the connection at the deadline. Ending so much earlier, the last word is a sentence of ours.
LAST_WORDS_S = 0.05


class Streamer(Protocol):
    """A loaded model. Both are called in the stream's thread and raise `RequestError` alone."""

    def open_stream(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Steps: ...

    def take_step(self, steps: Steps) -> Tensors | None: ...


class Streams:
    """All streams of one model, at most `most` at one time: who comes then waits, as long as his deadline lets him."""

    def __init__(self, model: Streamer, most: int, observe: Callable[[], None] = lambda: None) -> None:
        self.model = model
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(most)
        self._idle: list[ModelThread] = []
        self._threads = 0
        self._open: set[Stream] = set()
        self.observe = observe

    @property
    def active(self) -> int:
        return len(self._open)

    async def start(self, part: Part, time_left_s: float | None) -> Stream:
        """Nothing has been computed yet. The caller must `aclose()` what he gets."""
        deadline = None if time_left_s is None else self._loop.time() + time_left_s - LAST_WORDS_S
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise RequestError("DEADLINE", f"{_PASSED} while others had all {self.active} streams") from None
        stream = Stream(self, self._thread(), part, deadline)
        self._open.add(stream)
        return stream

    def longest_s(self) -> float:
        """How long the slowest of the answers that are being made has taken so far."""
        return max((stream.step_s for stream in self._open), default=0.0)

    def stacks(self, frames: int) -> list[str]:
        """Where each thread that makes an answer stands."""
        return [stream.stack(frames) for stream in self._open if stream.step_s]

    def give_up(self, error: RequestError) -> None:
        """Ends every stream with `error`."""
        for stream in list(self._open):
            stream.fail(error)

    def release(self, stream: Stream, thread: ModelThread) -> None:
        """Its generator is closed, and its thread free."""
        self._open.discard(stream)
        self._idle.append(thread)
        self._slots.release()

    def _thread(self) -> ModelThread:
        if self._idle:
            return self._idle.pop()
        self._threads += 1
        return ModelThread(self._loop, f"stream-{self._threads}")


class Stream:
    """One caller's answers, in turn: `async for`, then `aclose()`. Both are for one task."""

    def __init__(self, streams: Streams, thread: ModelThread, part: Part, deadline: float | None) -> None:
        self._streams = streams
        self._thread = thread
        self._part = part
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._steps: Steps | None = None  # the thread's own, until it is closed
        self._calls = 0  # in the thread or on their way there
        self._began: float | None = None  # when the one in the thread began
        self._waiting: asyncio.Future[Tensors | None] | None = None
        self._failure: RequestError | None = None
        self._closed: asyncio.Future[None] | None = None
        self._asking = log.asking.get()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Tensors:
        """Raises `RequestError`: the model's, the deadline's, or that of `fail`."""
        if self._failure is not None:
            raise self._failure
        self._waiting = asked = self._loop.create_future()
        self._call(self._step, lambda outcome: _settle(asked, outcome))
        try:
            async with asyncio.timeout_at(self._deadline):
                answer: Tensors | None = await asked
        except TimeoutError:
            raise RequestError("DEADLINE", f"{_PASSED} in the middle of the stream") from None
        if answer is None:
            raise StopAsyncIteration
        self._streams.observe()
        return answer

    async def aclose(self) -> None:
        """Closes the generator, which may have to come to its next `yield` first. To be called always, once or more."""
        if self._closed is None:
            self._closed = closed = self._loop.create_future()
            if self._steps is not None:
                self._steps.interrupt()

            def done(_: object) -> None:
                closed.set_result(None)
                self._streams.release(self, self._thread)

            self._call(self._close, done)
        # Its caller may leave while it waits here, and the generator must be closed nevertheless.
        await asyncio.shield(self._closed)

    def fail(self, error: RequestError) -> None:
        self._failure = error
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    def stack(self, frames: int) -> str:
        return self._thread.stack(frames)

    @property
    def step_s(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began

    def _call(self, work: Callable[[], object], done: Callable[[object], None]) -> None:
        """In the thread, which does one thing after the other: closing waits for the step before it."""

        def ended(outcome: object) -> None:
            self._calls -= 1
            self._began = time.monotonic() if self._calls else None
            done(outcome)

        if not self._calls:
            self._began = time.monotonic()
        self._calls += 1
        self._thread.call(work, ended)

    def _step(self) -> Tensors | RequestError | None:
        model = self._streams.model
        log.asking.set(self._asking)  # until the thread's next stream says whose it is
        try:
            if self._steps is None:
                self._steps = model.open_stream(self._part.inputs, self._part.outputs, self._part.parameters)
            # Who closes while a stream is opened finds nothing to interrupt yet.
            return None if self._closed is not None else model.take_step(self._steps)
        except RequestError as exc:
            return exc

    def _close(self) -> None:
        steps, self._steps = self._steps, None
        if steps is None:
            return
        try:
            steps.close()
        except (Exception, SystemExit) as exc:
            log.event("stream not closed well", level="error", reason=one_line(exc), stack=log.stack(exc))


_PASSED = "deadline: the time that x-request-timeout-ms left passed"


def _settle(asked: asyncio.Future[Tensors | None], outcome: object) -> None:
    if asked.done():
        return
    if isinstance(outcome, RequestError):
        asked.set_exception(outcome)
    else:
        asked.set_result(outcome)  # type: ignore[arg-type]  # what `_step` returned
