"""What a replica can hold: learned from service times, whatever the replica does inside."""

from __future__ import annotations

import pytest

from orchestrator.core.scaling.facts import Objective, Sample, ServiceTimes
from orchestrator.core.scaling.service import Capacity, Learned, capacity, learn

SECOND = Objective(1.0)
NONE = Objective()


def told(known: Learned, at: float, per_s: float, mean_s: float, *, slots: int = 32, failed: float = 0) -> Learned:
    count = per_s * 2.0
    times = ServiceTimes(count, mean_s, 0.2, 1.5 * mean_s)
    sample = Sample(
        at=at, span_s=2.0, arrivals=count, answered=count, failed=failed, in_flight=per_s * mean_s, service=times
    )
    return learn(known, sample, per_s * mean_s, 1, slots)


def taught(*loads: tuple[float, float], ticks: int = 60) -> Learned:
    """After two minutes of each (requests per second, mean service time) at one replica."""
    known, at = Learned(), 0.0
    for per_s, mean_s in loads:
        for _ in range(ticks):
            at += 2.0
            known = told(known, at, per_s, mean_s)
    return known


def found(known: Learned, slots: int, objective: Objective = SECOND) -> Capacity:
    return capacity(known, slots, objective, now=500.0)


class TestCapacity:
    def test_before_the_first_answer_is_a_guess_below_the_objective(self) -> None:
        guess = found(Learned(), 4, Objective(0.05))

        assert (guess.is_guess, guess.service_s, guess.slots) == (True, 0.0125, 4)
        assert guess.tail_s < 0.05

    def test_of_independent_slots_is_all_of_them_at_their_service_time(self) -> None:
        known = found(taught((4, 0.25), (16, 0.25)), 4)

        assert (known.slots, known.service_s, known.tail_s) == (4, pytest.approx(0.25), pytest.approx(0.375))
        assert known.spare_s == pytest.approx(0.625)

    def test_of_a_model_that_computes_one_after_the_other_is_as_many_as_the_objective_leaves_room_for(self) -> None:
        """20 ms each, one after the other: S = 20 ms × (1 + k). Its tail, 1.5 S, may fill 0.7 × 500 ms: k = 10."""
        one_by_one = [(50 * k / (1 + k), 0.02 * (1 + k)) for k in (1, 3, 7)]

        known = found(taught(*one_by_one), 32, Objective(0.5))

        assert known.slots == 10
        assert known.service_s == pytest.approx(0.22, rel=0.05)

    def test_of_batches_counts_all_slots_with_the_time_of_a_full_replica(self) -> None:
        """A batch takes 50 ms and 1 ms for each request in it: 82 ms with 32 inside."""
        batched = [(k / (0.05 + 0.001 * k), 0.05 + 0.001 * k) for k in (1, 4, 24)]

        known = found(taught(*batched), 32)

        assert known.slots == 32
        assert known.service_s == pytest.approx(0.082, rel=0.05)

    def test_without_an_objective_is_twice_the_tail_of_an_unhurried_replica(self) -> None:
        known = found(taught((16, 0.25)), 4, NONE)

        assert (known.objective_s, known.is_derived) == (pytest.approx(0.75), True)

    def test_a_derived_objective_does_not_grow_with_the_load(self) -> None:
        one_by_one = [(50 * k / (1 + k), 0.02 * (1 + k)) for k in (1, 3, 7)]

        known = found(taught(*one_by_one), 32, NONE)

        assert known.objective_s == pytest.approx(2 * 1.5 * 0.04, rel=0.25)
        assert known.slots < 8

    def test_an_objective_below_the_service_time_is_out_of_reach(self) -> None:
        known = found(taught((16, 0.25)), 4, Objective(0.1))

        assert known.is_out_of_reach
        assert known.spare_s == pytest.approx(0.025)


class TestLearn:
    def test_follows_a_service_time_that_changed(self) -> None:
        known = told(Learned(), 2, 16, 0.25, slots=4)
        for tick in range(45):
            known = told(known, 200 + 2.0 * tick, 16, 0.5, slots=4)

        assert found(known, 4).service_s == pytest.approx(0.5, rel=0.1)

    def test_does_not_believe_errors_that_come_fast(self) -> None:
        known = taught((16, 0.25))

        assert told(known, 200, 16, 0.001, failed=16) == known

    def test_learns_while_a_few_errors_are_among_the_answers(self) -> None:
        known = taught((16, 0.25))

        assert told(known, 200, 16, 0.3, failed=1) != known

    def test_the_chance_of_single_samples_is_no_slope(self) -> None:
        """Two thousand samples of twenty requests, which by chance take more or less: never the look of a slope."""
        known, worst = Learned(), 4
        for tick in range(2000):
            share = (tick * 0.618034) % 1.0
            known = told(known, 2.0 * tick, 7 + 6 * ((tick * 0.414214) % 1.0), 0.25 * (0.8 + 0.4 * share), slots=4)
            if tick > 20:
                worst = min(worst, capacity(known, 4, SECOND, 2.0 * tick).slots)

        assert worst == 4
