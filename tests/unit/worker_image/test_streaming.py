"""Streams without a model: what is closed when, who waits, and what an interrupted or failing step becomes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from worker_image.server.backends.coroutines import Coroutines
from worker_image.server.backends.steps import AsyncSteps, Steps, SyncSteps
from worker_image.server.batching.execute import Part
from worker_image.server.errors import RequestError
from worker_image.server.streaming import Stream, Streams
from worker_image.server.tensors import NO_PARAMETERS, Tensors

PART = Part({"x": np.ones(1)}, (), 1, NO_PARAMETERS)


class Generators:
    """Opens a generator for each stream, and remembers what was closed."""

    def __init__(self, make: Callable[[], Iterator[int]]) -> None:
        self.closed = 0
        self._make = make

    def open_stream(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Any) -> Steps:
        return SyncSteps(self._counted(), lambda value: {"n": np.array([value])})

    def take_step(self, steps: Steps) -> Tensors | None:
        try:
            return steps.take()
        except RuntimeError as exc:
            raise RequestError("MODEL_FAILED", str(exc)) from exc

    def _counted(self) -> Iterator[int]:
        try:
            yield from self._make()
        finally:
            self.closed += 1


def forever() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


async def number(stream: Stream) -> int:
    return int((await anext(stream))["n"][0])


class TestAStream:
    async def test_makes_an_answer_only_when_it_is_asked_for(self) -> None:
        made: list[int] = []

        def counted() -> Iterator[int]:
            for value in range(3):
                made.append(value)
                yield value

        stream = await Streams(Generators(counted), 1).start(PART, None)
        assert made == []
        assert await number(stream) == 0
        assert made == [0]
        assert [int(answer["n"][0]) async for answer in stream] == [1, 2]
        await stream.aclose()

    async def test_is_closed_once_and_gives_its_place_back(self) -> None:
        generators = Generators(forever)
        streams = Streams(generators, 1)
        for _ in range(3):
            stream = await streams.start(PART, None)
            await number(stream)
            assert streams.active == 1

            await asyncio.gather(stream.aclose(), stream.aclose())

            assert streams.active == 0
        assert generators.closed == 3

    async def test_is_closed_when_whoever_closes_it_is_cancelled(self) -> None:
        go_on = threading.Event()

        def slow() -> Iterator[int]:
            yield 0
            go_on.wait(10)
            yield 1

        generators = Generators(slow)
        streams = Streams(generators, 1)
        stream = await streams.start(PART, None)
        await number(stream)
        step = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        step.cancel()
        closing = asyncio.ensure_future(stream.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        go_on.set()

        other = await streams.start(PART, 10.0)  # waits for the place

        assert generators.closed == 1
        await other.aclose()

    async def test_fails_with_the_models_words(self) -> None:
        def failing() -> Iterator[int]:
            yield 0
            raise RuntimeError("no more")

        stream = await Streams(Generators(failing), 1).start(PART, None)
        await number(stream)

        with pytest.raises(RequestError, match="no more"):
            await number(stream)
        await stream.aclose()

    async def test_ends_at_its_deadline_and_says_so(self) -> None:
        go_on = threading.Event()

        def hanging() -> Iterator[int]:
            go_on.wait(10)
            yield 0

        streams = Streams(Generators(hanging), 1)
        stream = await streams.start(PART, 0.2)

        with pytest.raises(RequestError) as late:
            await number(stream)
        with pytest.raises(RequestError) as never_begun:
            await streams.start(PART, 0.1)

        assert (late.value.code, never_begun.value.code) == ("DEADLINE", "DEADLINE")
        assert streams.longest_s() > 0.1
        go_on.set()
        await stream.aclose()
        assert streams.longest_s() == 0.0

    async def test_ends_with_what_all_are_given_up_for(self) -> None:
        go_on = threading.Event()

        def hanging() -> Iterator[int]:
            go_on.wait(10)
            yield 0

        streams = Streams(Generators(hanging), 2)
        waiting, idle = await streams.start(PART, None), await streams.start(PART, None)
        step = asyncio.ensure_future(anext(waiting))
        await asyncio.sleep(0)

        streams.give_up(RequestError("NOT_READY", "it ends"))

        for answer in (step, anext(idle)):
            with pytest.raises(RequestError, match="it ends"):
                await answer
        go_on.set()
        await asyncio.gather(waiting.aclose(), idle.aclose())


class TestAsyncSteps:
    def test_end_where_they_wait_when_they_are_interrupted(self) -> None:
        coroutines, began, closed = Coroutines(), threading.Event(), threading.Event()

        async def waiting() -> Any:
            try:
                began.set()
                await asyncio.Event().wait()
                yield 1
            finally:
                closed.set()

        steps = AsyncSteps(waiting(), lambda value: {"n": np.array([value])}, coroutines)
        taken: list[Any] = []
        thread = threading.Thread(target=lambda: taken.append(steps.take()))
        thread.start()
        assert began.wait(10)

        steps.interrupt()
        thread.join(10)

        assert taken == [None]
        assert closed.is_set()
        steps.close()
        assert steps.take() is None

    def test_that_cancel_themselves_are_an_error(self) -> None:
        async def cancelled() -> Any:
            raise asyncio.CancelledError
            yield 1

        steps = AsyncSteps(cancelled(), lambda value: {"n": np.array([value])}, Coroutines())

        with pytest.raises(RuntimeError, match="cancelled by itself"):
            steps.take()
