"""The gateway's metrics in Prometheus' text format. The names are a contract: see DESIGN's table of metrics.

Reads counters that the request path keeps (`core/stats.py`); a scrape costs the request path nothing but its own time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from types import MappingProxyType

from router.core.admission import Lane
from router.core.keys import Caller
from router.core.shadow import Copies
from router.core.stats import BUCKETS_S, Histogram

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_BOUNDS = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]


def render(
    lanes: Iterable[Lane],
    unrouted: Mapping[int, int],
    gauges: Mapping[str, tuple[str, float]],
    limited: Mapping[str, int] = MappingProxyType({}),
    callers: Iterable[Caller] = (),
) -> bytes:
    """`unrouted` counts answers that belong to no version; `gauges` are the gateway's own: name -> (help, value).

    `limited` counts the requests of a model that a rate limit refused before a version was chosen for them.
    """
    lanes = list(lanes)
    shown = [lane for lane in lanes if lane.replicas or lane.stats.codes or lane.queued]
    lines: list[str] = []
    _requests(lines, shown, unrouted)
    _histogram(lines, shown, "modelfleet_request_seconds", "Arrival to last byte.", lambda lane: lane.stats.request_s)
    _histogram(lines, shown, "modelfleet_queue_seconds", "Waiting for a replica.", lambda lane: lane.stats.queue_s)
    _histogram(lines, shown, "modelfleet_model_seconds", "Inside a replica.", lambda lane: lane.stats.model_s)
    _gauge(lines, shown, "modelfleet_inflight", "Requests inside replicas.", lambda lane: lane.in_flight)
    _gauge(lines, shown, "modelfleet_queued", "Requests that wait for a replica.", lambda lane: lane.queued)
    _by_reason(lines, shown, "modelfleet_shed_total", "Requests refused.", lambda lane: lane.stats.shed)
    for model, n in sorted(limited.items()):
        lines.append(f'modelfleet_shed_total{{model="{_escaped(model)}",version="",reason="rate_limited"}} {n}')
    _by_reason(lines, shown, "modelfleet_retries_total", "Requests sent again.", lambda lane: lane.stats.retries)
    _by_reason(lines, shown, "modelfleet_ejections_total", "Replicas taken out.", lambda lane: lane.stats.ejections)
    _keys(lines, callers)
    _shadows(lines, [(lane, lane.copies) for lane in lanes if lane.copies is not None])
    for name, (text, value) in gauges.items():
        _header(lines, name, "gauge", text)
        lines.append(f"{name} {value:g}")
    lines.append("")
    return "\n".join(lines).encode()


def _requests(lines: list[str], lanes: list[Lane], unrouted: Mapping[int, int]) -> None:
    _header(lines, "modelfleet_requests_total", "counter", "Requests answered, by status; 499: the client left.")
    for lane in lanes:
        for code, count in sorted(lane.stats.codes.items()):
            lines.append(f'modelfleet_requests_total{{{_labels(lane)},code="{code}"}} {count}')
    for code, count in sorted(unrouted.items()):
        lines.append(f'modelfleet_requests_total{{model="",version="",code="{code}"}} {count}')


def _keys(lines: list[str], callers: Iterable[Caller]) -> None:
    """By a key's public name, never the key."""
    _header(lines, "modelfleet_key_requests_total", "counter", "Requests of an API key, by the class of their status.")
    shown = sorted(callers, key=lambda caller: caller.id)
    for caller in shown:
        for hundreds, n in enumerate(caller.answers):
            if n:
                lines.append(f'modelfleet_key_requests_total{{key="{_escaped(caller.id)}",code="{hundreds}xx"}} {n}')
    _header(lines, "modelfleet_key_under_way", "gauge", "Requests of an API key in flight or queued.")
    lines.extend(f'modelfleet_key_under_way{{key="{_escaped(caller.id)}"}} {caller.under_way}' for caller in shown)


def _escaped(label: str) -> str:
    return label.translate(_ESCAPES)


def _histogram(lines: list[str], lanes: list[Lane], name: str, text: str, of: Callable[[Lane], Histogram]) -> None:
    _header(lines, name, "histogram", text)
    for lane in lanes:
        labels, histogram = _labels(lane), of(lane)
        total = 0
        for bound, total in zip(_BOUNDS, accumulate(histogram.counts), strict=True):
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        lines.append(f"{name}_sum{{{labels}}} {histogram.total_s:.9g}")
        lines.append(f"{name}_count{{{labels}}} {total}")


def _gauge(lines: list[str], lanes: list[Lane], name: str, text: str, of: Callable[[Lane], int]) -> None:
    _header(lines, name, "gauge", text)
    lines.extend(f"{name}{{{_labels(lane)}}} {of(lane)}" for lane in lanes)


def _by_reason(
    lines: list[str], lanes: list[Lane], name: str, text: str, of: Callable[[Lane], Mapping[str, int]]
) -> None:
    _header(lines, name, "counter", text)
    for lane in lanes:
        lines.extend(f'{name}{{{_labels(lane)},reason="{reason}"}} {n}' for reason, n in sorted(of(lane).items()))


def _shadows(lines: list[str], copied: list[tuple[Lane, Copies]]) -> None:
    """Copies, by the version they went to. They stand apart: the metrics above count what reaches clients."""
    if not copied:
        return
    _header(lines, "modelfleet_shadow_total", "counter", "Copies of live requests, by what became of the two answers.")
    for lane, copies in copied:
        for result, count in sorted(copies.results.items()):
            lines.append(f'modelfleet_shadow_total{{{_labels(lane)},result="{result}"}} {count}')
    lanes = [lane for lane, _ in copied]
    of = dict(copied)
    _by_reason(lines, lanes, "modelfleet_shadow_dropped_total", "Copies dropped.", lambda lane: of[lane].drops)
    _by_reason(lines, lanes, "modelfleet_shadow_failed_total", "Copies that failed.", lambda lane: of[lane].failures)
    _gauge(lines, lanes, "modelfleet_shadow_copies", "Copies in being.", lambda lane: len(of[lane].being))
    _histogram(lines, lanes, "modelfleet_shadow_seconds", "Copies inside a replica.", lambda lane: of[lane].seconds)


def _header(lines: list[str], name: str, kind: str, text: str) -> None:
    lines.append(f"# HELP {name} {text}")
    lines.append(f"# TYPE {name} {kind}")


def _labels(lane: Lane) -> str:
    return f'model="{lane.model.translate(_ESCAPES)}",version="{lane.version.translate(_ESCAPES)}"'
