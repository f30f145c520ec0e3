"""Answers from memory: only for equal requests, only while they are fresh, and computed once for all who ask at one time."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from worker_image.server.cache import ENTRY_BYTES, Cache, key_of
from worker_image.server.errors import RequestError
from worker_image.server.tensors import Parameters, Tensors


class Doubling:
    """A model that counts its calls, and waits while it is `held`."""

    def __init__(self, inputs: Tensors) -> None:
        self.inputs = inputs
        self.calls = 0
        self.go = asyncio.Event()
        self.go.set()
        self.failure: Exception | None = None

    async def __call__(self) -> Tensors:
        self.calls += 1
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return {"y": self.inputs["x"] * 2}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def x(*values: float) -> Tensors:
    return {"x": np.array(values)}


class TestKeeping:
    async def test_an_equal_request_is_answered_from_memory(self) -> None:
        cache, model = Cache(60, 1 << 20), Doubling(x(1, 2))

        answers = [await cache.answer(x(1, 2), ("y",), model) for _ in range(3)]

        assert model.calls == 1
        assert [answer["y"].tolist() for answer in answers] == [[2, 4]] * 3
        assert (cache.hits, cache.misses) == (2, 1)

    async def test_an_answer_lives_as_long_as_it_may(self) -> None:
        clock, model = Clock(), Doubling(x(1))
        cache = Cache(60, 1 << 20, clock)
        await cache.answer(x(1), ("y",), model)

        clock.now = 59.9
        await cache.answer(x(1), ("y",), model)
        clock.now = 60.0
        await cache.answer(x(1), ("y",), model)

        assert model.calls == 2

    async def test_what_was_longest_unused_makes_room(self) -> None:
        cache, model = Cache(60, 2 * (ENTRY_BYTES + 8)), Doubling(x(0))
        for value in (1, 2, 1, 3):
            await cache.answer(x(value), ("y",), model)

        before = model.calls
        await cache.answer(x(1), ("y",), model)
        assert model.calls == before
        await cache.answer(x(2), ("y",), model)
        assert model.calls == before + 1
        assert cache.size <= 2 * (ENTRY_BYTES + 8)

    async def test_an_answer_larger_than_the_cache_is_not_kept(self) -> None:
        cache, model = Cache(60, ENTRY_BYTES), Doubling(x(1))

        for _ in range(2):
            await cache.answer(x(1), ("y",), model)

        assert (model.calls, cache.size) == (2, 0)

    async def test_a_row_of_a_batch_does_not_keep_the_batch(self) -> None:
        cache, batch = Cache(60, 1 << 20), np.zeros(1000)

        async def row() -> Tensors:
            return {"y": batch[:1]}

        await cache.answer(x(1), ("y",), row)

        assert (await cache.answer(x(1), ("y",), row))["y"].base is None

    async def test_a_failure_is_not_kept(self) -> None:
        cache, model = Cache(60, 1 << 20), Doubling(x(1))
        model.failure = RequestError("MODEL_FAILED", "no")
        with pytest.raises(RequestError):
            await cache.answer(x(1), ("y",), model)

        model.failure = None

        assert (await cache.answer(x(1), ("y",), model))["y"].tolist() == [2]


async def asked(cache: Cache, model: Doubling, count: int) -> list[asyncio.Task[Tensors]]:
    """So many requests for the same, all of them inside."""
    model.go.clear()
    tasks = [asyncio.create_task(cache.answer(x(1), ("y",), model)) for _ in range(count)]
    await asyncio.sleep(0)
    assert model.calls == 1
    return tasks


class TestSingleFlight:
    async def test_equal_requests_at_one_time_are_computed_once(self) -> None:
        cache, model = Cache(60, 1 << 20), Doubling(x(1))
        tasks = await asked(cache, model, 5)

        model.go.set()
        answers = await asyncio.gather(*tasks)

        assert model.calls == 1
        assert [answer["y"].tolist() for answer in answers] == [[2]] * 5
        assert (cache.misses, cache.shared) == (1, 4)

    async def test_one_that_leaves_strands_nobody(self) -> None:
        cache, model = Cache(60, 1 << 20), Doubling(x(1))
        leader, *others = await asked(cache, model, 4)

        leader.cancel()
        await asyncio.gather(leader, return_exceptions=True)
        model.go.set()
        answers = await asyncio.gather(*others)

        assert model.calls == 2
        assert [answer["y"].tolist() for answer in answers] == [[2]] * 3

    async def test_one_that_only_waits_may_leave(self) -> None:
        cache, model = Cache(60, 1 << 20), Doubling(x(1))
        leader, waiting = await asked(cache, model, 2)

        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        model.go.set()

        assert (await leader)["y"].tolist() == [2]

    async def test_a_failure_of_the_model_is_everybodys(self) -> None:
        cache, model = Cache(60, 1 << 20), Doubling(x(1))
        model.failure = RequestError("MODEL_FAILED", "no")
        tasks = await asked(cache, model, 3)

        model.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

        assert model.calls == 1
        assert outcomes == [model.failure] * 3

    async def test_a_time_that_ran_out_is_its_owners_alone(self) -> None:
        cache, model = Cache(60, 1 << 20), Doubling(x(1))
        model.failure = RequestError("DEADLINE", "late")
        leader, other = await asked(cache, model, 2)

        model.go.set()
        await asyncio.gather(leader, other, return_exceptions=True)

        assert model.calls == 2


tensors = st.dictionaries(
    st.text(max_size=2),
    arrays.arrays(
        st.sampled_from([np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.uint8)]),
        arrays.array_shapes(max_dims=2, min_side=0, max_side=3),
        elements=st.integers(0, 2),
    )
    | arrays.arrays(np.dtype(object), st.integers(0, 3), elements=st.text("ab\0", max_size=2) | st.binary(max_size=2)),
    max_size=2,
)
names = st.lists(st.text("ab", max_size=2), max_size=2).map(tuple)
parameters = st.dictionaries(st.text("ab", max_size=1), st.sampled_from([0, 1, False, True, 1.0, "1"]), max_size=2)


def whole(inputs: Tensors, outputs: tuple[str, ...], given: Parameters) -> str:
    parts = {
        name: (each.dtype.str, each.shape, [repr(v) for v in each.ravel().tolist()]) for name, each in inputs.items()
    }
    return repr((sorted(parts.items()), outputs, sorted(given.items())))


@given(st.tuples(tensors, names, parameters), st.tuples(tensors, names, parameters))
def test_keys_are_equal_exactly_when_the_requests_are(
    a: tuple[Tensors, tuple[str, ...], Parameters], b: tuple[Tensors, tuple[str, ...], Parameters]
) -> None:
    assert (key_of(*a) == key_of(*b)) == (whole(*a) == whole(*b))


def test_a_key_does_not_depend_on_how_the_bytes_lie_in_memory() -> None:
    grid = np.arange(6.0).reshape(2, 3)

    assert key_of({"x": grid.T}, ()) == key_of({"x": grid.T.copy()}, ())


def test_a_missing_text_is_not_an_empty_one() -> None:
    keys = {key_of({"x": np.array([value], dtype=object)}, ()) for value in (None, "", b"", "n", "None")}

    assert len(keys) == 5
