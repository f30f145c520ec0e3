"""The framing of server-sent events: the end, and an error in the middle, in both dialects."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import numpy as np
import pytest

from worker_image.server.codecs.sse import EventStream
from worker_image.server.errors import RequestError
from worker_image.server.tensors import Tensors


class Numbers:
    """`count` answers, and then what is to be raised."""

    def __init__(self, count: int, failure: RequestError | None = None) -> None:
        self._numbers = iter(range(count))
        self._failure = failure
        self.is_closed = False

    def __aiter__(self) -> AsyncIterator[Tensors]:
        return self

    async def __anext__(self) -> Tensors:
        if (number := next(self._numbers, None)) is not None:
            return {"n": np.array([number])}
        raise self._failure or StopAsyncIteration

    async def aclose(self) -> None:
        self.is_closed = True


def stream(numbers: Numbers, *, names_events: bool) -> EventStream:
    return EventStream(numbers, lambda answer: json.dumps(answer["n"].tolist()).encode(), names_events=names_events)


class TestEventStream:
    @pytest.mark.parametrize("count", [0, 1, 3])
    async def test_names_its_end_where_events_have_names(self, count: int) -> None:
        events = stream(Numbers(count), names_events=True)
        await events.begin()

        got = [event async for event in events]

        assert got == [*(b"data: [%d]\n\n" % n for n in range(count)), b"event: end\ndata: {}\n\n"]

    @pytest.mark.parametrize("count", [0, 2])
    async def test_just_ends_where_they_have_none(self, count: int) -> None:
        events = stream(Numbers(count), names_events=False)
        await events.begin()

        assert [event async for event in events] == [b"data: [%d]\n\n" % n for n in range(count)]

    async def test_raises_what_comes_before_the_first_answer_at_its_beginning(self) -> None:
        with pytest.raises(RequestError, match="no"):
            await stream(Numbers(0, RequestError("MODEL_FAILED", "no")), names_events=True).begin()

    async def test_tells_an_error_in_the_middle_in_its_last_event(self) -> None:
        numbers = Numbers(1, RequestError("MODEL_FAILED", "no"))
        events = stream(numbers, names_events=True)
        await events.begin()
        assert await anext(events) == b"data: [0]\n\n"

        with pytest.raises(RequestError, match="no"):
            await anext(events)
        await events.aclose()

        assert events.last_words(b'{"error": "no"}') == b'event: error\ndata: {"error": "no"}\n\n'
        assert stream(numbers, names_events=False).last_words(b"{}") == b"data: {}\n\n"
        assert numbers.is_closed
