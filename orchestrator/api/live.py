"""From the control plane's values to what the stream shows: rows of `schemas_console.py`, made to be made each second.

Pure reading; no rules. The rows are `msgspec` structs with the fields of those schemas, for pydantic models of 200 of
them would take more time than all else in the stream (benchmarks/console.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from orchestrator.api.views import RANK, cpu_ratio, verdicts_of
from orchestrator.core.entities import DesiredModel, DesiredVersion, Replica, VersionKey
from orchestrator.core.plan import Verdict
from orchestrator.core.roster import ejected
from orchestrator.core.states import PENDING, ReplicaState
from orchestrator.loops.control import ControlPlane
from router.contract import GatewayReport

_Number = TypeVar("_Number", int, float)


class FleetRow(msgspec.Struct, frozen=True):
    name: str
    state: str
    reason: str
    traffic: Mapping[str, int]
    ready: int
    desired: int
    standby: int
    rate_per_s: float | None
    error_ratio: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    slo_ms: float | None
    slo_percentile: float | None
    queued: int | None
    in_flight: int | None
    cpu_cores: float | None
    memory_bytes: int | None
    cost_per_hour: float | None
    paused: bool


class FleetTotals(msgspec.Struct, frozen=True):
    rate_per_s: float | None
    error_ratio: float | None
    ready: int
    desired: int
    standby: int
    queued: int | None
    in_flight: int | None
    cost_per_hour: float | None


class FleetGateway(msgspec.Struct, frozen=True):
    url: str
    ready: bool
    table_current: bool
    error: str


class FleetOperation(msgspec.Struct, frozen=True):
    id: str
    kind: str
    state: str
    step: str
    error: str
    revision: int | None
    ended_at: float | None


class FleetUpdate(msgspec.Struct, frozen=True):
    at: float
    whole: bool
    cluster: str
    revision: int
    state: str
    engine: str
    engine_error: str
    gateway: FleetGateway
    operation: FleetOperation | None
    models: list[FleetRow]
    gone: list[str]
    totals: FleetTotals


class ReplicaRow(msgspec.Struct, frozen=True):
    id: str
    state: str
    phase: str
    since: float | None
    current: bool
    cpu_ratio: float | None
    memory_bytes: float | None
    memory_limit_bytes: float | None
    in_flight: int | None
    reason: str


class VersionRow(msgspec.Struct, frozen=True):
    version: str
    state: str
    reason: str
    weight: int
    ready: int
    desired: int
    standby: int
    rate_per_s: float | None
    error_ratio: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    queue_p95_ms: float | None
    model_p95_ms: float | None
    queued: int | None
    in_flight: int | None
    cost_per_hour: float | None
    replicas: list[ReplicaRow]


class ModelUpdate(msgspec.Struct, frozen=True):
    at: float
    name: str
    exists: bool
    paused: bool
    versions: list[VersionRow]


# -- the fleet --------------------------------------------------------------------------------------------------


def fleet_rows(control: ControlPlane, now: float) -> dict[str, FleetRow]:
    """A row for every model that is desired or still routed, by name."""
    grouped: dict[str, list[Verdict]] = {}
    for key, verdict in verdicts_of(control).items():
        grouped.setdefault(key.model, []).append(verdict)
    desired = control.loop.desired.models
    names = sorted({*desired, *grouped})
    used = _used(control)
    return {
        name: _row(control, name, desired.get(name), grouped.get(name, ()), used.get(name, (None, None)), now)
        for name in names
    }


def _used(control: ControlPlane) -> dict[str, tuple[float | None, int | None]]:
    """Cores and bytes that the replicas of each model use, as far as it is known of any."""
    found: dict[str, tuple[float | None, int | None]] = {}
    for replica in control.loop.observed.replicas:
        usage = control.resources.usages.get(replica.id)
        if usage is not None and replica.exit is None:
            cores, memory_bytes = found.get(replica.key.model, (None, None))
            found[replica.key.model] = (
                _plus(cores, control.resources.cores(replica.id)), _plus(memory_bytes, usage.memory_bytes)
            )  # fmt: skip
    return found


def _plus(total: _Number | None, more: _Number | None) -> _Number | None:
    return total if more is None else more if total is None else total + more


def _row(
    control: ControlPlane, name: str, model: DesiredModel | None, verdicts: Iterable[Verdict],
    used: tuple[float | None, int | None], now: float,
) -> FleetRow:  # fmt: skip
    worst, ready, desired, standby = None, 0, 0, 0
    for verdict in verdicts:
        ready, desired, standby = ready + verdict.ready, desired + verdict.desired, standby + verdict.standby
        if worst is None or RANK[verdict.state] > RANK[worst.state]:
            worst = verdict
    found = control.recorder.of_model(name, now)
    slo_ms, slo_percentile = _objective(model)
    return FleetRow(
        name=name, state=worst.state if worst else "starting", reason=worst.reason if worst else "not observed yet",
        traffic=model.traffic if model else {}, ready=ready, desired=desired, standby=standby,
        rate_per_s=found.rate_per_s, error_ratio=found.error_ratio, p50_ms=found.p50_ms, p95_ms=found.p95_ms,
        p99_ms=found.p99_ms, slo_ms=slo_ms, slo_percentile=slo_percentile, queued=found.queued,
        in_flight=found.in_flight, cpu_cores=None if used[0] is None else round(used[0], 2), memory_bytes=used[1],
        cost_per_hour=control.cost.hourly(name), paused=control.pauses.get(name) is not None,
    )  # fmt: skip


def _objective(model: DesiredModel | None) -> tuple[float | None, float | None]:
    """The tightest of the versions' objectives."""
    known = [v.scaling for v in model.versions.values() if v.scaling.latency_s is not None] if model else []
    if not known:
        return None, None
    tightest = min(known, key=lambda scaling: scaling.latency_s or 0.0)
    return (tightest.latency_s or 0.0) * 1000, tightest.percentile


