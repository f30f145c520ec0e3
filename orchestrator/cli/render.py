"""What the answers of the admin API look like: tables and lines for `Screen`, no I/O.

Each function takes one schema of `orchestrator/api/schemas.py` and returns a `Grid` or lines of spans. Tables for a
pipe repeat in each row what a reader of one row needs; tables for eyes leave it out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.cli import words
from orchestrator.cli.screen import Cell, Column, Grid, Span

if TYPE_CHECKING:
    from orchestrator.api import schemas

Line = list[Span]

# Columns of a terminal.
WIDTH_WITH_SOURCE = 100
WIDTH_WITH_ADDRESS = 120


def cluster_lines(status: schemas.ClusterStatus) -> list[Line]:
    """What stands above the table of `status`."""
    started = words.age(time.time() - status.started_at)
    lines: list[Line] = [
        ["cluster  ", (status.cluster, "bold"), "  ", words.state(status.state), f"  revision {status.revision}, "
         f"{status.engine} engine, control plane up {started}"],
        ["gateway  ", status.gateway.url, *_grpc(status.gateway), "  ", *_gateway_state(status.gateway)],
    ]  # fmt: skip
    for name, label in (("prometheus", "metrics"), ("grafana", "grafana")):
        # A control plane that is older than this command says nothing of it.
        if line := _companion(label, getattr(status, name, None)):
            lines.append(line)
    if line := _signals(status):
        lines.append(line)
    if status.engine_error:
        lines.append(["engine   ", (status.engine_error, "bold red")])
    if status.operation is not None and status.operation.ended_at is None:
        operation = status.operation
        lines.append([f"{operation.kind:<7}  ", words.state(operation.state), f"  {operation.step}"])
    return lines


def _signals(status: schemas.ClusterStatus) -> Line:
    """Where the autoscaler reads, if there is anything to scale."""
    versions = (version for model in status.models for version in model.versions)
    if not any(version.scaling is not None and version.scaling.chosen_by == "load" for version in versions):
        return []
    troubles = [f"{source.name}: {source.trouble}" for source in status.signals.sources if source.trouble]
    notes = [f"{source.name}: {source.note}" for source in status.signals.sources if source.note]
    said: Span = (status.signals.active, "green") if status.signals.active else ("none", "bold red")
    rest = "; ".join([*troubles, *notes])
    return ["signals  ", said, *([": " if not status.signals.active else "; ", (rest, "yellow")] if rest else [])]


def _companion(label: str, companion: schemas.CompanionStatus | None) -> Line:
    if companion is None or companion.mode == "off":
        return []
    if companion.error:
        return [f"{label:<7}  ", (companion.error, "bold red")]
    starting: Span = ("  starting", "yellow")
    return [f"{label:<7}  ", companion.url, *([starting, _doing(companion)] if _is_starting(companion) else [])]


def _is_starting(companion: schemas.CompanionStatus) -> bool:
    return companion.mode == "managed" and companion.pid is None and not getattr(companion, "container", "")


def _doing(companion: schemas.CompanionStatus) -> str:
    note = getattr(companion, "note", "")
    return f": {note}" if note else ""


def _grpc(gateway: schemas.GatewayStatus) -> Line:
    # One that is older than this command has no such field.
    address = getattr(gateway, "grpc_address", "")
    return [f", gRPC {address}"] if address else []


def _gateway_state(gateway: schemas.GatewayStatus) -> Line:
    if gateway.error:
        return [("not answering", "bold red"), f": {gateway.error}"]
    if not gateway.ready:
        return [("starting", "yellow")]
    return [("ready", "green"), "" if gateway.table_current else ", applying the newest routing table"]


def models_grid(models: Sequence[schemas.ModelStatus], width: int | None = None) -> Grid:
    """A row for each version. For a pipe (no `width`) it says all; for eyes `reason_lines` follow the table.

    A terminal too narrow for the source goes without: folded into a few columns nobody could read or copy it.
    """
    for_eyes = width is not None
    keeps_source = width is None or width >= WIDTH_WITH_SOURCE
    columns = [
        Column("MODEL"), Column("VERSION"), Column("STATE"), Column("READY", right=True), Column("TRAFFIC", right=True),
        Column("LABELS", wraps=True), Column("BACKEND"), *([Column("SOURCE", wraps=True)] if keeps_source else []),
    ]  # fmt: skip
    grid = Grid(columns if for_eyes else [*columns, Column("REASON")])
    for model in models:
        for index, version in enumerate(model.versions):
            name = "" if for_eyes and index else model.name
            row: list[Cell] = [
                (name, "bold"), version.version, words.state(version.state), _ready(version),
                _traffic(model, version.version), _labels(model, version.version), version.backend,
                *([version.source] if keeps_source else []),
            ]  # fmt: skip
            grid.add(*row if for_eyes else [*row, version.reason or _moved(version)])
    return grid


def reason_lines(models: Sequence[schemas.ModelStatus]) -> list[Line]:
    """Why versions are not there yet, or not whole, or have another count than the manifest's least, one line each."""
    lines: list[Line] = []
    for model in models:
        for version in model.versions:
            name: Span = (f"{model.name}@{version.version} ", "bold")
            if version.reason:
                lines.append([name, words.state(version.state), f": {version.reason}"])
            if moved := _moved(version):
                lines.append([name, moved.removeprefix(f"{model.name}@{version.version}: ")])
    return lines


