"""`modelfleet simulate`: what other settings would have cost and served, on recorded traffic, before they are applied.

The verb gathers what is needed (arrivals, the version's settings, how long its replicas take), lets
`orchestrator/whatif` simulate it, and shows the answer (`simulate_report.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import gateway, manifests, simulate_report, words
from orchestrator.cli.errors import CliError, NotRunningError, UsageError
from orchestrator.cli.verb import Session, verb
from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling import suggest as search
from orchestrator.core.scaling.distributions import Service
from orchestrator.core.scaling.facts import Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.core.scaling.series import readings
from orchestrator.load import arrivals, traces
from orchestrator.load.traces import Trace
from orchestrator.manifest import Manifest, VersionConfig
from orchestrator.whatif import measured, runs, scenario
from orchestrator.whatif.runs import Outcome
from orchestrator.whatif.scenario import Changes, Measured

DEFAULT_PROMETHEUS = "http://127.0.0.1:9090"
LONGEST_S = 14 * 86_400.0
DEFAULT_COLD_START_S = 5.0
DEFAULT_MAXIMUM = 100


@dataclass(frozen=True, slots=True)
class Present:
    """A version as it is: its name and what the manifest says of it."""

    model: str
    version: str
    config: VersionConfig
    cluster: str = ""
    prometheus: str = ""

    @property
    def name(self) -> str:
        return f"{self.model}@{self.version}"


@dataclass(slots=True)
class Known:
    """What was gathered, and from where: `notes` are said to the user."""

    trace: Trace
    service: Service | None = None
    cold_start_s: float | None = None
    notes: list[str] | None = None

    def note(self, text: str) -> None:
        self.notes = [*(self.notes or []), text]


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
    present = _present(session, model, manifest)
    known = _known(session, trace, from_prometheus, prometheus, present, seed)
    known.trace = _played(known.trace, speed, compress, scale, seed)
    if not known.trace.times:
        raise UsageError("nothing is left to simulate", hint="raise --scale")
    facts = _measured(session, known, present, service_time, service_cv, cold_start, wake)
    changes = Changes(
        latency_s=_time(slo), percentile=percentile, minimum=minimum, maximum=maximum, slots=concurrency,
        standby=standby, idle_after_s=_time(idle_after), worth_s=worth,
    )  # fmt: skip
    before = scenario.of_manifest(present.config) if present else Settings(maximum=DEFAULT_MAXIMUM)
    after = scenario.changed(before, changes)
    timeout_s = _time(queue_timeout) or (present.config.queue.timeout_ms / 1000 if present else None)

    def setup_of(settings: Settings) -> Setup:
        made = scenario.setup(settings, facts, queue_timeout_s=timeout_s, seed=seed)
        return replace(made, cores=cores, batch_rise=sharing)

    report = simulate_report.Report(present.name if present else "", known.trace, known.notes or [], facts, after)
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


# -- what is simulated --------------------------------------------------------------------------------


def _present(session: Session, target: str, path: Path | None) -> Present | None:
    """The version that was named, as the manifest in force (or the file) has it; None where none was named."""
    if not target:
        if path:
            raise UsageError("--manifest without --model: whose settings?", hint="name a model with --model")
        return None
    model, version = words.model_and_version(target)
    manifest = _manifest(session, path)
    if model not in manifest.models:
        raise words.unknown("model", model, manifest.models)
    config = manifest.models[model]
    version = version or max(config.traffic, key=lambda name: config.traffic[name])
    if version not in config.versions:
        raise words.unknown(f"version of {model}", version, config.versions)
    url = manifest.autoscaler.prometheus or manifest.observability.url
    return Present(model, version, config.versions[version], _cluster(session, manifest), url)


def _cluster(session: Session, manifest: Manifest) -> str:
    """Its name; what runs may have been given another than the manifest's."""
    try:
        return session.client.status().cluster
    except CliError:
        return manifest.cluster


def _manifest(session: Session, path: Path | None) -> Manifest:
    from orchestrator.manifest import load, load_file

    if path is None:
        try:
            current = next((each.revision for each in session.client.history() if each.current), None)
            if current is not None:
                applied = session.client.revision(current)
                return load(applied.manifest, file=applied.file, base_dir=Path.cwd())
        except NotRunningError:
            pass
    return load_file(manifests.chosen(path))


