"""Requests gather while the model is busy; whoever leaves or is late strands nobody. A real thread and a real event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from worker_image.server.batching.queue import BatchQueue
from worker_image.server.batching.runner import ModelThread, Request, Runner
from worker_image.server.errors import RequestError
from worker_image.server.tensors import Tensors


class SlowDouble:
    """A model whose first call waits until the test lets it go, and which records the size of every batch."""

    def __init__(self) -> None:
        self.is_inside = threading.Event()
        self.may_go = threading.Event()
        self.batches: list[int] = []

    def __call__(self, inputs: Tensors, outputs: tuple[str, ...]) -> Tensors:
        self.batches.append(len(inputs["x"]))
        self.is_inside.set()
        assert self.may_go.wait(10)
        return dict.fromkeys(outputs, inputs["x"] * 2)


@contextmanager
def running(model: SlowDouble, *, max_rows: int = 64, delay_s: float = 0.0) -> Iterator[Runner]:
    thread = ModelThread(asyncio.get_running_loop())
    batches = BatchQueue[Request](max_rows, delay_s)
    try:
        yield Runner(thread, model, batches, can_batch=True, is_steady=False, observe=lambda _rows, _seconds: None)
    finally:
        model.may_go.set()
        assert thread.stop(10)


def ask(runner: Runner, value: float, time_left_s: float | None = None) -> asyncio.Task[Tensors]:
    return asyncio.create_task(runner.predict({"x": np.array([[value]])}, ("y",), time_left_s))


async def busy(model: SlowDouble, runner: Runner) -> asyncio.Task[Tensors]:
    first = ask(runner, 0.0)
    assert await asyncio.to_thread(model.is_inside.wait, 10)
    return first


class TestRunner:
    async def test_what_gathers_while_the_model_is_busy_goes_together(self) -> None:
        model = SlowDouble()
        with running(model) as runner:
            first = await busy(model, runner)
            others = [ask(runner, float(value)) for value in range(1, 6)]
            await asyncio.sleep(0)

            model.may_go.set()
            answers = await asyncio.gather(first, *others)

        assert model.batches == [1, 5]
        assert [answer["y"].item() for answer in answers] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]

    async def test_a_caller_that_leaves_strands_nobody_and_costs_nothing(self) -> None:
        model = SlowDouble()
        with running(model) as runner:
            first = await busy(model, runner)
            leaving, staying = ask(runner, 1.0), ask(runner, 2.0)
            await asyncio.sleep(0)

            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            model.may_go.set()

            assert (await staying)["y"].item() == 4.0
        assert model.batches == [1, 1]

    async def test_a_request_whose_time_ran_out_in_the_queue_is_told_so(self) -> None:
        model = SlowDouble()
        with running(model) as runner:
            first = await busy(model, runner)
            late = ask(runner, 1.0, time_left_s=0.0)
            await asyncio.sleep(0)

            model.may_go.set()
            await first

            with pytest.raises(RequestError) as failed:
                await late
        assert failed.value.status == 504
        assert model.batches == [1]

    async def test_a_delay_gathers_rows_while_the_model_is_free(self) -> None:
        model = SlowDouble()
        model.may_go.set()
        with running(model, max_rows=2, delay_s=30.0) as runner:
            first = ask(runner, 1.0)
            await asyncio.sleep(0.01)
            second = ask(runner, 2.0)

            await asyncio.wait_for(asyncio.gather(first, second), 10)

        assert model.batches == [2]