def _moved(version: schemas.VersionStatus) -> str:
    """Why its count is not the manifest's least, "" when it is."""
    scaling = version.scaling
    if scaling is None or scaling.chosen_by == "manifest":
        return ""
    if scaling.chosen_by == "load" and scaling.replicas <= max(1, scaling.minimum):
        return ""
    return scaling_text(scaling)


def _ready(version: schemas.VersionStatus) -> str:
    """`2/3`, and `2/3+1` with one more in standby."""
    return f"{version.ready}/{version.desired}" + (f"+{version.standby}" if version.standby else "")


def _traffic(model: schemas.ModelStatus, version: str) -> Span:
    """The share asked for, and the one in force where it differs."""
    asked, routed = model.traffic.get(version, 0), model.routed.get(version, 0)
    total = sum(model.routed.values())
    now = round(100 * routed / total) if total else 0
    if asked == now:
        return f"{asked}%"
    return f"{now}% -> {asked}%", "yellow"


def _labels(model: schemas.ModelStatus, version: str) -> str:
    return ", ".join(sorted(label for label, named in model.labels.items() if named == version))


def replicas_grid(version: schemas.VersionStatus, width: int | None = None) -> Grid:
    """A narrow terminal goes without addresses and specs, which nobody reads there."""
    is_wide = width is None or width >= WIDTH_WITH_ADDRESS
    columns = [
        Column("REPLICA"), Column("STATE"), Column("AGE", right=True), Column("IN FLIGHT", right=True),
        Column("CPU", right=True), Column("MEMORY", right=True),
        *([Column("ADDRESS"), Column("SPEC")] if is_wide else []), Column("REASON", wraps=True),
    ]  # fmt: skip
    grid = Grid(columns)
    for replica in version.replicas:
        in_flight = "-" if replica.in_flight is None else str(replica.in_flight)
        where = [f"{replica.host}:{replica.port}" if replica.port else "-", replica.spec[:8]] if is_wide else []
        note = replica.reason or _phase(replica) or ("" if replica.current else "being replaced")
        grid.add(
            replica.id, words.state(replica.state), words.age(replica.age_s), in_flight, *_used(replica), *where, note
        )  # fmt: skip
    return grid


def _used(replica: schemas.ReplicaStatus) -> tuple[str, str]:
    """CPU of what it may use, and memory with its limit; `-` where nobody knows."""
    ratio, used, limit = replica.cpu_ratio, replica.memory_bytes, replica.memory_limit_bytes
    memory = "-" if used is None else words.size(used) + (f"/{words.size(limit)}" if limit else "")
    return "-" if ratio is None else f"{ratio:.0%}", memory


def _phase(replica: schemas.ReplicaStatus) -> str:
    """What it does now, or how it became ready."""
    if replica.phase or not replica.phases:
        return words.phase(replica.phase, replica.phase_s)
    phases = ", ".join(words.phase(name, seconds) for name, seconds in replica.phases.items())
    return phases if replica.ready_after_s is None else f"{phases}; ready after {words.took(replica.ready_after_s)}"


def facts_grid(version: schemas.VersionStatus, settings: Mapping[str, str]) -> list[Line]:
    """What `describe` says of one version, a line a fact; `settings` are the gateway's."""
    facts = {
        "source": version.source,
        "artifact": version.artifact[:16],
        "runtime": version.runtime,
        "backend": version.backend,
        "limits": f"{version.cpus:g} CPU, {words.size(version.memory_bytes)} memory, "
        f"{words.count(version.concurrency, 'request')} in flight per replica",
        "scaling": scaling_text(version.scaling) if version.scaling else "",
        "routing": ", ".join(f"{name} {value}" for name, value in settings.items() if name != "concurrency"),
        "reason": version.reason,
    }
    return [[(f"  {name:<12}", "dim"), value] for name, value in facts.items() if value]


def scaling_text(scaling: schemas.ScalingStatus) -> str:
    """Who chose the count, between what, and why it is that."""
    if scaling.chosen_by == "manifest":
        return words.count(scaling.replicas, "replica") + ", fixed"
    if scaling.override is not None:
        until = scaling.override.until
        lasts = "until it is taken back" if until is None else f"until {words.moment(until)}"
        return f"set by hand to {scaling.override.replicas} {lasts}"
    standby = f" and {scaling.standby} in standby" if scaling.standby else ""
    chosen = f"{scaling.replicas}{standby} of {scaling.minimum} to {scaling.maximum}, by load"
    said = f"{scaling.model}@{scaling.version}: stays at {scaling.replicas}: "
    return f"{chosen}: {scaling.reason.removeprefix(said)}" if scaling.reason else chosen


