"""Whether what runs may be taken as it was seen last, because requests wait for a replica that is being woken.

A look at all that runs costs as much as there is of it: a second for a thousand containers, where unpausing one takes
20 ms. So for a moment the last look, with what was unpaused since, stands for a new one. It is as old as the newest
event of the engine, and only what is urgent is done on its word (`urgent`): all else waits for a real look, which comes
half a second later at the latest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orchestrator.adapters.engine import EngineReplica
from orchestrator.core.plan import Action, DrainReplica, WakeReplica

LONGEST_S = 0.5


class LastLook:
    """What the engine listed last. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._listed: list[EngineReplica] | None = None
        self._until: float | None = None  # None: nobody has hurried since

    def keep(self, listed: list[EngineReplica]) -> None:
        """There was a real look."""
        self._listed, self._until = listed, None

    def hurry(self, now: float) -> None:
        """Somebody waits. Hurrying again prolongs nothing: a real look comes between."""
        if self._until is None:
            self._until = now + LONGEST_S

    def unpaused(self, replica_id: str) -> None:
        """What is known without a look."""
        if self._listed is not None:
            self._listed = [replace(r, paused=False) if r.id == replica_id else r for r in self._listed]

    def end(self) -> None:
        """Nobody waits any more for what it can say."""
        self._until = 0.0

    def left_s(self, now: float) -> float:
        """How long it may still stand for a new one; 0.0: it may not."""
        return 0.0 if self._until is None or self._listed is None else max(0.0, self._until - now)

    @property
    def listed(self) -> list[EngineReplica]:
        return self._listed or []


def urgent(actions: Iterable[Action]) -> tuple[Action, ...]:
    """Those that may be done on the word of a last look: a waking that is wrong does nothing, and a drain changes the
    routing alone. What is left out is asked for again by the next decision."""
    return tuple(action for action in actions if isinstance(action, (WakeReplica, DrainReplica)))
