"""The admin API's routes for how many replicas run and why: thin; what is decided stands in `loops/autoscale.py`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Query

from orchestrator.adapters.metrics import VersionLevels
from orchestrator.api import schemas
from orchestrator.api.context import Control
from orchestrator.core.entities import DesiredVersion
from orchestrator.core.errors import ConflictError, NotFoundError
from orchestrator.core.scaling import census
from orchestrator.core.scaling.facts import Override
from orchestrator.core.scaling.sentence import explained
from orchestrator.loops.control import ControlPlane

router = APIRouter()


@router.get("/models/{model}/scaling")
async def explain(control: Control, model: str, version: str = "") -> list[schemas.ScalingStatus]:
    """How the counts of a model's versions came about, with all that the newest decisions rested on."""
    return [of_version(control, found, whole=True) for found in _versions(control, model, version)]


@router.get("/models/{model}/scaling/history")
async def history(
    control: Control, model: str, version: str = "", limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[schemas.ScaleDecision]:
    """The last decisions that changed a count, oldest first."""
    _versions(control, model, version)
    found = control.store.scaling.decisions(model, version, limit)
    return [schemas.ScaleDecision(**{name: getattr(each, name) for name in each.__slots__}) for each in found]


@router.put("/models/{model}/versions/{version}/scale")
async def scale(control: Control, model: str, version: str, request: schemas.ScaleRequest) -> schemas.ScalingStatus:
    """Sets a version's count by hand, for a time or until it is taken back."""
    (wanted,) = _versions(control, model, version)
    scaling = wanted.scaling
    if scaling.is_capped and request.replicas > scaling.maximum:
        raise ConflictError(
            f"scale {wanted.key}: {request.replicas} replicas; scaling.max is {scaling.maximum}; raise it in the "
            f"manifest and apply that, or ask for at most {scaling.maximum}"
        )
    until = None if request.for_s is None else time.time() + request.for_s
    control.autoscaler.set_by_hand(wanted.key, Override(request.replicas, until))
    lasts = "until it is taken back" if until is None else f"for {request.for_s:g} s"
    control.journal.record("scale_set", f"set by hand to {request.replicas} {lasts}", key=wanted.key)
    return of_version(control, wanted)


@router.delete("/models/{model}/versions/{version}/scale")
async def release(control: Control, model: str, version: str) -> schemas.ScalingStatus:
    """Takes back what was set by hand: the manifest's word counts again, or the load."""
    (wanted,) = _versions(control, model, version)
    if wanted.key not in control.targets.overrides:
        raise NotFoundError(f"scale {wanted.key}: its count was not set by hand; there is nothing to take back")
    control.autoscaler.set_by_hand(wanted.key, None)
    control.journal.record("scale_released", "what was set by hand is taken back", key=wanted.key)
    return of_version(control, wanted)


def of_version(control: ControlPlane, version: DesiredVersion, *, whole: bool = False) -> schemas.ScalingStatus:
    """`whole`: with the inputs of the decision."""
    key, scaling = version.key, version.scaling
    override = control.targets.overrides.get(key)
    decision = control.autoscaler.last.get(key)
    target = control.targets.get(key)
    return schemas.ScalingStatus(
        model=key.model,
        version=key.version,
        chosen_by="hand" if override is not None else "manifest" if scaling.is_fixed else "load",
        replicas=target.replicas if target else version.replicas,
        standby=target.standby if target else version.standby,
        minimum=version.replicas if scaling.is_fixed and override is None else scaling.minimum,
        maximum=version.replicas if scaling.is_fixed and override is None else scaling.maximum,
        override=None if override is None else schemas.OverrideStatus(replicas=override.replicas, until=override.until),
        decided_at=control.autoscaler.decided_at if decision else None,
        reason=decision.reason if decision else "",
        inputs=explained(decision) if decision and whole else [],
    )


def signals(control: ControlPlane) -> schemas.SignalsStatus:
    now, read = time.time(), control.signals
    return schemas.SignalsStatus(
        active=read.active,
        sources=[
            schemas.SourceStatus(
                name=state.name, age_s=state.age_s(now), trouble=state.trouble(now),
                note=state.latest.note if state.latest else "",
            )
            for state in read.states
        ],
    )  # fmt: skip


async def metrics(control: ControlPlane) -> bytes:
    """The control plane's metrics as they are now."""
    now, states = time.time(), control.signals.states
    replicas = census.by_version(control.loop.observed.replicas)
    draining = control.loop.plan.memory.draining if control.loop.plan else {}
    levels = []
    for key, version in control.loop.desired.versions().items():
        found = ("draining" if r.id in draining else str(r.state) for r in replicas.get(key, ()))
        scaling = version.scaling
        levels.append(
            VersionLevels(
                key, dict(Counter(found)), version.replicas,
                most=None if scaling.is_fixed else scaling.maximum,
                cost_per_hour=control.cost.hourly(key.model, key.version),
                latency_s=scaling.latency_s, share=scaling.percentile / 100,
            )
        )  # fmt: skip
    ages = [(state.name, age_s) for state in states if (age_s := state.age_s(now)) is not None]
    usages = [
        (replica.key, usage)
        for replica in control.loop.observed.replicas
        if (usage := control.resources.usages.get(replica.id)) is not None and replica.exit is None
    ]
    revision = control.loop.asked.revision or None
    return await asyncio.to_thread(control.metrics.render, levels, ages, now, usages, revision)


def _versions(control: ControlPlane, model: str, version: str) -> list[DesiredVersion]:
    """The versions that are asked about. Raises `NotFoundError` with the names that there are."""
    models = control.loop.desired.models
    if model not in models:
        names = ", ".join(sorted(models)) or "none"
        raise NotFoundError(f"model {model!r}: not in force; the models are: {names}; name one of them")
    versions = models[model].versions
    if version and version not in versions:
        names = ", ".join(versions)
        raise NotFoundError(f"model {model!r} has no version {version!r}; its versions are: {names}; name one of them")
    return [versions[version]] if version else list(versions.values())
