"""What is told of a request, in the words of docs/CONTRACTS.md."""

from __future__ import annotations

import re

import numpy as np

from worker_image.server import trace
from worker_image.server.batching.execute import Part
from worker_image.server.codecs.call import Reply
from worker_image.server.predictors import Ask


def told(found: trace.Trace, **options: bool) -> dict[str, str]:
    name, value = found.field(**options)
    assert name == trace.FIELD
    assert re.fullmatch(rb"[a-z_=+0-9 ]{1,512}", value)
    return dict(token.split("=") for token in value.decode().split())


class TestTrace:
    def test_is_there_for_whoever_asks(self) -> None:
        assert trace.asked({b"x-request-id": b"r"}) is None
        assert trace.asked({trace.FIELD: b"1"}) is not None

    def test_of_a_prediction_has_each_step_with_its_begin_and_length(self) -> None:
        found = trace.Trace()
        ask = found.following(Ask(Part({"x": np.zeros(3)}, (), 3), lambda answer: Reply(b"{}")))
        found.computed(found._began + 0.5, 0.25, requests=4, rows=9)
        ask.encode({})

        words = told(found)

        assert words.keys() == {"total", "decode", "wait", "predict", "encode", "rows", "batch_rows", "batch_requests"}
        assert words["predict"] == "500000+250000"
        assert (words["rows"], words["batch_rows"], words["batch_requests"]) == ("3", "9", "4")

    def test_of_a_long_request_spans_all_its_batches(self) -> None:
        found = trace.Trace()
        found.decoded(20)
        found.computed(found._began + 1.0, 0.5, requests=1, rows=8)
        found.computed(found._began + 3.0, 0.5, requests=2, rows=10)

        words = told(found)

        assert words["predict"] == "1000000+2500000"
        assert (words["batches"], words["batch_rows"]) == ("2", "10")

    def test_of_an_answer_from_the_cache_has_no_prediction(self) -> None:
        found = trace.Trace()
        found.decoded(1)
        found.from_cache("hit")

        words = told(found)

        assert words["cache"] == "hit"
        assert "predict" not in words

    def test_of_a_stream_says_that_it_goes_on(self) -> None:
        found = trace.Trace()
        found.decoded(None)

        assert told(found, is_open=True).items() >= {"open": "1"}.items()
