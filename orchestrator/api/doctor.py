"""What the control plane can tell of its surroundings. Each failed check says what mends it."""

from __future__ import annotations

import asyncio
import shutil

from orchestrator.adapters.sources.places import readable_in_words
from orchestrator.api import scaling
from orchestrator.api.schemas import Check
from orchestrator.core.errors import FleetError
from orchestrator.loops.companions import CompanionKeeper
from orchestrator.loops.control import ControlPlane

LEAST_FREE_BYTES = 2 * 1024**3


async def examine(control: ControlPlane) -> list[Check]:
    return [
        await asyncio.to_thread(_engine, control),
        await _gateway(control),
        *[check for keeper in control.observability.keepers for check in await _companion(control, keeper)],
        _disk(control),
        _sources(),
        _signals(control),
        _convergence(control),
    ]


def _engine(control: ControlPlane) -> Check:
    try:
        status = control.engine.status()
    except FleetError as exc:
        return Check(name="engine", ok=False, detail=str(exc), remedy="make engine, or start the Docker service")
    detail = f"{status.name} {status.version}, {status.cpus} CPUs, {status.memory_bytes / 1024**3:.1f} GiB"
    if status.problems:
        return Check(name="engine", ok=False, detail=f"{detail}: {'; '.join(status.problems)}", remedy="see the detail")
    return Check(name="engine", ok=True, detail=detail)


async def _gateway(control: ControlPlane) -> Check:
    if control.keeper.error:
        remedy = f"read {control.state.logs / 'gateway.log'}; another port: gateway.port in the manifest"
        return Check(name="gateway", ok=False, detail=control.keeper.error, remedy=remedy)
    report = await control.keeper.report()
    if report is None:
        return Check(name="gateway", ok=False, detail="does not answer on its metrics port", remedy="modelfleet status")
    current = report.tag == control.board.tag
    detail = f"process {report.pid} serves table {report.tag or 'none yet'}"
    remedy = "" if current else f"read {control.state.logs / 'gateway.log'}"
    return Check(name="gateway", ok=current, detail=detail if current else f"{detail}, not the newest", remedy=remedy)


async def _companion(control: ControlPlane, keeper: CompanionKeeper) -> list[Check]:
    """Nothing where none is managed."""
    if keeper.wanted is None:
        return []
    name, running = keeper.kind.name, keeper.running
    file = control.state.logs / f"{name}.log"
    log = f"`docker logs {running.container}`" if running and running.container else str(file) if file.exists() else ""
    remedy = "see the detail" + (f"; its log is {log}" if log else "")
    if keeper.error:
        return [Check(name=name, ok=False, detail=keeper.error, remedy=remedy)]
    note = f"; {keeper.note}" if keeper.note else ""
    if running is None:
        return [Check(name=name, ok=True, detail=f"starting{note}")]
    detail = f"{running.words} at {keeper.wanted.url}{note}"
    if not await keeper.answers():
        return [Check(name=name, ok=False, detail=f"does not answer: {detail}", remedy=remedy)]
    return [Check(name=name, ok=True, detail=detail)]


def _disk(control: ControlPlane) -> Check:
    free = shutil.disk_usage(control.state.root).free
    detail = f"{free / 1024**3:.1f} GiB free at {control.state.root}"
    remedy = "free some space there: model files and images need it"
    return Check(
        name="disk", ok=free >= LEAST_FREE_BYTES, detail=detail, remedy="" if free >= LEAST_FREE_BYTES else remedy
    )


def _sources() -> Check:
    return Check(name="sources", ok=True, detail=readable_in_words())


def _signals(control: ControlPlane) -> Check:
    """Whether the autoscaler knows what happens, from every source that it was told to read."""
    read = scaling.signals(control)
    troubles = [f"{source.name}: {source.trouble}" for source in read.sources if source.trouble]
    detail = "; ".join([f"read from {read.active}" if read.active else "none were read yet", *troubles])
    remedy = "see the detail; autoscaler.prometheus in the manifest" if troubles else ""
    return Check(name="signals", ok=not troubles, detail=detail, remedy=remedy)


def _convergence(control: ControlPlane) -> Check:
    plan = control.loop.plan
    if plan is None:
        detail = control.loop.engine_error or "the world was not observed yet"
        return Check(name="versions", ok=False, detail=detail, remedy="modelfleet status")
    late = [f"{v.key}: {v.reason}" for v in plan.verdicts.values() if v.state == "failed"]
    if late:
        return Check(name="versions", ok=False, detail="; ".join(late), remedy="modelfleet describe MODEL")
    return Check(name="versions", ok=True, detail=f"{len(plan.verdicts)} versions, none failed")