def _known(
    session: Session, trace: Path | None, span: str, prometheus: str, present: Present | None, seed: int
) -> Known:
    if bool(trace) == bool(span):
        got = "--trace and --from-prometheus: both were given" if trace else "no recorded traffic was given"
        raise UsageError(got, hint="give --trace FILE, or --from-prometheus 24h --model MODEL")
    if trace:
        recorded = traces.read(trace, model=present.model if present else "", seed=seed)
        return Known(replace(recorded, name=trace.name))
    if present is None:
        raise UsageError("--from-prometheus: whose traffic?", hint="name a model with --model MODEL[@VERSION]")
    return _remembered(session, present, words.duration_s(span), prometheus, seed)


def _remembered(session: Session, present: Present, span_s: float, prometheus: str, seed: int) -> Known:
    import httpx

    from orchestrator.adapters.prometheus_history import History

    if not 0 < span_s <= LONGEST_S:
        raise UsageError(f"--from-prometheus {words.length(span_s)}: at most 14 days are read", hint="for example 24h")
    url = prometheus or present.prometheus or DEFAULT_PROMETHEUS
    with httpx.Client() as client, simulate_report.busy(session, f"reading {url}") as said:
        history = History(client, url, present.cluster, present.model, present.version)
        past = history.read(span_s, time.time(), seed, lambda share: said(f"reading {url}: {share:.0%}"))
    known = Known(Trace(f"the last {words.length(span_s)}", past.times, past.grain_s), past.service, past.cold_start_s)
    known.note(f"arrivals are known each {past.grain_s:.3g} s; within that they are spread at random")
    if past.length_s < 0.95 * span_s:
        known.note(f"Prometheus remembers {past.length_s / 3600:.3g} of the {span_s / 3600:.3g} h")
    if past.gaps_s:
        known.note(f"for {past.gaps_s:.0f} s nothing was scraped: what came then is spread evenly, its bursts are lost")
    return known


def _played(trace: Trace, speed: float, compress: str, scale: float, seed: int) -> Trace:
    if compress:
        if speed != 1.0:
            raise UsageError("--speed and --compress: both were given", hint="give one of them")
        speed = max(trace.length_s, 1e-9) / words.duration_s(compress)
    return arrivals.played(trace, speed=speed, factor=scale, seed=seed)


def _measured(
    session: Session, known: Known, present: Present | None, service_time: str, cv: float, cold_start: str, wake: str
) -> Measured:
    """How replicas behave: as the user says, else as it was measured. Raises `UsageError` where nobody knows."""
    service = known.service
    if service_time:
        mean_s = words.duration_s(service_time)
        service = Service.lognormal(mean_s, cv) if cv else Service.fixed(mean_s)
    elif service is None and present:
        service = _of_gateway(session, present)
        if service:
            known.note(f"service times are those of {present.name} since the gateway started")
    if service is None:
        raise UsageError(
            f"the service time{f' of {present.name}' if present else ''} is unknown: nobody measured it",
            hint="give it with --service-time 20ms, or let the model answer a few requests",
        )
    cold_start_s = _time(cold_start) or known.cold_start_s
    if cold_start_s is None:
        cold_start_s = (present and _seen_start_s(session, present)) or DEFAULT_COLD_START_S
    return Measured(service, cold_start_s, words.duration_s(wake))


def _of_gateway(session: Session, present: Present) -> Service | None:
    """What the gateway counted since it started; None where there is none to ask."""
    from orchestrator.adapters.scrape import Exposition

    try:
        page = gateway.send(session.client.status().gateway.metrics_url.removesuffix("/metrics"), "GET", "/metrics")
        said = readings(Exposition().read(page.body.decode()), time.time())
    except (CliError, ValueError):
        return None
    return measured.service_of(said.of(VersionKey(present.model, present.version)).model)


def _seen_start_s(session: Session, present: Present) -> float | None:
    """The mean of how long the replicas that are there took to become ready."""
    try:
        models = session.client.status().models
    except CliError:
        return None
    found = [
        replica.ready_after_s
        for model in models if model.name == present.model
        for version in model.versions if version.version == present.version
        for replica in version.replicas if replica.ready_after_s
    ]  # fmt: skip
    return sum(found) / len(found) if found else None


def _time(text: str) -> float | None:
    return words.duration_s(text) if text else None
