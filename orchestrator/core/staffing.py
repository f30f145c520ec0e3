"""What happens to the replicas of one version: which stay, drain, stop or are removed, and how many more may start.

Replacing never lowers capacity: an old replica drains only when the ready ones of any spec are more than wanted, so
each new one that becomes ready releases one old one. Old ones that are not ready serve nobody and stop at once.
Who is paused, woken or taken back is `standby.py`'s. Knows one version at a time; what the cluster as a whole may start
at once is up to `reconcile.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from math import inf

from orchestrator.core import standby
from orchestrator.core.entities import DesiredVersion, Replica
from orchestrator.core.failures import FailureCount
from orchestrator.core.plan import (
    DEFAULT_DRAIN_TIMEOUT_S,
    DrainReplica,
    Memory,
    PauseReplica,
    Policy,
    RemoveReplica,
    StopReplica,
    WakeReplica,
)
from orchestrator.core.roster import WAKE_CHECK_S, History, Roster, ending, startup_deadline
from orchestrator.core.standby import NO_SPARES, Spares
from orchestrator.core.traffic import Traffic

# Nothing is in flight in a drained replica, so this is only for the model's own clean-up.
DRAINED_GRACE_S = 10.0
# A replica that never took a request has nothing to finish.
UNREADY_GRACE_S = 2.0


@dataclass(slots=True)
class Staffing:
    """The decision for one version. `may_start` more replicas may start now, of `missing`: `missing_awake` are to be
    awake, the others for standby. `start_cause` says why."""

    removals: list[RemoveReplica] = field(default_factory=list)
    stops: list[StopReplica] = field(default_factory=list)
    drains: list[DrainReplica] = field(default_factory=list)
    wakings: list[WakeReplica] = field(default_factory=list)
    pauses: list[PauseReplica] = field(default_factory=list)
    missing: int = 0
    missing_awake: int = 0
    may_start: int = 0
    start_cause: str = ""
    wakes: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Situation:
    """What every version's decision rests on, beside its own roster and its model's traffic."""

    memory: Memory
    history: History
    failures: FailureCount
    now: float
    policy: Policy


def staff(roster: Roster, traffic: Traffic | None, at: Situation) -> Staffing:
    """Decides for one version; `traffic` is its model's, None for a model that nobody desires."""
    decision = Staffing()
    _remove_failed(roster, at.memory, decision)
    if roster.wanted is None:
        _finish_drains(roster, NO_SPARES, at, decision)
        _dismiss(roster, traffic, decision)
        return decision
    standby.take_back(roster, at.memory)
    decision.wakings = standby.wake(roster)
    spares = standby.spares_of(roster, len(decision.wakings), at.memory)
    _finish_drains(roster, spares, at, decision)
    if not _is_paused(traffic):
        _let_go(roster, roster.wanted, traffic, spares, at, decision)
    _fill_up(roster, roster.wanted, traffic, spares, at, decision)
    for replica in roster.pending:
        decision.wakes.append(startup_deadline(roster, replica, at.history))
        if replica.id in at.memory.woken:
            decision.wakes.append(at.memory.woken[replica.id] + WAKE_CHECK_S)
    return decision


def _let_go(
    roster: Roster, wanted: DesiredVersion, traffic: Traffic | None, spares: Spares, at: Situation, decision: Staffing
) -> None:
    """All that live and are not, or no more, as they should be."""
    _stop_outdated(roster, at, decision)
    _release_old(roster, wanted, traffic, decision)
    _shed_surplus(roster, wanted, traffic, spares, decision)
    if spares.paused or spares.old:
        _end_standby(wanted, spares, decision)


def _is_paused(traffic: Traffic | None) -> bool:
    return traffic is not None and traffic.paused


def drain_timeout_s(roster: Roster, memory: Memory) -> float:
    """Of the desired version, or of the routing that still knows a version that is desired no more."""
    if roster.wanted is not None:
        return roster.wanted.drain_timeout_s
    model = memory.routed.get(roster.key.model)
    routed = model.versions.get(roster.key.version) if model else None
    return routed.drain_timeout_s if routed else DEFAULT_DRAIN_TIMEOUT_S


def drain_ends(replica: Replica, roster: Roster, memory: Memory, now: float) -> float:
    """When a draining replica is stopped whatever it still does."""
    if replica.id in memory.drain_until:
        return memory.drain_until[replica.id]
    return memory.draining.get(replica.id, now) + drain_timeout_s(roster, memory)


def _remove_failed(roster: Roster, memory: Memory, decision: Staffing) -> None:
    for replica in roster.failed:
        tail = replica.exit.log_tail if replica.exit else ()
        is_loss = roster.wants(replica) and replica.id not in memory.draining
        oom_killed = replica.exit is not None and replica.exit.oom_killed
        decision.removals.append(RemoveReplica(replica.id, roster.key, ending(replica), tail, is_loss, oom_killed))


def _finish_drains(roster: Roster, spares: Spares, at: Situation, decision: Staffing) -> None:
    for replica in roster.draining:
        ends = drain_ends(replica, roster, at.memory, at.now)
        # None is "the gateway has not said": only its own word that nothing is in flight ends a drain early.
        is_drained = replica.routed is False and replica.in_flight == 0
        # One that does not let itself be paused ends as any other when its time is up.
        if is_drained and replica in spares.coming and at.now < ends:
            cause = "drained; it stays in standby"
            decision.pauses.append(PauseReplica(replica.id, replica.key, cause, replica.host, replica.port))
        elif is_drained:
            _stop(replica, DRAINED_GRACE_S, "drained", decision)
        elif at.now >= ends and (replica.in_flight is not None or replica not in spares.coming):
            _stop(replica, DRAINED_GRACE_S, f"its time to drain is up; {_in_flight(replica)}", decision)
        elif at.now < ends:
            decision.wakes.append(ends)


