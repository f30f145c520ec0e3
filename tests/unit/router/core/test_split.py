"""Weights are exact over a period, spread evenly, and skip versions that cannot take traffic."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from router.core.split import Split


def everyone(version: str) -> bool:
    return True


class TestSplit:
    @given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1))
    def test_gives_each_version_exactly_its_share_in_every_period(self, weights: dict[str, int]) -> None:
        split, period = Split(weights), sum(weights.values())

        for _ in range(3):
            assert Counter(split.pick(everyone) for _ in range(period)) == weights

    @given(st.integers(1, 99))
    def test_is_never_more_than_one_request_off(self, weight: int) -> None:
        split = Split({"a": weight, "b": 100 - weight})

        taken = 0
        for count in range(1, 300):
            taken += split.pick(everyone) == "a"
            assert abs(taken - count * weight / 100) <= 1

    def test_spreads_the_rare_version_evenly(self) -> None:
        split = Split({"1": 90, "2": 10})

        rare = [i for i in range(100) if split.pick(everyone) == "2"]

        assert {b - a for a, b in pairwise(rare)} == {10}

    def test_skips_versions_that_take_no_traffic(self) -> None:
        split = Split({"1": 90, "2": 10})

        assert {split.pick(lambda version: version == "2") for _ in range(50)} == {"2"}

    def test_picks_by_weight_when_no_version_takes_traffic(self) -> None:
        split = Split({"1": 50, "2": 50})

        assert {split.pick(lambda version: False) for _ in range(2)} == {"1", "2"}

    def test_never_picks_a_weight_of_zero(self) -> None:
        split = Split({"1": 0, "2": 1})

        assert {split.pick(everyone) for _ in range(5)} == {"2"}

    def test_picks_nobody_without_weights(self) -> None:
        assert Split({}).pick(everyone) == ""
