"""The control plane's one decision: (desired, observed, memory, now) -> what to do, what to route, what to remember.

Pure: no clock, no chance, no I/O. Deciding twice on an unchanged, converged world gives an empty plan. The steps, each
in a module of its own and to be read in this order:

    roster.py     sort the replicas of each version by what they are good for
    failures.py   count those that failed, and say when the next may start
    traffic.py    say which weights and labels are in force, and who is held for them
    staffing.py   say for each version who stays, drains, stops, and how many may start
    verdicts.py   say in words where each version stands

Here they are put together, under the one rule that spans versions: few start at once.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter

from orchestrator.core.entities import Desired, Observed, VersionKey
from orchestrator.core.failures import FailureCount, count_failures
from orchestrator.core.plan import Action, Memory, Plan, Policy, RoutedModel, StartReplica
from orchestrator.core.roster import Roster, Rosters, note_history, take_rosters
from orchestrator.core.staffing import Situation, Staffing, drain_ends, drain_timeout_s, staff
from orchestrator.core.states import PENDING, ReplicaState
from orchestrator.core.traffic import Traffic, decide_traffic, route
from orchestrator.core.verdicts import judge

DEFAULT_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class _Decision:
    """Everything decided about one version."""

    roster: Roster
    traffic: Traffic | None
    staffing: Staffing


def reconcile(
    desired: Desired, observed: Observed, memory: Memory, now: float, policy: Policy = DEFAULT_POLICY
) -> Plan:
    """Decides once. The caller executes the plan, keeps `Plan.memory` and comes back with a new observation.

    A pending replica is taken at its word: observe (probe) before the first decision after a restart, for what is
    not READY leaves the routes.
    """
    history = note_history(observed, memory, now)
    rosters = take_rosters(desired, observed, memory, history, now)
    failures = count_failures(rosters, memory, history, now, policy)
    traffic = decide_traffic(desired, memory.routed, rosters, failures)
    at = Situation(memory, history, failures, now, policy)
    decisions = [_decide(roster, traffic.get(roster.key.model), at) for roster in rosters.values()]
    starts = _pick_starts(decisions, observed, at)
    routes = _routes(desired, traffic, rosters, decisions, at)
    return Plan(
        actions=_actions(decisions, starts, desired.revision),
        routes=routes,
        memory=_remember(decisions, observed, routes, at),
        verdicts={
            d.roster.key: judge(d.roster, d.staffing, starts.get(d.roster.key, 0), d.traffic, at) for d in decisions
        },
        wake_at=min((wake for d in decisions for wake in d.staffing.wakes), default=None),
    )


def _decide(roster: Roster, traffic: Traffic | None, at: Situation) -> _Decision:
    return _Decision(roster, traffic, staff(roster, traffic, at))


def _pick_starts(decisions: Iterable[_Decision], observed: Observed, at: Situation) -> Counter[VersionKey]:
    """How many replicas of each version start now: those without a ready one first, then those with the fewest.

    What is being stopped still counts as starting until it is seen gone: an action may fail.
    """
    starting = sum(1 for r in observed.replicas if r.state in PENDING and not at.history.was_ready(r.id))
    budget = max(0, at.policy.max_starting - starting)
    ranked = (rank for d in decisions for rank in _ranks(d, at.failures))
    # Stable: equals start in order of their names, which is the order of the rosters.
    first = heapq.nsmallest(budget, ranked, key=itemgetter(0))
    return Counter(key for _, key in first)


def _ranks(decision: _Decision, failures: FailureCount) -> Iterable[tuple[tuple[bool, bool, int, int], VersionKey]]:
    """The place in the queue of each replica that may start; a version that keeps failing goes behind its equals, and
    standby behind all that is to be awake."""
    roster = decision.roster
    failed = failures.of(roster)
    have = len(roster.serving) + len(roster.pending)
    for nth in range(decision.staffing.may_start):
        is_spare = nth >= decision.staffing.missing_awake
        yield (is_spare, bool(roster.serving), failed.count if failed else 0, have + nth), roster.key


def _actions(decisions: list[_Decision], starts: Mapping[VersionKey, int], revision: int) -> tuple[Action, ...]:
    """Wakings, removals and starts go first: they end outages. Stops go last: they may take their grace."""
    actions: list[Action] = [wake for d in decisions for wake in d.staffing.wakings]
    actions.extend(removal for d in decisions for removal in d.staffing.removals)
    for d in decisions:
        count = starts.get(d.roster.key, 0)
        if d.roster.wanted is not None and count:
            actions.extend([StartReplica(d.roster.wanted, revision, d.staffing.start_cause)] * count)
    actions.extend(drain for d in decisions for drain in d.staffing.drains)
    actions.extend(pause for d in decisions for pause in d.staffing.pauses)
    actions.extend(stop for d in decisions for stop in d.staffing.stops)
    return tuple(actions)


def _routes(
    desired: Desired,
    traffic: Mapping[str, Traffic],
    rosters: Rosters,
    decisions: list[_Decision],
    at: Situation,
) -> dict[str, RoutedModel]:
    leaving = {drain.replica_id for d in decisions for drain in d.staffing.drains}
    previous = at.memory.routed
    return {
        name: route(model, traffic[name], previous.get(name), rosters, leaving, at.failures)
        for name, model in desired.models.items()
    }


def _remember(
    decisions: list[_Decision], observed: Observed, routes: Mapping[str, RoutedModel], at: Situation
) -> Memory:
    memory, history, failures, now = at.memory, at.history, at.failures, at.now
    listed = {r.id for r in observed.replicas}
    draining: dict[str, float] = {}
    drain_until: dict[str, float] = {}
    pausing: set[str] = set()
    stopped: set[str] = set()
    woken = {r.id: memory.woken[r.id] for r in observed.replicas if r.id in memory.woken and r.state in PENDING}
    for d in decisions:
        for replica in d.roster.draining:
            draining[replica.id] = memory.draining.get(replica.id, now)
            drain_until[replica.id] = drain_ends(replica, d.roster, memory, now)
            if replica.id in memory.pausing:
                pausing.add(replica.id)
        for drain in d.staffing.drains:
            draining[drain.replica_id] = now
            drain_until[drain.replica_id] = now + drain_timeout_s(d.roster, memory)
        for stop in d.staffing.stops:
            stopped.add(stop.replica_id)
        for pause in d.staffing.pauses:
            pausing.add(pause.replica_id)
        for wake in d.staffing.wakings:
            woken[wake.replica_id] = now
    ready = {r.digest for r in observed.replicas if r.state is ReplicaState.READY}
    wanted = {d.roster.wanted.digest for d in decisions if d.roster.wanted is not None}
    return Memory(
        failures=failures.by_digest,
        draining=draining,
        # A replica that we stop ends, and must not look like one that failed.
        counted=failures.counted | stopped | (memory.counted & listed),
        routed=routes,
        drain_until=drain_until,
        ready_since=history.ready_since,
        pending_since=history.pending_since,
        pausing=frozenset(pausing),
        woken=woken,
        proven=(memory.proven | ready) & wanted,
    )
