"""Rates to plan for: a level, jumps told from chance, ramps drawn out, and forecasts that are no longer believed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.scaling.demand import MOST_PHI, Demand, Traffic, note, read

LEAD_S = 4.0


def traffic(arrivals: Sequence[float], span_s: float = 2.0) -> Traffic:
    known = Traffic()
    for number, count in enumerate(arrivals, 1):
        known = note(known, number * span_s, span_s, count)
    return known


def demand(arrivals: Sequence[float], lead_s: float = LEAD_S) -> Demand:
    return read(traffic(arrivals), lead_s, 0.25)[0]


STEADY = [20, 19, 21, 20, 22, 18] * 10


class TestRead:
    def test_of_steady_traffic_is_its_rate(self) -> None:
        found = demand(STEADY)

        assert (found.rate, found.jump, found.surge) == (pytest.approx(10, abs=0.3), "", 0)

    def test_a_jump_of_one_sample_counts_at_once(self) -> None:
        found = demand([*STEADY, 100])

        assert found.newest == 50
        assert found.rate >= 50
        assert found.jump == "2 s rate 5.0 × the rate before it"

    def test_a_slower_jump_is_seen_over_six_seconds(self) -> None:
        found = demand([*STEADY, 33, 34, 33])

        assert found.jump == "6 s rate 1.7 × the 20 s rate before it"

    def test_chance_is_no_jump(self) -> None:
        """31 where 20 are usual is two and a half standard deviations."""
        assert demand([*STEADY, 31]).jump == ""

    def test_what_is_bursty_anyway_jumps_less_easily(self) -> None:
        bursty = [0, 40] * 30

        assert demand([*STEADY, 60]).jump != ""
        assert demand([*bursty, 60]).jump == ""
        assert demand(bursty).phi == MOST_PHI

    def test_a_ramp_is_drawn_out_over_the_start_of_a_replica(self) -> None:
        ramp = [*STEADY, 40, 60, 80, 100]

        assert demand(ramp, lead_s=10).rate > demand(ramp, lead_s=2).rate > 50

    def test_a_forecast_goes_to_twice_the_rate_at_most(self) -> None:
        assert demand([*STEADY, 40, 100, 400, 1600], lead_s=60).rate <= 2 * 800

    def test_forecasts_that_do_not_come_true_count_for_less(self) -> None:
        known, trusts = Traffic(), []
        at = 0.0
        for _ in range(6):
            for count in (*STEADY[:24], 100, 160):
                at += 2.0
                known = note(known, at, 2.0, count)
                found, known = read(known, LEAD_S, 0.25)
            trusts.append(found.trust)

        assert trusts == sorted(trusts, reverse=True)
        assert trusts[-1] < 0.5

    def test_silence_before_is_less_than_a_request(self) -> None:
        found = demand([0] * 30 + [12])

        assert (found.newest, found.jump) == (6, "2 s rate 6.0 req/s, not 0 as the rate before it")

    def test_a_lone_request_out_of_silence_is_no_jump(self) -> None:
        assert demand([0] * 30 + [1]).jump == ""

    def test_a_short_sample_is_no_rate_of_thousands(self) -> None:
        """A wake-up call 20 ms after the last tick brings 50 requests: 50 per second, not 2,500. As
        a ramp that is no more than twice as much."""
        known = note(traffic([0] * 30), 60.02, 0.02, 50)

        assert 50 <= read(known, LEAD_S, 0.25)[0].rate <= 100

    def test_windows_grow_with_slow_models(self) -> None:
        slow = read(traffic([*STEADY, *[0] * 10]), LEAD_S, 10.0)[0]

        assert slow.mid == pytest.approx(5, abs=0.3)

    def test_wandering_rates_are_unrest_though_neighbours_are_alike(self) -> None:
        wave = [100 + 40 * abs((i % 40) - 20) / 10 for i in range(110)]

        found = demand(wave, lead_s=16)

        assert found.phi < 1.5
        assert found.unrest > 2 * found.phi

    @given(
        before=st.lists(st.integers(0, 200), min_size=1, max_size=60),
        newest=st.integers(0, 500),
        more=st.integers(1, 500),
        lead_s=st.floats(0.05, 30),
    )
    def test_more_arrivals_never_make_it_less(self, before: list[int], newest: int, more: int, lead_s: float) -> None:
        less_rate = demand([*before, newest], lead_s).rate

        assert demand([*before, newest + more], lead_s).rate >= less_rate - 1e-9

    @given(before=st.lists(st.integers(0, 200), min_size=1, max_size=60))
    def test_is_never_below_the_level(self, before: list[int]) -> None:
        found = demand(before)

        assert found.rate >= found.mid - 1e-9
        assert 1.0 <= found.phi <= found.unrest <= MOST_PHI


class TestNote:
    def test_forgets_what_is_older_than_four_minutes(self) -> None:
        known = traffic([1] * 500)

        assert known.covered_s == 240
        assert len(known.arrivals) == 120
