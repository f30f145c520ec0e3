"""The metrics page as OpenMetrics, read by prometheus_client's own parser."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import TypeVar

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from router.accounts import Account, Total, lane_accounts
from router.core.admission import Lane
from router.metrics import render_in_steps
from router.openmetrics import is_wanted

T = TypeVar("T")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def last_of(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            value: T = stop.value
            return value


def page(*processes: Iterable[Lane]) -> str:
    """Of a gateway with these lanes in each of its processes."""
    total = Total()
    for lanes in processes:
        last_of(total.add(Account(lanes=last_of(lane_accounts(lanes, 0.0))), is_live=True))
    gauges = {'modelfleet_gateway_info{cluster="c"}': ("Whose gateway this is.", 1.0)}
    spans = {"exported": 3}
    return last_of(
        render_in_steps(total.lanes.values(), {404: 2}, gauges, {"iris": 1}, (), spans, is_open=True)
    ).decode()


def used(model: str) -> Lane:
    lane = Lane(model, "1", lambda n: 0)
    lane.stats.arrived = 4
    for seconds in (0.0004, 0.02, 1.7, 500.0):
        lane.stats.answered(200, seconds)
    return lane


class TestPage:
    def test_is_read_by_a_strict_parser(self) -> None:
        lane, elsewhere = used("iris"), used("iris")
        lane.note_exemplar("0" * 32, 0.018, 1_700_000_000.0)
        lane.note_exemplar(TRACE, 0.02, 1_700_000_001.0)
        elsewhere.note_exemplar("e" * 32, 0.019, 1_700_000_000.5)
        elsewhere.note_exemplar("f" * 32, 500.0, 1_700_000_002.0)

        families = {
            family.name: family for family in text_string_to_metric_families(page([lane, used("text")], [elsewhere]))
        }

        assert families["modelfleet_requests"].type == "counter"
        assert {sample.name for sample in families["modelfleet_arrivals"].samples} == {"modelfleet_arrivals_total"}
        found = {
            (sample.labels["model"], sample.labels["le"]): sample.exemplar
            for sample in families["modelfleet_request_seconds"].samples
            if sample.exemplar is not None
        }
        assert found.keys() == {("iris", "0.02"), ("iris", "+Inf")}
        newest = found["iris", "0.02"]
        assert (newest.labels, newest.value, float(newest.timestamp)) == ({"trace_id": TRACE}, 0.02, 1_700_000_001.0)
        assert families["modelfleet_trace_spans"].samples[0].value == 3

    def test_ends_with_its_mark_and_nothing_behind(self) -> None:
        assert page([]).endswith("\n# EOF\n")


class TestAccept:
    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            (b"", False),
            (b"*/*", False),
            (b"text/plain;version=0.0.4", False),
            (b"application/openmetrics-text", True),
            (b"application/openmetrics-text; version=1.0.0; q=0", False),
            (b"application/openmetrics-text; version=1.0.0; q=0.0", False),
            (b"Application/OpenMetrics-Text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
             b"text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ],
    )  # fmt: skip
    def test_asks_for_it(self, accept: bytes, expected: bool) -> None:
        assert is_wanted(accept) is expected
