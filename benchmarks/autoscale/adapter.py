"""The project's policy as the referee wants one: `Policy()` with `decide(obs) -> replicas`. Holds no rule of its own.

python -m benchmarks.autoscale.referee --policy benchmarks.autoscale.adapter:Policy
"""

from __future__ import annotations

from typing import Any

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.decide import decide
from orchestrator.core.scaling.decision import Memory, ScaleDecision
from orchestrator.core.scaling.facts import Counts, Objective, Observation, Sample, ServiceTimes, Settings

KEY = VersionKey("traced", "1")
# The simulator's own bound on replicas.
MAXIMUM = 400


class Policy:
    """Keeps the memory between decisions; `last` is the newest decision, for whoever wants to read its reason."""

    def __init__(self) -> None:
        self._memory = Memory()
        self.last: ScaleDecision | None = None

    def decide(self, obs: Any) -> int:
        settings = Settings(maximum=MAXIMUM, slots=obs.c, objective=Objective(obs.slo))
        self.last, self._memory = decide(observation(obs), settings, self._memory, obs.t)
        return self.last.target


def observation(obs: Any) -> Observation:
    times = ServiceTimes(obs.done, obs.mean_s, obs.scv_s, obs.p95_s) if obs.done else None
    sample = Sample(
        at=obs.t,
        span_s=obs.dt,
        arrivals=obs.arrivals,
        answered=obs.done,
        late=obs.viol,
        queued=obs.queued,
        in_flight=obs.inflight,
        service=times,
    )
    return Observation(
        key=KEY, sample=sample, counts=Counts(ready=obs.ready, starting=obs.starting), cold_start_s=obs.cold
    )
