"""How long replicas of each version take to start: from the decision to the first readiness, as observed.

A replica says itself when it was ready, so that a control plane which was away at that moment knows it too. One that
was woken from standby did not start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from orchestrator.adapters.metrics import Metrics
from orchestrator.core.entities import Replica, VersionKey
from orchestrator.core.states import ReplicaState

# Before the first was seen.
GUESS_S = 5.0
# The mean of the last few: the first start on a machine is slower than those after it.
KEPT = 8
# A clock that was set in between makes no start of days.
MOST_S = 3600.0


class ColdStarts:
    """Takes in observations; the mean of each version's last starts."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lengths: dict[VersionKey, deque[float]] = {}
        self._pending: set[str] = set()
        self._counted: set[str] = set()

    def mean_s(self, key: VersionKey) -> float:
        lengths = self._lengths.get(key)
        return sum(lengths) / len(lengths) if lengths else GUESS_S

    def note(self, replicas: Iterable[Replica], now: float) -> None:
        seen = list(replicas)
        for replica in seen:
            if replica.state is ReplicaState.READY and replica.id not in self._counted:
                self._counted.add(replica.id)
                self._count(replica, now)
        self._counted &= {replica.id for replica in seen}
        self._pending = {r.id for r in seen if r.state in (ReplicaState.STARTING, ReplicaState.LOADING)}

    def _count(self, replica: Replica, now: float) -> None:
        ready_at = replica.loading.ready_at if replica.loading else 0.0
        if ready_at < replica.created_at:
            if replica.id not in self._pending:
                return  # it was ready before anybody looked
            ready_at = now
        length_s = ready_at - replica.created_at
        if 0 <= length_s <= MOST_S:
            self._lengths.setdefault(replica.key, deque(maxlen=KEPT)).append(length_s)
            if replica.id in self._pending:
                self._metrics.started(replica.key, length_s)
