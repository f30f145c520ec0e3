"""The admin API's routes for looking back: the last minutes in numbers, replicas as a timeline, two revisions beside.

Thin; what is kept stands in `loops/recorder.py` and the store.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from orchestrator.adapters.store import StoredRevision
from orchestrator.api import schemas_console as schemas
from orchestrator.api.context import Control
from orchestrator.core.errors import NotFoundError
from orchestrator.core.live import CURVES, Track
from orchestrator.core.sources import redacted
from orchestrator.core.timeline import BEGINS, Alive, Happening, spans
from orchestrator.loops.control import ControlPlane
from orchestrator.loops.recorder import KEPT_S

SPARK_STEP_S = 15
SPARK_CURVES = ("rate_per_s", "error_ratio", "p95_ms")
MOST_HOURS = 72

router = APIRouter()


@router.get("/series", response_model=schemas.Series)
async def series(control: Control, model: Annotated[str, Query(max_length=200)] = "") -> Response:
    """What was measured in the last quarter of an hour: of all models roughly, or of one in full."""
    if not model:
        return _series(SPARK_STEP_S, _slots(control, SPARK_STEP_S), control.recorder.models(), {}, SPARK_CURVES)
    known = control.recorder.models()
    if model not in known and model not in control.loop.desired.models:
        names = ", ".join(sorted(control.loop.desired.models)) or "none"
        raise NotFoundError(f"model {model!r}: not in this cluster; the models are: {names}; name one of them")
    models = {name: track for name, track in known.items() if name == model}
    return _series(1, _slots(control, 1), models, control.recorder.versions(model), CURVES)


def _slots(control: ControlPlane, step_s: int) -> range:
    """The seconds to show, the newest last; none before anything was measured."""
    newest = control.recorder.latest_slot
    return range(0) if newest is None else range(newest - (KEPT_S - 1) // step_s * step_s, newest + 1, step_s)


def _series(
    step_s: int, slots: range, models: Mapping[str, Track], versions: Mapping[str, Track], names: Iterable[str]
) -> Response:
    found = {
        "step_s": step_s,
        "at": list(slots),
        "models": {name: {curve: track.read(curve, slots) for curve in names} for name, track in models.items()},
        "versions": {name: {curve: track.read(curve, slots) for curve in names} for name, track in versions.items()},
    }
    return Response(msgspec.json.encode(found), media_type="application/json")


@router.get("/models/{model}/replicas/history")
async def replicas(
    control: Control, model: str, hours: Annotated[float, Query(gt=0, le=MOST_HOURS)] = 6
) -> schemas.ReplicaTimeline:
    """When each replica of a model was in which state, those of before included."""
    since = time.time() - hours * 3600
    oldest = control.store.oldest_event_at()
    told = control.store.events_of_kinds(tuple(BEGINS), model, since)
    found = spans(
        (Happening(each.at, each.kind, each.replica, each.version, each.message) for each in told),
        {
            r.id: Alive(r.key.version, str(r.state), r.created_at)
            for r in control.loop.observed.replicas
            if r.key.model == model and r.exit is None
        },
    )
    return schemas.ReplicaTimeline(
        known_since=max(since, oldest or control.started_at),
        spans=[
            schemas.ReplicaSpan(**{name: getattr(each, name) for name in schemas.ReplicaSpan.model_fields})
            for each in found
        ],
    )


@router.get("/history/{before}/diff/{after}")
async def compare(control: Control, before: int, after: int) -> schemas.RevisionDiff:
    """What another revision's manifest has in other words."""
    old, new = _revision(control, before), _revision(control, after)
    lines = difflib.unified_diff(
        redacted(old.manifest).splitlines(), redacted(new.manifest).splitlines(),
        f"revision {before}", f"revision {after}", lineterm="",
    )  # fmt: skip
    return schemas.RevisionDiff(before=before, after=after, lines=list(lines))


def _revision(control: ControlPlane, number: int) -> StoredRevision:
    found = control.store.revision(number)
    if found is None:
        raise NotFoundError(f"revision {number}: not in the history; see `modelfleet history`")
    return found