def _in_flight(replica: Replica) -> str:
    if replica.in_flight is None:
        return "the gateway does not say what is in flight"
    return f"{replica.in_flight} still in flight"


def _dismiss(roster: Roster, traffic: Traffic | None, decision: Staffing) -> None:
    if _is_paused(traffic):
        return
    cause = "model removed" if traffic is None else "version removed"
    for replica in (*roster.old_pending, *roster.old_standby):
        _stop(replica, UNREADY_GRACE_S, cause, decision)
    if traffic is None or not traffic.holds(roster.key.version):
        _drain(roster.old_ready, cause, decision)


def _stop_outdated(roster: Roster, at: Situation, decision: Staffing) -> None:
    for replica in roster.old_pending:
        checked_at = at.memory.woken.get(replica.id, -inf) + WAKE_CHECK_S
        if at.now < checked_at:
            decision.wakes.append(checked_at)
        else:
            _stop(replica, UNREADY_GRACE_S, "outdated before it was ready", decision)


def _release_old(roster: Roster, wanted: DesiredVersion, traffic: Traffic | None, decision: Staffing) -> None:
    if not roster.old_ready or (wanted.replicas == 0 and _is_leaned_on(roster, traffic)):
        return
    spare = max(0, len(roster.serving) - wanted.replicas)
    _drain(roster.old_ready[:spare], f"replaced by spec {wanted.digest[:8]}", decision)


def _shed_surplus(
    roster: Roster, wanted: DesiredVersion, traffic: Traffic | None, spares: Spares, decision: Staffing
) -> None:
    """Those beyond the wanted ones fill the standby first, ready ones before pending ones; the others end."""
    if roster.awake_count <= wanted.replicas:
        return
    cause = f"{wanted.replicas} wanted, {roster.awake_count} run"
    surplus = [] if _is_leaned_on(roster, traffic) else roster.ready[wanted.replicas :]
    _drain(surplus[: spares.room], f"goes to standby: {cause}", decision)
    _drain(surplus[spares.room :], cause, decision)
    kept = max(0, wanted.replicas - len(roster.ready)) + max(0, spares.room - len(surplus))
    # Those that were woken are ready first.
    for replica in sorted(roster.pending, key=lambda r: r not in roster.woken)[kept:]:
        _stop(replica, UNREADY_GRACE_S, cause, decision)


def _end_standby(wanted: DesiredVersion, spares: Spares, decision: Staffing) -> None:
    """An old one stays until a new one takes its place: until then it can serve."""
    cause = f"{wanted.standby} wanted in standby, {len(spares.paused)} are"
    for replica in spares.paused[wanted.standby :]:
        _stop(replica, UNREADY_GRACE_S, cause, decision)
    for replica in spares.old[max(0, wanted.standby - len(spares.paused)) :]:
        _stop(replica, UNREADY_GRACE_S, f"replaced by spec {wanted.digest[:8]}", decision)


def _is_leaned_on(roster: Roster, traffic: Traffic | None) -> bool:
    return traffic is not None and traffic.leans_on(roster.key.version)


def _fill_up(
    roster: Roster, wanted: DesiredVersion, traffic: Traffic | None, spares: Spares, at: Situation, decision: Staffing
) -> None:
    awake, asleep = roster.awake_count + spares.waking, 0
    if _is_paused(traffic):
        # Old ones stay, so that only what is missing beside them is made anew.
        awake += len(roster.old_ready) + len(roster.old_pending)
        asleep = len(spares.old)
    decision.missing_awake = max(0, wanted.replicas - awake)
    decision.missing = decision.missing_awake + max(0, spares.room - asleep - max(0, awake - wanted.replicas))
    if decision.missing == 0:
        return
    failed = at.failures.of(roster)
    if failed is not None and failed.retry_at > at.now:
        decision.wakes.append(failed.retry_at)
        return
    live = roster.live_count - len(decision.drains) + len(spares.coming)
    total = wanted.replicas + wanted.standby
    room = total + surge(total, at.policy) - live
    # A start takes the machine's time, and somebody may wait for those who are woken: standby is filled up after them.
    is_waking = bool(decision.wakings or roster.woken)
    decision.may_start = max(0, min(decision.missing_awake if is_waking else decision.missing, room))
    decision.start_cause = _start_cause(roster, wanted, spares, decision, at.failures)


def surge(replicas: int, policy: Policy) -> int:
    """How many replicas above the wanted number may live while replacing."""
    return max(1, math.ceil(policy.max_surge_ratio * replicas))


def _start_cause(
    roster: Roster, wanted: DesiredVersion, spares: Spares, decision: Staffing, failures: FailureCount
) -> str:
    failed = failures.of(roster)
    if failed is not None:
        again = "in place of one that failed" if failed.is_blip else f"try {failed.count + 1}"
        return f"{again}: {failed.reason}"
    if roster.old_ready:
        return f"replaces spec {roster.old_ready[0].digest[:8]}"
    if not decision.missing_awake:
        return f"{wanted.standby} wanted in standby, {wanted.standby - spares.room} are"
    return f"{wanted.replicas} wanted, {roster.awake_count + spares.waking} run"


def _drain(replicas: list[Replica], cause: str, decision: Staffing) -> None:
    decision.drains.extend(DrainReplica(r.id, r.key, cause) for r in replicas)


def _stop(replica: Replica, grace_s: float, cause: str, decision: Staffing) -> None:
    decision.stops.append(StopReplica(replica.id, replica.key, grace_s, cause))
