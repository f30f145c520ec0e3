"""A version's replicas as counts, and its manifest's words as settings of the policy."""

from __future__ import annotations

import pytest

from orchestrator.core.entities import DesiredVersion, Replica, Scaling, ScheduledMinimum
from orchestrator.core.plan import Failures, Memory
from orchestrator.core.scaling.census import MOST_BY_HAND, counts, is_rolling_out, settings_of
from orchestrator.core.scaling.facts import Counts, Objective, Override
from tests.unit.orchestrator.core.builders import ended, replica, version

WANTED = version("iris@1", 4)


def counted(*replicas: Replica, wanted: DesiredVersion = WANTED, memory: Memory | None = None) -> Counts:
    return counts(replicas, wanted, memory or Memory())


class TestCounts:
    def test_those_that_serve_and_those_that_will(self) -> None:
        found = counted(
            replica("a", "iris@1"), replica("b", "iris@1", "starting"), replica("c", "iris@1", "loading"),
            ended("d", "iris@1"),
        )  # fmt: skip

        assert (found.ready, found.starting) == (1, 2)

    def test_old_ones_serve_until_they_are_replaced_but_nobody_waits_for_one(self) -> None:
        found = counted(replica("a", "iris@1", spec="old"), replica("b", "iris@1", "loading", spec="old"))

        assert (found.ready, found.starting) == (1, 0)

    def test_what_drains_is_no_capacity(self) -> None:
        assert counted(replica("a", "iris@1"), memory=Memory(draining={"a": 0.0})).ready == 0

    def test_what_keeps_failing_is_missing_and_not_starting(self) -> None:
        memory = Memory(failures={"a": Failures(3, retry_at=99.0, reason="exit 70", failed_at=90.0)})

        assert counted(replica("a", "iris@1"), memory=memory) == Counts(ready=1, failing=3)

    def test_one_that_crashed_once_is_replaced_and_fails_not(self) -> None:
        memory = Memory(failures={"a": Failures(1, retry_at=90.0, reason="killed", failed_at=90.0)})

        assert counted(replica("a", "iris@1"), memory=memory).failing == 0


class TestRollout:
    def test_is_under_way_while_one_of_another_spec_lives(self) -> None:
        new, old = replica("a", "iris@1"), replica("b", "iris@1", spec="old")

        assert is_rolling_out([new, old], WANTED)
        assert not is_rolling_out([new, ended("b", "iris@1", spec="old")], WANTED)


class TestSettings:
    def test_are_those_of_the_manifest(self) -> None:
        scaling = Scaling(
            minimum=0, maximum=5, standby=2, idle_after_s=60, gone_after_s=600, worth_s=3, latency_s=0.05,
            percentile=99, schedule=(ScheduledMinimum("0 8 * * *", 2, "UTC"),),
        )  # fmt: skip

        found = settings_of(version("iris@1", concurrency=4, scaling=scaling), None, fixed=1)

        assert (found.minimum, found.maximum, found.slots, found.standby) == (0, 5, 4, 2)
        assert (found.idle_after_s, found.gone_after_s, found.worth_s) == (60, 600, 3)
        assert found.objective == Objective(0.05, 99)
        assert [(s.minimum, s.cron.text) for s in found.schedules] == [(2, "0 8 * * *")]

    def test_a_version_without_a_choice_has_its_count_for_bounds(self) -> None:
        found = settings_of(version("iris@1", 3), None, fixed=3)

        assert (found.minimum, found.maximum) == (3, 3)

    @pytest.mark.parametrize(("is_capped", "most"), [(False, MOST_BY_HAND), (True, 5)])
    def test_a_persons_word_is_bounded_where_the_manifest_names_a_maximum(self, is_capped: bool, most: int) -> None:
        scaling = Scaling(maximum=5, is_capped=is_capped)

        assert settings_of(version("iris@1", scaling=scaling), Override(9), fixed=1).maximum == most
