"""A paused rollout: what a model was when a person said stop, in the place of what was applied since.

While a model is paused it is desired as it was then (`held`), and nothing of it that lives is replaced or removed:
`staffing.py` drains, stops and pauses none, `traffic.py` leaves the shares where they are. What dies is made anew. What
was applied meanwhile waits. Pure; `loops/pauses.py` keeps the pauses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.core.entities import Desired, DesiredModel


@dataclass(frozen=True, slots=True)
class Pause:
    """`model` is what was desired at `at`; `reason` is a person's, for others."""

    at: float
    reason: str
    model: DesiredModel


def held(desired: Desired, pauses: Mapping[str, Pause]) -> Desired:
    """`desired` with every paused model as it was, those that it has no more included."""
    if not pauses:
        return desired
    frozen = {name: replace(pause.model, paused=True) for name, pause in pauses.items()}
    return replace(desired, models={**desired.models, **frozen})


def is_waiting(applied: Desired, pause: Pause) -> bool:
    """Whether something was applied for the model that its resuming will bring."""
    return applied.models.get(pause.model.name) != pause.model
