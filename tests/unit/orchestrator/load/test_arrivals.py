"""Rates that are kept, randomness that repeats, traces that are played faster and more."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.load import arrivals
from orchestrator.load.traces import Trace

TRACE = Trace("t", [0.0, 1.0, 2.0, 10.0])


class TestRates:
    def test_constant_ones_are_evenly_spaced(self) -> None:
        assert list(arrivals.constant(4, 1)) == [0, 0.25, 0.5, 0.75]

    def test_poisson_ones_keep_the_rate(self) -> None:
        # 20,000 are expected, deviation 141: beyond 600 it is wrong, or once in 50,000 times bad luck (the seed is fixed).
        assert len(list(arrivals.poisson(200, 100, seed=1))) == pytest.approx(20_000, abs=600)

    def test_poisson_ones_repeat_for_a_seed(self) -> None:
        assert list(arrivals.poisson(50, 2, seed=1)) == list(arrivals.poisson(50, 2, seed=1))
        assert list(arrivals.poisson(50, 2, seed=1)) != list(arrivals.poisson(50, 2, seed=2))

    def test_poisson_gaps_vary_as_exponential_ones_do(self) -> None:
        times = list(arrivals.poisson(100, 100, seed=1))
        gaps = [b - a for a, b in pairwise(times)]
        mean = sum(gaps) / len(gaps)

        assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) / mean**2 == pytest.approx(1, abs=0.1)


class TestPlayed:
    def test_faster_is_shorter(self) -> None:
        assert list(arrivals.played(TRACE, speed=10).times) == [0, 0.1, 0.2, 1.0]

    def test_is_cut_after_a_length(self) -> None:
        assert list(arrivals.played(TRACE, length_s=2).times) == [0, 1]

    @pytest.mark.parametrize(("factor", "least", "most"), [(1, 4, 4), (3, 12, 12), (2.5, 8, 12), (0.5, 0, 4)])
    def test_more_are_copies_close_by(self, factor: float, least: int, most: int) -> None:
        times = arrivals.played(TRACE, factor=factor, seed=5).times

        assert least <= len(times) <= most
        assert all(min(abs(at - each) for each in TRACE.times) <= 0.5 for at in times)

    @given(st.lists(st.floats(0, 1e6), max_size=50), st.floats(0.01, 5), st.floats(0.1, 100), st.integers(0, 9))
    def test_stays_in_order(self, times: list[float], factor: float, speed: float, seed: int) -> None:
        made = list(arrivals.played(Trace("t", sorted(times)), speed=speed, factor=factor, seed=seed).times)

        assert made == sorted(made)
        assert all(at >= 0 for at in made)

    def test_says_how_finely_moments_are_known(self) -> None:
        assert arrivals.played(Trace("t", [0.0], grain_s=1), speed=4).grain_s == 0.25
