"""How long replicas are kept: the worked example of the module, and what patience does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.scaling.service import Capacity
from orchestrator.core.scaling.tenure import Level, Use, held, note, seeded, trimmed

CAPACITY = Capacity(4, 0.25, 0.55, 0.36, 95.0, 1.0, is_derived=False, is_guess=False)
LEAST_S = 30.0


def use(now: float, wanted: int, load: float = 0.0, **known: float) -> Use:
    facts = {"kept": wanted, "slow_lead_s": 2.0, "fast_lead_s": 0.05, "fast_levels": 0, "is_jump": False, **known}
    return Use(now=now, span_s=2.0, wanted=wanted, load=load, least_s=LEAST_S, **facts)  # type: ignore[arg-type]


def played(*uses: Use, levels: tuple[Level, ...] = ()) -> tuple[Level, ...]:
    for one in uses:
        levels = note(levels, one, CAPACITY, worth_s=10.0)
    return levels


def kept(levels: tuple[Level, ...], now: float) -> int:
    return held(levels, now, LEAST_S).count


class TestHeld:
    def test_what_was_wanted_stays_half_a_minute(self) -> None:
        levels = played(use(0, 3), use(2, 1))

        assert (kept(levels, 29.9), kept(levels, 30.0)) == (3, 1)

    def test_a_full_use_pays_for_as_long_as_its_requests_are_worth(self) -> None:
        """10 s × 16 requests/s × the 4 s of two ticks: 640 s from the first, and the 2 s to the second."""
        levels = played(use(0, 3, 3.0), use(2, 3, 3.0), use(4, 3, 3.0))

        assert levels[2].paid_until == pytest.approx(640)
        assert held(levels, 100, LEAST_S).is_paid

    def test_the_top_of_a_lone_peak_is_paid_for_what_it_was_used(self) -> None:
        levels = played(use(0, 3, 2.1))

        assert levels[2].paid_until == pytest.approx(32)

    def test_no_more_is_paid_for_than_a_quarter_of_an_hour(self) -> None:
        levels = played(*(use(20.0 * i, 1, 1.0, slow_lead_s=10.0) for i in range(50)))

        assert levels[0].paid_until <= 20.0 * 49 + 900

    def test_steady_use_pays_once(self) -> None:
        """A level that is always used would be there anyway: what it saves was saved when its use began."""
        levels = played(*(use(2.0 * i, 1, 1.0) for i in range(500)))

        assert levels[0].paid_until == pytest.approx(640)

    def test_a_level_that_would_wake_from_standby_earns_less(self) -> None:
        """One tick and the 50 ms of waking: 10 × 16 × 2.05. From a cold start it were 640 s."""
        fast = played(use(0, 2, 2.0, fast_levels=4), use(2, 2, 2.0, fast_levels=4))

        assert fast[1].paid_until == pytest.approx(320 + 8)

    def test_a_load_between_two_counts_ends_with_the_higher_one(self) -> None:
        """Wanted for a tick each 40 s, a replica would come and go 90 times in an hour."""
        levels, changes, there = (), 0, 1
        for tick in range(1800):
            now = 2.0 * tick
            levels = note(levels, use(now, 2 if tick % 20 == 0 else 1), CAPACITY, worth_s=0.0)
            count = kept(levels, now)
            changes, there = changes + (count != there), count

        assert changes <= 5
        assert there == 2

    def test_patience_ends_when_it_is_not_needed_again(self) -> None:
        patient = played(use(0, 2), use(40, 2), use(110, 2))
        assert patient[1].patience == 4

        assert played(use(2000, 2), levels=patient)[1].patience == 2

    def test_what_is_there_is_kept_for_a_likely_rate_and_nothing_is_started_for_it(self) -> None:
        there = played(use(0, 2), use(20, 1, kept=2))
        new = played(use(0, 1), use(20, 1, kept=2))

        assert (kept(there, 45), kept(new, 20)) == (2, 1)


class TestSeeded:
    def test_what_was_found_running_is_kept_like_what_was_wanted(self) -> None:
        assert kept(seeded(5, 100.0), 129.0) == 5


def test_levels_that_nothing_remembers_are_dropped() -> None:
    levels = played(use(0, 3))

    assert len(trimmed(levels, 899)) == 3
    assert trimmed(levels, 901) == ()
    assert len(trimmed((*levels[:2], replace(levels[2], paid_until=2000.0)), 1500)) == 3
