"""What each replica uses, as series of the control plane's metrics: the numbers are the engine's, and only passed on.

The series of a replica end with it. What its engine does not say has no series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.adapters.engine import ReplicaUsage
from orchestrator.core.entities import VersionKey

_LABELS = ("model", "version", "replica")
_Family = CounterMetricFamily | GaugeMetricFamily


class ReplicaMetrics(Collector):
    """`shown` is what the next page says."""

    def __init__(self) -> None:
        self.shown: Sequence[tuple[VersionKey, ReplicaUsage]] = ()

    def collect(self) -> Iterator[_Family]:
        yield self._family(
            CounterMetricFamily("modelfleet_replica_cpu_seconds", "CPU that a replica has used.", labels=_LABELS),
            lambda usage: usage.cpu_s,
        )
        yield self._family(
            CounterMetricFamily(
                "modelfleet_replica_cpu_throttled_seconds",
                "Seconds that threads of a replica had to wait at its CPU limit.",
                labels=_LABELS,
            ),
            lambda usage: usage.throttled_s,
        )
        yield self._family(
            GaugeMetricFamily("modelfleet_replica_cpu_limit_cores", "Cores that it may use.", labels=_LABELS),
            lambda usage: usage.cpu_limit_cores,
        )
        yield self._family(
            GaugeMetricFamily("modelfleet_replica_memory_bytes", "Working set of a replica.", labels=_LABELS),
            lambda usage: usage.memory_bytes,
        )
        yield self._family(
            GaugeMetricFamily("modelfleet_replica_memory_limit_bytes", "Memory that ends it.", labels=_LABELS),
            lambda usage: usage.memory_limit_bytes,
        )

    def _family(self, family: _Family, of: Callable[[ReplicaUsage], float | None]) -> _Family:
        for key, usage in self.shown:
            value = of(usage)
            if value is not None:
                family.add_metric((key.model, key.version, usage.id), value)
        return family
