"""Percentiles within 0.1 %, and never better than they were."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.load.histogram import Histogram

LENGTHS_NS = st.lists(st.integers(0, 4 * 3600 * 10**9), min_size=1, max_size=200)


def of(lengths_ns: list[int]) -> Histogram:
    histogram = Histogram()
    for length_ns in lengths_ns:
        histogram.add(length_ns)
    return histogram


class TestPercentile:
    @given(LENGTHS_NS, st.floats(0, 100))
    def test_is_within_a_thousandth_of_the_exact_one_and_not_below(self, lengths_ns: list[int], percent: float) -> None:
        rank = max(1, math.ceil(round(percent / 100 * len(lengths_ns), 6)))
        exact_s = sorted(lengths_ns)[rank - 1] / 1e9

        found_s = of(lengths_ns).percentile_s(percent)

        assert found_s is not None
        assert exact_s <= found_s <= exact_s * 1.001

    @pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 500), (99, 990), (99.9, 999), (100, 1000)])
    def test_of_a_thousand_is_the_one_of_that_rank(self, percent: float, value: int) -> None:
        assert of(list(range(1, 1001))).percentile_s(percent) == pytest.approx(value / 1e9)

    def test_of_nothing_is_unknown(self) -> None:
        empty = Histogram()

        assert (empty.percentile_s(99), empty.mean_s, empty.least_s, empty.most_s) == (None, None, None, None)


class TestExact:
    @given(LENGTHS_NS)
    def test_mean_least_and_most(self, lengths_ns: list[int]) -> None:
        histogram = of(lengths_ns)

        assert histogram.mean_s == pytest.approx(sum(lengths_ns) / len(lengths_ns) / 1e9)
        assert (histogram.least_s, histogram.most_s) == (min(lengths_ns) / 1e9, max(lengths_ns) / 1e9)

    @given(LENGTHS_NS)
    def test_buckets_hold_every_length(self, lengths_ns: list[int]) -> None:
        assert sum(count for _, count in of(lengths_ns).buckets()) == len(lengths_ns)


class TestBeyond:
    def test_counts_what_took_longer(self) -> None:
        assert of([10_000_000, 20_000_000, 30_000_000, 40_000_000]).beyond(0.025) == 2

    def test_does_not_count_what_took_just_so_long(self) -> None:
        assert of([10_000_000]).beyond(0.01) == 0


def test_keeps_what_is_longer_than_any_request() -> None:
    assert of([10**18]).percentile_s(50) is not None