def fleet_update(
    control: ControlPlane, rows: Mapping[str, FleetRow], shown: list[FleetRow], gone: list[str], *, whole: bool,
    report: GatewayReport | None, now: float,
) -> FleetUpdate:  # fmt: skip
    """`rows` are all of them, `shown` those that are sent."""
    gateway = _gateway(control, report)
    return FleetUpdate(
        at=round(now, 3),
        whole=whole,
        cluster=control.cluster,
        revision=control.loop.desired.revision,
        state=_state(control, rows, gateway),
        engine=control.engine.name,
        engine_error=control.loop.engine_error,
        gateway=gateway,
        operation=_operation(control),
        models=shown,
        gone=gone,
        totals=_totals(control, rows, now),
    )


def _state(control: ControlPlane, rows: Mapping[str, FleetRow], gateway: FleetGateway) -> str:
    if control.loop.engine_error or control.keeper.error or any(row.state == "failed" for row in rows.values()):
        return "degraded"
    if not rows:
        return "empty"
    is_ready = gateway.table_current and all(row.state in ("ready", "asleep") for row in rows.values())
    return "converged" if is_ready else "converging"


def _gateway(control: ControlPlane, report: GatewayReport | None) -> FleetGateway:
    listener = control.keeper.listener
    return FleetGateway(
        url=listener.url if listener else "",
        ready=report is not None and not report.draining,
        table_current=report is not None and bool(control.board.tag) and report.tag == control.board.tag,
        error=control.keeper.error or ("" if report else "the gateway does not answer on its metrics port"),
    )


def _operation(control: ControlPlane) -> FleetOperation | None:
    latest = control.store.latest_operation()
    if latest is None:
        return None
    return FleetOperation(
        latest.id, latest.kind, latest.state, latest.step, latest.error, latest.revision, latest.ended_at
    )  # fmt: skip


def _totals(control: ControlPlane, rows: Mapping[str, FleetRow], now: float) -> FleetTotals:
    found = control.recorder.of_all(now)
    return FleetTotals(
        rate_per_s=found.rate_per_s,
        error_ratio=found.error_ratio,
        ready=sum(row.ready for row in rows.values()),
        desired=sum(row.desired for row in rows.values()),
        standby=sum(row.standby for row in rows.values()),
        queued=found.queued,
        in_flight=found.in_flight,
        cost_per_hour=control.cost.hourly(),
    )


# -- one model --------------------------------------------------------------------------------------------------


def model_update(control: ControlPlane, name: str, report: GatewayReport | None, now: float) -> ModelUpdate:
    desired = control.loop.desired.models.get(name)
    verdicts = {key.version: verdict for key, verdict in verdicts_of(control).items() if key.model == name}
    names = list(dict.fromkeys((*(desired.versions if desired else ()), *verdicts)))
    versions = [_version(control, VersionKey(name, each), verdicts.get(each), report, now) for each in names]
    return ModelUpdate(round(now, 3), name, bool(names), control.pauses.get(name) is not None, versions)


def _version(
    control: ControlPlane, key: VersionKey, verdict: Verdict | None, report: GatewayReport | None, now: float
) -> VersionRow:
    wanted = control.loop.desired.versions().get(key)
    if verdict is None:
        verdict = Verdict(key, "starting", 0, wanted.replicas if wanted else 0, "not observed yet")
    routed = control.board.routed.get(key.model)
    found = control.recorder.of_version(key, now)
    return VersionRow(
        version=key.version, state=verdict.state, reason=verdict.reason,
        weight=routed.weights.get(key.version, 0) if routed else 0,
        ready=verdict.ready, desired=verdict.desired, standby=verdict.standby,
        rate_per_s=found.rate_per_s, error_ratio=found.error_ratio, p50_ms=found.p50_ms, p95_ms=found.p95_ms,
        p99_ms=found.p99_ms, queue_p95_ms=found.queue_p95_ms, model_p95_ms=found.model_p95_ms, queued=found.queued,
        in_flight=found.in_flight, cost_per_hour=control.cost.hourly(key.model, key.version),
        replicas=[_replica(control, each, wanted, report) for each in control.loop.observed.of(key)],
    )  # fmt: skip


def _replica(
    control: ControlPlane, replica: Replica, wanted: DesiredVersion | None, report: GatewayReport | None
) -> ReplicaRow:
    usage = control.resources.usages.get(replica.id)
    used = cpu_ratio(control, replica, wanted)
    draining = control.loop.plan.memory.draining if control.loop.plan else {}
    is_ready = replica.state is ReplicaState.READY
    return ReplicaRow(
        id=replica.id,
        state=ReplicaState.DRAINING if replica.id in draining else replica.state,
        phase=replica.phase if not is_ready else "",
        since=_since(control, replica),
        current=wanted is not None and replica.digest == wanted.digest,
        cpu_ratio=None if used is None else round(used, 3),
        memory_bytes=usage.memory_bytes if usage else None,
        memory_limit_bytes=usage.memory_limit_bytes if usage else None,
        in_flight=report.in_flight.get(replica.id, 0) if report and is_ready else None,
        reason=replica.exit.reason if replica.exit else ejected(replica),
    )


def _since(control: ControlPlane, replica: Replica) -> float | None:
    """When it came into its state, as far as this control plane saw."""
    if control.loop.plan is None:
        return None
    memory = control.loop.plan.memory
    if replica.id in memory.draining:
        return memory.draining[replica.id]
    if replica.state is ReplicaState.READY:
        return memory.ready_since.get(replica.id)
    return memory.pending_since.get(replica.id) if replica.state in PENDING else None
