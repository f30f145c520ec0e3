"""Fixed counts beside the policy: of the same cost, and of the same service."""

from __future__ import annotations

import pytest

from orchestrator.core.scaling.distributions import Service
from orchestrator.core.scaling.facts import Objective, Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.whatif import runs

# Calm, a minute of bursts, and calm again: at 200 ms one replica carries 5 requests/s.
TIMES = sorted([t * 0.5 for t in range(600)] + [100 + t * 0.05 for t in range(1200)])
SETTINGS = Settings(minimum=1, maximum=10, objective=Objective(1.0))
SETUP = Setup(service=Service.fixed(0.2), latency_s=1.0)


@pytest.fixture(scope="module")
def outcome() -> runs.Outcome:
    return runs.by_settings("the policy", TIMES, SETTINGS, SETUP)


class TestOutcome:
    def test_counts_replicas_on_average_and_at_most(self, outcome: runs.Outcome) -> None:
        assert 1 < outcome.mean_replicas < outcome.most_replicas <= 10
        assert outcome.mean_replicas * outcome.length_s == pytest.approx(outcome.result.replica_s)

    def test_says_when_and_why_the_count_changed(self, outcome: runs.Outcome) -> None:
        first, *others = outcome.decisions

        assert first.startswith("1:4")
        assert "1 -> " in first
        assert len(others) == len(outcome.result.decisions) - 1


class TestFixedCounts:
    def test_of_equal_cost_are_next_to_the_mean(self, outcome: runs.Outcome) -> None:
        below, above = runs.of_equal_cost(TIMES, outcome, SETUP)

        assert below.result.replica_s <= outcome.result.replica_s <= above.result.replica_s
        assert above.most_replicas - below.most_replicas == 1

    def test_of_equal_service_is_the_least_that_is_as_good(self, outcome: runs.Outcome) -> None:
        found = runs.of_equal_service(TIMES, outcome, SETUP, most=50)

        assert found is not None
        assert found.result.violations <= outcome.result.violations
        fewer = runs.of_equal_service(TIMES, outcome, SETUP, most=found.most_replicas - 1)
        assert fewer is None


def test_the_same_traffic_gives_the_same_answer(outcome: runs.Outcome) -> None:
    assert runs.by_settings("the policy", TIMES, SETTINGS, SETUP) == outcome
