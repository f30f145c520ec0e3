"""Paused rollouts: kept in the store, so that a pause outlives the control plane, and put over what was applied.

Decides nothing: what a pause means stands in `core/pausing.py`. Whoever sets one calls `ReconcileLoop.reapply`.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.adapters.store import Store
from orchestrator.core.entities import Desired
from orchestrator.core.pausing import Pause, held


class Pauses:
    """The pauses in force, by model."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pauses = store.pauses()

    @property
    def all(self) -> Mapping[str, Pause]:
        return self._pauses

    def get(self, model: str) -> Pause | None:
        return self._pauses.get(model)

    def put(self, model: str, pause: Pause | None) -> None:
        """None takes it back."""
        pauses = {name: known for name, known in self._pauses.items() if name != model}
        if pause is not None:
            pauses[model] = pause
        self._store.put_pauses(pauses)
        self._pauses = pauses

    def held(self, desired: Desired) -> Desired:
        return held(desired, self._pauses)
