"""Requests per second with a burst: what passes, and when."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.contract import RateLimit
from router.core.rate import ROUNDING_S, RateGate, gate_for, private_place


def gate(requests_per_s: float = 10.0, burst: int = 1) -> RateGate:
    return RateGate(*private_place("k"), RateLimit(requests_per_s, burst))


def passes(gate: RateGate, now: float) -> bool:
    if gate.wait_s(now) > 0:
        return False
    gate.spend(now)
    return True


class TestRateGate:
    def test_lets_a_burst_pass_at_once_and_then_one_for_each_step(self) -> None:
        made = gate(10.0, burst=3)

        assert [passes(made, 100.0) for _ in range(4)] == [True, True, True, False]
        assert [passes(made, 100.1) for _ in range(2)] == [True, False]

    def test_says_how_long_to_wait(self) -> None:
        made = gate(10.0)
        made.spend(100.0)

        assert made.wait_s(100.04) == pytest.approx(0.06, abs=1e-5)
        assert made.wait_s(100.1) == 0.0

    def test_asking_spends_nothing(self) -> None:
        made = gate(10.0, burst=2)

        assert [made.wait_s(5.0) for _ in range(10)] == [0.0] * 10
        assert [passes(made, 5.0) for _ in range(3)] == [True, True, False]

    @given(
        rate=st.floats(0.01, 1e5),
        burst=st.integers(1, 50),
        gaps=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=200),
        start=st.floats(0.0, 1e7),
    )
    def test_lets_no_window_have_more_than_the_burst_and_the_rate(
        self, rate: float, burst: int, gaps: list[float], start: float
    ) -> None:
        made = gate(rate, burst)
        now, passed = start, []
        for gap in gaps:
            now += gap / rate
            if passes(made, now):
                passed.append(now)

        for first, begin in enumerate(passed):
            for last in range(first, len(passed)):
                seconds = passed[last] - begin
                assert last - first + 1 <= burst + rate * (seconds + 2 * ROUNDING_S)

    @given(rate=st.floats(0.01, 1e4), burst=st.integers(1, 50), start=st.floats(0.0, 1e6))
    def test_gives_the_whole_rate_to_who_keeps_to_it(self, rate: float, burst: int, start: float) -> None:
        made = gate(rate, burst)

        assert all(passes(made, start + n / rate) for n in range(200))

    @given(rate=st.floats(0.1, 1e4), burst=st.integers(1, 50), start=st.floats(0.0, 1e6))
    def test_gives_the_whole_burst_again_after_a_pause(self, rate: float, burst: int, start: float) -> None:
        made = gate(rate, burst)
        while passes(made, start):
            pass

        later = start + burst / rate

        assert sum(passes(made, later) for _ in range(2 * burst)) == burst

    def test_is_shared_by_all_who_share_its_place(self) -> None:
        cells = array("d", [0.0] * 4)
        one, other = (RateGate(memoryview(cells), 2, RateLimit(1.0, 2)) for _ in range(2))

        assert [passes(each, 50.0) for each in (one, other, one)] == [True, True, False]
        assert list(cells) == [0.0, 0.0, 52.0, 0.0]


class TestGateFor:
    def test_a_table_with_the_same_limit_refills_nothing(self) -> None:
        made = gate_for(None, RateLimit(1.0, 1), "k", private_place, 0.0)
        assert made is not None
        made.spend(10.0)

        assert gate_for(made, RateLimit(1.0, 1), "k", private_place, 10.1) is made

    def test_another_limit_keeps_what_was_spent(self) -> None:
        made = gate_for(None, RateLimit(1.0, 1), "k", private_place, 0.0)
        assert made is not None
        made.spend(10.0)

        after = gate_for(made, RateLimit(2.0, 1), "k", private_place, 10.0)

        assert after is not None
        assert (passes(after, 10.1), passes(after, 10.5)) == (False, True)

    def test_a_raised_limit_does_not_pay_for_the_old_burst(self) -> None:
        made = gate(1.0, burst=1000)
        while passes(made, 10.0):
            pass

        after = gate_for(made, RateLimit(100.0, 1), "k", private_place, 10.0)

        assert after is not None
        assert passes(after, 10.011)

    def test_a_limit_taken_away_is_none(self) -> None:
        assert gate_for(gate(), None, "k", private_place, 0.0) is None
