"""What `modelfleet simulate` rests on, and where it is from: settings, traffic, and how replicas behave.

From files, the control plane, the gateway's metrics page and Prometheus. What is not known is asked for, never guessed,
but for the length of a start.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.cli import gateway, manifests, simulate_report, words
from orchestrator.cli.errors import CliError, NotRunningError, UsageError
from orchestrator.cli.verb import Session
from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.distributions import Service
from orchestrator.core.scaling.series import readings
from orchestrator.load import arrivals, traces
from orchestrator.load.traces import Trace
from orchestrator.manifest import Manifest, VersionConfig
from orchestrator.whatif import measured
from orchestrator.whatif.scenario import Measured

DEFAULT_PROMETHEUS = "http://127.0.0.1:9090"
LONGEST_S = 14 * 86_400.0
DEFAULT_COLD_START_S = 5.0


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


def present_version(session: Session, target: str, path: Path | None) -> Present | None:
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


def recorded_traffic(
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
    return _remembered(session, present, words.positive_s("--from-prometheus", span), prometheus, seed)


def _remembered(session: Session, present: Present, span_s: float, prometheus: str, seed: int) -> Known:
    import httpx

    from orchestrator.adapters.prometheus_history import History

    if span_s > LONGEST_S:
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


def played(trace: Trace, speed: float, compress: str, scale: float, seed: int) -> Trace:
    if compress:
        if speed != 1.0:
            raise UsageError("--speed and --compress: both were given", hint="give one of them")
        speed = max(trace.length_s, 1e-9) / words.positive_s("--compress", compress)
    return arrivals.played(trace, speed=speed, factor=scale, seed=seed)


def replicas(
    session: Session, known: Known, present: Present | None, service_time: str, cv: float, cold_start: str, wake: str
) -> Measured:
    """How replicas behave: as the user says, else as it was measured. Raises `UsageError` where nobody knows."""
    service = known.service
    if service_time:
        mean_s = words.positive_s("--service-time", service_time)
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
    cold_start_s = length_s("--cold-start", cold_start) or known.cold_start_s
    if cold_start_s is None:
        cold_start_s = (present and _seen_start_s(session, present)) or DEFAULT_COLD_START_S
    return Measured(service, cold_start_s, words.positive_s("--wake", wake))


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


def length_s(option: str, text: str) -> float | None:
    """What an option says; None where it was left out. Raises `UsageError`."""
    return words.positive_s(option, text) if text else None
