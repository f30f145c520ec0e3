"""Who gets what when the cluster's limits do not suffice for all decisions: `max_cpus`, `max_memory`, `max_starting`.

Replicas are given out one at a time, in this order, each if it still fits:

    1. minimums, by priority
    2. by priority; at equal priority what is there before what is new, so that equals do not take from each other
    3. at equal priority, new ones by the share of requests that are late, then to whom the largest part is missing
    4. standby replicas, by priority: they hold memory and no CPU

A version that gets less than it asked for is told why in its reason. Pure, like every decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.entities import ClusterLimits, Resources, VersionKey
from orchestrator.core.scaling.decide import act
from orchestrator.core.scaling.decision import ScaleDecision

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Claim:
    """What a version asks for. `granted` is what it got last time (None: nothing was decided yet), `late_share` the
    share of its requests that were late or shed in the last half minute; a larger `priority` goes first."""

    decision: ScaleDecision
    resources: Resources
    priority: int = 0
    granted: int | None = None

    @property
    def late_share(self) -> float:
        sample = self.decision.inputs.sample
        if sample is None or not sample.arrivals:
            return 0.0
        return min(1.0, max(0.0, (sample.late or 0.0) / sample.arrivals))

    @property
    def minimum(self) -> int:
        return min(self.decision.target, self.decision.inputs.minimum)


@dataclass(frozen=True, slots=True)
class _Replica:
    """One replica that is asked for, the n-th of its version; `rank` sorts what comes first."""

    rank: tuple[float, ...]
    claim: Claim
    n: int
    is_standby: bool

    @property
    def cpus(self) -> float:
        return 0.0 if self.is_standby else self.claim.resources.cpus


def allocate(claims: Sequence[Claim], limits: ClusterLimits) -> list[ScaleDecision]:
    """The decisions within the limits, in the order of the claims."""
    given = _given(claims, limits)
    decisions = [_granted(claim, *given[claim.decision.key], limits) for claim in claims]
    return _started(claims, decisions, limits)


def _given(claims: Sequence[Claim], limits: ClusterLimits) -> dict[VersionKey, tuple[int, int]]:
    """Awake and standby replicas of each version."""
    cpus = float("inf") if limits.max_cpus is None else limits.max_cpus + ROUNDING
    memory = float("inf") if limits.max_memory_bytes is None else float(limits.max_memory_bytes)
    given = {claim.decision.key: [0, 0] for claim in claims}
    for asked in sorted((r for claim in claims for r in _asked(claim)), key=lambda r: (r.rank, r.claim.decision.key)):
        counts = given[asked.claim.decision.key]
        is_next = counts[asked.is_standby] == asked.n - 1
        if is_next and asked.cpus <= cpus and asked.claim.resources.memory_bytes <= memory:
            counts[asked.is_standby] += 1
            cpus -= asked.cpus
            memory -= asked.claim.resources.memory_bytes
    return {key: (awake, standby) for key, (awake, standby) in given.items()}


def _asked(claim: Claim) -> Iterator[_Replica]:
    decision = claim.decision
    for n in range(1, decision.target + 1):
        is_new = n > decision.inputs.counts.present
        yield _Replica(
            (
                0 if n <= claim.minimum else 1,
                -claim.priority,
                float(is_new),
                -claim.late_share if is_new else 0.0,
                n / decision.target,
            ),
            claim,
            n,
            False,
        )
    for n in range(1, decision.standby + 1):
        yield _Replica((2, -claim.priority, 0.0, 0.0, n / decision.standby), claim, n, True)


def _granted(claim: Claim, awake: int, standby: int, limits: ClusterLimits) -> ScaleDecision:
    decision = claim.decision
    before = decision.before if claim.granted is None else claim.granted
    inputs = replace(decision.inputs, rest=replace(decision.inputs.rest, standby=standby))
    if awake < decision.target or standby < decision.standby:
        inputs = replace(inputs, limits=(*inputs.limits, _shortage(claim, awake, standby, limits)))
    return act(decision.key, before, awake, inputs)


def _shortage(claim: Claim, awake: int, standby: int, limits: ClusterLimits) -> str:
    names = [
        f"cluster.max_cpus {limits.max_cpus:g}" if limits.max_cpus is not None else "",
        f"cluster.max_memory {limits.max_memory_bytes / 2**20:.0f}Mi" if limits.max_memory_bytes is not None else "",
    ]
    by = " and ".join(name for name in names if name)
    what = f"{awake} of {claim.decision.target}" if awake < claim.decision.target else f"{standby} standby"
    return f"limited to {what} by {by} at priority {claim.priority}"


def _started(claims: Sequence[Claim], decisions: list[ScaleDecision], limits: ClusterLimits) -> list[ScaleDecision]:
    """Starts beyond `max_starting` wait for later decisions, in the same order; their versions keep their targets."""
    left = max(0, limits.max_starting - sum(c.decision.inputs.counts.starting for c in claims))
    order = sorted(range(len(claims)), key=lambda i: (-claims[i].priority, -claims[i].late_share, decisions[i].key))
    for i in order:
        decision = decisions[i]
        start = min(decision.start, left)
        left -= start
        if start < decision.start:
            late = decision.start - start
            waiting = f"{late} of {decision.start} starts wait, for {limits.max_starting} may start at a time"
            decisions[i] = replace(decision, start=start, reason=f"{decision.reason}; {waiting}")
    return decisions
