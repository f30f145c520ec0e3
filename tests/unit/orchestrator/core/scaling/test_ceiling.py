"""Where more replicas bring nothing, as it shows in what saturated ones answer."""

from __future__ import annotations

import pytest

from orchestrator.core.scaling.ceiling import Finding, ceiling, find, is_saturated
from orchestrator.core.scaling.facts import Sample


def sample(at: float, answered: float, queued: float = 50, in_flight: float = 8) -> Sample:
    return Sample(at=at, span_s=2.0, arrivals=99, answered=answered, queued=queued, in_flight=in_flight)


def findings(*seen: tuple[int, float, int]) -> tuple[Finding, ...]:
    """Of (replicas, answers per second, samples)."""
    known: tuple[Finding, ...] = ()
    at = 0.0
    for count, per_s, samples in seen:
        for _ in range(samples):
            at += 2.0
            known = find(known, sample(at, 2 * per_s), count)
    return known


class TestCeiling:
    def test_is_the_smallest_count_that_answers_nearly_the_most(self) -> None:
        found = ceiling(findings((2, 12, 3), (4, 20, 3), (8, 20.5, 3)), 30)

        assert found is not None
        assert (found.count, found.high.count) == (4, 8)

    @pytest.mark.parametrize(
        "seen",
        [
            [(4, 20, 3)],
            [(4, 20, 3), (8, 39, 4)],
            [(4, 20, 3), (8, 20, 1)],
            [(4, 20, 3), (5, 24.5, 4)],
        ],
        ids=["one count", "twice as much", "too few samples", "in proportion"],
    )
    def test_is_not_found_in(self, seen: list[tuple[int, float, int]]) -> None:
        assert ceiling(findings(*seen), 30) is None

    def test_of_a_little_more_needs_more_samples(self) -> None:
        assert ceiling(findings((4, 20, 3), (5, 20, 3)), 30) is None
        assert ceiling(findings((4, 20, 3), (5, 20, 4)), 30) is not None

    def test_is_forgotten_after_a_quarter_of_an_hour(self) -> None:
        known = findings((4, 20, 3), (8, 20, 3))

        assert ceiling(known, 900) is not None
        assert ceiling(known, 920) is None

    def test_a_sample_of_which_a_part_was_idle_does_not_hide_what_a_count_can_do(self) -> None:
        assert findings((4, 20, 5), (4, 4, 1))[0].per_s > 16


class TestIsSaturated:
    @pytest.mark.parametrize(
        ("queued", "in_flight", "expected"), [(5, 8, True), (0, 8, False), (5, 6, False), (0, 0, False)]
    )
    def test_means_every_slot_busy_and_more_to_do(self, queued: float, in_flight: float, expected: bool) -> None:
        assert is_saturated(sample(0, 9, queued, in_flight), ready=2, slots=4) is expected
