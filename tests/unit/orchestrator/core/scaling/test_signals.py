"""Counters of gateways to samples: increases, restarts, several gateways, and what stays unknown."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.scaling.facts import Sample
from orchestrator.core.scaling.signals import Buckets, Reading, between, count_above, quantile, service_times

BOUNDS = (0.1, 0.2, 0.5, 1.0, math.inf)


def buckets(*counts: float, total_s: float = 0.0) -> Buckets:
    cumulative = [sum(counts[: i + 1]) for i in range(len(BOUNDS))]
    return Buckets(BOUNDS, tuple(cumulative), total_s)


NOTHING = buckets()


def reading(at: float, answered: float | None, **known: Any) -> Reading:
    facts = {"queued": 0.0, "in_flight": 0.0, "failed": 0.0, "shed": 0.0, "request": NOTHING, "model": NOTHING, **known}
    return Reading(at=at, answered=answered, **facts)


def step(before: dict[str, Reading], now: dict[str, Reading], **known: Any) -> Sample:
    found = between(before, now, latency_s=1.0, **known)
    assert found is not None
    return found


class TestBetween:
    def test_is_what_the_counters_grew_by(self) -> None:
        found = step(
            {"a": reading(10, 100, arrivals=110.0, shed=1.0, failed=2.0)},
            {"a": reading(12, 150, arrivals=170.0, shed=4.0, failed=7.0, queued=6.0, in_flight=4.0)},
        )

        assert (found.at, found.span_s, found.arrivals, found.answered) == (12, 2, 60, 50)
        assert (found.failed, found.late, found.queued, found.in_flight) == (5, 3, 6, 4)
        assert found.doubts() == ()

    def test_arrivals_follow_from_answers_and_what_is_inside_where_they_are_not_counted(self) -> None:
        found = step(
            {"a": reading(10, 100, queued=3.0, in_flight=4.0)}, {"a": reading(12, 150, queued=10.0, in_flight=5.0)}
        )

        assert found.arrivals == 50 + 15 - 7

    def test_adds_gateways_up(self) -> None:
        found = step(
            {"a": reading(10, 100), "b": reading(10, 5)},
            {"a": reading(12, 150, queued=1.0), "b": reading(12, 8, queued=2.0)},
        )

        assert (found.answered, found.queued) == (53, 3)

    def test_a_counter_that_fell_began_anew(self) -> None:
        found = step(
            {"a": reading(10, 1000, request=buckets(1000), in_flight=9.0)},
            {"a": reading(12, 30, request=buckets(0, 0, 0, 0, 4), in_flight=2.0)},
        )

        assert (found.answered, found.arrivals, found.late) == (30, 32, 4)

    def test_a_gateway_that_began_anew_is_known_by_its_start_though_it_counts_more_than_before(self) -> None:
        found = step({"a": reading(10, 5, began_at=1.0)}, {"a": reading(12, 30, began_at=11.0)})

        assert found.answered == 30

    def test_a_gateway_as_young_as_the_interval_counts_from_nothing(self) -> None:
        found = step({"a": reading(10, 100)}, {"a": reading(12, 110), "b": reading(12, 7, began_at=11.0)})

        assert (found.answered, found.missing) == (17, ())

    def test_an_older_gateway_that_was_not_read_before_is_named(self) -> None:
        found = step({"a": reading(10, 100)}, {"a": reading(12, 110), "b": reading(12, 7_000, began_at=-900.0)})

        assert (found.answered, found.missing) == (10, ("b",))

    def test_a_gateway_that_is_silent_is_named(self) -> None:
        found = step({"a": reading(10, 100), "b": reading(10, 5)}, {"a": reading(12, 110)}, expected=["a", "b", "c"])

        assert found.missing == ("b", "c")
        assert found.doubts() == ("no word from b, c",)

    @pytest.mark.parametrize("name", ["answered", "queued", "in_flight", "failed"])
    def test_what_one_gateway_does_not_say_is_unknown_in_the_sum(self, name: str) -> None:
        silent = Reading(
            at=12, **{"answered": 7.0, "queued": 0.0, "in_flight": 0.0, "failed": 0.0, "shed": 0.0, name: None}
        )

        found = step({"a": reading(10, 100), "b": reading(10, 5)}, {"a": reading(12, 110), "b": silent})

        assert getattr(found, name) is None
        assert any(name in doubt for doubt in found.doubts())

    def test_nothing_can_be_said_before_the_second_reading(self) -> None:
        assert between({}, {"a": reading(12, 110)}, latency_s=1.0) is None

    @pytest.mark.parametrize("at", [10.0, 9.0, math.nan])
    def test_nothing_can_be_said_when_no_time_passed(self, at: float) -> None:
        assert between({"a": reading(10, 100)}, {"a": reading(at, 110)}, latency_s=1.0) is None

    @given(st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=1, max_size=30))
    def test_over_restarts_the_samples_sum_to_what_was_counted(self, rounds: list[tuple[int, bool]]) -> None:
        """A restart right after a reading loses nothing; a reading after it shows less than the one before, or its
        younger start."""
        before, counted, seen, began = reading(0, 0, began_at=0.0), 0, 0.0, 0.0
        for number, (grown, restarts) in enumerate(rounds, 1):
            began = 10.0 * number - 5 if restarts else began
            now = reading(10.0 * number, (0 if restarts else before.answered or 0) + grown, began_at=began)
            counted += grown
            seen += step({"a": before}, {"a": now}).answered or 0
            before = now

        assert seen == counted


class TestHistograms:
    def test_a_quantile_lies_within_its_bucket_in_proportion(self) -> None:
        assert quantile(buckets(50, 50), 0.75) == pytest.approx(0.15)

    def test_beyond_the_last_bound_is_the_last_bound(self) -> None:
        assert quantile(buckets(0, 0, 0, 1, 9), 0.95) == 1.0

    @pytest.mark.parametrize(("value_s", "expected"), [(0.1, 60.0), (0.35, 15 + 25 + 5), (1.0, 5.0), (50.0, 5.0)])
    def test_what_is_longer_is_counted_in_proportion(self, value_s: float, expected: float) -> None:
        assert count_above(buckets(40, 0, 30, 25, 5), value_s) == pytest.approx(expected)

    def test_service_times_have_the_exact_mean(self) -> None:
        found = service_times(buckets(80, 20, total_s=9.0), 95)

        assert found is not None
        assert (found.count, found.mean_s) == (100, 0.09)
        assert found.tail_s == pytest.approx(0.175)

    def test_service_times_of_an_exponential_have_about_its_variability(self) -> None:
        bounds = (*(0.01 * 1.3**i for i in range(25)), math.inf)
        counts = tuple(10_000 * (1 - math.exp(-b / 0.25)) for b in bounds)

        found = service_times(Buckets(bounds, counts, 2_500.0), 95)

        assert found is not None
        assert found.scv == pytest.approx(1.0, abs=0.08)
        assert found.tail_s == pytest.approx(0.25 * math.log(20), rel=0.03)

    @pytest.mark.parametrize(
        "broken", [None, NOTHING, buckets(5, total_s=-1.0), buckets(5, -2, total_s=1.0), buckets(5, total_s=math.nan)]
    )
    def test_a_histogram_without_sense_says_nothing(self, broken: Buckets | None) -> None:
        assert service_times(broken, 95) is None
