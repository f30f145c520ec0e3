"""Rates and percentiles for people, and the minutes that are kept of them: tables, and what must always hold."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.entities import VersionKey
from orchestrator.core.live import CURVES, MOST_CARRIED_S, UNKNOWN, Rates, Track, growth, rates, total
from orchestrator.core.scaling.series import GatewayReadings
from orchestrator.core.scaling.signals import Buckets, Reading

IRIS = VersionKey("iris", "1")
BOUNDS = (0.01, 0.1, math.inf)


def reading(
    at: float, answered: float = 0, fast: float = 0, slow: float = 0, **facts: float | Buckets | None
) -> Reading:
    """`fast` requests took up to 10 ms, `slow` ones up to 100 ms, each as often as it was answered."""
    times = Buckets(BOUNDS, (fast, fast + slow, fast + slow), 0.005 * fast + 0.05 * slow)
    base = Reading(
        at=at, arrivals=answered, answered=answered, failed=0, errors=0, shed=0, queued=0, in_flight=0, request=times,
        model=times, began_at=1.0,
    )  # fmt: skip
    return replace(base, **facts)  # type: ignore[arg-type]


def said(found: Reading) -> dict[str, GatewayReadings]:
    nothing = Reading(at=found.at, answered=0.0, errors=0.0, queued=0.0, in_flight=0.0, began_at=found.began_at)
    return {"gateway": GatewayReadings(found.at, {IRIS: found}, nothing)}


def between(before: Reading, now: Reading) -> Rates:
    return rates(growth(said(before), said(now), IRIS))


class TestRates:
    def test_are_what_happened_in_between(self) -> None:
        before, now = reading(100, 50, fast=50), reading(110, 250, fast=150, slow=100, errors=20, queued=3, in_flight=7)

        found = between(before, now)

        assert (found.rate_per_s, found.error_ratio, found.queued, found.in_flight) == (20.0, 0.1, 3, 7)
        assert found.p50_ms == pytest.approx(10.0)
        assert 80 < (found.p95_ms or 0) < (found.p99_ms or 0) < 100

    def test_of_no_answer_there_is_no_percentile_and_no_share_of_errors(self) -> None:
        found = between(reading(100, 50, fast=50), reading(110, 50, fast=50, queued=2))

        assert found == Rates(rate_per_s=0.0, queued=2, in_flight=0)

    def test_a_gateway_that_began_anew_has_said_all_since_then(self) -> None:
        found = between(reading(100, 1000, fast=1000), reading(110, 30, fast=30, began_at=105.0))

        assert found.rate_per_s == 3.0
        assert found.p95_ms == pytest.approx(9.5)

    def test_one_reading_says_nothing(self) -> None:
        now = said(reading(110, 30))

        assert rates(growth({}, now, IRIS)) == rates(growth(now, {}, IRIS)) == rates(growth(now, now, IRIS)) == UNKNOWN

    def test_a_gateway_that_was_not_read_before_makes_every_sum_wrong(self) -> None:
        one, two = said(reading(100)), said(reading(110, 30))

        assert growth(one, {**two, "other": two["gateway"]}, IRIS) is None

    def test_what_a_source_does_not_say_is_unknown(self) -> None:
        found = between(reading(100, queued=None), reading(110, 10, fast=10, queued=None, in_flight=None))

        assert (found.queued, found.in_flight, found.queue_p95_ms) == (None, None, None)

    def test_the_queue_is_known_once_it_was_read_twice(self) -> None:
        waits = Buckets(BOUNDS, (10.0, 10.0, 10.0), 0.05)
        more = Buckets(BOUNDS, (10.0, 20.0, 20.0), 0.5)

        first = between(reading(100, 10, fast=10), reading(110, 20, fast=20, queue=waits))
        then = between(reading(100, 10, fast=10, queue=waits), reading(110, 20, fast=20, queue=more))

        assert first.queue_p95_ms is None
        assert 90 < (then.queue_p95_ms or 0) < 100

    def test_who_hardly_waited_is_not_said_to_have_waited_for_most_of_a_bucket(self) -> None:
        none, all_at_once = Buckets(BOUNDS, (0.0, 0.0, 0.0), 0.0), Buckets(BOUNDS, (100.0, 100.0, 100.0), 0.0002)

        found = between(reading(100, queue=none), reading(110, 100, fast=100, queue=all_at_once))

        assert found.queue_p95_ms == pytest.approx(0.04)

    def test_versions_add_up_to_their_model(self) -> None:
        one = growth(said(reading(100)), said(reading(110, 100, fast=100)), IRIS)
        other = growth(said(reading(100)), said(reading(110, 100, slow=100, errors=10)), IRIS)
        assert one is not None
        assert other is not None

        found = rates(total([one, other]))

        assert (found.rate_per_s, found.error_ratio) == (20.0, 0.05)
        assert found.p50_ms == pytest.approx(10.0)

    @given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 100))
    def test_are_never_negative_and_in_order(self, at: float, span: float, fast: int, slow: int, before: int) -> None:
        found = between(
            reading(at, before, fast=before), reading(at + span, before + fast + slow, fast=before + fast, slow=slow)
        )

        known = [value for value in (found.p50_ms, found.p95_ms, found.p99_ms) if value is not None]
        assert known == sorted(known)
        assert all(value >= 0 for value in (*known, found.rate_per_s or 0.0))


def kept(track: Track, slots: range) -> list[float | None]:
    return track.read("rate_per_s", slots)


def put(track: Track, slot: int, value: float | None) -> None:
    track.put(slot, [value] * len(CURVES))


class TestTrack:
    def test_gives_back_what_was_put_and_nothing_else(self) -> None:
        track = Track(10)
        put(track, 100, 1.5)
        put(track, 101, None)
        put(track, 102, 2.5)

        assert kept(track, range(98, 105)) == [None, None, 1.5, None, 2.5, None, None]

    def test_forgets_what_is_older_than_its_length(self) -> None:
        track = Track(3)
        for slot in range(100, 105):
            put(track, slot, float(slot))

        assert kept(track, range(100, 106)) == [None, None, 102.0, 103.0, 104.0, None]

    @pytest.mark.parametrize(("missed", "between"), [(MOST_CARRIED_S, 2.0), (MOST_CARRIED_S + 1, None)])
    def test_carries_over_a_few_missed_seconds_and_shows_a_gap(self, missed: int, between: float | None) -> None:
        track = Track(30)
        put(track, 100, 1.0)
        put(track, 100 + missed + 1, 2.0)

        assert kept(track, range(100, 102 + missed)) == [1.0, *[between] * missed, 2.0]

    def test_a_gap_longer_than_all_leaves_nothing_old(self) -> None:
        track = Track(5)
        for slot in range(100, 105):
            put(track, slot, 1.0)
        put(track, 10_000, 2.0)

        assert kept(track, range(9_996, 10_001)) == [None] * 4 + [2.0]

    def test_a_clock_that_was_set_back_changes_nothing(self) -> None:
        track = Track(5)
        put(track, 100, 1.0)
        put(track, 50, 9.0)

        assert kept(track, range(96, 101)) == [None] * 4 + [1.0]

    @given(st.lists(st.tuples(st.integers(1, 12), st.floats(0, 100, width=32)), min_size=1, max_size=40))
    def test_what_was_put_last_is_there(self, steps: list[tuple[int, float]]) -> None:
        track, slot, noted = Track(8), 1000, {}
        for gap, value in steps:
            slot += gap
            put(track, slot, value)
            noted[slot] = value

        for each in range(slot - 7, slot + 1):
            if each in noted:
                assert track.read("p99_ms", [each]) == [pytest.approx(noted[each], abs=1e-3)]
