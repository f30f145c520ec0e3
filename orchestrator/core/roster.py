"""The replicas of each version, sorted by what they are good for.

Owns the words "ready", "pending", "standby", "old", "draining" and "failed" as reconcile uses them, and how long a
replica has been so. Decides nothing about what to do with them. Read `staffing.py` next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from orchestrator.core.entities import Desired, DesiredVersion, Exit, Observed, Replica, VersionKey
from orchestrator.core.plan import Memory
from orchestrator.core.states import PENDING, ReplicaState

# One that was loaded and passed its probes answers within milliseconds after a pause, or there is something wrong.
WAKE_CHECK_S = 3.0


@dataclass(frozen=True, slots=True)
class History:
    """Since when each replica has been ready or pending (see `Memory`)."""

    ready_since: Mapping[str, float]
    pending_since: Mapping[str, float]

    def was_ready(self, replica_id: str) -> bool:
        return replica_id in self.ready_since


@dataclass(slots=True)
class Roster:
    """One version's replicas. Without `wanted` all live ones are old; `given_up` ones live and are in `failed` too, and
    `woken` ones are pending, of whatever spec."""

    key: VersionKey
    wanted: DesiredVersion | None = None
    ready: list[Replica] = field(default_factory=list)
    pending: list[Replica] = field(default_factory=list)
    old_ready: list[Replica] = field(default_factory=list)
    old_pending: list[Replica] = field(default_factory=list)
    standby: list[Replica] = field(default_factory=list)
    old_standby: list[Replica] = field(default_factory=list)
    woken: list[Replica] = field(default_factory=list)
    draining: list[Replica] = field(default_factory=list)
    failed: list[Replica] = field(default_factory=list)
    given_up: list[Replica] = field(default_factory=list)

    def wants(self, replica: Replica) -> bool:
        """Whether a replica of this one's spec should run."""
        return self.wanted is not None and replica.digest == self.wanted.digest

    @property
    def serving(self) -> list[Replica]:
        """The ready ones of any spec: they take requests until they drain."""
        return self.ready + self.old_ready

    @property
    def awake_count(self) -> int:
        """Those of the wanted spec that serve, or will."""
        return len(self.ready) + len(self.pending)

    @property
    def live_count(self) -> int:
        """Those that use the machine and do not drain; one stopped in this plan counts until it is seen gone."""
        live = len(self.ready) + len(self.pending) + len(self.old_ready) + len(self.old_pending)
        return live + len(self.standby) + len(self.old_standby) + len(self.given_up)


Rosters = dict[VersionKey, Roster]


def note_history(observed: Observed, memory: Memory, now: float) -> History:
    """Carries the history on to this observation; replicas that are gone are forgotten."""
    ready_since: dict[str, float] = {}
    pending_since: dict[str, float] = {}
    for replica in observed.replicas:
        id_ = replica.id
        since = memory.ready_since.get(id_)
        if replica.state is ReplicaState.READY and (since is None or id_ in memory.pending_since):
            since = now
        elif replica.state in PENDING:
            # First seen, not created: after a restart that forgot all, a slow loader gets its time again rather than
            # being ended by an observation that may be the first.
            pending_since[id_] = memory.pending_since.get(id_, now)
        if since is not None:
            ready_since[id_] = since
    return History(ready_since, pending_since)


def take_rosters(desired: Desired, observed: Observed, memory: Memory, history: History, now: float) -> Rosters:
    """A roster for every version that is desired or has replicas, desired ones first, in order of names."""
    wanted = sorted(desired.versions().items(), key=lambda item: (item[0].model, item[0].version))
    rosters = {key: Roster(key, version) for key, version in wanted}
    for replica in sorted(observed.replicas, key=lambda r: (r.created_at, r.id)):
        roster = rosters.get(replica.key)
        if roster is None:
            roster = rosters[replica.key] = Roster(replica.key)
        _place(roster, replica, memory, history, now)
    return rosters