def scaling_lines(scaling: schemas.ScalingStatus) -> list[Line]:
    """What `autoscale explain` says of one version."""
    lines: list[Line] = [[(f"{scaling.model}@{scaling.version}", "bold"), "  ", _who(scaling)]]
    if scaling.reason:
        lines.append(["  ", scaling.reason])
    width = max((len(name) for name, _ in scaling.inputs), default=0)
    return lines + [[(f"  {name:<{width}}  ", "dim"), value] for name, value in scaling.inputs]


def _who(scaling: schemas.ScalingStatus) -> str:
    if scaling.chosen_by == "load":
        when = f", decided {words.clock(scaling.decided_at)}" if scaling.decided_at else ", not decided yet"
        return f"{words.count(scaling.replicas, 'replica')}, chosen by load{when}"
    return scaling_text(scaling)


def decisions_grid(decisions: Sequence[schemas.ScaleDecision]) -> Grid:
    columns = [Column("WHEN"), Column("VERSION"), Column("REPLICAS"), Column("STANDBY", right=True),
               Column("WHY", wraps=True)]  # fmt: skip
    grid = Grid(columns)
    for each in decisions:
        name = f"{each.model}@{each.version}"
        why = each.reason.removeprefix(f"{name}: {each.before} -> {each.target}: ")
        change: Span = f"{each.before} -> {each.target}", "yellow" if each.target > each.before else "cyan"
        grid.add(words.moment(each.at), (name, "bold"), change, str(each.standby), why)
    return grid


def event_line(event: schemas.Event, *, about_one_model: bool = False) -> Line:
    """`12:01:02  iris@1  replica ready in 1.2 s`; a warning or an error says so by its colour and its word."""
    subject = "@".join(filter(None, (event.model, event.version)))
    line: Line = [(f"{words.clock(event.at)}  ", "dim")]
    if event.level != "info":
        line.append((f"{event.level}: ", words.STYLES[event.level]))
    if subject and not (about_one_model and not event.version):
        line.append((f"{subject}  ", "bold"))
    return [*line, event.message]


def plan_lines(plan: schemas.PlanResponse) -> list[Line]:
    styles = {"+": "green", "~": "yellow", "-": "red"}
    width = max((len(change.target) for change in plan.changes), default=0)
    lines: list[Line] = [
        [(f"  {change.symbol} {change.target:<{width}}  ", styles[change.symbol]), change.sentence,
         (f"  ({change.cause})" if change.cause else "", "dim")]
        for change in plan.changes
    ]  # fmt: skip
    warnings: list[Line] = [[("  ! ", "yellow"), warning] for warning in plan.warnings]
    return lines + warnings


def plan_summary(plan: schemas.PlanResponse) -> str:
    symbols = [change.symbol for change in plan.changes]
    counts = (("to add", "+"), ("to change", "~"), ("to remove", "-"))
    return ", ".join(f"{symbols.count(symbol)} {verb}" for verb, symbol in counts if symbol in symbols)


def history_grid(revisions: Sequence[schemas.Revision]) -> Grid:
    grid = Grid(
        [Column("REVISION", right=True), Column("WHEN"), Column("KIND"), Column("STATE"), Column("WHAT", wraps=True)]
    )
    for each in revisions:
        number: Span = (f"{each.revision} *" if each.current else f"{each.revision}  ", "bold" if each.current else "")
        grid.add(number, words.moment(each.at), each.kind, words.state(each.state), each.summary)
    return grid


def check_lines(checks: Sequence[schemas.Check]) -> list[Line]:
    lines: list[Line] = []
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        mark: Span = ("ok    ", "green") if check.ok else ("FAILED", "bold red")
        lines.append([mark, f"  {check.name:<{width}}  ", check.detail])
        if not check.ok and check.remedy:
            lines.append([" " * (width + 10), ("-> ", "cyan"), check.remedy])
    return lines


def keys_grid(keys: Sequence[schemas.Key]) -> Grid:
    columns = [
        Column("ID"), Column("NAME"), Column("MODELS", wraps=True), Column("REQUESTS/S", right=True),
        Column("BURST", right=True), Column("CONCURRENCY", right=True), Column("CREATED"), Column("EXPIRES"),
    ]  # fmt: skip
    grid = Grid(columns)
    for key in keys:
        rate, burst = (f"{key.requests_per_s:g}", str(key.burst)) if key.requests_per_s else ("any", "any")
        expires: Span = "never" if key.expires_at is None else words.moment(key.expires_at)
        if key.expired:
            expires = "expired", "bold red"
        grid.add(
            (key.id, "bold"), key.name, "all" if key.models is None else ", ".join(key.models), rate, burst,
            str(key.concurrency or "any"), words.moment(key.created_at), expires,
        )  # fmt: skip
    return grid


def key_scope(key: schemas.Key) -> str:
    return "all models" if key.models is None else ", ".join(key.models)
