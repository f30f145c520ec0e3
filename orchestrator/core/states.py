"""The states of a replica, and the one table of transitions between them.

    STARTING --> LOADING --> READY --> DRAINING --> (gone)
        \\___________\\__________\\________\\--------> FAILED --> (gone)

    DRAINING --paused--> STANDBY --woken--> STARTING, until a probe says what it is

Anybody can pause a replica, in any state but the last. A replica is "gone" when the engine no longer lists it: that is
absence, not a state.
"""

from __future__ import annotations

from enum import StrEnum


class ReplicaState(StrEnum):
    """STARTING: created, its port does not answer yet. LOADING: it answers and loads its model. READY: it passed
    its warm-up and may take requests. DRAINING: taken out of routing, finishing what is in flight. STANDBY: paused by
    the engine, with all that it has loaded; it must pass a probe after it was woken. FAILED (final): its process ended,
    or it did not become ready in time; it is removed after its reason was recorded."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STANDBY = "standby"
    FAILED = "failed"


TRANSITIONS: dict[ReplicaState, frozenset[ReplicaState]] = {
    ReplicaState.STARTING: frozenset(
        {ReplicaState.LOADING, ReplicaState.READY, ReplicaState.STANDBY, ReplicaState.FAILED}
    ),
    ReplicaState.LOADING: frozenset({ReplicaState.READY, ReplicaState.STANDBY, ReplicaState.FAILED}),
    ReplicaState.READY: frozenset(
        {ReplicaState.LOADING, ReplicaState.DRAINING, ReplicaState.STANDBY, ReplicaState.FAILED}
    ),
    ReplicaState.DRAINING: frozenset({ReplicaState.STANDBY, ReplicaState.FAILED}),
    ReplicaState.STANDBY: frozenset(
        {ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.READY, ReplicaState.FAILED}
    ),
    ReplicaState.FAILED: frozenset(),
}

LIVE = frozenset({ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.READY})
PENDING = frozenset({ReplicaState.STARTING, ReplicaState.LOADING})


def may_become(before: ReplicaState, after: ReplicaState) -> bool:
    """Whether an observation may move a replica from `before` to `after`; staying is always allowed."""
    return before == after or after in TRANSITIONS[before]
