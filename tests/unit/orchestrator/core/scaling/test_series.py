"""A gateway's metrics, by name, as readings of its versions."""

from __future__ import annotations

import math

import pytest

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.series import GatewayReadings, Series, readings, series_of
from orchestrator.core.scaling.signals import Buckets

IRIS, ROSE = VersionKey("iris", "1"), VersionKey("rose", "2")
OF_IRIS = {"model": "iris", "version": "1"}


def read(*values: tuple[str, dict[str, str], float]) -> GatewayReadings:
    found = [(series_of(name, labels), value) for name, labels, value in values]
    return readings([(series, value) for series, value in found if series is not None], at=100.0)


class TestSeriesOf:
    @pytest.mark.parametrize(
        ("name", "labels", "detail"),
        [
            ("modelfleet_requests_total", {**OF_IRIS, "code": "502"}, "502"),
            ("modelfleet_shed_total", {**OF_IRIS, "reason": "queue_full"}, "queue_full"),
            ("modelfleet_model_seconds_bucket", {**OF_IRIS, "le": "+Inf"}, "+Inf"),
            ("modelfleet_queued", {**OF_IRIS, "job": "any", "instance": "a:1"}, ""),
        ],
    )
    def test_names_a_version_and_what_the_number_is_of(self, name: str, labels: dict[str, str], detail: str) -> None:
        assert series_of(name, labels) == Series(name, IRIS, detail)

    @pytest.mark.parametrize(
        ("name", "labels"),
        [
            ("modelfleet_requests_total", {"model": "", "version": "", "code": "404"}),
            ("modelfleet_retries_total", OF_IRIS),
            ("up", {}),
        ],
    )
    def test_leaves_out_what_belongs_to_no_version_or_matters_not(self, name: str, labels: dict[str, str]) -> None:
        assert series_of(name, labels) is None


class TestReadings:
    def test_adds_codes_and_reasons_up(self) -> None:
        found = read(
            ("modelfleet_gateway_started_at_seconds", {}, 50.0),
            ("modelfleet_arrivals_total", OF_IRIS, 20),
            ("modelfleet_requests_total", {**OF_IRIS, "code": "200"}, 10),
            ("modelfleet_requests_total", {**OF_IRIS, "code": "500"}, 2),
            ("modelfleet_requests_total", {**OF_IRIS, "code": "502"}, 3),
            ("modelfleet_requests_total", {**OF_IRIS, "code": "503"}, 4),
            ("modelfleet_shed_total", {**OF_IRIS, "reason": "queue_full"}, 4),
            ("modelfleet_shed_total", {**OF_IRIS, "reason": "queue_timeout"}, 1),
            ("modelfleet_queued", OF_IRIS, 6),
            ("modelfleet_inflight", OF_IRIS, 7),
        ).of(IRIS)

        assert (found.at, found.began_at) == (100.0, 50.0)
        assert (found.arrivals, found.answered, found.failed, found.shed) == (20, 19, 5, 4)
        assert (found.queued, found.in_flight) == (6, 7)

    def test_sorts_buckets_by_their_bounds(self) -> None:
        found = read(
            ("modelfleet_request_seconds_bucket", {**OF_IRIS, "le": "+Inf"}, 9),
            ("modelfleet_request_seconds_bucket", {**OF_IRIS, "le": "0.05"}, 4),
            ("modelfleet_request_seconds_bucket", {**OF_IRIS, "le": "0.5"}, 8),
            ("modelfleet_request_seconds_sum", OF_IRIS, 1.5),
        ).of(IRIS)

        assert found.request == Buckets((0.05, 0.5, math.inf), (4, 8, 9), 1.5)

    def test_a_version_that_is_not_shown_had_no_requests_and_fits_those_that_had(self) -> None:
        page = read(
            ("modelfleet_request_seconds_bucket", {**OF_IRIS, "le": "0.05"}, 4),
            ("modelfleet_request_seconds_bucket", {**OF_IRIS, "le": "+Inf"}, 9),
            ("modelfleet_request_seconds_sum", OF_IRIS, 1.5),
        )

        nothing = page.of(ROSE)
        assert (nothing.arrivals, nothing.queued, nothing.shed) == (0, 0, 0)
        assert nothing.request == Buckets((0.05, math.inf), (0, 0), 0)

    def test_what_a_gateway_does_not_say_of_a_version_is_unknown(self) -> None:
        found = read(("modelfleet_queued", OF_IRIS, 6)).of(IRIS)

        assert (found.arrivals, found.in_flight, found.request) == (None, None, None)

    @pytest.mark.parametrize("les", [["0.1"], []], ids=["without an infinite bucket", "without buckets"])
    def test_a_histogram_that_is_not_whole_is_unknown(self, les: list[str]) -> None:
        buckets = [("modelfleet_request_seconds_bucket", {**OF_IRIS, "le": le}, 1.0) for le in les]

        assert read(*buckets, ("modelfleet_request_seconds_sum", OF_IRIS, 1.5)).of(IRIS).request is None
