"""The admin API: thin routes over the control plane. It decides nothing; what it says stands in `schemas.py`.

It listens on loopback alone. Who may ask says `access.py`, what is refused before anybody is asked `guard.py`; the web
console begins in `console.py`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from orchestrator import manifest as manifests
from orchestrator.api import (
    console,
    cost,
    discovery,
    doctor,
    keys,
    logs,
    looking,
    rollouts,
    scaling,
    schemas,
    stream,
    trying,
    views,
)
from orchestrator.api.access import authenticate, require_token
from orchestrator.api.answers import refusal
from orchestrator.api.context import Control
from orchestrator.api.guard import Guard
from orchestrator.api.sessions import Sessions
from orchestrator.config import VERSION
from orchestrator.core import diff
from orchestrator.core.entities import VersionKey
from orchestrator.core.errors import FleetError, NotFoundError, UserError
from orchestrator.core.sources import redacted
from orchestrator.loops.control import ControlPlane
from orchestrator.manifest import ManifestError
from router import contract

log = structlog.get_logger("modelfleet")

MAX_WAIT_S = 30.0

Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="answer later, when it changed, or after this time")]


def create_app(control: ControlPlane) -> FastAPI:
    """The application for one control plane."""
    app = FastAPI(title="Modelfleet admin API", version=VERSION, docs_url="/docs", redoc_url=None)
    app.state.control = control
    app.state.sessions = Sessions(control.store.console_sessions(), control.store.put_console_sessions)
    app.add_middleware(Guard)
    app.add_exception_handler(FleetError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.include_router(public)
    app.include_router(discovery.router)
    app.include_router(console.files)
    app.include_router(console.router, prefix="/api/v1")
    for module in (cost, keys, logs, looking, rollouts, scaling, stream, trying):
        app.include_router(module.router, prefix="/api/v1", dependencies=[Depends(authenticate)])
    app.include_router(private, prefix="/api/v1", dependencies=[Depends(authenticate)])
    app.include_router(internal, prefix="/internal/v1", dependencies=[Depends(require_token)])
    return app


public = APIRouter()
private = APIRouter()
internal = APIRouter(include_in_schema=False)


async def _answer_error(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, FleetError)
    found = exc.diagnostics if isinstance(exc, ManifestError) else ()
    diagnostics = [schemas.Diagnostic(**{f: getattr(d, f) for f in ("file", "line", "column", "field", "message")})
                   for d in found]  # fmt: skip
    return refusal(exc.status, exc.code, str(exc), diagnostics)


async def _answer_invalid(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    parts = (f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in exc.errors())
    return refusal(422, "INVALID", "; ".join(parts))


# -- public -----------------------------------------------------------------------------------------------------


@public.get("/healthz")
async def healthz(control: Control) -> dict[str, Any]:
    """Whether the control plane is up, and whose it is."""
    return {"cluster": control.cluster, "pid": os.getpid(), "version": VERSION}


@public.get("/metrics")
async def metrics(control: Control) -> Response:
    """The control plane's own metrics. As the gateway's they need no token, and are for this machine alone."""
    return Response(await scaling.metrics(control), media_type="text/plain; version=0.0.4; charset=utf-8")


# -- state ------------------------------------------------------------------------------------------------------


@private.get("/status")
async def status(control: Control) -> schemas.ClusterStatus:
    """The cluster, its models, versions and replicas, with the reason of whatever is not ready."""
    return await views.cluster_status(control)


@private.get("/models/{model}")
async def describe(control: Control, model: str) -> schemas.ModelDescription:
    """One model with its section of the manifest and its last events."""
    revision = control.store.current_revision()
    found = {m.name: m for m in views.model_statuses(control, revision)}
    if model not in found:
        raise _unknown_model(model, list(found))
    section = manifests.section(revision.manifest, model) if revision and model in control.loop.desired.models else ""
    listener = control.keeper.listener
    base = listener.url if listener else ""
    desired = control.loop.desired.models.get(model)
    versions = desired.versions if desired else {}
    return schemas.ModelDescription(
        model=found[model],
        settings=diff.settings_in_words(desired) if desired else {},
        version_settings={name: diff.version_settings_in_words(each) for name, each in versions.items()},
        manifest=redacted(section),
        events=[views.event_view(e) for e in control.store.events(model=model, limit=20)],
        urls={"v2": f"{base}/v2/models/{model}/infer", "v1": f"{base}/v1/models/{model}:predict"},
    )


@private.get("/events")
async def events(
    control: Control,
    model: str = "",
    version: str = "",
    after: int | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    wait_s: Wait = 0,
) -> list[schemas.Event]:
    """Events, oldest first: the last `limit`, or those after one."""
    deadline = time.monotonic() + wait_s
    while True:
        seen = control.journal.changed.count
        found = control.store.events(after=after, limit=limit, model=model, version=version)
        left = deadline - time.monotonic()
        if found or after is None or left <= 0 or control.stopped.is_set():
            return [views.event_view(e) for e in found]
        await control.journal.changed.wait(seen, left)


@private.get("/doctor")
async def examine(control: Control) -> list[schemas.Check]:
    """What the control plane finds wrong with its surroundings, and what mends it."""
    return await doctor.examine(control)


# -- change -----------------------------------------------------------------------------------------------------


@private.post("/plan")
async def plan(control: Control, request: schemas.ManifestRequest) -> schemas.PlanResponse:
    """What applying this manifest would do; nothing is changed, fetched or built."""
    await _take_names(control, request)
    changes, warnings = await control.operations.plan(request.text, request.file, Path(request.base_dir))
    return schemas.PlanResponse(
        base_revision=control.loop.desired.revision,
        digest=diff.digest(changes),
        empty=not changes,
        changes=[schemas.Change(symbol=c.symbol, target=c.target, sentence=c.sentence, cause=c.cause) for c in changes],
        warnings=list(warnings),
        text=diff.render(changes),
    )


@private.post("/apply", status_code=202)
async def apply(control: Control, request: schemas.ManifestRequest) -> schemas.OperationStatus:
    """Begins to apply a manifest; follow it under `/operations/{id}`."""
    await _take_names(control, request)
    begun = await control.operations.apply(request.text, request.file, Path(request.base_dir), request.plan)
    return views.operation_status(control, begun)


async def _take_names(control: ControlPlane, request: schemas.ManifestRequest) -> None:
    if control.store.current_revision() is None:
        await control.take_names(manifests.load(request.text, file=request.file, base_dir=Path(request.base_dir)))


@private.post("/rollback", status_code=202)
async def rollback(control: Control, request: schemas.RollbackRequest) -> schemas.OperationStatus:
    """Begins a return to an earlier revision, exactly as it was."""
    return views.operation_status(control, control.operations.rollback(request.revision))


@private.delete("/models/{model}", status_code=202)
async def delete(control: Control, model: str) -> schemas.OperationStatus:
    """Begins the removal of a model. The manifest file keeps it: the next apply of that file brings it back."""
    return views.operation_status(control, control.operations.delete(model))


@private.get("/operations/{operation}")
async def operation(control: Control, operation: str, wait_s: Wait = 0) -> schemas.OperationStatus:
    """Where an apply, rollback or delete stands. With `wait_s`, as soon as that changed."""
    first = _operation(control, operation)
    deadline = time.monotonic() + wait_s
    seen = control.operations.changed.count
    current = first
    while current == first and current.ended_at is None and (left := deadline - time.monotonic()) > 0:
        if control.stopped.is_set():
            break
        await control.operations.changed.wait(seen, left)
        seen = control.operations.changed.count
        current = _operation(control, operation)
    return current


@private.get("/history")
async def history(control: Control) -> list[schemas.Revision]:
    """Applied revisions, newest first."""
    found = control.store.revisions()
    return [views.revision_view(r, found[0].revision) for r in found]


@private.get("/history/{revision}")
async def one_revision(control: Control, revision: int) -> schemas.Revision:
    """One revision with its manifest."""
    found, current = control.store.revision(revision), control.store.current_revision()
    if found is None or current is None:
        raise NotFoundError(f"revision {revision}: not in the history; see `modelfleet history`")
    return views.revision_view(found, current.revision, whole=True)


@private.post("/down", status_code=202)
async def down(control: Control, request: schemas.DownRequest, background: BackgroundTasks) -> dict[str, str]:
    """Ends the cluster: replicas, gateway, control plane (or the control plane alone)."""
    if request.keep_replicas:
        background.add_task(control.stopped.set)
        return {"state": "the control plane ends; replicas and gateway go on"}
    background.add_task(control.down)
    return {"state": "replicas, gateway and control plane end"}


# -- gateway ----------------------------------------------------------------------------------------------------


@internal.get("/table")
async def table(control: Control, after: str = "", wait_s: Wait = 0, delta: bool = False) -> Response:
    """The newest routing table as soon as it differs from the one named `after`; with `delta` what changed since it,
    where that is much shorter, with status 226 (RFC 3229)."""
    found = await control.board.after(after, wait_s, takes_delta=delta)
    if found is None:
        return Response(status_code=204)
    return Response(found.body, status_code=226 if found.is_delta else 200, media_type="application/json")


@internal.post("/wake", status_code=202)
async def wake(control: Control, request: Request) -> Response:
    """Requests wait at the gateway for versions that are asleep. Returns when the counts are in force; the next routing
    table says what became of it."""
    try:
        call = contract.decode_wake_call(await request.body())
    except contract.TableError as exc:
        raise UserError(str(exc)) from exc
    control.waking.wake({VersionKey(each.model, each.version): each.queued for each in call.asked})
    return Response(status_code=202)


def _operation(control: ControlPlane, id_: str) -> schemas.OperationStatus:
    found = control.store.operation(id_)
    if found is None:
        raise NotFoundError(f"operation {id_!r}: not known; see `modelfleet history`")
    return views.operation_status(control, found)


def _unknown_model(model: str, known: list[str]) -> NotFoundError:
    names = ", ".join(sorted(known)) or "none"
    return NotFoundError(f"model {model!r}: not in this cluster; the models are: {names}; name one of them")
