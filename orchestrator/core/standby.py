"""Who of one version is paused, woken, or taken back from a drain: the reserve that costs memory and no CPU.

    ready --surplus--> draining --nothing in flight--> standby --needed--> woken, probed, ready
                          |                               |
                          +--needed again--> ready        +--more than wanted, or outdated--> stopped

What is paused is known from the engine alone, so that one which somebody else paused is treated as any other: it is
woken while it is needed, and counts as standby or ends while it is not. Decides for `staffing.py`, which acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.entities import Replica
from orchestrator.core.plan import Memory, WakeReplica
from orchestrator.core.roster import Roster
from orchestrator.core.states import ReplicaState


@dataclass(frozen=True, slots=True)
class Spares:
    """The standby after this plan's wakings: `paused` ones of the wanted spec, `old` ones, those `coming` that drain
    and will be paused, and `room` for so many more of the wanted spec. `waking` of that spec are being woken."""

    paused: tuple[Replica, ...] = ()
    old: tuple[Replica, ...] = ()
    coming: tuple[Replica, ...] = ()
    room: int = 0
    waking: int = 0


NO_SPARES = Spares()


def take_back(roster: Roster, memory: Memory) -> None:
    """What drains and is needed again serves on, unless it is being paused or stopped already."""
    assert roster.wanted is not None
    if not roster.draining or (short := roster.wanted.replicas - roster.awake_count) <= 0:
        return
    able = [r for r in roster.draining if _may_stay(r, roster, memory) and r.id not in memory.pausing]
    for replica in able[:short]:
        roster.draining.remove(replica)
        roster.ready.append(replica)
    roster.ready.sort(key=lambda r: (r.created_at, r.id))


def wake(roster: Roster) -> list[WakeReplica]:
    """Those that are needed, of the wanted spec, whatever starts meanwhile: a start takes long, and then fills the
    standby. While nobody serves and none of that spec can be woken, old ones serve until the new ones are ready."""
    if not roster.standby and not roster.old_standby:
        return []
    wanted = roster.wanted
    assert wanted is not None
    awake = len(roster.ready) + sum(1 for r in roster.woken if roster.wants(r))
    cause = f"{wanted.replicas} wanted, {awake} awake"
    woken = roster.standby[: max(0, wanted.replicas - awake)]
    if not roster.standby and not roster.serving:
        cause = f"serves until spec {wanted.digest[:8]} is ready"
        woken = roster.old_standby[: wanted.replicas]
    return [WakeReplica(r.id, r.key, cause) for r in woken]


def spares_of(roster: Roster, wakings: int, memory: Memory) -> Spares:
    """`wakings` are woken in this plan: the first of the roster's standby, or of its old standby if it has no other."""
    assert roster.wanted is not None
    if not roster.wanted.standby and not roster.standby and not roster.old_standby:
        return NO_SPARES
    waking = min(wakings, len(roster.standby))
    paused = tuple(roster.standby[waking:])
    room = max(0, roster.wanted.standby - len(paused))
    coming = tuple(r for r in roster.draining if _may_stay(r, roster, memory))[:room]
    return Spares(paused, tuple(roster.old_standby[wakings - waking :]), coming, room - len(coming), waking)


def _may_stay(replica: Replica, roster: Roster, memory: Memory) -> bool:
    """Whether a draining one is as it should be; one that was told to stop ends."""
    return replica.state is ReplicaState.READY and roster.wants(replica) and replica.id not in memory.counted
