"""From what was observed of a version's replicas to the counts that a decision rests on. Pure.

Replicas of an older spec serve until they are replaced, so they count as ready; what drains does not. Where starts fail
again and again, what is missing is failing, not starting: nobody may count on it.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.core.entities import DesiredVersion, Replica, VersionKey
from orchestrator.core.plan import Memory
from orchestrator.core.scaling.cron import Schedule, parse_cron, parse_zone
from orchestrator.core.scaling.facts import Counts, Objective, Override, Settings
from orchestrator.core.states import LIVE, PENDING, ReplicaState

# What a person may set where the manifest names no `max`.
MOST_BY_HAND = 1000


def by_version(replicas: Iterable[Replica]) -> dict[VersionKey, list[Replica]]:
    found: dict[VersionKey, list[Replica]] = {}
    for replica in replicas:
        found.setdefault(replica.key, []).append(replica)
    return found


def counts(replicas: Iterable[Replica], wanted: DesiredVersion, memory: Memory) -> Counts:
    """`wanted.replicas` is the count in force; `memory` is reconcile's."""
    staying = [r for r in replicas if r.id not in memory.draining]
    ready = sum(1 for r in staying if r.state is ReplicaState.READY)
    starting = sum(1 for r in staying if r.state in PENDING and r.digest == wanted.digest)
    standby = sum(1 for r in staying if r.state is ReplicaState.STANDBY and r.digest == wanted.digest)
    failures = memory.failures.get(wanted.digest)
    missing = max(0, wanted.replicas - ready - starting)
    failing = missing if failures is not None and not failures.is_blip else 0
    return Counts(ready=ready, starting=starting, standby=standby, failing=failing)


def is_rolling_out(replicas: Iterable[Replica], wanted: DesiredVersion) -> bool:
    """Whether replicas of another spec are still being replaced."""
    return any(r.digest != wanted.digest and r.state in LIVE for r in replicas)


def settings_of(version: DesiredVersion, override: Override | None, fixed: int) -> Settings:
    """What the policy may choose for a version. `fixed` is the count that was applied, for one without a choice."""
    scaling = version.scaling
    minimum, maximum = (fixed, fixed) if scaling.is_fixed else (scaling.minimum, scaling.maximum)
    if override is not None and not scaling.is_capped:
        maximum = MOST_BY_HAND
    return Settings(
        minimum=minimum,
        maximum=maximum,
        slots=version.concurrency,
        objective=Objective(scaling.latency_s, scaling.percentile),
        standby=scaling.standby,
        idle_after_s=scaling.idle_after_s,
        gone_after_s=scaling.gone_after_s,
        worth_s=scaling.worth_s,
        schedules=tuple(Schedule(parse_cron(s.cron), s.minimum, parse_zone(s.zone)) for s in scaling.schedule),
        override=override,
    )
