"""The control plane's own metrics in Prometheus' text format; the names are a contract (docs/BEHAVIOUR.md).

The gateway's are `router/metrics.py`'s. Whoever owns an event calls the method named after it; what is a level at the
moment of a scrape is given to `render`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from orchestrator.core.entities import VersionKey

_VERSION = ("model", "version")
# From a woken process to a model of many gigabytes.
_START_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)

_WAKE_BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 3)


@dataclass(frozen=True, slots=True)
class VersionLevels:
    """One version's replicas now: how many are in each state, and how many should be awake."""

    key: VersionKey
    states: dict[str, int]
    desired: int


class Metrics:
    """Counters that live as long as the control plane."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._decisions = Counter(
            "modelfleet_scale_decisions_total",
            "Changes of a version's count.",
            (*_VERSION, "direction"),
            registry=self._registry,
        )
        self._cold_starts = Histogram(
            "modelfleet_cold_start_seconds", "From the decision to start a replica to its first readiness.", _VERSION,
            buckets=_START_BUCKETS_S, registry=self._registry,
        )  # fmt: skip
        self._wakes = Histogram(
            "modelfleet_wake_seconds", "From the decision to wake a replica in standby to its readiness.", _VERSION,
            buckets=_WAKE_BUCKETS_S, registry=self._registry,
        )  # fmt: skip
        self._replica_seconds = Counter(
            "modelfleet_replica_seconds_total",
            "Seconds of replicas that were awake or starting.",
            _VERSION,
            registry=self._registry,
        )
        self._replicas = Gauge(
            "modelfleet_replicas", "Replicas by their state.", (*_VERSION, "state"), registry=self._registry
        )
        self._desired = Gauge(
            "modelfleet_replicas_desired", "Replicas that should be awake.", _VERSION, registry=self._registry
        )
        self._signal_age = Gauge(
            "modelfleet_signals_age_seconds",
            "How old the newest numbers of a source are.",
            ("source",),
            registry=self._registry,
        )

    def decided(self, key: VersionKey, change: int) -> None:
        direction = "up" if change > 0 else "down"
        self._decisions.labels(key.model, key.version, direction).inc()

    def started(self, key: VersionKey, seconds: float) -> None:
        self._cold_starts.labels(key.model, key.version).observe(seconds)

    def woke(self, key: VersionKey, seconds: float) -> None:
        self._wakes.labels(key.model, key.version).observe(seconds)

    def ran(self, key: VersionKey, replica_s: float) -> None:
        self._replica_seconds.labels(key.model, key.version).inc(replica_s)

    def render(self, versions: Iterable[VersionLevels], signal_ages: Iterable[tuple[str, float]]) -> bytes:
        for gauge in (self._replicas, self._desired, self._signal_age):
            gauge.clear()
        for version in versions:
            labels = version.key.model, version.key.version
            self._desired.labels(*labels).set(version.desired)
            for state, count in version.states.items():
                self._replicas.labels(*labels, state).set(count)
        for source, age_s in signal_ages:
            self._signal_age.labels(source).set(age_s)
        return generate_latest(self._registry)
