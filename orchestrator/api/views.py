"""From the control plane's values to the schemas of the admin API. Pure reading; no rules."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec

from orchestrator import manifest as manifests
from orchestrator.adapters.store import StoredEvent, StoredOperation, StoredRevision
from orchestrator.api import scaling, schemas
from orchestrator.config import VERSION
from orchestrator.core.entities import DesiredVersion, Replica, VersionKey
from orchestrator.core.keys import Key
from orchestrator.core.plan import Verdict
from orchestrator.core.roster import ejected
from orchestrator.core.sources import redacted
from orchestrator.core.states import ReplicaState
from orchestrator.loops.companions import CompanionKeeper
from orchestrator.loops.control import ControlPlane

RANK: dict[str, int] = {"asleep": -1, "ready": 0, "stopping": 1, "updating": 2, "starting": 3, "failed": 4}


async def cluster_status(control: ControlPlane) -> schemas.ClusterStatus:
    revision = control.store.current_revision()
    models = model_statuses(control, revision)
    gateway = await gateway_status(control)
    latest = control.store.latest_operation()
    return schemas.ClusterStatus(
        cluster=control.cluster,
        engine=control.engine.name,
        revision=revision.revision if revision else 0,
        state=_cluster_state(control, models, gateway),
        version=VERSION,
        pid=os.getpid(),
        started_at=control.started_at,
        state_dir=str(control.state.root),
        engine_error=control.loop.engine_error,
        gateway=gateway,
        models=models,
        operation=operation_status(control, latest) if latest else None,
        signals=scaling.signals(control),
        prometheus=companion_status(control.observability.prometheus, control.observability.config.url),
        grafana=companion_status(control.observability.grafana, control.observability.config.grafana_url),
    )


def _cluster_state(
    control: ControlPlane, models: list[schemas.ModelStatus], gateway: schemas.GatewayStatus
) -> schemas.ClusterState:
    if control.loop.engine_error or control.keeper.error or any(m.state == "failed" for m in models):
        return "degraded"
    if not models:
        return "empty"
    is_ready = gateway.table_current and all(m.state in ("ready", "asleep") for m in models)
    return "converged" if is_ready else "converging"


async def gateway_status(control: ControlPlane) -> schemas.GatewayStatus:
    listener = control.keeper.listener
    report = await control.keeper.report()
    return schemas.GatewayStatus(
        url=listener.url if listener else "",
        grpc_address=listener.grpc_address if listener else "",
        metrics_url=listener.metrics_url if listener else "",
        pid=control.keeper.pid,
        ready=report is not None and not report.draining,
        table_current=report is not None and bool(control.board.tag) and report.tag == control.board.tag,
        error=control.keeper.error or ("" if report else "the gateway does not answer on its metrics port"),
    )


def companion_status(keeper: CompanionKeeper, url: str) -> schemas.CompanionStatus:
    """`url` is where the manifest says that it answers, "" for nowhere."""
    if not url:
        return schemas.CompanionStatus()
    if keeper.wanted is None:
        return schemas.CompanionStatus(mode="url", url=redacted(url))
    running = keeper.running
    return schemas.CompanionStatus(
        mode="managed",
        url=url,
        pid=running.pid if running else None,
        container=running.container if running else "",
        note=keeper.note,
        error=keeper.error,
    )


def model_statuses(control: ControlPlane, revision: StoredRevision | None) -> list[schemas.ModelStatus]:
    """Every model that is desired or still routed, by name."""
    desired = control.loop.desired.models
    sources = _sources(revision)
    names = sorted({*desired, *(k.model for k in verdicts_of(control))})
    return [_model(control, name, sources) for name in names]


def _sources(revision: StoredRevision | None) -> dict[VersionKey, str]:
    if revision is None:
        return {}
    manifest = manifests.load(revision.manifest, file=revision.file, base_dir=Path(revision.base_dir))
    return {
        VersionKey(m, v): redacted(config.source or config.image or "")
        for m, model in manifest.models.items()
        for v, config in model.versions.items()
    }


def verdicts_of(control: ControlPlane) -> Mapping[VersionKey, Verdict]:
    return control.loop.plan.verdicts if control.loop.plan else {}


def _model(control: ControlPlane, name: str, sources: dict[VersionKey, str]) -> schemas.ModelStatus:
    desired = control.loop.desired.models.get(name)
    verdicts = {k.version: v for k, v in verdicts_of(control).items() if k.model == name}
    names = list(desired.versions) if desired else []
    names += [v for v in verdicts if v not in names]
    versions = [_version(control, VersionKey(name, v), verdicts.get(v), sources) for v in names]
    routed, paused = control.board.routed.get(name), control.pauses.get(name)
    return schemas.ModelStatus(
        name=name,
        state=max((v.state for v in versions), key=lambda s: RANK[s], default="stopping"),
        traffic=dict(desired.traffic) if desired else {},
        routed=dict(routed.weights) if routed else {},
        labels=dict(desired.labels) if desired else {},
        versions=versions,
        paused_at=paused.at if paused else None,
        paused_reason=paused.reason if paused else "",
    )


def _version(
    control: ControlPlane, key: VersionKey, verdict: Verdict | None, sources: dict[VersionKey, str]
) -> schemas.VersionStatus:
    wanted = control.loop.desired.versions().get(key)
    replicas = [_replica(control, r, wanted) for r in control.loop.observed.of(key)]
    if verdict is None:
        verdict = Verdict(key, "starting", 0, wanted.replicas if wanted else 0, "not observed yet")
    spec = wanted.spec if wanted else None
    return schemas.VersionStatus(
        version=key.version,
        state=verdict.state,
        ready=verdict.ready,
        desired=verdict.desired,
        standby=verdict.standby,
        reason=verdict.reason,
        backend=spec.backend if spec else "",
        source=sources.get(key, ""),
        artifact=spec.artifact if spec else "",
        runtime=spec.runtime if spec else "",
        spec=wanted.digest if wanted else "",
        concurrency=wanted.concurrency if wanted else 0,
        cpus=spec.resources.cpus if spec else 0,
        memory_bytes=spec.resources.memory_bytes if spec else 0,
        replicas=replicas,
        scaling=scaling.of_version(control, wanted) if wanted else None,
    )


def _replica(control: ControlPlane, replica: Replica, wanted: DesiredVersion | None) -> schemas.ReplicaStatus:
    draining = control.loop.plan is not None and replica.id in control.loop.plan.memory.draining
    now = time.time()
    usage = control.resources.usages.get(replica.id) if replica.exit is None else None
    return schemas.ReplicaStatus(
        id=replica.id,
        state=ReplicaState.DRAINING if draining else replica.state,
        phase=replica.phase,
        phase_s=_phase_s(replica, now),
        phases=dict(replica.loading.phases) if replica.loading else {},
        ready_after_s=_ready_after_s(replica),
        current=wanted is not None and wanted.digest == replica.digest,
        spec=replica.digest,
        host=replica.host,
        port=replica.port,
        age_s=max(0.0, now - replica.created_at),
        in_flight=replica.in_flight,
        cpu_ratio=cpu_ratio(control, replica, wanted),
        memory_bytes=usage.memory_bytes if usage else None,
        memory_limit_bytes=usage.memory_limit_bytes if usage else None,
        reason=replica.exit.reason if replica.exit else ejected(replica),
    )


def cpu_ratio(control: ControlPlane, replica: Replica, wanted: DesiredVersion | None) -> float | None:
    """CPU that it uses of what it may use, or of what it asks for where nothing limits it. None of one in standby."""
    usage, cores = control.resources.usages.get(replica.id), control.resources.cores(replica.id)
    if usage is None or cores is None or replica.exit is not None or replica.state is ReplicaState.STANDBY:
        return None
    asked = wanted.spec.resources.cpus if wanted is not None and wanted.digest == replica.digest else None
    limit = usage.cpu_limit_cores or asked
    return cores / limit if limit else None


def _phase_s(replica: Replica, now: float) -> float | None:
    return None if replica.phase_since is None else max(0.0, now - replica.phase_since)


def _ready_after_s(replica: Replica) -> float | None:
    """By the replica's own clock, which is this machine's: it stays true when the control plane was started again."""
    if replica.loading is None or replica.loading.ready_at < replica.created_at:
        return None
    return replica.loading.ready_at - replica.created_at


def operation_status(control: ControlPlane, operation: StoredOperation) -> schemas.OperationStatus:
    return schemas.OperationStatus(
        id=operation.id,
        kind=cast(schemas.OperationKind, operation.kind),
        state=cast(schemas.OperationState, operation.state),
        revision=operation.revision,
        step=operation.step,
        created_at=operation.created_at,
        ended_at=operation.ended_at,
        error=operation.error,
        diagnostics=msgspec.json.decode(operation.diagnostics),
        versions=_progress(control) if operation.state != "preparing" else [],
        fetching=_fetching(control) if operation.state == "preparing" else [],
    )


def _progress(control: ControlPlane) -> list[schemas.VersionProgress]:
    now = time.time()
    phases: dict[VersionKey, tuple[str, float | None]] = {}
    for replica in control.loop.observed.replicas:
        if replica.state in (ReplicaState.STARTING, ReplicaState.LOADING):
            phases[replica.key] = (replica.phase or replica.state, _phase_s(replica, now))
    return [
        schemas.VersionProgress(
            model=k.model,
            version=k.version,
            ready=v.ready,
            desired=v.desired,
            state=v.state,
            phase=phases.get(k, ("", None))[0],
            phase_s=phases.get(k, ("", None))[1],
            reason=v.reason,
        )
        for k, v in sorted(verdicts_of(control).items())
    ]


def _fetching(control: ControlPlane) -> list[schemas.FetchProgress]:
    return [
        schemas.FetchProgress(
            model=each.key.model,
            version=each.key.version,
            source=each.source,
            done_bytes=each.done_bytes,
            total_bytes=each.total_bytes,
        )
        for each in control.operations.fetching.values()
    ]


def revision_view(revision: StoredRevision, current: int, *, whole: bool = False) -> schemas.Revision:
    return schemas.Revision(
        revision=revision.revision,
        at=revision.at,
        kind=cast(schemas.OperationKind, revision.kind),
        file=revision.file,
        summary=revision.summary,
        current=revision.revision == current,
        state=cast(schemas.OperationState, revision.state),
        manifest=redacted(revision.manifest) if whole else "",
    )


def event_view(event: StoredEvent) -> schemas.Event:
    return schemas.Event(**{field: getattr(event, field) for field in event.__slots__})


def key_view(key: Key) -> schemas.Key:
    return schemas.Key(
        id=key.id,
        name=key.name,
        models=None if key.models is None else list(key.models),
        requests_per_s=key.requests_per_s,
        burst=key.burst,
        concurrency=key.concurrency,
        created_at=key.created_at,
        expires_at=key.expires_at or None,
        expired=bool(key.expires_at) and time.time() >= key.expires_at,
    )
