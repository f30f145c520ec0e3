"""Literals for tests of the autoscaler: a sample, an observation, and steady traffic in one line each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.decide import decide
from orchestrator.core.scaling.decision import Memory, ScaleDecision
from orchestrator.core.scaling.facts import Counts, Objective, Observation, Sample, ServiceTimes, Settings

KEY = VersionKey("iris", "2")
TICK_S = 2.0
SECOND = Objective(1.0)


def times(count: float = 100, mean_s: float = 0.25, scv: float = 0.36, tail_s: float = 0.55) -> ServiceTimes:
    return ServiceTimes(count, mean_s, scv, tail_s)


def sample(at: float, per_s: float = 10.0, mean_s: float = 0.25, **known: Any) -> Sample:
    """A tick of `per_s` requests per second, all answered, none late."""
    count = per_s * TICK_S
    service = ServiceTimes(count, mean_s, 0.36, 2.2 * mean_s) if count else None
    facts = {"answered": count, "in_flight": per_s * mean_s, "service": service, **known}
    return Sample(at=at, span_s=TICK_S, arrivals=facts.pop("arrivals", count), **facts)


def settings(**known: Any) -> Settings:
    return Settings(**{"maximum": 50, "slots": 4, "objective": SECOND, **known})


@dataclass
class Scaled:
    """A version under the policy, whose replicas are there as soon as they are decided unless a test says otherwise."""

    settings: Settings = field(default_factory=settings)
    memory: Memory = field(default_factory=Memory)
    counts: Counts = field(default_factory=lambda: Counts(ready=1))
    now: float = 1000.0
    decisions: list[ScaleDecision] = field(default_factory=list)

    def tick(self, per_s: float = 10.0, counts: Counts | None = None, facts: Any = None, **known: Any) -> ScaleDecision:
        """One tick later. `known` are fields of the sample; `facts` of the observation."""
        self.now += TICK_S
        return self.see(sample(self.now, per_s, **known), counts, **(facts or {}))

    def see(self, seen: Sample | None, counts: Counts | None = None, **facts: Any) -> ScaleDecision:
        observation = Observation(key=KEY, sample=seen, counts=counts or self.counts, **facts)
        decision, self.memory = decide(observation, self.settings, self.memory, self.now)
        self.counts = replace(self.counts, ready=decision.target)
        self.decisions.append(decision)
        return decision

    def ticks(self, seconds: float, per_s: float = 10.0, **known: Any) -> ScaleDecision:
        for _ in range(round(seconds / TICK_S)):
            decision = self.tick(per_s, **known)
        return decision
