"""What is simulated: a version's settings as the manifest has them, with what the user would change, and its traffic.

Pure. `runs.py` simulates it. The translation from the manifest is that of `loops/desired.py`, for the simulation alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.core.scaling.distributions import Service
from orchestrator.core.scaling.facts import Objective, Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.core.scaling.service import DERIVED_FACTOR
from orchestrator.manifest import VersionConfig

# How often the live loop decides (`loops/autoscale.py`).
TICK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What the user asks for; None: as it is."""

    latency_s: float | None = None
    percentile: float | None = None
    minimum: int | None = None
    maximum: int | None = None
    slots: int | None = None
    standby: int | None = None
    idle_after_s: float | None = None
    worth_s: float | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a version's replicas: how long they take, and how long a start and a wake take."""

    service: Service
    cold_start_s: float = 5.0
    wake_s: float = 0.05


def of_manifest(config: VersionConfig) -> Settings:
    """The settings in force for a version. Schedules are left out: a recording has no clock."""
    scaling = config.scaling
    latency_ms = config.slo.latency_ms
    scheduled = max((schedule.min for schedule in scaling.schedule), default=0)
    return Settings(
        minimum=scaling.min,
        maximum=scaling.max or max(1, scaling.min, scheduled),
        slots=config.concurrency,
        objective=Objective(None if latency_ms is None else latency_ms / 1000, config.slo.percentile),
        standby=scaling.standby,
        idle_after_s=scaling.idle_after_s,
        gone_after_s=scaling.gone_after_s,
        worth_s=scaling.worth,
    )


def changed(settings: Settings, changes: Changes) -> Settings:
    """Raises `UserError` for bounds that leave nothing between them."""
    objective = Objective(
        _or(changes.latency_s, settings.objective.latency_s), _or(changes.percentile, settings.objective.percentile)
    )
    simple = ("minimum", "maximum", "slots", "standby", "idle_after_s", "worth_s")
    asked = {name: getattr(changes, name) for name in simple if getattr(changes, name) is not None}
    made = replace(settings, objective=objective, **asked)
    if made.maximum < max(1, made.minimum):
        raise UserError(
            f"max {made.maximum} with min {made.minimum}: no count is between them; raise max, or lower min with --min"
        )
    return made


def setup(settings: Settings, measured: Measured, *, queue_timeout_s: float | None = None, seed: int = 0) -> Setup:
    """The pool that these settings are tried on. Without an objective it is held to the one that the policy derives."""
    objective = settings.objective
    latency_s = objective.latency_s
    if latency_s is None:
        latency_s = DERIVED_FACTOR * tail_s(measured.service, objective.percentile)
    return Setup(
        service=measured.service,
        slots=settings.slots,
        latency_s=latency_s,
        percentile=objective.percentile,
        cold_start_s=measured.cold_start_s,
        wake_s=measured.wake_s,
        queue_timeout_s=queue_timeout_s,
        tick_s=TICK_S,
        first=settings.minimum,
        seed=seed,
    )


def tail_s(service: Service, percentile: float) -> float:
    values = service.values
    return values[min(len(values) - 1, int(percentile / 100 * len(values)))]


def _or(asked: Any, present: Any) -> Any:
    return present if asked is None else asked
