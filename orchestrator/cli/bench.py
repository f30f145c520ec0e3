"""`modelfleet bench`: load on a model through the gateway, and how long its answers took.

The verb checks what was asked for, begins a run (`orchestrator/load/`), shows how it goes, and ends with its figures
(`bench_report.py`).
"""

from __future__ import annotations

import asyncio
import signal
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from orchestrator.cli import bench_report, gateway, predict, sample, words
from orchestrator.cli.errors import FAILED, INTERRUPTED, CliError, UsageError
from orchestrator.cli.gateway import Answer, Prediction
from orchestrator.cli.verb import Session, verb
from orchestrator.load import arrivals, http, limits, traces
from orchestrator.load.run import Run, Target
from orchestrator.load.tally import Tally
from orchestrator.load.traces import Trace

DEFAULT_DURATION_S = 30.0


class Arrivals(StrEnum):
    poisson = "poisson"
    constant = "constant"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the run does, in words and as arrivals; `concurrency` is a closed loop's, else 0."""

    words: str
    mode: str
    duration_s: float
    rate_per_s: float | None = None
    concurrency: int = 0
    trace: Trace | None = None


@verb(
    "modelfleet bench iris --rate 200 --duration 60s",
    "modelfleet bench iris@2 --rate 500 --arrivals constant --assert 'p99<100ms,errors<0.1%'",
    "modelfleet bench iris --trace arrivals.csv --compress 10m --slo 100ms",
    "modelfleet bench iris --concurrency 16 --file configs/examples/iris.json",
    "modelfleet bench iris --rate 200 -o json | jq .latency_ms.p99",
)
def bench(
    session: Session,
    target: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", show_default=False, help="Which model.")],
    rate: Annotated[
        float | None,
        typer.Option(min=0.01, max=1e6, metavar="N", show_default=False, help="Requests per second, open loop."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Recorded arrivals, open loop (docs/BENCH.md)."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, metavar="N", show_default=False, help="Requests under way, closed loop."),
    ] = None,
    duration: Annotated[
        str,
        typer.Option(metavar="TIME", show_default=False, help="How long [default: 30s; a trace's own length]."),
    ] = "",
    pattern: Annotated[
        Arrivals, typer.Option("--arrivals", metavar="poisson|constant", help="How --rate is spread.")
    ] = Arrivals.poisson,
    speed: Annotated[
        float | None,
        typer.Option(min=1e-3, max=1e6, metavar="X", show_default=False, help="Play the trace X times as fast."),
    ] = None,
    compress: Annotated[
        str, typer.Option(metavar="TIME", show_default=False, help="Play the whole trace within this time.")
    ] = "",
    scale: Annotated[
        float, typer.Option(min=1e-3, max=1e4, metavar="X", help="Arrivals for each one of the trace.")
    ] = 1.0,
    data: predict.DataOption = "",
    file: predict.FileOption = None,
    key: predict.KeyOption = "",
    slo: Annotated[
        str,
        typer.Option(metavar="TIME", show_default=False, help="Count what took longer, or failed, as late."),
    ] = "",
    assertions: Annotated[
        str,
        typer.Option("--assert", metavar="LIMITS", show_default=False, help=f"Exit 1 unless kept: {limits.EXAMPLE}"),
    ] = "",
    timeout: Annotated[str, typer.Option(metavar="TIME", help="When to give a request up.")] = "30s",
    connections: Annotated[
        int, typer.Option(min=1, max=20_000, metavar="N", help="Most connections at one time, open loop.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=2**31, metavar="N", help="Another one draws other arrivals.")] = 1,
) -> int:
    """Put load on a model and measure its answers.

    Open loop, as real clients are: requests leave when they are due, whether or not earlier ones were answered, and
    latencies count from then. Without --data or --file the request is zeros of the shapes in the model's metadata.
    """
    model, version = words.model_and_version(target)
    wanted = limits.parse(assertions) if assertions else ()
    plan = _plan(rate, trace, concurrency, duration, pattern, _speed(speed, compress, trace), scale, seed, model)
    url, fields = gateway.url_of(session), _fields(key)
    body = predict.given_body(data, file)
    request = gateway.prediction(
        _sample(session, url, model, version, key) if body is None else body, model, version=version
    )
    run = Run(
        _target(url, request, fields, words.positive_s("--timeout", timeout), plan.concurrency or connections),
        words.positive_s("--slo", slo) if slo else None,
        bench_report.progress(session, plan.duration_s) if session.err.is_terminal and session.tells else None,
    )
    session.say(("bench ", "dim"), (target, "bold"), f" at {url}{request.path}: {plan.words}")
    tally = _go(run, plan, pattern, seed, url)
    if session.err.is_terminal and session.tells:
        bench_report.clear(session)
    if run.refused:
        answer = Answer(run.refused.status, {}, run.refused.body)
        raise predict.explained(session, gateway.refusal(answer), model, version, key)
    verdicts = [limit.verdict(tally) for limit in wanted]
    bench_report.show(session, bench_report.Report(target, url + request.path, plan, run, tally, verdicts))
    if run.was_interrupted:
        return INTERRUPTED
    return 0 if tally.answered and all(verdict.ok for verdict in verdicts) else FAILED


def _plan(
    rate: float | None,
    trace: Path | None,
    concurrency: int | None,
    duration: str,
    pattern: Arrivals,
    speed: float | str,
    scale: float,
    seed: int,
    model: str,
) -> Plan:
    """Raises `UsageError` unless exactly one of the three says what load."""
    given = [name for name, value in (("--rate", rate), ("--trace", trace), ("--concurrency", concurrency)) if value]
    if len(given) != 1:
        got = f"{' and '.join(given)}: {len(given)} were given" if given else "no load was given"
        raise UsageError(got, hint="give one of --rate N, --trace FILE and --concurrency N")
    length_s = words.positive_s("--duration", duration) if duration else None
    if trace:
        return _replay(trace, speed, scale, length_s, seed, model)
    duration_s = length_s or DEFAULT_DURATION_S
    if rate:
        text = f"{rate:g} requests/s ({pattern}) for {words.length(duration_s)}"
        return Plan(text, "open", duration_s, rate_per_s=rate)
    assert concurrency
    text = f"{words.count(concurrency, 'request')} at a time (closed loop) for {words.length(duration_s)}"
    return Plan(text, "closed", duration_s, concurrency=concurrency)


def _replay(path: Path, speed: float | str, scale: float, length_s: float | None, seed: int, model: str) -> Plan:
    recorded = traces.read(path, model=model, seed=seed)
    if isinstance(speed, str):
        speed = max(recorded.length_s, 1e-9) / words.positive_s("--compress", speed)
    played = arrivals.played(recorded, speed=speed, factor=scale, length_s=length_s, seed=seed)
    if not played.times:
        raise UsageError(f"trace {str(path)!r}: nothing of it is left to send", hint="raise --scale or --duration")
    duration_s = length_s or played.length_s
    text = f"{len(played.times):,} requests of {path.name} in {words.length(duration_s)}"
    if speed != 1.0:
        text += f", {speed:.3g} times as fast as recorded"
    if played.grain_s:
        text += f"; counts are recorded, moments within {played.grain_s:.3g} s are drawn"
    return Plan(text, "open", duration_s, rate_per_s=len(played.times) / max(duration_s, 1e-9), trace=played)


def _speed(speed: float | None, compress: str, trace: Path | None) -> float | str:
    if speed and compress:
        raise UsageError("--speed and --compress: both were given", hint="give one of them")
    if (speed or compress) and not trace:
        raise UsageError("--speed and --compress change a trace, and none was given", hint="give --trace FILE")
    return compress or speed or 1.0


def _fields(key: str) -> dict[str, str]:
    if not key:
        return {}
    if not key.isascii() or not key.isprintable():
        raise UsageError("the API key has characters that no key has", hint=gateway.KEY_HINT)
    return {"authorization": f"Bearer {key}"}


def _sample(session: Session, url: str, model: str, version: str, key: str) -> bytes:
    """A request that the model's metadata lets be made. Raises `CliError` with what to give instead."""
    try:
        return sample.zeros(url, model, version, _fields(key))
    except CliError as exc:
        error = predict.explained(session, exc, model, version, key)
        if not error.hint:
            error.hint = "give a request with --data JSON or --file FILE"
        raise error from exc


def _target(url: str, request: Prediction, fields: dict[str, str], timeout_s: float, connections: int) -> Target:
    address = urlsplit(url)
    is_tls = address.scheme == "https"
    whole = http.head("POST", address.path.rstrip("/") + request.path, address.netloc, request.body, fields)
    return Target(
        host=str(address.hostname),
        port=address.port or (443 if is_tls else 80),
        request=whole,
        tls=ssl.create_default_context() if is_tls else None,
        timeout_s=timeout_s,
        connections=connections,
    )


def _go(run: Run, plan: Plan, pattern: Arrivals, seed: int, url: str) -> Tally:
    """Runs it to its end, or to Ctrl-C. Raises `CliError` where nobody listens."""
    import uvloop

    async def work() -> Tally:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, run.interrupt)
        if plan.concurrency:
            return await run.closed_loop(plan.concurrency, plan.duration_s)
        if plan.trace:
            return await run.open_loop(plan.trace.times, plan.duration_s)
        assert plan.rate_per_s
        if pattern is Arrivals.constant:
            return await run.open_loop(arrivals.constant(plan.rate_per_s, plan.duration_s), plan.duration_s)
        return await run.open_loop(arrivals.poisson(plan.rate_per_s, plan.duration_s, seed), plan.duration_s)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work())
    except ssl.SSLCertVerificationError as exc:
        raise gateway.not_believed(url, exc) from exc
    except OSError as exc:
        raise gateway.no_answer(url, exc) from exc
