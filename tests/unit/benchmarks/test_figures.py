from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gateway.figures import AT_LEAST, AT_MOST, Bar, central_queue, percentile, poisson_arrivals

SERVICE_S = 0.02


class TestPercentile:
    @pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100), (0.001, 1)])
    def test_is_the_nearest_rank(self, share: float, expected: int) -> None:
        values = list(range(100, 0, -1))

        assert percentile(values, share) == expected

    def test_of_one_value_is_that_value(self) -> None:
        assert percentile([7.0], 0.99) == 7.0

    def test_refuses_to_judge_nothing(self) -> None:
        with pytest.raises(ValueError, match="no values"):
            percentile([])

    @given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
    def test_is_not_exceeded_by_its_share_of_the_values(self, values: list[float], share: float) -> None:
        found = percentile(values, share)

        assert found in values
        assert sum(value <= found for value in values) >= share * len(values) - 1e-9


class TestPoissonArrivals:
    def test_are_the_same_for_the_same_seed(self) -> None:
        assert poisson_arrivals(1000, 2, seed=3) == poisson_arrivals(1000, 2, seed=3)
        assert poisson_arrivals(1000, 2, seed=3) != poisson_arrivals(1000, 2, seed=4)

    def test_keep_the_rate_and_the_order(self) -> None:
        arrivals = poisson_arrivals(1000, 20, seed=1)

        assert arrivals == sorted(arrivals)
        assert arrivals[0] >= 0
        assert arrivals[-1] < 20
        # the count's deviation is its square root, 141: five of them
        assert len(arrivals) == pytest.approx(20_000, abs=700)


class TestCentralQueue:
    def test_serves_at_once_while_a_server_is_free(self) -> None:
        assert central_queue([0.0, 0.0, 1.0], SERVICE_S) == pytest.approx([SERVICE_S] * 3)

    def test_lets_the_third_wait_for_the_first_to_be_done(self) -> None:
        assert central_queue([0.0, 0.01, 0.015], SERVICE_S) == pytest.approx([0.02, 0.02, 0.025])

    def test_of_one_server_is_lindleys_recursion(self) -> None:
        arrivals = poisson_arrivals(40, 50, seed=5)
        wait = 0.0
        expected = [SERVICE_S]
        for before, arrival in pairwise(arrivals):
            wait = max(0.0, wait + SERVICE_S - (arrival - before))
            expected.append(wait + SERVICE_S)

        assert central_queue(arrivals, SERVICE_S, servers=1) == pytest.approx(expected)

    def test_of_one_server_has_the_mean_wait_that_theory_says(self) -> None:
        """Pollaczek-Khinchine for M/D/1: rho / (2 (1 - rho)) service times."""
        latencies = central_queue(poisson_arrivals(0.5 / SERVICE_S, 4000, seed=2), SERVICE_S, servers=1)

        wait = sum(latencies) / len(latencies) - SERVICE_S

        assert wait == pytest.approx(0.5 * SERVICE_S, rel=0.05)


class TestBar:
    @pytest.mark.parametrize(
        ("bar", "is_met"),
        [
            (Bar("rate", 0.6, AT_LEAST, 0.6), True),
            (Bar("rate", 0.599, AT_LEAST, 0.6), False),
            (Bar("latency", 1.1, AT_MOST, 1.1), True),
            (Bar("latency", 1.11, AT_MOST, 1.1), False),
            (Bar("latency", float("nan"), AT_MOST, 1.1), False),
        ],
    )
    def test_is_met_up_to_its_limit(self, bar: Bar, is_met: bool) -> None:
        assert bar.is_met is is_met
        assert ("MISSED" in bar.render()) is not is_met
