"""What becomes of a request's trace, told as a story of calls with times."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.spans import TOLD_BYTES, Span, Trace, route_of


def begun(parent: int = 0) -> Trace:
    ids = count(1)
    return Trace(99, parent, "", "POST /x", 10.0, lambda: next(ids))


def told(trace: Trace) -> list[tuple[str, str, float, float, str]]:
    return [(span.name, span.kind, span.start, span.end, span.error) for span in trace.spans]


class TestTrace:
    def test_of_a_request_that_waited_and_was_answered(self) -> None:
        trace = begun()
        trace.waits(10.0)
        trace.begins_try("r0", "h", 1, "POST", 12.0)
        trace.answers(200, b"total=500000 decode=0+100000 predict=100000+300000 rows=2", 12.0, 13.0)
        trace.end(200, 13.5)

        assert told(trace) == [
            ("POST /x", "server", 10.0, 13.5, ""),
            ("queue", "internal", 10.0, 12.0, ""),
            ("POST", "client", 12.0, 13.5, ""),
            ("POST /x", "server", 12.25, 12.75, ""),
            ("decode", "internal", 12.25, 12.35, ""),
            ("predict", "internal", 12.35, 12.65, ""),
        ]

    def test_of_one_that_did_not_wait_has_no_queue(self) -> None:
        trace = begun()
        trace.waits(10.0)
        trace.begins_try("r0", "h", 1, "POST", 10.0)
        trace.end(200, 11.0)

        assert [span.name for span in trace.spans] == ["POST /x", "POST"]

    def test_of_one_that_was_sent_again_has_both_tries_and_the_wait_between(self) -> None:
        trace = begun()
        trace.waits(10.0)
        trace.begins_try("r0", "h", 1, "POST", 10.0)
        trace.try_failed("reset", "its connection was reset before the answer", 11.0)
        trace.retries("reset", 11.0)
        trace.begins_try("r1", "h", 2, "POST", 12.0)
        trace.answers(200, b"", 12.0, 13.0)
        trace.end(200, 13.0)

        assert told(trace) == [
            ("POST /x", "server", 10.0, 13.0, ""),
            ("POST", "client", 10.0, 11.0, "reset"),
            ("queue", "internal", 11.0, 12.0, ""),
            ("POST", "client", 12.0, 13.0, ""),
        ]
        assert trace.spans[3].attributes["http.request.resend_count"] == 1

    @pytest.mark.parametrize(
        ("status", "error"), [(200, ""), (404, ""), (499, ""), (500, "500"), (504, "504"), (0, "cut off")]
    )
    def test_is_an_error_when_the_server_is_at_fault(self, status: int, error: str) -> None:
        trace = begun()
        trace.end(status, 11.0)

        assert trace.root.error == error

    @given(
        st.binary(max_size=TOLD_BYTES + 20)
        | st.lists(
            st.tuples(
                st.sampled_from(["total", "decode", "wait", "predict", "open", "rows", "zz"]),
                st.integers(0, 10**13),
                st.integers(0, 10**13),
            ),
            max_size=8,
        ).map(lambda tokens: b" ".join(f"{name}={a}+{b}".encode() for name, a, b in tokens))
    )
    def test_keeps_all_that_a_replica_tells_within_its_try(self, said: bytes) -> None:
        trace = begun()
        trace.begins_try("r0", "h", 1, "POST", 10.0)
        trace.answers(200, said, 10.5, 11.0)
        trace.end(200, 12.0)

        tried: Span = trace.spans[1]
        assert all(tried.start <= span.start <= span.end <= tried.end for span in trace.spans[1:])
        assert len(trace.spans) < 10


class TestRoute:
    @pytest.mark.parametrize(
        ("path", "route"),
        [
            ("/v2/models/iris/infer", "/v2/models/{model}/infer"),
            ("/v2/models/iris/versions/7/infer", "/v2/models/{model}/versions/{version}/infer"),
            ("/v2/models/iris", "/v2/models/{model}"),
            ("/v2/models/iris/anything", "/v2/models/{model}"),
            ("/v1/models/iris:predict", "/v1/models/{model}:predict"),
            ("/v1/models/iris/labels/stable:predict", "/v1/models/{model}/labels/{label}:predict"),
            ("/models/iris@2/users/17", "/models/{model}/{path}"),
            ("/v2/repository/index", "/v2/repository/index"),
            ("/anything/else", ""),
        ],
    )
    def test_names_no_model_and_no_user(self, path: str, route: str) -> None:
        assert route_of(path) == route
