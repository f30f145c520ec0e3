"""What a decision is: the counts it asks for, everything that it rested on, and what the next one must remember.

Values only. `decide.py` makes them, `sentence.py` puts them into words, `allocate.py` may lower them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.ceiling import Ceiling, Finding
from orchestrator.core.scaling.demand import Demand, Traffic
from orchestrator.core.scaling.facts import Counts, Sample
from orchestrator.core.scaling.service import Capacity, Learned
from orchestrator.core.scaling.sleep import Rest
from orchestrator.core.scaling.tenure import Held, Level


@dataclass(frozen=True, slots=True)
class Trim:
    """The feedback: a factor on the slots, and (time, late, arrived) of the last samples."""

    factor: float = 1.0
    changed_at: float = -math.inf
    window: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What a version's decisions must know beyond the present. All of it may be lost: then they hold, and learn.

    `since` begins it; `target` is what was decided last, before the cluster's limits. `quiet_since`: no request from
    then on, as far as is known; `suspect_at`: replicas were last seen to answer errors. `ready` were ready and
    `in_flight` inside at the last sample; before they became more, requests took `fewer_service_s` (0: they became
    fewer since, or never changed).
    """

    since: float | None = None
    target: int | None = None
    sampled_at: float = -math.inf
    demand: Demand | None = None
    traffic: Traffic = field(default_factory=Traffic)
    learned: Learned = field(default_factory=Learned)
    levels: tuple[Level, ...] = ()
    trim: Trim = field(default_factory=Trim)
    findings: tuple[Finding, ...] = ()
    was_saturated: bool = False
    ready: int = 0
    in_flight: float = 0.0
    fewer_service_s: float = 0.0
    quiet_since: float | None = None
    suspect_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class Load:
    """What the traffic asks for. `busy` slots on average, `queue` of them for what waits; `slots` that keep the
    objective, times `trim`; `wanted` replicas for these, under the `ceiling`, and `kept` of them if they are there;
    `held`: what tenure keeps. `is_probing`: no more are wanted until it is seen what the present ones can do."""

    demand: Demand
    capacity: Capacity
    lead_s: float
    busy: float
    queue: float
    slots: int
    trim: float
    wanted: int
    kept: int
    ceiling: Ceiling | None
    is_probing: bool
    held: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """All that a decision rested on. `load` is None while nothing is known of the traffic.

    `hold` says why the count may not go down now ("": it may), `limits` what changed the count that the load asks for.
    """

    sample: Sample | None
    counts: Counts
    percentile: float
    minimum: int
    maximum: int
    cold_start_s: float
    rest: Rest
    load: Load | None = None
    doubts: tuple[str, ...] = ()
    hold: str = ""
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDecision:
    """`target` replicas should be awake and `standby` paused; `before` was the target until now.

    What makes it so: `wake` paused replicas first, `start` new ones behind them (for the standby too), `pause` surplus
    ones that are ready to fill the standby, `end` the others (starting ones first) and `end_standby` paused ones.
    """

    key: VersionKey
    before: int
    target: int
    standby: int
    wake: int
    start: int
    pause: int
    end: int
    end_standby: int
    reason: str
    inputs: Inputs

    @property
    def is_change(self) -> bool:
        """Whether it is worth an event."""
        return self.target != self.before
