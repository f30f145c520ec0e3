"""What `modelfleet simulate` shows: a table of outcomes, a timeline in blocks, decisions, a picture, or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.cli import words
from orchestrator.cli.errors import UsageError
from orchestrator.cli.screen import Column, Grid
from orchestrator.cli.verb import Session
from orchestrator.core.scaling import suggest
from orchestrator.core.scaling.facts import Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.load.traces import Trace
from orchestrator.whatif import chart, figure, scenario
from orchestrator.whatif.runs import Outcome
from orchestrator.whatif.scenario import Measured
from orchestrator.whatif.words import clock

_PIPE_WIDTH = 100
_SUFFIXES = (".html", ".svg", ".png")
_NAMES = {"minimum": "min", "maximum": "max", "standby": "standby", "slots": "concurrency", "worth_s": "worth"}
HEADER = ("SETTINGS", "LATE", "LATE %", "SHED", "REPLICA-S", "STANDBY-S", "MEAN", "MOST", "CHANGES")


@dataclass(slots=True)
class Report:
    name: str
    trace: Trace
    notes: Sequence[str]
    facts: Measured
    settings: Settings
    setup: Setup | None = None
    rows: Sequence[Outcome] = ()
    frontier: Sequence[Outcome] = field(default_factory=list)


def named(before: Settings, after: Settings) -> str:
    """What of the settings is another than before."""
    changed = [
        f"{name} {getattr(after, key):g}" for key, name in _NAMES.items() if getattr(after, key) != getattr(before, key)
    ]
    if after.objective != before.objective:
        changed.insert(0, _objective(after, None))
    if after.idle_after_s != before.idle_after_s:
        changed.append(f"idle_after {words.length(after.idle_after_s)}")
    return ", ".join(changed) or "as asked (no change)"


def show(session: Session, report: Report, *, decisions: bool) -> None:
    if session.json:
        session.out.json(as_json(report))
        return
    for line in _facts(report):
        session.out.line(line)
    session.out.line()
    session.out.table(grid(report.rows))
    if report.frontier:
        session.out.line()
        share = f"{suggest.STANDBY_SHARE:g}"
        session.out.line(
            f"Settings that no others beat, the cheapest first; a paused replica counts as {share} of one:"
        )
        session.out.table(grid(report.frontier))
    session.out.line()
    width = session.out.width or _PIPE_WIDTH
    has_blocks = (session.out.stream.encoding or "utf-8").lower().startswith("utf")
    for text in chart.draw(report.rows[0].result.timeline, width=width, unicode=has_blocks):
        session.out.long_line(text)
    if decisions:
        session.out.line()
        for decision in report.rows[0].decisions:
            session.out.line(decision)


def _facts(report: Report) -> Iterator[str]:
    trace, facts = report.trace, report.facts
    whose = f"{report.name}: " if report.name else ""
    count, length = len(trace.times), clock(trace.length_s)
    yield f"{whose}{count:,} requests of {trace.name} in {length}, {_objective(report.settings, report.setup)}"
    tail_s = scenario.tail_s(facts.service, report.settings.objective.percentile)
    yield (
        f"a replica takes {words.count(report.settings.slots, 'request')} at a time, {facts.service.mean_s:.3g} s each "
        f"(p{report.settings.objective.percentile:g} {tail_s:.3g} s), and {facts.cold_start_s:.3g} s to start"
    )
    yield from report.notes


def _objective(settings: Settings, setup: Setup | None) -> str:
    latency_s, percentile = settings.objective.latency_s, settings.objective.percentile
    if latency_s is None and setup is not None:
        return f"no slo: held to p{percentile:g} ≤ {setup.latency_s:.3g} s, as the policy derives it"
    return "no slo" if latency_s is None else f"p{percentile:g} ≤ {words.length(latency_s)}"


def grid(rows: Sequence[Outcome]) -> Grid:
    made = Grid([Column(HEADER[0]), *(Column(name, right=True) for name in HEADER[1:])])
    for row in cells(rows):
        made.add((row[0], "bold"), *row[1:])
    return made


def cells(rows: Sequence[Outcome]) -> list[list[str]]:
    return [
        [
            row.name,
            f"{row.result.violations:,}",
            f"{row.result.violation_percent:.3f}",
            f"{row.result.shed:,}",
            f"{row.result.replica_s:,.0f}",
            f"{row.result.standby_s:,.0f}",
            f"{row.mean_replicas:.2f}",
            str(row.most_replicas),
            str(row.result.changes) if row.settings else "-",
        ]
        for row in rows
    ]


@contextmanager
def busy(session: Session, text: str) -> Iterator[Callable[[str], None]]:
    """A spinner with what is being done, where somebody watches."""
    if not (session.err.is_terminal and session.tells):
        yield lambda _text: None
        return
    with session.err.console.status(text) as status:
        yield status.update


def check_plot(path: Path | None) -> None:
    """Raises `UsageError` for a picture that cannot be made, before any work is done."""
    if path is None:
        return
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--plot {str(path)!r}: its ending says no format", hint=f"end it with {', '.join(_SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {str(path)!r}: there is no such folder", hint="name a file in one that is there")


def draw(session: Session, report: Report, path: Path) -> None:
    title = report.name or report.trace.name
    shown = [row for row in report.rows if row.settings is not None] or list(report.rows[:1])
    match path.suffix.lower():
        case ".png":
            from orchestrator.whatif.png import png

            content = png(title, shown)
        case ".svg":
            content = figure.svg(title, shown).encode()
        case _:
            content = figure.html(title, shown, HEADER, cells(report.rows)).encode()
    try:
        path.write_bytes(content)
    except OSError as exc:
        raise UsageError(f"--plot {str(path)!r}: {exc.strerror}", hint="name a file that can be written") from exc
    session.say(("wrote ", "dim"), str(path))


def as_json(report: Report) -> dict[str, Any]:
    setup = report.setup
    return {
        "target": report.name or None,
        "trace": {
            "name": report.trace.name,
            "requests": len(report.trace.times),
            "length_s": report.trace.length_s,
            "grain_s": report.trace.grain_s,
        },
        "notes": list(report.notes),
        "objective": {
            "latency_s": setup.latency_s if setup else None,
            "percentile": report.settings.objective.percentile,
            "is_derived": report.settings.objective.latency_s is None,
        },
        "service_s": {
            "mean": report.facts.service.mean_s,
            "tail": scenario.tail_s(report.facts.service, report.settings.objective.percentile),
        },
        "cold_start_s": report.facts.cold_start_s,
        "outcomes": [_outcome(row, with_timeline=True) for row in report.rows],
        "suggestions": [_outcome(row, with_timeline=False) for row in report.frontier],
    }


def _outcome(row: Outcome, *, with_timeline: bool) -> dict[str, Any]:
    settings, result = row.settings, row.result
    shown: dict[str, Any] = {
        "name": row.name,
        "settings": None
        if settings is None
        else {
            "slo_s": settings.objective.latency_s,
            "percentile": settings.objective.percentile,
            "min": settings.minimum,
            "max": settings.maximum,
            "concurrency": settings.slots,
            "standby": settings.standby,
            "idle_after_s": settings.idle_after_s,
            "worth": settings.worth_s,
        },
        "requests": result.requests,
        "late": result.violations,
        "late_percent": round(result.violation_percent, 4),
        "shed": result.shed,
        "replica_s": round(result.replica_s, 1),
        "standby_s": round(result.standby_s, 1),
        "mean_replicas": round(row.mean_replicas, 3),
        "most_replicas": row.most_replicas,
        "changes": result.changes,
        "mean_wait_s": round(result.mean_wait_s, 6),
    }
    if with_timeline:
        shown["decisions"] = list(row.decisions)
        shown["timeline"] = [
            {"at": p.at, "arrivals": p.arrivals, "late": p.late, "queued": p.queued, "ready": p.ready,
             "starting": p.starting, "standby": p.standby, "target": p.target}
            for p in result.timeline
        ]  # fmt: skip
    return shown
