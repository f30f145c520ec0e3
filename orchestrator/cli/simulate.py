"""`modelfleet simulate`: what other settings would have cost and served, on recorded traffic, before they are applied.

The verb gathers what is needed (`simulate_facts.py`), lets `orchestrator/whatif` simulate it, and shows the answer
(`simulate_report.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import simulate_facts, simulate_report
from orchestrator.cli.errors import UsageError
from orchestrator.cli.simulate_facts import length_s
from orchestrator.cli.verb import Session, verb
from orchestrator.core.scaling import suggest as search
from orchestrator.core.scaling.facts import Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.load.traces import Trace
from orchestrator.whatif import runs, scenario
from orchestrator.whatif.runs import Outcome
from orchestrator.whatif.scenario import Changes

DEFAULT_MAXIMUM = 100


@verb(
    "modelfleet simulate --trace arrivals.csv --model iris --slo 200ms",
    "modelfleet simulate --from-prometheus 24h --model iris --max 8 --suggest",
    "modelfleet simulate --trace arrivals.csv --slo 1s --service-time 250ms --concurrency 4 --max 20",
    "modelfleet simulate --trace arrivals.csv --model iris --plot what-if.html",
)
def simulate(
    session: Session,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Recorded arrivals, in a file (docs/BENCH.md)."),
    ] = None,
    from_prometheus: Annotated[
        str, typer.Option(metavar="TIME", show_default=False, help="The last 24h (or 2d, …) that Prometheus recorded.")
    ] = "",
    model: Annotated[
        str, typer.Option(metavar="MODEL[@VERSION]", show_default=False, help="Whose settings and service times.")
    ] = "",
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Where the settings stand [default: what runs, else ./models.yaml].",
        ),
    ] = None,
    slo: Annotated[str, typer.Option(metavar="TIME", show_default=False, help="Another latency objective.")] = "",
    percentile: Annotated[
        float | None, typer.Option(min=50, max=99.99, metavar="P", show_default=False, help="… for so many percent.")
    ] = None,
    minimum: Annotated[
        int | None, typer.Option("--min", min=0, max=1000, metavar="N", show_default=False, help="Least replicas.")
    ] = None,
    maximum: Annotated[
        int | None, typer.Option("--max", min=1, max=1000, metavar="N", show_default=False, help="Most replicas.")
    ] = None,
    standby: Annotated[
        int | None, typer.Option(min=0, max=1000, metavar="N", show_default=False, help="Replicas kept paused.")
    ] = None,
    idle_after: Annotated[
        str, typer.Option(metavar="TIME", show_default=False, help="With --min 0: silence before it sleeps.")
    ] = "",
    worth: Annotated[
        float | None,
        typer.Option(min=0.1, max=1000, metavar="S", show_default=False, help="scaling.worth: cost against late ones."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, metavar="N", show_default=False, help="Requests at a time in one replica."),
    ] = None,
    service_time: Annotated[
        str, typer.Option(metavar="TIME", show_default=False, help="Mean time of a request in a replica.")
    ] = "",
    service_cv: Annotated[
        float, typer.Option(min=0, max=20, metavar="X", help="Its deviation / mean, with --service-time.")
    ] = 0.5,
    cold_start: Annotated[
        str,
        typer.Option(metavar="TIME", show_default=False, help="From a start to readiness [default: seen, else 5s]."),
    ] = "",
    wake: Annotated[str, typer.Option(metavar="TIME", help="From standby to readiness.")] = "50ms",
    queue_timeout: Annotated[
        str, typer.Option(metavar="TIME", show_default=False, help="When a queued request is given up.")
    ] = "",
    cores: Annotated[
        float | None,
        typer.Option(min=0.1, max=10_000, metavar="N", show_default=False, help="Cores that all replicas share."),
    ] = None,
    sharing: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="X", help="How far requests in one replica slow each other: 1 in turn."),
    ] = 0.0,
    speed: Annotated[float, typer.Option(min=1e-3, max=1e6, metavar="X", help="The trace, X times as fast.")] = 1.0,
    compress: Annotated[
        str, typer.Option(metavar="TIME", show_default=False, help="The whole trace within this time.")
    ] = "",
    scale: Annotated[float, typer.Option(min=1e-3, max=1e4, metavar="X", help="Arrivals for each one recorded.")] = 1.0,
    prometheus: Annotated[
        str, typer.Option(metavar="URL", show_default=False, help="[default: the manifest's, else 127.0.0.1:9090].")
    ] = "",
    suggest: Annotated[bool, typer.Option("--suggest", help="Search settings that no others beat.")] = False,
    decisions: Annotated[bool, typer.Option("--decisions", help="Each change of the count, and why.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="A picture: .html, .svg or .png (modelfleet[plot])."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, metavar="N", help="Another one draws other chances.")] = 1,
) -> None:
    """Say what other settings would have led to, on recorded traffic.

    It runs the very policy that decides live, on simulated replicas, beside the present settings and fixed counts of
    the same cost. What it answers is as good as the service time and the recording are.
    """
    simulate_report.check_plot(plot)
    present = simulate_facts.present_version(session, model, manifest)
    known = simulate_facts.recorded_traffic(session, trace, from_prometheus, prometheus, present, seed)
    known.trace = simulate_facts.played(known.trace, speed, compress, scale, seed)
    if not known.trace.times:
        raise UsageError("nothing is left to simulate", hint="raise --scale")
    replicas = simulate_facts.replicas(session, known, present, service_time, service_cv, cold_start, wake)
    changes = Changes(
        latency_s=length_s("--slo", slo), percentile=percentile, minimum=minimum, maximum=maximum, slots=concurrency,
        standby=standby, idle_after_s=length_s("--idle-after", idle_after), worth_s=worth,
    )  # fmt: skip
    before = scenario.of_manifest(present.config) if present else Settings(maximum=DEFAULT_MAXIMUM)
    after = scenario.changed(before, changes)
    timeout_s = length_s("--queue-timeout", queue_timeout) or (
        present.config.queue.timeout_ms / 1000 if present else None
    )

    def setup_of(settings: Settings) -> Setup:
        made = scenario.setup(settings, replicas, queue_timeout_s=timeout_s, seed=seed)
        return replace(made, cores=cores, batch_rise=sharing)

    report = simulate_report.Report(present.name if present else "", known.trace, known.notes or [], replicas, after)
    report.rows = _rows(session, known.trace, before if present else None, after, setup_of)
    report.setup = setup_of(after)
    if suggest:
        report.frontier = _frontier(session, known.trace, after, setup_of(after))
    simulate_report.show(session, report, decisions=decisions)
    if plot:
        simulate_report.draw(session, report, plot)


def _rows(
    session: Session, trace: Trace, present: Settings | None, asked: Settings, setup_of: Callable[[Settings], Setup]
) -> list[Outcome]:
    """As asked, as it is (where that is something else), and fixed counts beside the first of them."""
    times, setup = trace.times, setup_of(asked)
    name = "the policy" if present is None else "as it is" if asked == present else ""
    with simulate_report.busy(session, "simulating"):
        first = runs.by_settings(name or simulate_report.named(present or asked, asked), times, asked, setup)
        rows = [first]
        if present is not None and asked != present:
            rows.append(runs.by_settings("as it is", times, present, setup_of(present)))
        rows += runs.of_equal_cost(times, first, setup)
        as_good = runs.of_equal_service(times, first, setup, max(100, asked.maximum))
    if as_good and as_good.name not in [row.name for row in rows]:
        rows.append(as_good)
    return rows


def _frontier(session: Session, trace: Trace, settings: Settings, setup: Setup) -> list[Outcome]:
    found = []
    with simulate_report.busy(session, "trying settings") as said:
        for number, candidate in enumerate(search.tried(trace.times, setup, settings), 1):
            found.append(candidate)
            said(f"trying settings: {number}")
    return runs.frontier(found)
