"""The admin API's routes for the rollout of one model: thin; what is done stands in `loops/rollouts.py`."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.api import schemas, schemas_console, views
from orchestrator.api.context import Control
from orchestrator.core.entities import DesiredModel, VersionKey
from orchestrator.core.errors import NotFoundError
from orchestrator.core.pausing import is_waiting
from orchestrator.core.plan import Verdict
from orchestrator.core.states import LIVE
from orchestrator.loops.control import ControlPlane

router = APIRouter(prefix="/models/{model}/rollout")


@router.get("")
async def status(control: Control, model: str) -> schemas_console.RolloutStatus:
    """Where a model's rollout stands: shares asked for and in force, replicas new and old, and whether it is paused."""
    return _status(control, model)


@router.post("/promote", status_code=202)
async def promote(control: Control, model: str, request: schemas_console.PromoteRequest) -> schemas.OperationStatus:
    """Begins to send all of a model's traffic to one version, as a new revision. The manifest file stays as it is."""
    return views.operation_status(control, await control.rollouts.promote(model, request.version))


@router.post("/rollback", status_code=202)
async def roll_back(
    control: Control, model: str, request: schemas_console.ModelRollbackRequest
) -> schemas.OperationStatus:
    """Begins to make this one model as it was in an earlier revision; all others stay as they are."""
    return views.operation_status(control, await control.rollouts.roll_back(model, request.revision))


@router.post("/pause")
async def pause(control: Control, model: str, request: schemas_console.PauseRequest) -> schemas_console.RolloutStatus:
    """From now on nothing of the model is replaced or removed; what dies is made anew."""
    control.rollouts.pause(model, request.reason)
    return _status(control, model)


@router.post("/resume")
async def resume(control: Control, model: str) -> schemas_console.RolloutStatus:
    """Ends a pause; what was applied meanwhile is taken up."""
    control.rollouts.resume(model)
    return _status(control, model)


def _status(control: ControlPlane, model: str) -> schemas_console.RolloutStatus:
    wanted = control.loop.desired.models.get(model)
    verdicts = {key: v for key, v in views.verdicts_of(control).items() if key.model == model}
    if wanted is None and not verdicts:
        names = ", ".join(sorted(control.loop.desired.models)) or "none"
        raise NotFoundError(f"model {model!r}: not in this cluster; the models are: {names}; name one of them")
    paused = control.pauses.get(model)
    known = dict.fromkeys((*(wanted.versions if wanted else ()), *(key.version for key in verdicts)))
    versions = [_version(control, VersionKey(model, name), wanted, verdicts) for name in known]
    is_settled = all(v.state in ("ready", "asleep") and v.share == v.routed and not v.old for v in versions)
    return schemas_console.RolloutStatus(
        model=model,
        state="paused" if paused else "settled" if is_settled else "moving",
        paused_at=paused.at if paused else None,
        paused_reason=paused.reason if paused else "",
        waiting=paused is not None and is_waiting(control.loop.applied, paused),
        versions=versions,
    )


def _version(
    control: ControlPlane, key: VersionKey, model: DesiredModel | None, verdicts: dict[VersionKey, Verdict]
) -> schemas_console.RolloutVersion:
    wanted = model.versions.get(key.version) if model else None
    verdict = verdicts.get(key, Verdict(key, "starting", 0, wanted.replicas if wanted else 0, "not observed yet"))
    routed = control.board.routed.get(key.model)
    live = [r for r in control.loop.observed.of(key) if r.state in LIVE]
    return schemas_console.RolloutVersion(
        version=key.version,
        state=verdict.state,
        share=model.traffic.get(key.version, 0) if model else 0,
        routed=routed.weights.get(key.version, 0) if routed else 0,
        ready=verdict.ready,
        desired=verdict.desired,
        old=sum(1 for r in live if wanted is None or r.digest != wanted.digest),
        reason=verdict.reason,
    )
