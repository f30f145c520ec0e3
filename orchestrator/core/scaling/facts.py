"""What the autoscaler is told about one version, and what it is asked to keep to. Values only, nothing is decided here.

None is "unknown", which is never zero: a decision on unknown facts holds the count. Times are seconds since the epoch,
lengths are seconds. Read `decide.py` next.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.cron import Schedule

# More requests, replicas or seconds than there can be: a number beyond it is a mistake of who counted.
MOST = 1e12


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """How long replicas took for `count` requests: mean, squared coefficient of variation, and the tail at the
    objective's percentile."""

    count: float
    mean_s: float
    scv: float
    tail_s: float

    @property
    def is_sound(self) -> bool:
        values = (self.count, self.mean_s, self.scv, self.tail_s)
        return all(is_count(v) for v in values) and self.count > 0 and self.mean_s > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One version's traffic in the `span_s` seconds before `at`, over all gateways.

    `arrivals` are counted at admission and include what was shed. `failed` are answers that say that a replica broke
    (500, 502). `late` were answered after the objective, or shed. `queued` and `in_flight` are levels at `at`.
    `service` is None when nothing was answered. `missing` names gateways that did not say: counts are then too low.
    """

    at: float
    span_s: float
    arrivals: float | None
    answered: float | None = 0.0
    failed: float | None = 0.0
    late: float | None = 0.0
    queued: float | None = 0.0
    in_flight: float | None = 0.0
    service: ServiceTimes | None = None
    missing: tuple[str, ...] = ()

    def doubts(self) -> tuple[str, ...]:
        """Why it cannot be trusted to say that there is little to do: what is unknown, negative or not a number."""
        doubts = [f"{name} {_said(getattr(self, name))}" for name in _NUMBERS if not is_count(getattr(self, name))]
        if self.service is not None and not self.service.is_sound:
            doubts.append("the service time is no length")
        if self.missing:
            doubts.append(f"no word from {', '.join(self.missing)}")
        return tuple(doubts)


_NUMBERS = ("span_s", "arrivals", "answered", "failed", "late", "queued", "in_flight")


def is_count(value: float | None) -> bool:
    """Whether it can be a count or a length of this world; NaN and what is beyond any traffic cannot."""
    return value is not None and 0 <= value <= MOST


def _said(value: float | None) -> str:
    return "unknown" if value is None else f"is {value:g}"


@dataclass(frozen=True, slots=True)
class Counts:
    """A version's replicas. `failing` wait for their next try or have just failed: no capacity. `standby` are loaded
    and paused."""

    ready: int = 0
    starting: int = 0
    standby: int = 0
    failing: int = 0

    @property
    def present(self) -> int:
        """Awake, or on the way to it."""
        return self.ready + self.starting


@dataclass(frozen=True, slots=True)
class Objective:
    """`percentile` percent of the requests are answered within `latency_s`; None: one is derived (`service.py`)."""

    latency_s: float | None = None
    percentile: float = 95.0

    @property
    def late(self) -> float:
        """The share of requests that may wait too long. A fifth of what the objective allows, for it allows service
        times their own tail as well: 1 % for p95."""
        return (100.0 - self.percentile) / 500.0


@dataclass(frozen=True, slots=True)
class Override:
    """A person's word: `replicas` until `until` (None: until taken back). It may go below min, not above max."""

    replicas: int
    until: float | None = None

    def is_in_force(self, now: float) -> bool:
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the manifest says of one version's scaling.

    `slots` is the version's `concurrency`. `standby` replicas are kept paused; `idle_after_s` without a request sends
    a version with min 0 to sleep, and `gone_after_s` more without one ends its standby replicas too (None: never).
    `worth_s` is the knob between cost and objective: the replica-seconds that one request answered in time is worth.
    """

    minimum: int = 1
    maximum: int = 10
    slots: int = 1
    objective: Objective = Objective()
    standby: int = 0
    idle_after_s: float = 600.0
    gone_after_s: float | None = None
    worth_s: float = 10.0
    schedules: tuple[Schedule, ...] = ()
    override: Override | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything outside the autoscaler that one decision rests on.

    `sample` is None when nobody could say. `cold_start_s` is the mean of what was observed for this version (or a
    guess), `wake_s` that of unpausing. `was_ready`: a replica of this spec was ready once.
    """

    key: VersionKey
    sample: Sample | None
    counts: Counts
    cold_start_s: float = 5.0
    wake_s: float = 0.05
    was_ready: bool = True
    is_rolling_out: bool = False


def sound(sample: Sample) -> Sample:
    """The sample with zeros where it has no sound number. Only for going up: whoever uses it may not go down."""
    if not sample.doubts():
        return sample
    known = {f.name: getattr(sample, f.name) for f in fields(sample)}
    for name in _NUMBERS:
        if not is_count(known[name]):
            known[name] = 0.0
    if sample.service is not None and not sample.service.is_sound:
        known["service"] = None
    return Sample(**known)
