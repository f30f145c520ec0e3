"""Signals from a Prometheus server that scrapes the gateways. All PromQL of the autoscaler is in this file.

One query brings everything: the counters as they were scraped, with the moment of each gateway's scrape, so that rates
are made here as for a direct scrape (`core/scaling/signals.py`), whatever the scrape interval is. Rates made by the
server (`rate()`) would mix samples of different ages and hide that there are none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from functools import partial

import httpx
import msgspec

from orchestrator.adapters.signals import Round, SignalsUnavailable
from orchestrator.core.scaling.series import INFO, NAMES, GatewayReadings, Series, readings, series_of
from orchestrator.core.sources import redacted

EVERY_S = 1.0
TIMEOUT_S = 2.0
# A gateway that was scraped in this time and is not any more is missing; later it is forgotten. Prometheus itself
# shows the last value of a target for five minutes when the target vanished without a trace.
EXPECTED = "5m"
# A difference between two clocks that matters beside scrapes of two seconds.
SKEW_S = 0.5

# The `or` adds each gateway's moment of its last scrape, and which gateways there were. One query sees one state of
# the data: with two a scrape could come between them.
QUERY = """
{{__name__=~"{names}"}}
or label_replace(timestamp({info}{{cluster="{cluster}"}}), "modelfleet_says", "scraped at", "", "")
or label_replace(max_over_time({info}{{cluster="{cluster}"}}[{expected}]), "modelfleet_says", "was there", "", "")
"""
SAYS = "modelfleet_says"


class _Sample(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]  # when it was asked, and the value


class _Result(msgspec.Struct):
    resultType: str = ""  # noqa: N815  (Prometheus' own name)
    result: list[_Sample] = []


class _Answer(msgspec.Struct):
    status: str
    data: _Result = msgspec.field(default_factory=_Result)
    error: str = ""


def query(cluster: str) -> str:
    """A cluster's name has no character that would need to be escaped."""
    text = QUERY.format(names="|".join(sorted(NAMES)), info=INFO, cluster=cluster, expected=EXPECTED)
    return " ".join(text.split())


class Prometheus:
    """Asks the server at `url` about the gateways of `cluster`."""

    name = "prometheus"
    every_s = EVERY_S

    def __init__(self, client: httpx.AsyncClient, url: str, cluster: str, threads: Executor) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._cluster = cluster
        self._threads = threads
        self._query = query(cluster)

    async def read(self) -> Round:
        began = time.time()
        body = await self._ask()
        middle = (began + time.time()) / 2
        work = partial(_round, body, middle, self._cluster)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except SignalsUnavailable as exc:
            raise SignalsUnavailable(f"{self._said} {exc}") from exc

    @property
    def _said(self) -> str:
        return f"Prometheus at {redacted(self._url)}"

    async def _ask(self) -> bytes:
        form = {"query": self._query, "timeout": f"{TIMEOUT_S:g}s"}
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._client.post(f"{self._url}/api/v1/query", data=form, timeout=TIMEOUT_S)
        except TimeoutError as exc:
            raise SignalsUnavailable(f"{self._said} does not answer within {TIMEOUT_S:g} s") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise SignalsUnavailable(f"{self._said} cannot be asked: {str(exc) or type(exc).__name__}") from exc
        if answer.status_code != httpx.codes.OK:
            raise SignalsUnavailable(f"{self._said} answers {answer.status_code}: {_error(answer.content)}")
        return answer.content


def _error(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Answer).error or "no reason given"
    except msgspec.MsgspecError:
        return "not the answer of a Prometheus"


def _round(body: bytes, asked_at: float, cluster: str) -> Round:
    """`asked_at` is by this machine's clock what the samples call their time."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.MsgspecError as exc:
        raise SignalsUnavailable(f"answers what is no query's result: {exc}") from exc
    if answer.status != "success" or answer.data.resultType != "vector":
        raise SignalsUnavailable(f"answers {answer.error or answer.data.resultType!r}")
    samples = answer.data.result
    scraped = {_gateway(s.metric): float(s.value[1]) for s in samples if s.metric.get(SAYS) == "scraped at"}
    was_there = {_gateway(s.metric) for s in samples if s.metric.get(SAYS) == "was there"}
    if not scraped:
        raise SignalsUnavailable(_nothing_scraped(was_there, cluster))
    # Samples carry the server's time, and so does the moment of the question: what is between them is an age.
    ahead_s = samples[0].value[0] - asked_at
    values: dict[str, list[tuple[Series, float]]] = {name: [] for name in scraped}
    for sample in samples:
        _place(sample, values)
    found = _without_twins({name: readings(values[name], at - ahead_s) for name, at in scraped.items()})
    return Round(found, tuple(sorted(was_there - scraped.keys())), _skew(ahead_s))


def _nothing_scraped(was_there: Iterable[str], cluster: str) -> str:
    if names := ", ".join(sorted(was_there)):
        return f"scrapes {names} no more"
    return f"has no metrics of a gateway of cluster {cluster!r}; let it scrape the gateway's metrics port"


def _without_twins(found: Mapping[str, GatewayReadings]) -> dict[str, GatewayReadings]:
    """A gateway that two jobs scrape is one gateway: of those that began in the same millisecond the fresher."""
    unique: dict[object, str] = {}
    for name in sorted(found, key=lambda name: found[name].at):
        began_at = found[name].nothing.began_at
        unique[name if began_at is None else began_at] = name
    return {name: found[name] for name in unique.values()}


def _skew(ahead_s: float) -> str:
    if abs(ahead_s) <= SKEW_S:
        return ""
    return f"its clock is {abs(ahead_s):.1f} s {'ahead' if ahead_s > 0 else 'behind'}, which is allowed for"


def _place(sample: _Sample, values: Mapping[str, list[tuple[Series, float]]]) -> None:
    if SAYS in sample.metric:
        return
    found = values.get(_gateway(sample.metric))
    if found is not None and (series := series_of(sample.metric.get("__name__", ""), sample.metric)) is not None:
        found.append((series, float(sample.value[1])))


def _gateway(labels: Mapping[str, str]) -> str:
    """A gateway's name: what Prometheus calls its target."""
    return f"{labels.get('job', '')}/{labels.get('instance', '')}"
