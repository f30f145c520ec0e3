"""Requests gather while the model is busy; whoever leaves or is late strands nobody. A real thread and a real event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from worker_image.server.batching.execute import Part
from worker_image.server.batching.runner import Instance, Rules, Runner
from worker_image.server.batching.sizing import Sizing
from worker_image.server.batching.thread import ModelThread
from worker_image.server.errors import RequestError
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Tensors


class SlowDouble:
    """A model whose first call waits until the test lets it go, and which records the size of every batch."""

    def __init__(self) -> None:
        self.is_inside = threading.Event()
        self.may_go = threading.Event()
        self.batches: list[int] = []
        self.parameters: list[Parameters] = []

    def __call__(self, inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters) -> Tensors:
        self.batches.append(len(inputs["x"]))
        self.parameters.append(parameters)
        self.is_inside.set()
        assert self.may_go.wait(10)
        return dict.fromkeys(outputs, inputs["x"] * 2)


@contextmanager
def running(
    model: SlowDouble, *, max_rows: int = 64, delay_s: float = 0.0, instances: int = 1, most: int | None = None
) -> Iterator[Runner]:
    threads = [ModelThread(asyncio.get_running_loop()) for _ in range(instances)]
    rules = Rules("m", can_batch=True, is_steady=False, max_request_rows=most)
    try:
        copies = [Instance(thread, model) for thread in threads]
        yield Runner(copies, rules, Sizing(fixed=max_rows), delay_s, lambda _rows, _seconds: None)
    finally:
        model.may_go.set()
        assert all(thread.stop(10) for thread in threads)


def ask(
    runner: Runner, value: float, time_left_s: float | None = None, parameters: Parameters = NO_PARAMETERS
) -> asyncio.Task[Tensors]:
    return asyncio.create_task(runner.predict(Part({"x": np.array([[value]])}, ("y",), 1, parameters), time_left_s))


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

    async def test_only_requests_of_equal_parameters_go_together(self) -> None:
        model = SlowDouble()
        asked: list[Parameters] = [{"k": 1}, {"k": True}, {"k": 1.0}, {"k": 1}, {}, {"k": [1]}]
        with running(model) as runner:
            first = await busy(model, runner)
            others = [ask(runner, 1.0, parameters=parameters) for parameters in asked]
            await asyncio.sleep(0)

            model.may_go.set()
            await asyncio.gather(first, *others)

        assert model.batches == [1, 2, 1, 1, 1, 1]
        assert model.parameters == [{}, {"k": 1}, {"k": True}, {"k": 1.0}, {}, {"k": [1]}]

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

    async def test_a_request_larger_than_a_batch_is_predicted_in_parts_and_answered_whole(self) -> None:
        model = SlowDouble()
        model.may_go.set()
        with running(model, max_rows=4) as runner:
            rows = np.arange(10.0).reshape(10, 1)

            answer = await runner.predict(Part({"x": rows}, ("y",), 10), None)

        assert answer["y"].tolist() == (rows * 2).tolist()
        assert model.batches == [4, 4, 2]

    async def test_small_requests_have_their_turn_between_the_parts_of_a_large_one(self) -> None:
        model = SlowDouble()
        with running(model, max_rows=4) as runner:
            large = asyncio.create_task(runner.predict(Part({"x": np.ones((40, 1))}, ("y",), 40), None))
            assert await asyncio.to_thread(model.is_inside.wait, 10)
            small = ask(runner, 1.0)
            await asyncio.sleep(0)

            model.may_go.set()
            await small

            assert len(model.batches) <= 5
            await large

    async def test_a_large_request_whose_caller_leaves_is_not_computed_to_its_end(self) -> None:
        model = SlowDouble()
        with running(model, max_rows=4) as runner:
            large = asyncio.create_task(runner.predict(Part({"x": np.ones((400, 1))}, ("y",), 400), None))
            assert await asyncio.to_thread(model.is_inside.wait, 10)

            large.cancel()
            await asyncio.gather(large, return_exceptions=True)
            model.may_go.set()

            assert (await ask(runner, 2.0))["y"].item() == 4.0
        assert model.batches == [4, 1]

    async def test_more_rows_than_a_request_may_have_are_refused(self) -> None:
        model = SlowDouble()
        with running(model, most=9) as runner, pytest.raises(RequestError) as failed:
            await runner.predict(Part({"x": np.ones((10, 1))}, ("y",), 10), None)

        assert failed.value.status == 413
        assert "10 rows; at most 9" in failed.value.sentence
        assert model.batches == []

    async def test_a_second_instance_takes_what_the_first_cannot(self) -> None:
        model = SlowDouble()
        with running(model, max_rows=1, instances=2) as runner:
            tasks = [ask(runner, 1.0), ask(runner, 2.0), ask(runner, 3.0)]
            for _ in range(1000):
                if len(model.batches) == 2:
                    break
                await asyncio.sleep(0.01)

            assert model.batches == [1, 1]
            model.may_go.set()
            answers = await asyncio.gather(*tasks)

        assert [answer["y"].item() for answer in answers] == [2.0, 4.0, 6.0]
