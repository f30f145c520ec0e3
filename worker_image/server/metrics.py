"""Counters and histograms of one model server, as Prometheus text.

Written by hand, for it is on the request path and one label set is all there is: an observation costs a bisection and
two additions. Names are a contract (docs/CONTRACTS.md); times are seconds. Everything is touched on the event loop
only.
"""

from __future__ import annotations

import resource
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from worker_image.server.batching.sizing import Sizing
from worker_image.server.cache import Cache
from worker_image.server.streaming import Streams

BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
SECONDS_BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)


class Histogram:
    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, labels: str) -> Iterator[str]:
        yield f"# HELP {self._name} {self._text}"
        yield f"# TYPE {self._name} histogram"
        total = 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            yield f'{self._name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{self._name}_sum{{{labels}}} {self._sum!r}"
        yield f"{self._name}_count{{{labels}}} {total}"


class Metrics:
    def __init__(self, model: str, version: str) -> None:
        self._labels = f'model="{_escape(model)}",version="{_escape(version)}"'
        self.batch_rows = Histogram("modelfleet_batch_size", "Rows predicted together.", BATCH_BUCKETS)
        self.predict_seconds = Histogram(
            "modelfleet_server_predict_seconds", "One call of the model, whole batch.", SECONDS_BUCKETS
        )
        self.request_seconds = Histogram(
            "modelfleet_server_request_seconds", "One request inside the model server.", SECONDS_BUCKETS
        )
        self.responses: Counter[int] = Counter()
        self.phase_seconds: dict[str, float] = {}
        self.in_flight = 0
        self.sizing: Sizing | None = None
        self.cache: Cache | None = None
        self.streams: Streams | None = None
        self.stream_answers = 0

    def observe_batch(self, rows: int, seconds: float) -> None:
        self.batch_rows.observe(rows)
        self.predict_seconds.observe(seconds)

    def observe_response(self, status: int, seconds: float) -> None:
        self.responses[status] += 1
        self.request_seconds.observe(seconds)

    @property
    def answered(self) -> int:
        return self.responses.total()

    def observe_stream_answer(self) -> None:
        self.stream_answers += 1

    def render(self) -> bytes:
        lines = [
            *self.batch_rows.lines(self._labels),
            *self.predict_seconds.lines(self._labels),
            *self.request_seconds.lines(self._labels),
            "# TYPE modelfleet_server_responses_total counter",
            *(
                f'modelfleet_server_responses_total{{{self._labels},code="{code}"}} {count}'
                for code, count in sorted(self.responses.items())
            ),
            "# TYPE modelfleet_server_inflight gauge",
            f"modelfleet_server_inflight{{{self._labels}}} {self.in_flight}",
            "# TYPE modelfleet_server_load_seconds gauge",
            *(
                f'modelfleet_server_load_seconds{{{self._labels},phase="{phase}"}} {seconds:.6f}'
                for phase, seconds in self.phase_seconds.items()
            ),
            *self._sizing_lines(),
            *self._cache_lines(),
            *self._stream_lines(),
            *_process_lines(),
        ]
        return ("\n".join(lines) + "\n").encode()

    def _sizing_lines(self) -> Iterator[str]:
        if self.sizing is None:
            return
        yield "# HELP modelfleet_server_batch_limit Most rows of the next batch: set, or learned."
        yield "# TYPE modelfleet_server_batch_limit gauge"
        yield f"modelfleet_server_batch_limit{{{self._labels}}} {self.sizing.limit}"
        yield "# HELP modelfleet_server_batch_rows_per_second What batches of about so many rows reached lately."
        yield "# TYPE modelfleet_server_batch_rows_per_second gauge"
        for level, rate in sorted(self.sizing.costs.rates.items()):
            yield f'modelfleet_server_batch_rows_per_second{{{self._labels},rows="{2**level}"}} {rate:.6g}'

    def _cache_lines(self) -> Iterator[str]:
        if (cache := self.cache) is None:
            return
        yield "# HELP modelfleet_server_cache_requests_total From memory, computed, or by another's computation."
        yield "# TYPE modelfleet_server_cache_requests_total counter"
        for outcome, count in (("hit", cache.hits), ("miss", cache.misses), ("shared", cache.shared)):
            yield f'modelfleet_server_cache_requests_total{{{self._labels},outcome="{outcome}"}} {count}'
        yield "# TYPE modelfleet_server_cache_bytes gauge"
        yield f"modelfleet_server_cache_bytes{{{self._labels}}} {cache.size}"

    def _stream_lines(self) -> Iterator[str]:
        if self.streams is None:
            return
        yield "# HELP modelfleet_server_streams Streams that are open now."
        yield "# TYPE modelfleet_server_streams gauge"
        yield f"modelfleet_server_streams{{{self._labels}}} {self.streams.active}"
        yield "# HELP modelfleet_server_stream_answers_total Answers that streams gave, one after the other."
        yield "# TYPE modelfleet_server_stream_answers_total counter"
        yield f"modelfleet_server_stream_answers_total{{{self._labels}}} {self.stream_answers}"


def _process_lines() -> Iterator[str]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    unit = 1 if sys.platform == "darwin" else 1024
    yield "# TYPE process_cpu_seconds_total counter"
    yield f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.3f}"
    yield "# TYPE modelfleet_server_peak_memory_bytes gauge"
    yield f"modelfleet_server_peak_memory_bytes {usage.ru_maxrss * unit}"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
