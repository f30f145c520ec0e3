"""What a Prometheus server remembers of a version: when requests came, how long replicas took, how long they started.

For simulations of the past alone; what the autoscaler reads each second is `prometheus.py`'s. Arrivals are read as the
counters were scraped, an hour at a time, and counted between neighbouring scrapes: `rate()` would smooth bursts away.
What lies between two scrapes has no moment of its own: there arrivals are spread at random.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from orchestrator.core.errors import UnavailableError, UserError
from orchestrator.core.scaling.distributions import Service, chance, scaled
from orchestrator.core.sources import redacted

PIECE_S = 3600.0
TIMEOUT_S = 30.0
# Scrapes further apart than so many usual ones: something did not scrape, or did not answer.
GAP_FACTOR = 5.0

GATEWAYS = 'max_over_time(modelfleet_gateway_info{{cluster="{cluster}"}}[{span}s])'
OF_IT = '{{model="{model}",version="{version}"}}[{span}s]'
# Another cluster that the same server scrapes may have a model of the same name.
AT_GATEWAYS = '{{model="{model}",version="{version}",instance=~"{gateways}"}}[{span}s]'
ARRIVALS = f"modelfleet_arrivals_total{AT_GATEWAYS}"
SERVICE_BUCKETS = f"sum by (le) (increase(modelfleet_model_seconds_bucket{AT_GATEWAYS}))"
SERVICE_SUM = f"sum(increase(modelfleet_model_seconds_sum{AT_GATEWAYS}))"
COLD_START = (
    f"sum(increase(modelfleet_cold_start_seconds_sum{OF_IT})) / "
    f"sum(increase(modelfleet_cold_start_seconds_count{OF_IT}))"
)
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Past:
    """`times` ascend from 0, which is `began_at`; `grain_s` is the usual time between scrapes, in which moments are
    drawn. `gaps_s` were not scraped: what came in them is spread evenly. None: the server does not know."""

    times: Sequence[float]
    began_at: float
    length_s: float
    grain_s: float
    gaps_s: float
    service: Service | None
    cold_start_s: float | None


@dataclass(frozen=True, slots=True)
class _Interval:
    """`count` requests came between two scrapes of one gateway."""

    start: float
    end: float
    count: int


class History:
    """Asks the server at `url` about one version of `cluster`."""

    def __init__(self, client: httpx.Client, url: str, cluster: str, model: str, version: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._names = {"cluster": cluster, "model": _escaped(model), "version": _escaped(version), "gateways": ""}

    def read(self, span_s: float, now: float, seed: int = 0, progress: Progress = lambda _share: None) -> Past:
        """The `span_s` seconds until `now`.

        Raises `UnavailableError` when the server cannot say, `UserError` when it knows no request of the version.
        """
        self._names["gateways"] = self._gateways(span_s, now)
        intervals = list(self._intervals(span_s, now, progress))
        if not any(interval.count for interval in intervals):
            raise UserError(
                f"{self._said} knows no request of {self._names['model']}@{self._names['version']} in the last "
                f"{span_s / 3600:.3g} h; let it scrape the gateway's metrics port, or ask for another version or "
                "for longer"
            )
        began_at = min(interval.start for interval in intervals)
        length_s = max(interval.end for interval in intervals) - began_at
        grain_s = _usual(intervals)
        return Past(
            times=_spread(intervals, began_at, seed),
            began_at=began_at,
            length_s=length_s,
            grain_s=grain_s,
            gaps_s=math.fsum(i.end - i.start for i in intervals if i.end - i.start > GAP_FACTOR * grain_s),
            service=self._service(span_s, now),
            cold_start_s=self._one(COLD_START, span_s, now),
        )

    def _gateways(self, span_s: float, now: float) -> str:
        """A pattern of what the server calls the cluster's gateways. Raises `UserError` when it knows none."""
        found = {each["metric"].get("instance", "") for each in self._ask(GATEWAYS, span_s, now)}
        if not found:
            raise UserError(
                f"{self._said} knows no gateway of cluster {self._names['cluster']!r} in the last "
                f"{span_s / 3600:.3g} h; let it scrape the gateway's metrics port"
            )
        return _escaped("|".join(sorted(re.escape(name) for name in found)))

    # -- arrivals ---------------------------------------------------------------------------------------------------

    def _intervals(self, span_s: float, now: float, progress: Progress) -> Iterator[_Interval]:
        last: dict[tuple[tuple[str, str], ...], tuple[float, float]] = {}
        began = now - span_s
        at = began
        while at < now:
            piece_s = min(PIECE_S, now - at)
            at += piece_s
            for series in self._ask(ARRIVALS, piece_s, at):
                name = tuple(sorted(series["metric"].items()))
                yield from _between(last, name, series["values"])
            progress((at - began) / span_s)

    # -- replicas ---------------------------------------------------------------------------------------------------

    def _service(self, span_s: float, now: float) -> Service | None:
        """Of the histogram, whose exact mean it is given: buckets alone know it to a fifth."""
        found = self._ask(SERVICE_BUCKETS, span_s, now)
        buckets = sorted((float(each["metric"]["le"]), float(each["value"][1])) for each in found)
        total_s = self._one(SERVICE_SUM, span_s, now)
        if not buckets or buckets[-1][1] <= 0 or not total_s:
            return None
        rough = Service.of_histogram([bound for bound, _ in buckets], [count for _, count in buckets])
        return scaled(rough, total_s / buckets[-1][1])

    def _one(self, query: str, span_s: float, now: float) -> float | None:
        for each in self._ask(query, span_s, now):
            value = float(each["value"][1])
            return value if math.isfinite(value) else None
        return None

    # -- the server -------------------------------------------------------------------------------------------------

    @property
    def _said(self) -> str:
        return f"Prometheus at {redacted(self._url)}"

    def _ask(self, query: str, span_s: float, at: float) -> list[dict[str, Any]]:
        form = {"query": query.format(span=max(1, math.ceil(span_s)), **self._names), "time": f"{at:.3f}"}
        try:
            answer = self._client.post(f"{self._url}/api/v1/query", data=form, timeout=TIMEOUT_S)
            body = answer.json()
            if answer.status_code == httpx.codes.OK and body["status"] == "success":
                return list(body["data"]["result"])
            reason = body.get("error", f"status {answer.status_code}")
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise UnavailableError(
                f"{self._said} cannot be asked: {str(exc) or type(exc).__name__}; name the server with --prometheus URL"
            ) from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise UnavailableError(f"{self._said} answers what no Prometheus does; check --prometheus URL") from exc
        raise UnavailableError(f"{self._said} answers: {reason}; check --prometheus URL")


def _between(
    last: dict[tuple[tuple[str, str], ...], tuple[float, float]],
    name: tuple[tuple[str, str], ...],
    values: Sequence[tuple[float, str]],
) -> Iterator[_Interval]:
    """What one gateway's counter says between its scrapes. A counter that fell began anew, at zero."""
    before = last.get(name)
    for at, text in values:
        value = float(text)
        if before is not None and at > before[0]:
            grown = value - before[1] if value >= before[1] else value
            yield _Interval(before[0], at, round(grown))
        before = (at, value)
    if before is not None:
        last[name] = before


def _usual(intervals: Sequence[_Interval]) -> float:
    lengths = sorted(interval.end - interval.start for interval in intervals)
    return lengths[len(lengths) // 2]


def _spread(intervals: Sequence[_Interval], began_at: float, seed: int) -> list[float]:
    times: list[float] = []
    for interval in intervals:
        start, length_s = interval.start - began_at, interval.end - interval.start
        first = len(times)
        times += [start + length_s * chance(seed, first + index) for index in range(interval.count)]
    times.sort()
    return times


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')
