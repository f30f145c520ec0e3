"""The gateway's metrics in Prometheus' text format. The names are a contract: see DESIGN's table of metrics.

Reads counters that the request path keeps (`core/stats.py`); a scrape costs the request path nothing but its own time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

from router import openmetrics
from router.core.stats import BUCKETS_S, Exemplar, Histogram, VersionStats

_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_BOUNDS: Final = (*map(str, BUCKETS_S), "+Inf")  # OpenMetrics wants `1.0`, and no series may have two names
_ALL: Final = tuple(range(len(_BOUNDS)))
# Of waits nobody needs to know more than about how long they are: every third bucket of three histograms would be
# theirs, and a Prometheus that reads them each 2 s pays by the bucket (`make bench-scrape`).
_COARSE_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)
_COARSE: Final = (*(BUCKETS_S.index(bound) for bound in _COARSE_S), len(BUCKETS_S))

# No label has it.
_LABELS_HERE: Final = "\0"

Steps: TypeAlias = Generator[None, None, None]
# A version with its labels in the text's spelling, which every line of it has.
Labelled: TypeAlias = "tuple[Counted, str]"


class CountedCopies(Protocol):
    """The shadow copies that went to a version."""

    @property
    def results(self) -> Mapping[str, int]: ...
    @property
    def drops(self) -> Mapping[str, int]: ...
    @property
    def failures(self) -> Mapping[str, int]: ...
    @property
    def alive(self) -> int: ...
    @property
    def seconds(self) -> Histogram: ...


class Counted(Protocol):
    """A version with its numbers: a process's own, or the sum of all."""

    @property
    def model(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def replicas(self) -> Sequence[object]: ...
    @property
    def stats(self) -> VersionStats: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def oldest_wait_s(self) -> float: ...
    @property
    def copies(self) -> CountedCopies | None: ...
    @property
    def exemplars(self) -> Mapping[int, Exemplar] | None: ...


class CountedKey(Protocol):
    """An API key with its numbers."""

    @property
    def id(self) -> str: ...
    @property
    def answers(self) -> Sequence[int]: ...
    @property
    def under_way(self) -> int: ...


def render(
    lanes: Iterable[Counted],
    unrouted: Mapping[int, int],
    gauges: Mapping[str, tuple[str, float]],
    limited: Mapping[str, int] = MappingProxyType({}),
    callers: Iterable[CountedKey] = (),
) -> bytes:
    """`unrouted` counts answers that belong to no version; `gauges` are the gateway's own: name, with its labels, ->
    (help, value).

    `limited` counts the requests of a model that a rate limit refused before a version was chosen for them.
    """
    steps = render_in_steps(lanes, unrouted, gauges, limited, callers)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            text: bytes = stop.value
            return text


def render_in_steps(
    lanes: Iterable[Counted],
    unrouted: Mapping[int, int],
    gauges: Mapping[str, tuple[str, float]],
    limited: Mapping[str, int],
    callers: Iterable[CountedKey],
    spans: Mapping[str, int] | None = None,
    *,
    is_open: bool = False,
) -> Generator[None, None, bytes]:
    """`render` for a process that has requests to carry meanwhile: 10,000 versions are a million lines.

    `spans` of traces, by what became of them; None without tracing. `is_open`: in OpenMetrics' format.
    """
    lanes = list(lanes)
    shown = [
        (lane, _labels(lane))
        for lane in lanes
        if lane.replicas or lane.stats.arrived or lane.stats.codes or lane.in_flight
    ]
    lines: list[str] = []
    yield from _number(
        lines, shown, "modelfleet_arrivals_total", "counter", "Requests at admission, those refused there too.",
        lambda lane: lane.stats.arrived,
    )  # fmt: skip
    yield from _requests(lines, shown, unrouted)
    yield from _histogram(
        lines, shown, "modelfleet_request_seconds", "Arrival to last byte.", lambda lane: lane.stats.request_s
    )
    if is_open:
        openmetrics.add_exemplars(lines, {labels: lane.exemplars for lane, labels in shown if lane.exemplars})
    yield from _histogram(
        lines, shown, "modelfleet_queue_seconds", "Waiting for a replica.", lambda lane: lane.stats.queue_s, _COARSE
    )
    yield from _histogram(
        lines, shown, "modelfleet_model_seconds", "Inside a replica.", lambda lane: lane.stats.model_s
    )
    yield from _gauge(lines, shown, "modelfleet_inflight", "Requests inside replicas.", lambda lane: lane.in_flight)
    yield from _gauge(lines, shown, "modelfleet_queued", "Requests that wait for a replica.", lambda lane: lane.queued)
    yield from _number(
        lines, shown, "modelfleet_queue_oldest_seconds", "gauge", "How long the first in the queue has waited.",
        lambda lane: lane.oldest_wait_s,
    )  # fmt: skip
    yield from _by_reason(lines, shown, "modelfleet_shed_total", "Requests refused.", lambda lane: lane.stats.shed)
    for model, n in sorted(limited.items()):
        lines.append(f'modelfleet_shed_total{{model="{_escaped(model)}",version="",reason="rate_limited"}} {n}')
    yield from _by_reason(
        lines, shown, "modelfleet_retries_total", "Requests sent again.", lambda lane: lane.stats.retries
    )
    yield from _by_reason(
        lines, shown, "modelfleet_ejections_total", "Replicas taken out.", lambda lane: lane.stats.ejections
    )
    _keys(lines, callers)
    if spans is not None:
        _header(lines, "modelfleet_trace_spans_total", "counter", "Spans of traces, by what became of them.")
        lines.extend(f'modelfleet_trace_spans_total{{outcome="{word}"}} {n}' for word, n in sorted(spans.items()))
    yield from _shadows(lines, {lane: lane.copies for lane in lanes if lane.copies is not None})
    for name, (text, value) in gauges.items():
        _header(lines, name.partition("{")[0], "gauge", text)
        lines.append(f"{name} {value:.15g}")  # a time since the epoch has ten digits before its point
    if is_open:
        openmetrics.convert(lines)
    lines.append("")
    return "\n".join(lines).encode()


def _requests(lines: list[str], lanes: list[Labelled], unrouted: Mapping[int, int]) -> Steps:
    _header(lines, "modelfleet_requests_total", "counter", "Requests answered, by status; 499: the client left.")
    for lane, labels in lanes:
        for code, count in sorted(lane.stats.codes.items()):
            lines.append(f'modelfleet_requests_total{{{labels},code="{code}"}} {count}')
        yield
    for code, count in sorted(unrouted.items()):
        lines.append(f'modelfleet_requests_total{{model="",version="",code="{code}"}} {count}')


def _keys(lines: list[str], callers: Iterable[CountedKey]) -> None:
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


def _histogram(
    lines: list[str], lanes: list[Labelled], name: str, text: str, of: Callable[[Counted], Histogram],
    shown: Sequence[int] = _ALL,
) -> Steps:  # fmt: skip
    """`shown` are the places of the bounds that it has on the page.

    A histogram is one substitution in a text that has all its lines: a third of the time that a line each takes.
    """
    _header(lines, name, "histogram", text)
    template = "\n".join(
        (
            *(f'{name}_bucket{{{_LABELS_HERE},le="{_BOUNDS[at]}"}} %d' for at in shown),
            f"{name}_sum{{{_LABELS_HERE}}} %.9g",
            f"{name}_count{{{_LABELS_HERE}}} %d",
        )
    )
    for lane, labels in lanes:
        histogram = of(lane)
        totals = tuple(accumulate(histogram.counts))
        counts = totals if shown is _ALL else [totals[at] for at in shown]
        labelled = template.replace(_LABELS_HERE, labels.replace("%", "%%"))
        lines.append(labelled % (*counts, histogram.total_s, totals[-1]))
        yield


def _gauge(lines: list[str], lanes: list[Labelled], name: str, text: str, of: Callable[[Counted], int]) -> Steps:
    return _number(lines, lanes, name, "gauge", text, of)


def _number(
    lines: list[str], lanes: list[Labelled], name: str, kind: str, text: str, of: Callable[[Counted], float]
) -> Steps:
    _header(lines, name, kind, text)
    for lane, labels in lanes:
        lines.append(f"{name}{{{labels}}} {of(lane):.15g}")
        yield


def _by_reason(
    lines: list[str], lanes: list[Labelled], name: str, text: str, of: Callable[[Counted], Mapping[str, int]]
) -> Steps:
    _header(lines, name, "counter", text)
    for lane, labels in lanes:
        lines.extend(f'{name}{{{labels},reason="{reason}"}} {n}' for reason, n in sorted(of(lane).items()))
        yield


def _shadows(lines: list[str], copied: Mapping[Counted, CountedCopies]) -> Steps:
    """Copies, by the version they went to. They stand apart: the metrics above count what reaches clients."""
    if not copied:
        return
    _header(lines, "modelfleet_shadow_total", "counter", "Copies of live requests, by what became of the two answers.")
    for lane, copies in copied.items():
        for result, count in sorted(copies.results.items()):
            lines.append(f'modelfleet_shadow_total{{{_labels(lane)},result="{result}"}} {count}')
    lanes = [(lane, _labels(lane)) for lane in copied]
    yield from _by_reason(
        lines, lanes, "modelfleet_shadow_dropped_total", "Copies dropped.", lambda lane: copied[lane].drops
    )
    yield from _by_reason(
        lines, lanes, "modelfleet_shadow_failed_total", "Copies that failed.", lambda lane: copied[lane].failures
    )
    yield from _gauge(lines, lanes, "modelfleet_shadow_copies", "Copies in being.", lambda lane: copied[lane].alive)
    yield from _histogram(
        lines, lanes, "modelfleet_shadow_seconds", "Copies inside a replica.", lambda lane: copied[lane].seconds
    )


def _header(lines: list[str], name: str, kind: str, text: str) -> None:
    lines.append(f"# HELP {name} {text}")
    lines.append(f"# TYPE {name} {kind}")


def _labels(lane: Counted) -> str:
    return f'model="{lane.model.translate(_ESCAPES)}",version="{lane.version.translate(_ESCAPES)}"'
