"""The frontier of cost and violations."""

from __future__ import annotations

from itertools import pairwise

from orchestrator.core.scaling.distributions import Service, spread
from orchestrator.core.scaling.facts import Objective, Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.core.scaling.simulation import Result
from orchestrator.core.scaling.suggest import Candidate, counts, frontier, tried

BURSTS = spread(([2] * 50 + [40] * 10) * 5)
SETUP = Setup(service=Service.lognormal(0.25, 0.6), slots=4, latency_s=1.0)
SETTINGS = Settings(slots=4, maximum=12, objective=Objective(1.0))


def candidate(name: str, cost_s: float, violations: int) -> Candidate:
    result = Result(1000, violations, 0, cost_s, 0.0, 100.0, 0.0, 0, (), ())
    return Candidate(name, None, result)


class TestFrontier:
    def test_leaves_out_what_is_dearer_and_no_better(self) -> None:
        found = frontier(
            [
                candidate("a", 10, 5),
                candidate("b", 12, 5),
                candidate("c", 20, 1),
                candidate("d", 25, 3),
                candidate("e", 9, 9),
            ]
        )

        assert [c.name for c in found] == ["e", "a", "c"]


class TestTried:
    def test_begins_with_the_present_settings_and_varies_each(self) -> None:
        found = list(tried(BURSTS, SETUP, SETTINGS))

        assert found[0].name == "as it is"
        assert len({c.name for c in found}) == len(found) == 3 * 3 * 4
        assert {"worth 1", "standby 2", "min 3, standby 1, worth 30"} <= {c.name for c in found}

    def test_shows_what_a_larger_worth_costs_and_brings(self) -> None:
        best = frontier(tried(BURSTS, SETUP, SETTINGS))

        assert len(best) >= 2
        for cheaper, dearer in pairwise(best):
            assert cheaper.cost_s < dearer.cost_s
            assert cheaper.result.violations > dearer.result.violations

    def test_of_a_version_that_may_sleep_keeps_its_min(self) -> None:
        asleep = Settings(slots=4, minimum=0, maximum=2, idle_after_s=30.0)

        assert {c.settings.minimum for c in tried([1.0, 2.0], SETUP, asleep) if c.settings} == {0}


class TestCounts:
    def test_end_where_another_replica_spares_nothing(self) -> None:
        found = list(counts(BURSTS, SETUP, 20))

        assert found[0].name == "always 1"
        assert 3 <= len(found) < 20
        assert found[-1].result.violations <= found[0].result.violations
