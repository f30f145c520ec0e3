"""What if: recorded arrivals through a simulated pool of replicas, scaled by the very policy that runs live.

Each tick the policy sees what a live one would: arrivals, queue, and the service times of what was answered. Starts,
wakes and pauses are done as decided, with the cold start's length. Pure: the same arrivals and seed give the same
result. Exact results of queueing theory hold it in tests/unit/orchestrator/core/scaling/test_simulation.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.decide import decide
from orchestrator.core.scaling.decision import Memory, ScaleDecision
from orchestrator.core.scaling.facts import Counts, Observation, Sample, ServiceTimes, Settings
from orchestrator.core.scaling.pool import Pool, Setup, Tick

KEY = VersionKey("simulated", "1")
# From what is seen to a decision, or simply to a number of awake replicas.
Chooser = Callable[[Observation, float], ScaleDecision | int]


@dataclass(frozen=True, slots=True)
class Point:
    """The pool at the end of one tick, and the count that was decided then."""

    at: float
    arrivals: int
    late: int
    queued: int
    in_flight: int
    ready: int
    starting: int
    standby: int
    target: int


@dataclass(frozen=True, slots=True)
class Result:
    """`violations` were answered late or shed (`shed` of them). `replica_s` are seconds of awake replicas from their
    start to their end, `standby_s` those of paused ones. `changes` of the count are decisions that changed it;
    `decisions` holds these, where a policy made them."""

    requests: int
    violations: int
    shed: int
    replica_s: float
    standby_s: float
    worked_s: float
    mean_wait_s: float
    changes: int
    timeline: tuple[Point, ...]
    decisions: tuple[ScaleDecision, ...]

    @property
    def violation_percent(self) -> float:
        return 100.0 * self.violations / self.requests if self.requests else 0.0

    @property
    def cost_ratio(self) -> float:
        """Replica-seconds for each that had all slots busy."""
        return self.replica_s / self.worked_s if self.worked_s else math.inf


def by_policy(settings: Settings) -> Chooser:
    """The policy that runs live, with a memory of its own."""
    memory = Memory()

    def choose(seen: Observation, now: float) -> ScaleDecision:
        nonlocal memory
        decision, memory = decide(seen, settings, memory, now)
        return decision

    return choose


def fixed(count: int) -> Chooser:
    return lambda _seen, _now: count


def simulate(arrivals: Sequence[float], setup: Setup, choose: Chooser) -> Result:
    """Runs arrivals (ascending, seconds from 0 on) through a pool."""
    return _Run(arrivals, setup, choose).run()


class _Run:
    """One simulation: a pool, what is paused, and what was decided so far."""

    def __init__(self, arrivals: Sequence[float], setup: Setup, choose: Chooser) -> None:
        self._setup, self._choose = setup, choose
        self._requests = len(arrivals)
        self._pool = Pool(arrivals, setup)
        # When each paused replica was paused, or will be when it has finished what it had.
        self._standby: list[float] = []
        self._standby_s = 0.0
        self._changes = 0
        self._timeline: list[Point] = []
        self._decisions: list[ScaleDecision] = []

    def run(self) -> Result:
        pool, tick_s = self._pool, self._setup.tick_s
        pool.add(self._setup.first, 0.0, 0.0)
        number, now = 0, 0.0
        while not pool.is_done:
            number += 1
            now = number * tick_s
            arrived = pool.arrived
            pool.serve(now)
            tick = pool.tick(number - 1)
            self._decide(now, tick, pool.arrived - arrived)
        return self._result(now)

    def _decide(self, now: float, tick: Tick, arrivals: int) -> None:
        pool = self._pool
        ready = pool.ready(now)
        standby = sum(since <= now for since in self._standby)
        counts = Counts(ready, len(pool.replicas) - ready, standby)
        in_flight = pool.in_flight(now)
        chosen = self._choose(self._seen(now, tick, arrivals, counts, in_flight), now)
        target = chosen if isinstance(chosen, int) else chosen.target
        self._timeline.append(
            Point(now, arrivals, tick.late, pool.queued, in_flight, ready, counts.starting, standby, target)
        )
        self._changes += target != counts.present
        if isinstance(chosen, int):
            self._go_to(chosen, now)
        else:
            self._do(chosen, now)

    def _seen(self, now: float, tick: Tick, arrivals: int, counts: Counts, in_flight: int) -> Observation:
        setup = self._setup
        sample = Sample(
            at=now,
            span_s=setup.tick_s,
            arrivals=arrivals,
            answered=len(tick.services),
            late=tick.late,
            queued=self._pool.queued,
            in_flight=in_flight,
            service=_service_times(tick.services, setup.percentile),
        )
        return Observation(key=KEY, sample=sample, counts=counts, cold_start_s=setup.cold_start_s, wake_s=setup.wake_s)

    def _go_to(self, count: int, now: float) -> None:
        there = len(self._pool.replicas)
        if count > there:
            self._pool.add(count - there, now, self._setup.cold_start_s)
        elif count < there:
            self._pool.remove(there - count, now)

    def _do(self, decision: ScaleDecision, now: float) -> None:
        if decision.is_change:
            self._decisions.append(decision)
        for _ in range(decision.wake):
            self._standby_s += now - self._standby.pop(0)
        self._pool.add(decision.wake, now, self._setup.wake_s)
        self._pool.add(decision.start, now, self._setup.cold_start_s)
        for _ in range(decision.end_standby):
            self._standby_s += now - self._standby.pop(0)
        if decision.end:
            self._pool.remove(decision.end, now)
        if decision.pause:
            self._standby = sorted(self._standby + self._pool.remove(decision.pause, now))

    def _result(self, now: float) -> Result:
        pool, setup = self._pool, self._setup
        return Result(
            requests=self._requests,
            violations=pool.late + pool.shed,
            shed=pool.shed,
            replica_s=pool.cost_s + sum(now - min(now, r.began) for r in pool.replicas.values()),
            standby_s=self._standby_s + sum(max(0.0, now - since) for since in self._standby),
            worked_s=pool.worked_s / setup.slots,
            mean_wait_s=pool.waited_s / max(1, self._requests - pool.shed),
            changes=self._changes,
            timeline=tuple(self._timeline),
            decisions=tuple(self._decisions),
        )


def _service_times(services: list[float], percentile: float) -> ServiceTimes | None:
    if not services:
        return None
    count = len(services)
    mean_s = math.fsum(services) / count
    square = math.fsum(s * s for s in services) / count
    tail_s = sorted(services)[min(count - 1, max(0, math.ceil(percentile / 100 * count) - 1))]
    return ServiceTimes(count, mean_s, max(0.0, square / (mean_s * mean_s) - 1.0), tail_s)