def _place(roster: Roster, replica: Replica, memory: Memory, history: History, now: float) -> None:
    is_wanted = roster.wants(replica)
    if replica.state in PENDING and now < memory.woken.get(replica.id, -inf) + WAKE_CHECK_S:
        roster.woken.append(replica)
    if replica.state is ReplicaState.FAILED or replica.exit is not None:
        roster.failed.append(replica)
    elif replica.state is ReplicaState.STANDBY:
        # One that is being stopped is woken last of all.
        standby = roster.standby if is_wanted else roster.old_standby
        standby.insert(len(standby) if replica.id in memory.counted else _untouched(standby, memory), replica)
    elif replica.state is ReplicaState.DRAINING or replica.id in memory.draining:
        roster.draining.append(replica)
    elif replica.state is ReplicaState.READY:
        (roster.ready if is_wanted else roster.old_ready).append(replica)
    elif not is_wanted:
        roster.old_pending.append(replica)
    elif _is_hung(replica, history):
        _give_up(roster, replica, f"{ejected(replica)}, and nothing answers at its port any more")
    elif _failed_to_wake(replica, memory, history, now):
        _give_up(roster, replica, f"was woken, and not ready within {WAKE_CHECK_S:g} s; last phase: {phase(replica)}")
    elif now >= startup_deadline(roster, replica, history):
        limit_s = f"{roster.wanted.startup_timeout_s:g} s" if roster.wanted else ""
        _give_up(roster, replica, f"did not become ready within {limit_s}; last phase: {phase(replica)}")
    else:
        roster.pending.append(replica)


def startup_deadline(roster: Roster, replica: Replica, history: History) -> float:
    """When a pending replica of the wanted spec must be ready."""
    assert roster.wanted is not None
    return history.pending_since[replica.id] + roster.wanted.startup_timeout_s


def _is_hung(replica: Replica, history: History) -> bool:
    """Two witnesses say that one which was ready is dead, though its process lives: the gateway, whose requests it did
    not answer, and the probes. One that answers that it loads is believed, and gets its time again."""
    return bool(replica.ejected) and replica.state is ReplicaState.STARTING and history.was_ready(replica.id)


def _failed_to_wake(replica: Replica, memory: Memory, history: History, now: float) -> bool:
    """One that somebody paused while it loaded was never ready, and goes on loading as any other."""
    if replica.id not in memory.woken or now < memory.woken[replica.id] + WAKE_CHECK_S:
        return False
    return history.was_ready(replica.id) or replica.state is ReplicaState.STARTING


def _untouched(replicas: list[Replica], memory: Memory) -> int:
    return sum(1 for replica in replicas if replica.id not in memory.counted)


def _give_up(roster: Roster, replica: Replica, reason: str) -> None:
    roster.failed.append(replace(replica, state=ReplicaState.FAILED, exit=Exit(code=None, reason=reason)))
    roster.given_up.append(replica)


def phase(replica: Replica) -> str:
    """What a pending replica does, in a word."""
    return replica.phase or replica.state.value


def progress(replica: Replica, now: float, pending_since: float) -> str:
    """What a pending replica does and for how long, for people: `loading 3.2 s`. `pending_since` is when it was first
    seen, for one that does not say since when it does that."""
    since = pending_since if replica.phase_since is None else replica.phase_since
    return f"{phase(replica)} {max(0.0, now - since):.1f} s"


def lengths(phases: Iterable[tuple[str, float]]) -> str:
    """`importing 0.4 s, loading 0.2 s`"""
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases)


def ejected(replica: Replica) -> str:
    """Why the gateway leaves it alone, for people; "" when it does not."""
    return replica.ejected and f"ejected by the gateway: {replica.ejected}"


def ending(replica: Replica) -> str:
    """How a failed replica ended, for people."""
    return replica.exit.reason if replica.exit and replica.exit.reason else "ended; nobody saw how"
