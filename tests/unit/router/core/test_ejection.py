"""One replica's health: what counts, how long it is out, how it returns."""

from __future__ import annotations

import pytest

from router.core.ejection import LIMIT, LONGEST_S, SAMPLES, SLOW_START_S, WEIGHT, Health


class TestFail:
    @pytest.mark.parametrize(
        ("kind", "needed"), [("connect", 1), ("invalid", 1), ("reset", 3), ("timeout", 3), ("5xx", 5)]
    )
    def test_needs_more_failures_in_a_row_the_more_doubt_they_leave(self, kind: str, needed: int) -> None:
        health = Health()

        seen = [health.fail(kind) for _ in range(needed)]

        assert seen == [False] * (needed - 1) + [True]
        assert WEIGHT[kind] * needed >= LIMIT

    def test_begins_again_after_a_good_answer(self) -> None:
        health = Health()
        health.fail("reset")
        health.fail("reset")
        health.succeed(0.1)

        assert not health.fail("reset")


class TestShare:
    def test_is_nothing_while_ejected_and_grows_after(self) -> None:
        health = Health()
        assert health.share(0.0) == 1.0

        health.eject("connect", 10.0)

        assert health.share(10.9) == 0.0
        assert health.share(11.0 + SLOW_START_S / 2) == 0.5
        assert health.share(11.0 + SLOW_START_S) == 1.0

    def test_is_nothing_for_twice_as_long_after_each_ejection_up_to_a_limit(self) -> None:
        health, now, out = Health(), 0.0, []
        for _ in range(8):
            health.eject("connect", now)
            out.append(health.ejected_until - now)
            now = health.ejected_until

        assert out[:5] == [1, 2, 4, 8, 16]
        assert out[-1] == LONGEST_S

    def test_is_forgiven_after_a_good_while(self) -> None:
        health = Health()
        health.eject("connect", 0.0)
        health.eject("connect", 1.0)
        health.eject("connect", 100.0)

        assert health.ejected_until == 101.0


class TestLatency:
    def seen(self, seconds: float) -> Health:
        health = Health()
        for _ in range(SAMPLES):
            health.succeed(seconds)
        return health

    def test_is_an_outlier_far_above_the_others(self) -> None:
        assert self.seen(0.6).is_slow_beside([self.seen(0.1), self.seen(0.1)])
        assert not self.seen(0.4).is_slow_beside([self.seen(0.1), self.seen(0.1)])

    def test_is_none_below_what_network_and_scheduler_decide(self) -> None:
        assert not self.seen(0.04).is_slow_beside([self.seen(0.001)])

    def test_is_not_judged_without_enough_to_compare(self) -> None:
        assert not self.seen(9.0).is_slow_beside([Health()])
        assert not Health().is_slow_beside([self.seen(0.1)])
