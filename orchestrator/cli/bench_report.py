"""What `modelfleet bench` shows: one line while it runs, figures for people at its end, and the same as JSON."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.cli import words
from orchestrator.cli.screen import Column, Grid
from orchestrator.cli.verb import Session
from orchestrator.load.histogram import Histogram
from orchestrator.load.limits import Verdict
from orchestrator.load.tally import Tally

if TYPE_CHECKING:
    from orchestrator.cli.bench import Plan
    from orchestrator.load.run import Run

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
# Requests that leave later than this, and later than a tenth of what is measured, put the generator into its figures.
NOTABLE_LAG_S = 0.002
NOTABLE_LAG_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Report:
    target: str
    url: str
    plan: Plan
    run: Run
    tally: Tally
    verdicts: Sequence[Verdict]


def progress(session: Session, duration_s: float) -> Callable[[Run], None]:
    """Rewrites one line. By hand: Rich takes milliseconds to draw one, in which no request would leave."""

    def show(run: Run) -> None:
        tally = run.tally
        last = tally.seconds[-2].sent if len(tally.seconds) > 1 else tally.sent
        parts = [
            f"{(len(tally.seconds)):.0f} s of {words.length(duration_s)}",
            f"{last}/s",
            f"{tally.answered:,} answered",
            f"{tally.failed:,} failed",
            f"{run.in_flight:,} under way",
            f"p50 {_ms(tally.latency.percentile_s(50))}",
            f"p99 {_ms(tally.latency.percentile_s(99))}",
        ]
        width = shutil.get_terminal_size().columns - 1
        session.err.write("\r\x1b[2K" + "  ".join(parts)[:width])

    return show


def clear(session: Session) -> None:
    session.err.write("\r\x1b[2K")


def show(session: Session, report: Report) -> None:
    if session.json:
        session.out.json(as_json(report))
        return
    tally = report.tally
    if report.run.was_interrupted:
        session.say(("interrupted: ", "yellow"), "what was measured until then")
    session.out.line()
    session.out.table(_latencies(tally))
    session.out.line()
    for line in _counts(report):
        session.out.line(*line)
    for complaint in complaints(report):
        session.out.line(("warning: ", "yellow"), complaint)
    for verdict in report.verdicts:
        mark = ("kept    ", "green") if verdict.ok else ("BROKEN  ", "bold red")
        session.out.line(mark, f"{verdict.text}: {verdict.seen}")


def _latencies(tally: Tally) -> Grid:
    names = ["MIN", "MEAN", *(f"P{percent:g}" for percent in PERCENTILES), "MAX"]
    grid = Grid([Column("LATENCY"), *(Column(name, right=True) for name in names)])
    latency = tally.latency
    tails = [latency.percentile_s(percent) for percent in PERCENTILES]
    values = [latency.least_s, latency.mean_s, *tails, latency.most_s]
    grid.add("ms", *("-" if value is None else f"{value * 1000:.2f}" for value in values))
    return grid


def _counts(report: Report) -> list[list[str | tuple[str, str]]]:
    tally = report.tally
    rate = f"{tally.answered / tally.elapsed_s:,.1f}/s"
    lines: list[list[str | tuple[str, str]]] = [
        [f"{tally.sent:,} sent, {tally.answered:,} answered ({rate})", *_unfinished(tally)]
    ]
    if tally.failed:
        kinds = ", ".join(f"{count:,} × {kind}" for kind, count in sorted(tally.errors.items(), key=lambda e: -e[1]))
        lines.append([("errors: ", "red"), f"{tally.failed:,} ({_percent(tally.failed, tally.sent)}): {kinds}"])
    else:
        lines.append(["errors: none"])
    if tally.slo_ns is not None:
        objective = words.length(tally.slo_ns / 1e9)
        text = f"late: {tally.late:,} ({_percent(tally.late, tally.sent)}) took longer than {objective}, or failed"
        lines.append([text])
    if report.plan.mode == "open":
        lag = tally.lag
        text = f"left late by {_ms(lag.percentile_s(50))} (p50), {_ms(lag.percentile_s(99))} (p99)"
        lines.append([(f"{text}, {_ms(lag.most_s)} (most); {_used(report)}", "dim")])
    return lines


def _unfinished(tally: Tally) -> list[str]:
    return [f", {tally.unfinished:,} unfinished"] if tally.unfinished else []


def _used(report: Report) -> str:
    return words.count(report.run.most_connections, "connection")


def complaints(report: Report) -> list[str]:
    """Why the figures may not be what they seem."""
    found = []
    lag, tail = report.tally.lag.percentile_s(99), report.tally.latency.percentile_s(99)
    if report.plan.mode == "open" and lag and tail and lag > max(NOTABLE_LAG_S, NOTABLE_LAG_SHARE * tail):
        found.append(
            f"the generator itself was late: 1 % of the requests left more than {_ms(lag)} after they were due, and "
            "latencies include that; lower the rate, or run it where it has a core of its own"
        )
    if report.plan.mode == "open" and report.run.is_out_of_connections:
        found.append(
            f"requests waited for one of {report.run.most_connections:,} connections of the generator, and latencies "
            "include that; raise --connections"
        )
    return found


def as_json(report: Report) -> dict[str, Any]:
    plan, tally = report.plan, report.tally
    return {
        "target": report.target,
        "url": report.url,
        "mode": plan.mode,
        "load": plan.words,
        "asked": {
            "rate_per_s": plan.rate_per_s,
            "concurrency": plan.concurrency or None,
            "duration_s": plan.duration_s,
        },
        "interrupted": report.run.was_interrupted,
        "elapsed_s": round(tally.elapsed_s, 3),
        "sent": tally.sent,
        "answered": tally.answered,
        "unfinished": tally.unfinished,
        "rate_per_s": round(tally.answered / tally.elapsed_s, 3),
        "errors": {"count": tally.failed, "percent": _share(tally.failed, tally.sent), "by_kind": tally.errors},
        "late": None
        if tally.slo_ns is None
        else {"slo_ms": tally.slo_ns / 1e6, "count": tally.late, "percent": _share(tally.late, tally.sent)},
        "latency_ms": _lengths(tally.latency),
        "left_late_ms": _lengths(tally.lag),
        "connections": report.run.most_connections,
        "warnings": complaints(report),
        "limits": [{"limit": each.text, "ok": each.ok, "seen": each.seen} for each in report.verdicts],
        "seconds": [
            {"sent": s.sent, "answered": s.answered, "failed": s.failed, "late": s.late, "max_ms": s.most_ns / 1e6}
            for s in tally.seconds
        ],
        "histogram": [[round(top_s * 1000, 4), count] for top_s, count in tally.latency.buckets()],
    }


def _lengths(histogram: Histogram) -> dict[str, float | None]:
    named = {f"p{percent:g}": histogram.percentile_s(percent) for percent in PERCENTILES}
    values = {"min": histogram.least_s, "mean": histogram.mean_s, **named, "max": histogram.most_s}
    return {name: None if value is None else round(value * 1000, 4) for name, value in values.items()}


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def _share(count: int, whole: int) -> float | None:
    return round(100 * count / whole, 4) if whole else None


def _percent(count: int, whole: int) -> str:
    return f"{100 * count / whole:.3g} %" if whole else "-"
