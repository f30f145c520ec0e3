"""The simulations that answer "what if": as it is, as asked, and fixed counts of the same cost beside them. Pure.

Each is of the very policy that runs live (`core/scaling/simulation.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.scaling import suggest
from orchestrator.core.scaling.facts import Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.core.scaling.simulation import Result, by_policy, fixed, simulate
from orchestrator.whatif.words import clock


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row of the answer. `settings` is None for a fixed count."""

    name: str
    settings: Settings | None
    result: Result

    @property
    def length_s(self) -> float:
        return self.result.timeline[-1].at if self.result.timeline else 0.0

    @property
    def decisions(self) -> Iterator[str]:
        """Each change of the count: when, and why."""
        for decision in self.result.decisions:
            sample = decision.inputs.sample
            yield f"{clock(sample.at if sample else 0.0)}  {decision.reason}"

    @property
    def mean_replicas(self) -> float:
        return self.result.replica_s / self.length_s if self.length_s else 0.0

    @property
    def most_replicas(self) -> int:
        return max((point.ready + point.starting for point in self.result.timeline), default=0)


def by_settings(name: str, arrivals: Sequence[float], settings: Settings, setup: Setup) -> Outcome:
    return Outcome(name, settings, simulate(arrivals, setup, by_policy(settings)))


def of_equal_cost(arrivals: Sequence[float], outcome: Outcome, setup: Setup) -> Iterator[Outcome]:
    """The fixed counts next to what the policy cost on average: the one below and the one above."""
    below = max(1, math.floor(outcome.mean_replicas))
    for count in (below, below + 1) if outcome.mean_replicas > below else (below,):
        yield Outcome(f"always {count}", None, simulate(arrivals, replace(setup, first=count), fixed(count)))


def of_equal_service(arrivals: Sequence[float], outcome: Outcome, setup: Setup, most: int) -> Outcome | None:
    """The least fixed count with no more violations; None when not even `most` are enough."""
    low, high, found = 1, most, None
    while low <= high:
        count = (low + high) // 2
        result = simulate(arrivals, replace(setup, first=count), fixed(count))
        if result.violations <= outcome.result.violations:
            found, high = Outcome(f"always {count}", None, result), count - 1
        else:
            low = count + 1
    return found


def frontier(candidates: Sequence[suggest.Candidate]) -> list[Outcome]:
    """Those that no other beats in cost and violations, the cheapest first."""
    return [Outcome(each.name, each.settings, each.result) for each in suggest.frontier(candidates)]
